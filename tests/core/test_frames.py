"""Frames survive being cut anywhere, and nonsense is refused before it costs memory."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.frames import Decoder, FrameError, encode

FRAMES = st.lists(
    st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text(max_size=40), max_size=4), max_size=6
)


@pytest.mark.long
@given(FRAMES, st.lists(st.integers(1, 30), min_size=1))
def test_frames_come_out_as_they_went_in_however_the_bytes_are_cut(frames: list[Any], sizes: list[int]) -> None:
    data = b"".join(encode(frame) for frame in frames)
    decoder = Decoder()
    out: list[Any] = []
    at = index = 0
    while at < len(data):
        size = sizes[index % len(sizes)]
        out += decoder.feed(data[at : at + size])
        at, index = at + size, index + 1
    assert out == frames
    assert decoder.pending == 0


def test_an_unfinished_frame_is_waited_for() -> None:
    decoder = Decoder()
    assert decoder.feed(encode({"op": "stats"})[:-1]) == []
    assert decoder.pending > 0


def test_a_frame_is_its_length_in_four_bytes_and_its_json() -> None:
    assert encode({"a": 1}) == b'\x00\x00\x00\x07{"a":1}'


def test_an_announced_length_beyond_the_limit_is_refused_at_once() -> None:
    with pytest.raises(FrameError, match="the limit is 10"):
        Decoder(limit=10).feed((11).to_bytes(4, "big"))


def test_a_frame_beyond_the_limit_is_not_encoded() -> None:
    encode({"a": "x" * 100}, limit=108)
    with pytest.raises(FrameError, match="limit of 107"):
        encode({"a": "x" * 100}, limit=107)


@pytest.mark.parametrize("body", [b"[1]", b"nonsense", b"\xff\xfe", b"", b"[" * 100_000])
def test_what_is_not_a_json_object_is_refused_without_being_quoted(body: bytes) -> None:
    with pytest.raises(FrameError) as caught:
        Decoder().feed(len(body).to_bytes(4, "big") + body)
    assert "nonsense" not in str(caught.value)


def test_half_a_character_in_a_text_survives() -> None:
    assert Decoder().feed(encode({"text": "\ud83d"})) == [{"text": "\ud83d"}]
