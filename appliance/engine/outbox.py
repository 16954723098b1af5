"""Frames on their way to the service, without ever making the decode wait.

One thread writes. What is posted while it writes is collected, and text of the same request that nobody has sent
yet becomes one frame: a slow service gets fewer and larger frames, and what waits stays small.
"""

from __future__ import annotations

import socket
import threading

from appliance.core.frames import Frame, encode


class Outbox:
    def __init__(self, pipe: socket.socket) -> None:
        self._pipe = pipe
        self._frames: list[Frame] = []
        self._last_text: dict[int, Frame] = {}
        self._changed = threading.Condition()
        self._writing = False
        self._broken = False
        self._thread = threading.Thread(target=self._write, name="outbox", daemon=True)
        self._thread.start()

    def post(self, frames: list[Frame]) -> None:
        """Send these, in order, soon."""
        if not frames:
            return
        with self._changed:
            for frame in frames:
                self._append(frame)
            self._changed.notify()

    def flush(self, timeout: float = 5.0) -> None:
        """Come back when everything posted is with the service, or nobody reads it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._broken or not (self._frames or self._writing), timeout)

    def _append(self, frame: Frame) -> None:
        id = frame.get("id")
        if id is None:
            self._frames.append(frame)
            return
        if frame["op"] != "text":
            self._last_text.pop(id, None)
            self._frames.append(frame)
            return
        earlier = self._last_text.get(id)
        if earlier is None:
            self._last_text[id] = frame
            self._frames.append(frame)
        else:
            earlier["text"] += frame["text"]

    def _write(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._frames))
                frames, self._frames = self._frames, []
                self._last_text = {}
                self._writing = True
            try:
                self._pipe.sendall(b"".join(encode(frame) for frame in frames))
            except OSError:
                # The service is gone; the reader sees it too, and ends the process.
                with self._changed:
                    self._broken = True
                    self._changed.notify_all()
                return
