"""systemd, as far as one unit of ours is concerned. Nothing here decides anything."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

from appliance.cli.outcome import Unwell

SYSTEM_UNITS = Path("/etc/systemd/system")
BOOTED = Path("/run/systemd/system")
LAST_LINES = 8


class Systemd:
    """systemctl and journalctl for one unit, of the machine or of a user."""

    def __init__(self, unit: str, *, user: bool, own: Path) -> None:
        """`own` is the folder of a user's configuration."""
        self.unit = unit
        self.user = user
        self.file = (own / "systemd/user" if user else SYSTEM_UNITS) / unit
        self.journal = f"journalctl {'--user ' if user else ''}-u {unit} -f"

    @property
    def changes(self) -> Path:
        """The folder of what `systemctl edit` wrote."""
        return self.file.with_suffix(".service.d")

    @staticmethod
    def is_here() -> bool:
        """Is this machine run by systemd?"""
        return shutil.which("systemctl") is not None and BOOTED.is_dir()

    def call(self, *words: str, may_fail: bool = False) -> bool:
        """Did systemctl do it? Raises `Unwell` with its own words if it had to."""
        said = subprocess.run(self._command("systemctl", *words), capture_output=True, text=True, check=False)
        if said.returncode != 0 and not may_fail:
            lines = said.stderr.strip().splitlines() or [f"exit status {said.returncode}"]
            raise Unwell(f'"{self.spoken(*words)}" did not work: {lines[0].rstrip(".")}.')
        return said.returncode == 0

    def _command(self, program: str, *words: str) -> list[str]:
        return [program, *(["--user"] if self.user else []), *words]

    def spoken(self, *words: str) -> str:
        """As one would type it."""
        return shlex.join(self._command("systemctl", *words))

    def runs(self) -> bool:
        return self.call("is-active", "--quiet", self.unit, may_fail=True)

    def written(self) -> str | None:
        try:
            return self.file.read_text("utf-8")
        except FileNotFoundError:
            return None

    def write(self, text: str) -> None:
        """All of it or nothing."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        new = self.file.with_suffix(".new")
        new.write_text(text, "utf-8")
        new.chmod(0o644)
        new.replace(self.file)

    def standing(self) -> str:
        """What it says of itself."""
        return self._ask("systemctl", "show", "--property=StatusText", "--value", self.unit)

    def last_words(self) -> str:
        """Why it does not start, in its own sentence."""
        # "stdout" is what the service wrote itself, and not what systemd says of it.
        said = self._ask("journalctl", "-u", self.unit, "_TRANSPORT=stdout", "-n", str(LAST_LINES), "-o", "cat")
        own = [line.removeprefix("appliance: ") for line in said.splitlines() if line.endswith(".")]
        return own[-1] if own else f"see {self.journal}."

    def _ask(self, *words: str) -> str:
        said = subprocess.run(self._command(*words), capture_output=True, text=True, check=False)
        return said.stdout.strip()
