"""How commands end: exit codes, and one sentence."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from appliance import __version__
from appliance.__main__ import main, parser
from appliance.cli import status


def commands() -> list[list[str]]:
    """Every command there is, subcommands included."""
    found: list[list[str]] = []

    def walk(of: argparse.ArgumentParser, path: list[str]) -> None:
        for action in of._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, inner in action.choices.items():
                    found.append([*path, name])
                    walk(inner, [*path, name])

    walk(parser(), [])
    return found


def test_the_commands_are_these() -> None:
    assert [" ".join(path) for path in commands()] == [
        "serve",
        "chat",
        "status",
        "reset",
        "incidents",
        "report",
        "doctor",
        "drill",
        "bench",
        "models",
        "models list",
        "models pull",
        "models verify",
        "models path",
        "models import",
        "models use",
        "models rm",
        "models fit",
        "bundle",
        "bundle create",
        "bundle verify",
        "bundle install",
        "service",
        "service install",
        "service uninstall",
        "service show",
    ]


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_every_command_explains_itself_with_an_example(path: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*path, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"example:\n  appliance {' '.join(path)}" in text


@pytest.mark.parametrize("argv", [[], ["nosuch"], ["serve", "--port", "x"], ["models"], ["bench", "--parallel", "0"]])
def test_wrong_usage_ends_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert "usage: appliance" in capsys.readouterr().err


def test_a_wrong_configuration_ends_with_64_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").write_text("[server]\nport = 'x'\n")
    for command in ("serve", "chat", "status", "drill", "bench"):
        assert main([command, "--config", str(tmp_path / "a.toml")]) == 64
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err == (
            f'appliance: {tmp_path}/a.toml, line 2: server.port is "x", '
            "but it must be a whole number from 0 to 65535.\n"
        )


def test_serving_where_others_could_reach_it_ends_with_64(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--host", "0.0.0.0"]) == 64
    assert 'appliance: --host is "0.0.0.0", which others can reach' in capsys.readouterr().err


def test_serving_without_a_model_ends_with_64_and_the_command_that_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve"]) == 64
    assert capsys.readouterr().err == (
        'appliance: the model "starter" is not installed; run "appliance models pull starter".\n'
    )


def test_our_own_mistake_ends_with_70_without_the_words_that_came_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> str:
        raise ExceptionGroup("all", [KeyError("sk-secret")])

    monkeypatch.setattr(status, "address", fail)
    assert main(["status"]) == 70
    said = capsys.readouterr().err
    assert said.startswith("appliance: internal error (KeyError at status.py:")
    assert said.count("\n") == 1
    assert "sk-secret" not in said
    monkeypatch.setenv("APPLIANCE_DEBUG", "1")
    assert main(["status"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_ends_with_130_quietly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(status, "address", interrupt)
    assert main(["status"]) == 130
    assert capsys.readouterr() == ("", "")


def test_as_a_program_it_says_its_version_and_starts_quickly() -> None:
    code = (
        "import runpy, sys; sys.argv = ['appliance', '--version']\n"
        "try: runpy.run_module('appliance', run_name='__main__')\n"
        "finally: print(sorted({'httpx', 'uvicorn', 'llama_cpp', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, f"appliance {__version__}\n", "[]\n")


def test_a_reader_who_has_had_enough_is_no_error() -> None:
    run = subprocess.run(
        f"{sys.executable} -m appliance models list | head -c 1", shell=True, capture_output=True, text=True
    )
    assert (run.stdout, run.stderr) == ("N", "")


def test_the_exit_code_reaches_the_shell(tmp_path: Path) -> None:
    environ = os.environ | {"APPLIANCE_CONFIG": str(tmp_path / "none.toml")}
    run = subprocess.run([sys.executable, "-m", "appliance", "serve"], capture_output=True, text=True, env=environ)
    assert (run.returncode, run.stdout) == (64, "")
    assert run.stderr.endswith(
        "none.toml does not exist; give the path of an appliance.toml, or none for the defaults.\n"
    )
