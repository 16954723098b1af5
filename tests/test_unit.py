"""The systemd unit: what it promises for every way of installing it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from appliance import unit
from appliance.backends.child import LAST_WORDS_SECONDS, LEAVE_SECONDS, STOP_SECONDS
from appliance.cli.outcome import USAGE, WRONG_SETUP
from appliance.server.run import DRAIN
from appliance.unit import Wanted, argument, is_name, is_ours, text, unseen

SYSTEM = Wanted(
    program=("/opt/box/bin/python", "-P", "-m", "appliance"), version="1.2.3", home=unit.system_home("appliance")
)
USER = replace(SYSTEM, scope="user", home=None)


def lines(wanted: Wanted) -> dict[str, list[str]]:
    """Every setting with its values, in their order."""
    found: dict[str, list[str]] = {}
    for line in text(wanted).splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_it_is_started_as_the_command_line_would_with_its_file() -> None:
    assert lines(SYSTEM)["ExecStart"] == ["/opt/box/bin/python -P -m appliance serve"]
    filed = replace(SYSTEM, config="/etc/my box/a.toml")
    assert lines(filed)["ExecStart"] == ['/opt/box/bin/python -P -m appliance serve --config "/etc/my box/a.toml"']


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("/a/b-c_d.e", "/a/b-c_d.e"),
        ("two words", '"two words"'),
        ('a"b', '"a\\"b"'),
        ("50%", "50%%"),
        ("$HOME", "$$HOME"),
        ("back\\slash", '"back\\\\slash"'),
        ("semi;colon", '"semi;colon"'),
    ],
)
def test_a_word_means_to_systemd_what_it_means_to_us(word: str, shown: str) -> None:
    assert argument(word) == shown


def test_the_exit_codes_that_mean_do_not_restart_me_are_ours() -> None:
    assert lines(SYSTEM)["RestartPreventExitStatus"] == [f"{WRONG_SETUP} {USAGE}"]
    assert lines(SYSTEM)["Restart"] == ["always"]


def test_it_may_take_longer_to_stop_than_answers_and_the_engine_do() -> None:
    engine = LAST_WORDS_SECONDS + LEAVE_SECONDS + STOP_SECONDS
    assert int(lines(SYSTEM)["TimeoutStopSec"][0]) >= DRAIN + engine + 5


@pytest.mark.parametrize("wanted", [SYSTEM, USER], ids=["system", "user"])
def test_it_is_told_how_the_service_is(wanted: Wanted) -> None:
    said = lines(wanted)
    assert (said["Type"], said["NotifyAccess"], said["KillMode"]) == (["notify"], ["main"], ["mixed"])
    assert said["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert said["OOMPolicy"] == ["continue"]
    assert int(said["WatchdogSec"][0]) == unit.WATCHDOG_SECONDS


def test_the_one_of_the_machine_keeps_its_state_and_has_a_user_of_its_own() -> None:
    said = lines(replace(SYSTEM, name="edge", home=unit.system_home("edge")))
    assert (said["StateDirectory"], said["WorkingDirectory"]) == (["edge"], ["/var/lib/edge"])
    assert "APPLIANCE_HOME=/var/lib/edge" in said["Environment"]
    assert said["EnvironmentFile"] == ["-/etc/edge/environment"]
    assert (said["DynamicUser"], said["CapabilityBoundingSet"]) == (["yes"], [""])
    assert said["WantedBy"] == ["multi-user.target"]


def test_the_one_of_a_user_asks_for_nothing_that_needs_privileges() -> None:
    said = lines(USER)
    assert said["WantedBy"] == ["default.target"]
    assert said["EnvironmentFile"] == ["-%E/appliance/environment"]
    assert "APPLIANCE_HOME" not in text(USER)
    assert "APPLIANCE_HOME=/my/box" in lines(replace(USER, home="/my/box"))["Environment"]
    # Outside a command line, systemd knows no variables, and "$$" would be two of them.
    assert "APPLIANCE_HOME=/my/$5%%" in lines(replace(USER, home="/my/$5%"))["Environment"]
    privileged = [name for name in said if name.startswith(("Protect", "Private", "Device", "Capability", "Dynamic"))]
    assert privileged == []


def test_homes_are_hidden_unless_the_program_is_in_one() -> None:
    assert lines(SYSTEM)["ProtectHome"] == ["yes"]
    for reads in (("/home/ann/box",), ("/root/box.toml",)):
        assert lines(replace(SYSTEM, reads=reads))["ProtectHome"] == ["read-only"]
    assert lines(replace(SYSTEM, reads=("/homely/box",)))["ProtectHome"] == ["yes"]


def test_what_the_service_will_not_see_is_found() -> None:
    assert unseen(SYSTEM, ["/opt/a", "/home/ann/model.gguf"]) == "/home/ann/model.gguf"
    at_home = replace(SYSTEM, reads=("/home/ann/box",))
    assert unseen(at_home, ["/home/ann/model.gguf"]) is None
    assert unseen(at_home, ["/opt/a", "/tmp/venv/bin/python"]) == "/tmp/venv/bin/python"


def test_devices_are_hidden_unless_there_is_a_gpu() -> None:
    bare, gpu = lines(SYSTEM), lines(replace(SYSTEM, gpu=True, groups=("render", "video")))
    assert (bare["PrivateDevices"], bare["MemoryDenyWriteExecute"]) == (["yes"], ["yes"])
    assert "DeviceAllow" not in bare and "SupplementaryGroups" not in bare
    assert "PrivateDevices" not in gpu and "MemoryDenyWriteExecute" not in gpu
    assert (gpu["DevicePolicy"], gpu["SupplementaryGroups"]) == (["closed"], ["render video"])


def test_an_upgrade_is_another_unit_and_the_same_wish_the_same() -> None:
    assert text(SYSTEM) == text(replace(SYSTEM))
    assert text(SYSTEM) != text(replace(SYSTEM, version="1.2.4"))


def test_it_knows_its_own_from_others() -> None:
    assert is_ours(text(SYSTEM)) and is_ours(text(USER))
    assert not is_ours("[Unit]\nDescription=somebody's\n")


@pytest.mark.parametrize(
    ("name", "good"), [("appliance", True), ("box-2", True), ("", False), ("a b", False), ("../x", False)]
)
def test_a_name_is_letters_digits_and_dashes(name: str, good: bool) -> None:
    assert is_name(name) is good


@pytest.mark.live
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
@pytest.mark.parametrize(
    ("wanted", "scope"),
    [(SYSTEM, "--system"), (replace(SYSTEM, gpu=True), "--system"), (USER, "--user")],
    ids=["system", "gpu", "user"],
)
def test_systemd_finds_nothing_wrong_with_it(wanted: Wanted, scope: str, tmp_path: Path) -> None:
    file = tmp_path / wanted.file
    file.write_text(text(replace(wanted, program=("/bin/true",))))
    said = subprocess.run(
        ["systemd-analyze", scope, "--man=no", "verify", str(file)],
        capture_output=True, text=True, check=False, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )  # fmt: skip
    about_us = [line for line in said.stderr.splitlines() if wanted.file in line]
    assert (said.returncode, about_us) == (0, [])


@pytest.mark.live
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
@pytest.mark.parametrize(("gpu", "most"), [(False, 1.6), (True, 2.1)])
def test_systemd_finds_it_hardly_exposed(gpu: bool, most: float, tmp_path: Path) -> None:
    file = tmp_path / SYSTEM.file
    file.write_text(text(replace(SYSTEM, gpu=gpu)))
    said = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", "--offline=true", str(file)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "unrecognized option" in said.stderr:
        pytest.skip("this systemd-analyze is too old to look at files")
    found = re.search(r"exposure level for \S+: (\d+\.\d)", said.stdout)
    assert found and float(found[1]) <= most
