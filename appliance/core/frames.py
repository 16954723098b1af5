"""The engine's pipe: JSON objects as length-prefixed frames, for both ends.

A frame is a 4-byte big-endian length and so many bytes of one JSON object. Nothing here reads or writes: bytes
that came, cut anywhere, are fed in, and whole frames come out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

LIMIT = 64 * 1024 * 1024
"""No frame is longer. A longer one means that the two ends have lost each other, or that somebody sends nonsense."""

HEAD = 4

Frame = dict[str, Any]


class FrameError(Exception):
    """These bytes are no frames: the pipe cannot be used any more."""


def encode(frame: Mapping[str, Any], *, limit: int = LIMIT) -> bytes:
    """One frame as bytes. Raises `FrameError` if it would be longer than `limit`."""
    body = json.dumps(frame, separators=(",", ":"), allow_nan=False).encode("ascii")
    if len(body) > limit:
        raise FrameError(f"A frame of {len(body)} bytes is longer than the limit of {limit}.")
    return len(body).to_bytes(HEAD, "big") + body


class Decoder:
    """Bytes, cut anywhere, to the frames that are complete."""

    def __init__(self, *, limit: int = LIMIT) -> None:
        self._limit = limit
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes, in order. Raises `FrameError` for what is no frame."""
        buffer = self._bytes
        buffer += data
        frames: list[Frame] = []
        at = 0
        while len(buffer) - at >= HEAD:
            length = int.from_bytes(buffer[at : at + HEAD], "big")
            if length > self._limit:
                raise FrameError(f"A frame of {length} bytes was announced; the limit is {self._limit}.")
            end = at + HEAD + length
            if len(buffer) < end:
                break
            frames.append(_parse(bytes(buffer[at + HEAD : end])))
            at = end
        if at:
            del buffer[:at]
        return frames

    @property
    def pending(self) -> int:
        """How many bytes of an unfinished frame are waiting: more than none at the end means that it was cut."""
        return len(self._bytes)


def _parse(body: bytes) -> Frame:
    # The bytes never go into the message: they may be somebody's prompt.
    try:
        frame = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"A frame of {len(body)} bytes is not JSON.") from error
    if not isinstance(frame, dict):
        raise FrameError(f"A frame of {len(body)} bytes is not a JSON object.")
    return frame
