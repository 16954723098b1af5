"""Is this bundle whole, and if so, take it out.

Nothing is taken on the tar's word: files only, names only from the manifest, every size and hash checked, and nothing
is left of a bundle that does not hold.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from appliance.store.catalog import StoreError
from appliance.store.disk import CHUNK, Progress, check_room, scratch
from appliance.store.install import made, why_not_written
from appliance.store.manifest import MANIFEST, MOST_BYTES, SEAL, WHEELS, Manifest, parse, seal

TOP = "appliance-bundle"
"""What the one folder of a bundle begins with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A bundle whose every byte was the right one."""

    id: str
    manifest: Manifest


class Meter:
    """Tells how much of all is done, a megabyte at a time."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress = total, progress
        self._done = self._told = 0

    def add(self, count: int) -> None:
        self._done += count
        if self._progress and (self._done - self._told >= CHUNK or self._done == self._total):
            self._told = self._done
            self._progress(self._done, self._total)


class Hashed(io.RawIOBase):
    """A file that is hashed and counted while somebody reads it."""

    def __init__(self, file: IO[bytes], meter: Meter) -> None:
        self._file, self._meter, self.digest = file, meter, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self.digest.update(content)
        self._meter.add(len(content))
        return content


def check(file: Path, progress: Progress | None = None) -> Opened:
    """Every byte of the bundle is the one that was packed. Raises `StoreError`."""
    try:
        return _read(file, None, progress)
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror or error}; correct that, or copy it again.") from None


@contextmanager
def unpacked(file: Path, beside: Path, progress: Progress | None = None) -> Iterator[tuple[Opened, Path]]:
    """The bundle, verified, in a folder under `beside` that goes away afterwards. Raises `StoreError`."""
    try:
        with made(beside), scratch(beside, ".unpacking-") as folder:
            if file.is_file():
                check_room(file.name, file.stat().st_size, beside)
            yield _read(file, folder, progress), folder
    except OSError as error:
        raise StoreError(why_not_written(error, "nothing was installed")) from None


def _read(file: Path, into: Path | None, progress: Progress | None) -> Opened:
    damaged = StoreError(f"{file} is damaged or not whole; copy it again and compare its id.")
    wanted = 'give the file that "appliance bundle create" wrote'
    if file.is_dir():
        raise StoreError(f"{file} is a folder; {wanted}.")
    if not file.exists():
        raise StoreError(f"{file} does not exist; {wanted}.")
    try:
        with file.open("rb") as raw:
            if not TOP.encode().startswith(raw.read(len(TOP))):  # a tar begins with a name, and one that is cut off too
                raise StoreError(f"{file} is not a bundle; {wanted}.")
            raw.seek(0)
            with tarfile.open(fileobj=raw, mode="r:") as archive:
                return _walk(archive, into, progress, damaged)
    except (tarfile.TarError, EOFError, UnicodeError, ValueError):
        raise damaged from None


def _walk(archive: tarfile.TarFile, into: Path | None, progress: Progress | None, damaged: StoreError) -> Opened:
    top, sealed = _small(archive, SEAL, damaged)
    second_top, content = _small(archive, MANIFEST, damaged)
    identity = hashlib.sha256(content).hexdigest()
    if top != second_top or sealed != seal(identity):
        raise damaged
    manifest = parse(content)
    waiting = {f"{top}/{piece.path}": piece for piece in manifest.files}
    if into:
        for name, small in ((SEAL, sealed), (MANIFEST, content)):
            (into / name).write_bytes(small)
    meter = Meter(manifest.bytes, progress)
    while (member := archive.next()) is not None:
        piece = waiting.pop(member.name, None)
        if piece is None or not _plain(member) or member.size != piece.bytes:
            raise damaged
        taken = archive.extractfile(member)
        assert taken is not None  # it is a plain file
        with taken, _written(into, piece.path) as out:
            read = Hashed(taken, meter)
            while chunk := read.read(CHUNK):
                if out:
                    out.write(chunk)
        if read.digest.hexdigest() != piece.sha256:
            raise damaged
    if waiting:
        raise damaged
    return Opened(id=identity, manifest=manifest)


def _small(archive: tarfile.TarFile, name: str, damaged: StoreError) -> tuple[str, bytes]:
    """The next member, which must have this name: its folder, and what it holds."""
    member = archive.next()
    if member is None or not _plain(member) or member.size > MOST_BYTES:
        raise damaged
    top, _, found = member.name.partition("/")
    taken = archive.extractfile(member)
    if found != name or not top.startswith(TOP) or taken is None:
        raise damaged
    return top, taken.read()


def _plain(member: tarfile.TarInfo) -> bool:
    return member.isreg() and not member.issparse()


@contextmanager
def _written(into: Path | None, path: str) -> Iterator[IO[bytes] | None]:
    if into is None:
        yield None
        return
    (into / path).parent.mkdir(parents=True, exist_ok=True)
    with (into / path).open("xb") as out:
        yield out


def hand_over(folder: Path, arguments: Sequence[str], *, python: str = sys.executable) -> int:
    """Let the bundle install itself: the installer of the version that comes, not of the one that is here.

    It is in a session of its own: Ctrl-C comes to us, is passed on once, and what was begun is put away in peace.
    Raises `KeyboardInterrupt` if that ended it before it could say anything.
    """
    wheel = next((folder / WHEELS).glob("fallback_appliance-*.whl"))
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from appliance.store.install import main; sys.exit(main())"
    command = [python, "-I", "-c", code, str(wheel), str(folder), *arguments]
    with subprocess.Popen(command, start_new_session=True) as installer:
        try:
            return installer.wait()
        except KeyboardInterrupt:
            installer.terminate()
            if installer.wait() < 0:
                raise
            return installer.returncode
