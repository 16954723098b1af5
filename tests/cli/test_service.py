"""`appliance service` with a systemd that only writes down what it is told."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from appliance import unit
from appliance.__main__ import main
from appliance.cli import service, systemd
from appliance.store.catalog import find

SYSTEMCTL = """#!/bin/sh
echo "$*" >> "{calls}"
case "$*" in
    *is-active*) test -e "{folder}/runs" ;;
    *restart*) test ! -e "{folder}/broken" && touch "{folder}/runs" ;;
    *disable*) rm -f "{folder}/runs" ;;
    *StatusText*) echo "Answers come from local." ;;
esac
"""
JOURNALCTL = """#!/bin/sh
echo "appliance 0.1.0"
echo "No layer of the model is on a GPU."
echo "Traceback"
test "$3" = _TRANSPORT=stdout || echo "appliance.service: Failed with result 'exit-code'."
"""


class Machine:
    """A machine of its own under `root`, with a systemd and a model for the service."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.calls_file = root, root / "calls"
        self.units = root / "units"
        for name, script in (("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)):
            (root / name).write_text(script.format(calls=self.calls_file, folder=root))
            (root / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{root}:{os.environ['PATH']}")
        monkeypatch.setattr(systemd, "SYSTEM_UNITS", self.units)
        monkeypatch.setattr(systemd, "BOOTED", root)
        monkeypatch.setattr(unit, "system_home", lambda _: str(root / "var"))
        monkeypatch.setattr(unit, "PRIVATE", ())  # this test lies in /tmp, and perhaps in a home
        monkeypatch.setattr(unit, "HOMES", ())
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(service, "_demand_sight", lambda *_: None)
        self.model = root / "var/models" / find("starter").file
        self.model.parent.mkdir(parents=True)
        with self.model.open("wb") as file:
            file.write(b"GGUF")
            file.truncate(find("starter").bytes)

    @property
    def unit(self) -> Path:
        return self.units / "appliance.service"

    def calls(self) -> list[str]:
        """What systemctl was told since the last time, without questions."""
        told = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        self.calls_file.unlink(missing_ok=True)
        return [line for line in told if "is-active" not in line and "show" not in line]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def sorry(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.removeprefix("appliance: ").rstrip("\n")


def test_install_writes_what_show_prints_and_starts_it(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["service", "show"]) == 0
    shown = capsys.readouterr().out
    assert main(["service", "install"]) == 0
    assert machine.unit.read_text() == shown
    assert stat.S_IMODE(machine.unit.stat().st_mode) == 0o644
    assert machine.calls() == [
        "daemon-reload",
        "enable --quiet appliance.service",
        "reset-failed appliance.service",
        "restart appliance.service",
    ]
    assert "appliance.service runs, and starts with the machine. Answers come from local." in capsys.readouterr().out


def test_install_again_changes_nothing(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    main(["service", "install"])
    machine.calls()
    capsys.readouterr()
    assert main(["service", "install"]) == 0
    assert machine.calls() == ["enable --quiet appliance.service"]
    assert capsys.readouterr().out == "appliance.service is as it should be, and runs; nothing was changed.\n"


def test_after_an_upgrade_the_unit_is_new_and_the_service_restarted(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["service", "install"])
    machine.calls()
    monkeypatch.setattr(service, "__version__", "9.9.9")
    assert main(["service", "install"]) == 0
    assert "9.9.9" in machine.unit.read_text()
    assert "restart appliance.service" in machine.calls()


def test_one_that_had_stopped_is_started(machine: Machine) -> None:
    main(["service", "install"])
    (machine.root / "runs").unlink()
    machine.calls()
    assert main(["service", "install"]) == 0
    assert machine.calls()[-1] == "restart appliance.service"


def test_one_that_does_not_start_says_why_in_its_own_words(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    (machine.root / "broken").touch()
    assert main(["service", "install"]) == 1
    assert sorry(capsys) == (
        "appliance.service is installed and does not start: No layer of the model is on a GPU. "
        'Then run "systemctl restart appliance.service".'
    )


def test_uninstall_stops_it_and_says_what_is_kept(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    main(["service", "install"])
    machine.calls()
    capsys.readouterr()
    assert main(["service", "uninstall"]) == 0
    assert machine.calls() == [
        "disable --quiet --now appliance.service",
        "daemon-reload",
        "reset-failed appliance.service",
    ]
    assert not machine.unit.exists() and machine.model.exists()
    assert f"  {machine.model.parent}\n" in capsys.readouterr().out
    assert main(["service", "uninstall"]) == 0
    assert capsys.readouterr().out == "appliance.service is not installed; there is nothing to remove.\n"


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_a_unit_of_somebody_else_is_left_alone(verb: str, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.units.mkdir()
    machine.unit.write_text("[Unit]\n")
    assert main(["service", verb]) == 1
    assert "was not written by this command" in sorry(capsys)
    assert (machine.unit.read_text(), machine.calls()) == ("[Unit]\n", [])


def test_without_the_model_nothing_is_installed(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.model.unlink()
    assert main(["service", "install"]) == 64
    assert f"sudo env APPLIANCE_HOME={machine.root / 'var'} " in sorry(capsys)
    assert (machine.unit.exists(), machine.calls()) == (False, [])


def test_with_a_wrong_file_nothing_is_installed(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    file = machine.root / "wrong.toml"
    file.write_text("[local]\ncontxt = 5\n")
    assert main(["service", "install", "--config", str(file)]) == 64
    assert sorry(capsys).endswith('line 2: [local] has no key "contxt"; did you mean "context"?')
    assert not machine.unit.exists()


def test_what_lies_where_somebody_stands_is_not_taken_for_the_services(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    mine = tmp_path / "here/appliance.toml"
    mine.write_text("[local]\ncontxt = 5\n")  # wrong, and nobody minds
    assert main(["service", "install"]) == 0
    said = capsys.readouterr()
    usual = "/etc/appliance/appliance.toml"
    assert said.err == (
        f"appliance.toml of this folder is not what the service reads; say --config appliance.toml, "
        f"or keep it as {usual}.\n"
    )
    assert f"  configuration  {usual}; after a change" in said.out


def test_the_file_in_the_services_own_folder_is_read_and_named(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    own = machine.root / "var/appliance.toml"  # written by `sudo env APPLIANCE_HOME=... appliance models use`
    own.write_text("[local]\ncontxt = 5\n")
    assert main(["service", "install"]) == 64
    assert str(own) in sorry(capsys)
    own.write_text("[local]\ncontext = 2048\n")
    assert main(["service", "install"]) == 0
    assert f"  configuration  {own}; after a change" in capsys.readouterr().out


def test_a_key_that_systemd_brings_is_not_asked_for_before(machine: Machine) -> None:
    file = machine.root / "a.toml"
    file.write_text('[[upstream]]\npreset = "openai"\nkey = "file:/run/credentials/appliance.service/openai"\n')
    assert main(["service", "install", "--config", str(file)]) == 0
    assert f"--config {file}" in machine.unit.read_text()


def test_keys_in_the_services_environment_count(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = machine.root / "environment"
    keys.write_text("# ours\nWORK_KEY='sk-work'\n")
    monkeypatch.setattr(unit, "environment_file", lambda *_: str(keys))
    file = machine.root / "a.toml"
    file.write_text('[[upstream]]\npreset = "openai"\nkey = "env:WORK_KEY"\n')
    assert main(["service", "install", "--config", str(file)]) == 0


def test_a_user_has_one_without_root(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, isolated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(machine.root / "settings"))
    (isolated / "models").symlink_to(machine.model.parent)
    assert main(["service", "install", "--user"]) == 0
    written = machine.root / "settings/systemd/user/appliance.service"
    assert f"Environment=APPLIANCE_HOME={isolated}\n" in written.read_text()
    assert machine.calls()[-1] == "--user restart appliance.service"
    assert "loginctl enable-linger" in capsys.readouterr().out


def test_who_is_not_root_hears_what_to_type(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["service", "install"]) == 1
    said = sorry(capsys)
    assert 'run "sudo ' in said and 'appliance service install", or add --user' in said


def test_without_systemd_it_says_what_to_start_instead(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(systemd, "BOOTED", machine.root / "nowhere")
    assert main(["service", "install"]) == 1
    assert "this machine is not run by systemd; have what runs it start" in (said := sorry(capsys))
    assert said.endswith("unless it exits with 64 or 2.")
    assert main(["service", "uninstall"]) == 1
    assert f"systemd; nothing of it is running; remove {machine.units / 'appliance.service'} by hand" in sorry(capsys)


def test_a_name_that_is_none_is_refused(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["service", "show", "--name", "../x"]) == 1
    assert sorry(capsys) == '"../x" is no name for a service; use letters, digits and dashes.'


def test_what_others_may_not_enter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit, "PRIVATE", ())
    monkeypatch.setattr(unit, "HOMES", ())
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    model = closed / "model.gguf"
    model.touch()
    wanted = unit.Wanted(program=("/bin/sh",), version="1")
    for part in [*reversed(tmp_path.parents), tmp_path]:
        if not part.stat().st_mode & 0o001:
            closed = part
            break
    with pytest.raises(service.Unwell, match=f"others may not enter {closed}, so the service cannot reach {model}"):
        service._demand_sight(wanted, model)
