"""How does whoever started us learn how we are? systemd's notify protocol: datagrams of `NAME=value` lines to a socket
that the environment names. Without that variable nobody asked, and nothing is sent.

Rules of this file:

1. READY=1 is said once: when somebody can answer, as `/readyz` means it. With a cloud that is when the port is open;
   without one, when the model has given its first answer. So a unit with `After=appliance.service` finds answers.
2. Until then more time is asked for, as long as the event loop turns and there is hope: that the engine gets on with
   loading is watched elsewhere, and one that dies again and again is none.
3. WATCHDOG=1 comes from the event loop itself, so a loop that hangs stops saying it.
4. Nothing here waits or raises: a supervisor that does not listen costs no answer.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

log = logging.getLogger("appliance")

USUAL_BEAT = 10.0
EXTENSION = 60.0
LONGEST_STATUS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the environment asks of us: where to send to, and the seconds within which it wants to hear of us."""

    address: str | None = None
    watchdog: float | None = None

    @property
    def beat(self) -> float:
        """Seconds between two signs of life: half of what is allowed."""
        return self.watchdog / 2 if self.watchdog else USUAL_BEAT


def asked(environ: Mapping[str, str], pid: int) -> Asked:
    """What holds for the process `pid`. What is no sensible value counts as not asked for."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):  # there are others (vsock), of virtual machines
        return Asked()
    micros, whose = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    wanted = micros.isdecimal() and int(micros) > 0 and whose in ("", str(pid))
    return Asked(address=address, watchdog=int(micros) / 1e6 if wanted else None)


class Supervisor:
    """Whoever started us and wants to hear how we are; or nobody."""

    def __init__(self, asked: Asked) -> None:
        self.beat = asked.beat
        self._watched = asked.watchdog is not None
        self._said_ready = False
        self._leaving = False
        self._status = ""
        self._unsent: list[str] = []
        self._address = ""
        self._socket: socket.socket | None = None
        if asked.address is not None:
            self._address = "\0" + asked.address[1:] if asked.address.startswith("@") else asked.address
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    def report(self, *, able: bool, hopeful: bool, status: str) -> None:
        """A sign of life, and who would answer now. `able`: somebody would; `hopeful`: if not, that will change."""
        words = ["WATCHDOG=1"] if self._watched else []
        if self._leaving:
            self._send(words)
            return
        if able and not self._said_ready:
            self._said_ready = True
            words.append("READY=1")
        if not self._said_ready and hopeful:
            words.append(f"EXTEND_TIMEOUT_USEC={EXTENSION * 1e6:.0f}")
        if status != self._status:
            self._status = status
            words.append("STATUS=" + " ".join(status.split())[:LONGEST_STATUS])
        self._send(words)

    def reloading(self) -> None:
        """The configuration is being read again; `reloaded` follows in any case."""
        if self._said_ready:
            self._send(["RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"])

    def reloaded(self) -> None:
        if self._said_ready:
            self._send(["READY=1"])

    def stopping(self) -> None:
        """No new work from here on."""
        self._leaving = True
        self._send(["STOPPING=1", "STATUS=Running answers finish."])

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, words: list[str]) -> None:
        """All of it in one datagram; what finds no room goes with the next one."""
        words = self._unsent + words
        self._unsent = []
        if self._socket is None or not words:
            return
        try:
            self._socket.sendto("\n".join(words).encode(), self._address)
        except BlockingIOError:
            self._unsent = [word for word in words if word != "WATCHDOG=1"]
        except OSError as error:
            log.warning("The supervisor at %s does not listen: %s.", self._address.lstrip("\0"), error.strerror)
