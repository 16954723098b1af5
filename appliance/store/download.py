"""How does one file come whole over a line that breaks?

Rules:

1. ``FILE.part`` only ever grows, and only by bytes of one content. Which one is written beside it before the first
   byte. Bytes of another content are thrown away.
2. An answer goes on exactly where we are, or it begins at the first byte and what we know of it is passed over. What
   is neither is a lost try.
3. A try that brought a byte further than any before gives all patience back; without one it ends after a few.
4. Before every try the hub is asked again what the file is, and the address is of one commit: so `If-Range` is not
   needed, which a network of caches may answer with the whole file. Only a wrong hash of the whole is final.
5. A line that brings less than a trickle is as good as none, and is made anew.
6. The file gets its name when every byte is on the disk and the hash is right.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

import httpx

from appliance.store.catalog import StoreError
from appliance.store.disk import CHUNK, Report, Say, Step, leftovers, put, write_small
from appliance.store.hub import Content, Lost, in_short

Found = TypeVar("Found")
MINUTE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamina:
    """How patient are we? `stall` is how many seconds without a byte are enough, `trickle` how many bytes a minute are
    too few, `waits` lie between tries that bring nothing."""

    stall: float = 20.0
    trickle: int = 60_000
    connect: float = 10.0
    waits: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)


# ---------------------------------------------------------------------------------------------------- decisions


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often was there nothing new, and how far did we ever get?"""

    failures: int = 0
    furthest: int = 0

    def lost(self, at: int) -> Patience:
        """A try has ended at this byte."""
        if at > self.furthest:
            return Patience(furthest=at, failures=1)
        return Patience(furthest=self.furthest, failures=self.failures + 1)

    def wait(self, stamina: Stamina) -> float | None:
        """Seconds to the next try; None when it is enough."""
        return stamina.waits[self.failures - 1] if self.failures <= len(stamina.waits) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What came in the minute that began at `since`, with the byte `start`."""

    since: float
    start: int

    def heard(self, at: int, now: float, stamina: Stamina) -> Flow:
        """We are at this byte now. Raises `Lost` at the end of a minute with a trickle."""
        if now - self.since < MINUTE:
            return self
        if at - self.start < stamina.trickle:
            raise Lost(f"hardly a byte came for a minute at {at / 1e6:,.1f} MB")
        return Flow(since=now, start=at)


def begins(status: int, headers: Mapping[str, str], at: int, content: Content) -> int:
    """At which byte does this answer begin: where we are, or at the first? Raises `Lost`."""
    if status == 206:
        said = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("content-range", ""))
        if said is None or int(said[1]) != at:
            raise Lost("an answer did not go on where it was asked to")
        total = None if said[3] == "*" else int(said[3])
        start = at
    elif status == 200:
        length = headers.get("content-length", "")
        total = int(length) if length.isdecimal() else None
        start = 0
    else:
        raise Lost(f"the download was answered with HTTP status {status}")
    if None not in (total, content.bytes) and total != content.bytes:
        raise Lost(f"the hub promised {content.bytes:,} bytes and offers {total:,}")
    return start


# -------------------------------------------------------------------------------------------------------- work


class Partial:
    """An unfinished file, the hash of what is in it, and the note beside it that says of which content it is."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.at = 0
        self._path, self._note = leftovers(target)
        self._digest = hashlib.sha256()

    @property
    def hash(self) -> str:
        return self._digest.hexdigest()

    def open(self) -> BinaryIO:
        """The file, unbuffered: what was written is safe from a kill."""
        return open(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)

    def left(self, content: Content) -> int:
        """How many bytes of this content are here? None count where the whole is not known: was that the end?"""
        try:
            here, mark = self._path.stat().st_size, self._note.read_text("utf-8")
        except (OSError, ValueError):
            return 0
        return here if mark == content.mark and content.bytes is not None and here <= content.bytes else 0

    def take_up(self, content: Content, file: BinaryIO, report: Callable[[int], None]) -> None:
        """Go on with what is here if it is of this content, and else from the first byte."""
        if self.left(content) == 0:
            file.truncate(0)
            self._digest, self.at = hashlib.sha256(), 0
            write_small(self._note, content.mark)
        file.seek(self.at)
        while chunk := file.read(CHUNK):
            self._digest.update(chunk)
            self.at += len(chunk)
            report(self.at)

    def add(self, file: BinaryIO, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            taken = file.write(rest)
            self._digest.update(rest[:taken])
            self.at += taken
            rest = rest[taken:]

    def finish(self) -> None:
        put(self._path, self.target)
        self._note.unlink(missing_ok=True)

    def discard(self) -> None:
        self._path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


def download(
    look: Callable[[], Content],
    target: Path,
    *,
    headers: Mapping[str, str],
    expected: str,
    stamina: Stamina,
    say: Say,
    report: Report,
    accept: Callable[[], None] = lambda: None,
) -> None:
    """Bring the file that `look` finds to `target`, going on where an earlier run was. It gets its name if `accept`,
    which is asked when every byte is right, raises nothing.

    Raises:
        StoreError: with a sentence; what came so far stays for the next run, unless its hash is wrong.
        OSError: the disk's.
    """
    partial = Partial(target)

    def once() -> None:
        content = look()

        def tell(at: int, status: Literal["downloading", "checking"] = "downloading") -> None:
            report(
                Step(status=status, file=target.name, digest=f"sha256:{expected}", total=content.bytes, completed=at)
            )

        partial.take_up(content, file, lambda at: tell(at, "checking"))
        if content.bytes is None or partial.at < content.bytes:
            _receive(client, content, partial, file, headers, tell, stamina)

    timeout = httpx.Timeout(stamina.stall, connect=stamina.connect)
    with httpx.Client(follow_redirects=True, timeout=timeout) as client, partial.open() as file:
        patiently(
            once,
            stamina,
            say,
            at=lambda: partial.at,
            failed=f"{target.name} was not downloaded",
            remedy="run the same command again later, and it goes on where it was",
        )
    if (found := partial.hash) != expected:
        partial.discard()
        raise StoreError(
            f"{target.name} came with a wrong hash, so it was not installed: its sha256 is {found[:12]}..., expected "
            f"{expected[:12]}...; try again, and if it happens again, another hub (HF_ENDPOINT)."
        )
    accept()
    partial.finish()


def _receive(
    client: httpx.Client,
    content: Content,
    partial: Partial,
    file: BinaryIO,
    headers: Mapping[str, str],
    tell: Callable[[int], None],
    stamina: Stamina,
) -> None:
    """The bytes that are missing, or as many as come. Raises `Lost`."""
    wanted = {**headers, "accept-encoding": "identity"}
    if partial.at:
        wanted["range"] = f"bytes={partial.at}-"
    try:
        with client.stream("GET", content.url, headers=wanted) as answer:
            known = partial.at - begins(answer.status_code, answer.headers, partial.at, content)
            passed, flow = 0, Flow(since=time.monotonic(), start=0)
            for chunk in answer.iter_raw():
                new = chunk[known:]
                partial.add(file, new if content.bytes is None else new[: content.bytes - partial.at])
                known = max(0, known - len(chunk))
                tell(partial.at)
                if partial.at == content.bytes:  # whatever else comes is not the file
                    return
                passed += len(chunk)
                flow = flow.heard(passed, time.monotonic(), stamina)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Lost(f"the connection was lost at {partial.at / 1e6:,.1f} MB ({in_short(error)})") from None
    if content.bytes is not None and partial.at != content.bytes:
        raise Lost(f"the download ended at {partial.at:,} of {content.bytes:,} bytes")


def patiently(
    attempt: Callable[[], Found],
    stamina: Stamina,
    say: Say,
    *,
    failed: str,
    remedy: str,
    at: Callable[[], int] = lambda: 0,
) -> Found:
    """What `attempt` gives, after as many tries as are worth it. Raises `StoreError`."""
    patience = Patience()
    while True:
        try:
            return attempt()
        except Lost as lost:
            why, patience = str(lost), patience.lost(at())
        wait = patience.wait(stamina)
        if wait is None:
            raise StoreError(f"{failed}: {why}; {remedy}.")
        say(f"{why[0].upper()}{why[1:]}; trying again in {wait:g} s ...")
        time.sleep(wait)
