"""Nothing posted waits for a slow reader, and everything arrives in order."""

from __future__ import annotations

import socket

from appliance.core.frames import Decoder, Frame
from appliance.engine.outbox import Outbox


def read_until(pipe: socket.socket, last: str) -> list[Frame]:
    decoder, frames = Decoder(), list[Frame]()
    while not frames or frames[-1]["op"] != last:
        frames += decoder.feed(pipe.recv(1 << 16))
    return frames


def test_text_that_waits_becomes_one_frame_per_request_and_the_order_stays() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outbox = Outbox(theirs)
        # More than the pipe holds: the writer is stuck in it while the rest is posted.
        outbox.post([{"op": "text", "id": 0, "text": "x" * 2_000_000}])
        for letter in "abc":
            outbox.post([{"op": "text", "id": 1, "text": letter}, {"op": "text", "id": 2, "text": letter.upper()}])
        outbox.post([{"op": "finish", "id": 1}, {"op": "text", "id": 2, "text": "D"}, {"op": "stats"}])
        frames = read_until(ours, "stats")
        outbox.flush()
    assert "".join(frame["text"] for frame in frames if frame.get("id") == 0) == "x" * 2_000_000
    assert frames[-4:] == [
        {"op": "text", "id": 1, "text": "abc"},
        {"op": "text", "id": 2, "text": "ABCD"},
        {"op": "finish", "id": 1},
        {"op": "stats"},
    ]


def test_a_reader_that_is_gone_does_not_hold_anybody_up() -> None:
    ours, theirs = socket.socketpair()
    outbox = Outbox(theirs)
    ours.close()
    outbox.post([{"op": "stats"}] * 10)
    outbox.flush(timeout=10)
    outbox.post([{"op": "stats"}])
    theirs.close()
