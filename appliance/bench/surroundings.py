"""What is around a measurement: memory of processes, and whether the kernel holds the model's file."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from pathlib import Path

import psutil

_ATTEMPTS = 3
_LOWEST_BIT = bytes(value & 1 for value in range(256))
DROPPED = 0.1
"""Of a file that the kernel was asked to forget, so much may be left: other readers come and go."""


def peak_memory(pid: int | None) -> int | None:
    """The most memory that the process ever had resident, pages of the model's file included; None: nobody knows."""
    if pid is None:
        return None
    status = Path(f"/proc/{pid}/status")
    try:
        if found := re.search(r"^VmHWM:\s+(\d+) kB", status.read_text("utf-8"), re.MULTILINE):
            return int(found[1]) * 1024
    except OSError:
        pass
    return memory(pid)


def memory(pid: int) -> int | None:
    """What the process has resident now."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None


def forget(path: Path) -> bool:
    """Make the kernel drop what it holds of this file, so that the next reading is one from the disk. False: it holds
    it all the same, because somebody else has it mapped, or the file system lives in memory."""
    if not hasattr(os, "posix_fadvise"):
        return False
    try:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            for _ in range(_ATTEMPTS):  # pages that are on some processor's list at the moment are left out
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                share = held(path)
                if share is not None and share <= DROPPED:
                    return True
    except OSError:
        pass
    return False


def held(path: Path) -> float | None:
    """Which share of the file the kernel has in memory; None: it does not tell. Asked of `mincore`, because any way of
    reading makes the kernel fetch some of it."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
            pages = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
            first = ctypes.c_char.from_buffer(mapped)
            try:
                place, size = ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(len(mapped))
                told = ctypes.CDLL(None).mincore(place, size, pages)
            finally:
                del first  # or the mapping cannot be closed
    except (OSError, ValueError, AttributeError):
        return None
    return bytes(pages).translate(_LOWEST_BIT).count(1) / len(pages) if told == 0 else None


def parts(path: Path) -> list[Path]:
    """All files of a model that may be split."""
    found = re.fullmatch(r"(.+)-\d{5}-of-(\d{5})\.gguf", path.name)
    return sorted(path.parent.glob(f"{found[1]}-*-of-{found[2]}.gguf")) if found else [path]
