"""`appliance bundle` as somebody types it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.__main__ import main
from appliance.store import unpack


def test_a_model_that_is_a_file_is_to_be_imported_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.gguf"
    (tmp_path / "appliance.toml").write_text(f'[local]\nmodel = "{file}"\n')
    assert main(["bundle", "create", "-o", "b.tar", "--config", str(tmp_path / "appliance.toml")]) == 64
    assert capsys.readouterr().err == (
        f'appliance: a bundle takes models of the store, and {file} is a file; run "appliance models import {file}" '
        "and say its name with --model.\n"
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--without-model", "--model", "starter"), 2, "not allowed with argument --without-model"),
        (("--without-model", "--python", "2.7"), 2, '"2.7" is no Python that the appliance runs on'),
        (("--without-model", "--wheels", "nowhere"), 2, "there is no wheel in nowhere"),
        (("--model", "nosuch"), 64, 'no model "nosuch"'),
        (("--model", "starter"), 64, 'the model "starter" is not installed'),
    ],
)
def test_what_is_wrongly_asked_for_is_another_code_than_a_model_that_is_not_there(
    words: tuple[str, ...], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bundle", "create", "-o", "b.tar", *words]) == code
    assert said in capsys.readouterr().err


def interrupted(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["bundle", "install", "b.tar", "--prefix", str(folder / "opt")]) == 130
    return capsys.readouterr().err


def test_an_installation_that_is_ended_while_it_unpacks_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(unpack, "unpacked", end)
    assert interrupted(tmp_path, capsys) == "Interrupted; nothing was installed.\n"


@pytest.mark.live
@pytest.mark.parametrize(
    ("so_far", "said"),
    [
        ("", "Interrupted; nothing was installed.\n"),
        ("(opt / 'current').symlink_to('versions/1')", "Interrupted; it is installed in {opt} all the same.\n"),
    ],
)
def test_an_installer_that_ends_before_it_can_say_anything_is_spoken_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], so_far: str, said: str
) -> None:
    """Ended in its first moment, or in its last."""
    opt = tmp_path / "opt"
    (tmp_path / "wheels").mkdir()
    opt.mkdir()
    with zipfile.ZipFile(tmp_path / "wheels/fallback_appliance-1-py3-none-any.whl", "w") as archive:
        archive.writestr("appliance/__init__.py", "")
        archive.writestr("appliance/store/__init__.py", "")
        archive.writestr(
            "appliance/store/install.py",
            f"import os, pathlib, signal, time\nopt = pathlib.Path({str(opt)!r})\n{so_far}\n"
            "os.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(20)\n",
        )

    @contextmanager
    def unpacked(*_: object) -> Iterator[tuple[None, Path]]:
        yield None, tmp_path

    monkeypatch.setattr(unpack, "unpacked", unpacked)
    assert interrupted(tmp_path, capsys) == said.format(opt=opt)
