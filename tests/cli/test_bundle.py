"""`appliance bundle` as somebody types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.__main__ import main


def test_a_model_that_is_a_file_is_to_be_imported_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.gguf"
    (tmp_path / "appliance.toml").write_text(f'[local]\nmodel = "{file}"\n')
    assert main(["bundle", "create", "-o", "b.tar", "--config", str(tmp_path / "appliance.toml")]) == 1
    assert capsys.readouterr().err == (
        f'appliance: a bundle takes models of the store, and {file} is a file; run "appliance models import {file}" '
        "and say its name with --model.\n"
    )
