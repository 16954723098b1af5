"""What the tests of the engine's process share."""

import stat
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("scripted_engine.py")


@pytest.fixture
def python(tmp_path: Path) -> str:
    """Something that takes python's arguments and runs the scripted engine."""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{SCRIPT}" "$3"\n')
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    return str(program)
