"""What the client sees is whole characters and never a stop string, however the tokens were cut."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.engine.text import Stream

LETTERS = st.text(alphabet="abAB \nä🎉", max_size=30)
STOPS = st.lists(st.text(alphabet="abAB\nä🎉", min_size=1, max_size=4), max_size=3)
SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=10)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    at = index = 0
    while at < len(data):
        size = sizes[index % len(sizes)]
        pieces.append(data[at : at + size])
        at, index = at + size, index + 1
    return pieces


def written(stream: Stream, pieces: list[bytes]) -> list[str]:
    texts = [stream.feed(piece) for piece in pieces]
    return [*texts, stream.close()]


def expected(committed: str, text: str, stops: list[str]) -> tuple[str, bool]:
    """The same question answered letter by letter over the whole text."""
    whole = committed + text
    for end in range(len(committed) + 1, len(whole) + 1):
        starts = [end - len(stop) for stop in stops if whole[:end].endswith(stop)]
        if starts:
            return whole[len(committed) : max(min(starts), len(committed))], True
    return text, False


@given(LETTERS, LETTERS, STOPS, SIZES)
@example("", "ab", ["ab"], [1])
@example("a", "b", ["ab"], [1])
@example("", "aabb", ["abb", "aabb"], [4])
def test_any_cutting_gives_the_text_up_to_the_first_complete_stop_string(
    committed: str, text: str, stops: list[str], sizes: list[int]
) -> None:
    stream = Stream(stops, committed)
    out = "".join(written(stream, cut(text.encode(), sizes)))
    assert (out, stream.stopped) == expected(committed, text, stops)
    assert not any(stop in out for stop in stops)


@given(LETTERS, STOPS, SIZES)
def test_no_moment_shows_a_stop_string_that_is_complete_later(text: str, stops: list[str], sizes: list[int]) -> None:
    stream = Stream(stops)
    shown = ""
    for piece in cut(text.encode(), sizes):
        shown += stream.feed(piece)
        assert expected("", text, stops)[0].startswith(shown)


@pytest.mark.parametrize(
    ("stops", "text", "stop"),
    [(["b", "c"], "abc", "b"), (["bc", "abc"], "abc", "abc"), (["bc", "b"], "abc", "b"), (["d"], "abc", None)],
)
def test_it_tells_which_stop_string_it_was(stops: list[str], text: str, stop: str | None) -> None:
    stream = Stream(stops)
    written(stream, cut(text.encode(), [2]))
    assert (stream.stop, stream.stopped) == (stop, stop is not None)


def test_letters_that_cannot_begin_a_stop_string_are_not_held_back() -> None:
    stream = Stream(["END"])
    assert stream.feed(b"the E") == "the "
    assert stream.feed(b"Nemy") == "ENemy"


def test_a_stop_string_may_begin_in_what_the_client_already_has() -> None:
    stream = Stream(["\n\nUser:"], committed="Yes.\n\nUs")
    assert stream.feed(b"er") == ""
    assert stream.feed(b": hello") == ""
    assert stream.stopped


def test_a_stop_string_wholly_in_the_committed_text_ends_nothing() -> None:
    stream = Stream(["END"], committed="END")
    assert stream.feed(b" more") == " more"
    assert not stream.stopped


def test_a_character_leaves_when_its_last_byte_has_come() -> None:
    stream = Stream()
    assert [stream.feed(bytes([byte])) for byte in "🎉".encode()] == ["", "", "", "🎉"]


def test_half_a_character_at_the_end_is_dropped() -> None:
    stream = Stream(["x"])
    assert stream.feed(b"ab\xf0\x9f") == "ab"
    assert stream.close() == ""


def test_held_letters_come_out_at_the_end() -> None:
    stream = Stream(["END"])
    assert stream.feed(b"EN") == ""
    assert stream.close() == "EN"


def test_bytes_that_never_become_a_character_are_replaced_and_do_not_block() -> None:
    assert Stream().feed(b"a\xffb") == "a\ufffdb"


@pytest.mark.parametrize("stops", [[], [""]])
def test_without_stop_strings_nothing_waits(stops: list[str]) -> None:
    assert Stream(stops).feed(b"all of it") == "all of it"
