"""Events come out whole, whatever the network did to them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.core.sse import OverlongEvent, SseEvent, SseParser, comment, encode

BLOCKS = st.sampled_from(
    [
        "data: {}\n\n",
        'data: {"a": "é🙂"}\n\n',
        "data:tight\n\n",
        "event: error\ndata: x\n\n",
        "data: one\ndata: two\n\n",
        "data\n\n",
        ": OPENROUTER PROCESSING\n\n",
        ": glued\ndata: y\n\n",
        "data: z\n: inside\n\n",
        "\n",
        "\n\n",
        "id: 7\nretry: 10\ndata: k\n\n",
        "<html>\n<body>\n\n",
    ]
)


def parsed(pieces: list[bytes]) -> list[SseEvent]:
    parser = SseParser()
    found = [event for piece in pieces for event in parser.feed(piece)]
    return found + parser.close()


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@settings(deadline=None)  # a busy machine is no failure
@given(
    blocks=st.lists(BLOCKS, max_size=6),
    ends=st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=1, max_size=6),
    tail=st.sampled_from(["", "data: half", "data: half\n", ": half"]),
    mark=st.booleans(),
    places=st.lists(st.integers(min_value=0), max_size=12),
)
def test_where_the_bytes_were_cut_changes_nothing(
    blocks: list[str], ends: list[str], tail: str, mark: bool, places: list[int]
) -> None:
    text = "".join(block.replace("\n", ends[index % len(ends)]) for index, block in enumerate(blocks)) + tail
    stream = (b"\xef\xbb\xbf" if mark else b"") + text.encode()
    at_once = parsed([stream])
    assert parsed(cut(stream, places)) == at_once
    assert parsed([stream[at : at + 1] for at in range(len(stream))]) == at_once
    assert b"".join(event.raw for event in at_once) == stream


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_all_line_ends_mean_the_same(end: str) -> None:
    stream = ": hi\n\nevent: ping\ndata: a\ndata:  b\n\ndata: c\n\ndata: d\ndata: e\n\n".replace("\n", end).encode()
    found = parsed([stream])
    assert [(event.comment, event.event, event.data) for event in found] == [
        ("hi", None, None),
        (None, "ping", b"a\n b"),
        (None, None, b"c"),
        (None, None, b"d\ne"),
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_field_but_of_its_raw_bytes() -> None:
    assert parsed([b"\xef\xbb\xbfdata: a\n\n", b"data: b\n\n"]) == [
        SseEvent(b"\xef\xbb\xbfdata: a\n\n", b"a"),
        SseEvent(b"data: b\n\n", b"b"),
    ]


def test_a_comment_before_a_field_is_an_event_of_its_own() -> None:
    assert parsed([b": one\n: two\ndata: a\n\n"]) == [
        SseEvent(b": one\n: two\n", comment="one\ntwo"),
        SseEvent(b"data: a\n\n", b"a"),
    ]


def test_lines_that_are_no_field_are_kept() -> None:
    (page,) = parsed([b"<!DOCTYPE html>\n<title>Log in</title>\n\n"])
    assert page.stray == b"<!DOCTYPE html>"
    assert page.data is None


def test_an_event_is_given_as_soon_as_its_blank_line_is_there() -> None:
    parser = SseParser()
    assert parser.feed(b"data: a\n") == []
    assert parser.left_over == b"data: a\n"
    assert parser.feed(b"\nda") == [SseEvent(b"data: a\n\n", b"a")]
    assert parser.left_over == b"da"


def test_a_cr_at_the_end_waits_for_its_lf() -> None:
    parser = SseParser()
    assert parser.feed(b"data: a\r\n\r") == []
    assert parser.feed(b"\ndata: b\r\n\r\n") == [
        SseEvent(b"data: a\r\n\r\n", b"a"),
        SseEvent(b"data: b\r\n\r\n", b"b"),
    ]


def test_what_is_left_over_at_the_end_is_known() -> None:
    parser = SseParser()
    parser.feed(b"data: a\n\ndata: ha")
    assert parser.close() == [SseEvent(b"data: ha", b"ha")]
    assert parser.close() == []


def test_an_overlong_event_is_refused_after_the_events_before_it() -> None:
    parser = SseParser(limit=20)
    assert [event.data for event in parser.feed(b"data: a\n\ndata: " + b"x" * 30)] == [b"a"]
    with pytest.raises(OverlongEvent, match="20 bytes"):
        parser.feed(b"\n\n")


@pytest.mark.parametrize("pieces", [[b"data: " + b"x" * 30 + b"\n\n"], [b"data: ", b"x" * 30]])
def test_an_overlong_event_is_refused_whole_or_in_pieces(pieces: list[bytes]) -> None:
    parser = SseParser(limit=20)
    with pytest.raises(OverlongEvent):
        for piece in pieces:
            parser.feed(piece)


@settings(deadline=None)  # a busy machine is no failure
@given(data=st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), event=st.booleans())
def test_what_is_encoded_is_parsed_back(data: str, event: bool) -> None:
    raw = encode(data, "ping" if event else None)
    assert parsed([raw]) == [SseEvent(raw, data.encode(), "ping" if event else None)]


def test_several_lines_of_text_make_one_event_and_one_comment() -> None:
    assert encode("a\n\nb\r\nc") == b"data: a\ndata: \ndata: b\ndata: c\n\n"
    assert parsed([encode("a\n")])[0].data == b"a\n"
    assert comment("a\nb") == b": a\n: b\n\n"
    assert comment("") == b": \n\n"
