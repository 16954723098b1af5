"""How is pip asked, and what did it say? It knows the user's index, proxy and certificates.

pip works in a folder of ours. Ctrl-C, SIGTERM and whatever else we live to see end pip and all that it started, and
then the folder goes; after a SIGKILL both stay.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from appliance.store.catalog import StoreError

_UNREACHABLE = (
    "NewConnectionError",
    "Failed to establish a new connection",
    "name resolution",
    "ConnectTimeout",
    "ReadTimeout",
    "timed out",
    "ProxyError",
    "SSLError",
    "Connection reset",
    "Connection refused",
    "Connection broken",
)


def run(
    verb: str, *options: str, beside: Path, environ: Mapping[str, str] | None = None, log: IO[bytes] | None = None
) -> tuple[int, str]:
    """pip's exit code and what it wrote to stderr; with `log`, that takes everything. It works in a folder in `beside`.

    pip is in a session of its own, so Ctrl-C comes to us alone: who is ended first cannot see to the others.
    """
    command = [sys.executable, "-m", "pip", verb, "--no-deps", "--disable-pip-version-check", "--no-input", *options]
    with (
        tempfile.TemporaryDirectory(dir=beside, prefix=".pip-", ignore_cleanup_errors=True) as scratch,
        subprocess.Popen(
            command,
            stdout=log,
            stderr=log or subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **(environ or {}), "TMPDIR": os.path.abspath(scratch)},
            start_new_session=True,
        ) as pip,
    ):
        try:
            said = pip.communicate()[1] or ""
        except BaseException:
            _end(pip)
            raise
        return pip.returncode, said


def _end(pip: subprocess.Popen[str]) -> None:
    """A compiler that outlives pip would write on into a folder that is being deleted."""
    import psutil  # noqa: PLC0415 - `install.py` imports this file on a box that has no psutil yet

    def living() -> Iterator[psutil.Process]:
        for one in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                # Its parent may have ended long ago: the session is what they have in common.
                if os.getsid(one.pid) == pip.pid and one.status() != psutil.STATUS_ZOMBIE:
                    yield one

    patience = time.monotonic() + 3
    while (left := list(living())) and time.monotonic() < patience:
        for one in left:
            with suppress(psutil.NoSuchProcess):
                one.kill()


def download(rows: Iterable[str], folder: Path, what: str, *options: str, otherwise: str) -> None:
    """Bring ready-made wheels into `folder`, one for each row of a requirements file. Raises `StoreError`.

    `what` is what a sentence calls them, and `otherwise` what to do if the index has them not.
    """
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".txt") as wanted:
        wanted.writelines(f"{row}\n" for row in rows)
        wanted.flush()
        options += ("--only-binary=:all:", "--dest", str(folder), "-r", wanted.name)
        code, said = run("download", *options, beside=folder)
    if code != 0:
        raise StoreError(why_not(said, what, otherwise))


def why_not(said: str, what: str, otherwise: str) -> str:
    """What pip wrote to stderr, as one sentence that says what to do."""
    if "No module named pip" in said:
        return f'this Python has no pip, which fetches {what}; run "{sys.executable} -m ensurepip" and try again.'
    if "DO NOT MATCH THE HASHES" in said:
        why = "the package index sent something with a wrong hash; try another index"
    elif "No space left" in said:
        why = "the disk is full; free some space and try again"
    elif any(sign in said for sign in _UNREACHABLE):
        why = "the package index cannot be reached; check the network and try again"
    elif found := re.search(r"No matching distribution found for (\S+?)==([^\s;]+)", said):
        why = f"the package index has no ready-made wheel of {found[1]} {found[2]}; {otherwise}"
    else:
        why = complaint(said) or "pip did not say why"
    return f"{what} could not be downloaded: {why}."


def complaint(said: str) -> str:
    """The last error of what pip wrote to stderr, without its full stop; nothing if it names none."""
    errors = [line.removeprefix("ERROR:").strip() for line in said.splitlines() if line.startswith("ERROR:")]
    return errors[-1].rstrip(".") if errors else ""
