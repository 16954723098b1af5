"""A real box on which things are really wrong: a byte of the model, the port, the disk, the build for its GPU."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from appliance.core.fault import BackendError, Fault
from appliance.core.offline import address_of
from appliance.doctor.checks import disk, engine, gpu, link, secrets, settings
from appliance.doctor.checks.gpu import Card
from appliance.doctor.examine import Examination, configured, examine
from appliance.doctor.finding import Finding
from appliance.doctor.sight import answer, box
from appliance.doctor.sight.aside import aside
from appliance.doctor.sight.box import folder
from appliance.doctor.sight.gpus import cards
from appliance.doctor.sight.links import way_to
from appliance.doctor.sight.resolver import name_servers

live = pytest.mark.live


def lay_out(root: Path) -> Path:
    """The files in which a kernel would show an NVIDIA card with its driver, an AMD one, and a board's own graphics."""
    slots = {"01": ("0x10de", "0x030200"), "02": ("0x1002", "0x030000"), "03": ("0x1a03", "0x030000")}
    files = {f"sys/bus/pci/devices/0000:{slot}:00.0/vendor": one[0] for slot, one in slots.items()}
    files |= {f"sys/bus/pci/devices/0000:{slot}:00.0/class": one[1] for slot, one in slots.items()}
    files |= {"sys/bus/pci/devices/0000:04:00.0/vendor": "0x10de", "sys/bus/pci/devices/0000:04:00.0/class": "0x0c0330"}
    files |= {"proc/driver/nvidia/version": "NVRM version: 580", "dev/nvidiactl": "", "dev/nvidia0": ""}
    files |= {"proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA H200\nIRQ:   \t\t 17\n"}
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text + "\n")
    return root


def test_the_cards_of_a_box_are_read_from_its_kernels_files(tmp_path: Path) -> None:
    assert cards(lay_out(tmp_path)) == (
        Card(vendor="NVIDIA", name="NVIDIA H200", driver=True, nodes=True),
        Card(vendor="AMD"),
    )


def test_a_container_that_shows_no_bus_shows_the_driver(tmp_path: Path) -> None:
    shutil.rmtree(lay_out(tmp_path) / "sys")
    assert cards(tmp_path) == (Card(vendor="NVIDIA", name="NVIDIA H200", driver=True, nodes=True),)
    (tmp_path / "dev/nvidia0").unlink()
    assert cards(tmp_path) == (Card(vendor="NVIDIA", name="NVIDIA H200", driver=True),)


def test_a_box_without_any(tmp_path: Path) -> None:
    assert cards(tmp_path) == ()


def test_the_name_servers_are_those_of_the_resolvers_file(tmp_path: Path) -> None:
    assert name_servers(tmp_path) == ()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/resolv.conf").write_text("search lan\nnameserver 10.0.0.1\nnameserver fd00::1\n")
    assert name_servers(tmp_path) == ["10.0.0.1", "fd00::1"]


def test_a_folder_that_is_not_made_yet_is_where_it_will_be(tmp_path: Path) -> None:
    found = folder("state", tmp_path / "a" / "b", needed=True)
    assert (found.trouble, found.path, found.free > 0) == ("", tmp_path / "a" / "b", True)
    (tmp_path / "file").write_text("")
    assert folder("state", tmp_path / "file", needed=True).trouble.endswith("is no folder")
    assert not (tmp_path / "a").exists()


def test_the_way_to_this_very_box_needs_no_network() -> None:
    assert address_of("127.0.0.1") is not None
    found = link.verdict(way_to(["127.0.0.1"], 80, here=True))
    assert (found.state, found.said) == ("ok", "it is on this very box")


def test_a_refused_configuration_is_a_finding_and_the_defaults_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[server]\nprot = 1\n")
    config, written = configured(tmp_path / "a.toml", {"HOME": str(tmp_path)})
    assert (config.upstreams, config.server.port, written.refused.endswith('did you mean "port"?')) == ((), 8484, True)


def test_what_never_ends_is_not_waited_for() -> None:
    async def waits() -> None:
        with pytest.raises(TimeoutError):
            await aside(lambda: time.sleep(1.0), seconds=0.01, name="sleeps")
        assert await aside(lambda: 3, seconds=5, name="counts") == 3
        with pytest.raises(KeyError):
            await aside(lambda: {}["a"], seconds=5, name="fails")

    asyncio.run(waits())


def test_a_child_of_llama_cpp_that_says_nothing_does_not_outlive_the_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def silent(*_: object, patience: float, **__: object) -> NoReturn:
        asked.append(patience)
        raise BackendError(Fault.SILENT, "llama.cpp did not answer.")

    monkeypatch.setattr(box.box, "describe", silent)
    monkeypatch.setattr(box.box, "weigh", silent)
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(100))
    config = configured(None, {"HOME": str(tmp_path)})[0]
    config = replace(config, local=replace(config.local, model=str(tmp_path / "m.gguf")))
    found = asyncio.run(box.look(replace(config, server=replace(config.server, port=0)), deep=None, root=tmp_path))
    assert (found.build.machine, found.build.trouble) == (None, "")  # it is busy, which is not broken
    assert (found.need.unknown, found.need.refused) == ("llama.cpp did not answer.", False)
    assert sorted(asked) == [box.FOR_THE_MODEL - box.TO_END, box.SECONDS - box.TO_END]


# ----------------------------------------------------------------------------------------------------- really


def finding(found: Examination, layer: str) -> Finding:
    return next(one for one in found.sections[0].findings if one.layer == layer)


@live
def test_a_box_on_which_much_is_wrong(
    starter_gguf: Path, isolated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SECONDS", "TO_FIND", "FOR_THE_MODEL"):
        monkeypatch.setattr(box, name, 60.0)
    model = isolated / "models" / starter_gguf.name
    model.parent.mkdir()
    shutil.copy(starter_gguf, model)
    with model.open("r+b") as file:
        file.seek(50_000_000)
        byte = file.read(1)
        file.seek(50_000_000)
        file.write(bytes([byte[0] ^ 1]))
    key = tmp_path / "key"
    key.write_text("sk-somebody")
    key.chmod(0o644)
    os.utime(key, (time.time() - 500 * 86400,) * 2)
    command = [sys.executable, "-c", "import socket; s = socket.create_server(('127.0.0.1', 0)); "
               "print(s.getsockname()[1], flush=True); input()"]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        (tmp_path / "a.toml").write_text(
            f"[server]\nport = {port}\n"
            f'[[upstream]]\nname = "mine"\nbase_url = "http://127.0.0.1:9/v1"\nkey = "file:{key}"\n'
        )
        found = asyncio.run(examine(tmp_path / "a.toml", os.environ, root=lay_out(tmp_path / "root")))
        other.communicate(b"\n")
    damaged = finding(found, "model")
    assert (damaged.state, damaged.who, damaged.fix) == ("wrong", "box", 'Run "appliance models pull starter".')
    assert f"the model {model} is not the file of the catalog: its sha256 is" in damaged.said
    taken = finding(found, "port")
    assert (taken.state, taken.who) == ("wrong", "you")
    assert f"127.0.0.1:{port} is taken by " in taken.said and f"(pid {other.pid})" in taken.said
    offload = finding(found, gpu.LAYER)
    assert (offload.state, offload.said) == ("wrong", "NVIDIA H200 is here, but llama.cpp was built for the CPU only")
    assert offload.fix is not None and "-DGGML_CUDA=ON" in offload.fix
    assert finding(found, secrets.LAYER).said == f"{key} is 500 days old"
    assert finding(found, settings.LAYER).fix == f"Run chmod 600 {key}."
    assert [one.said for one in found.sections[1].findings if one.state == "wrong"] == [
        "127.0.0.1:9 refuses the connection: nothing listens there"
    ]
    assert not found.well
    assert [line.partition(":")[0] for line in found.whose] == [*["It is you"] * 2, *["It is this box"] * 2]


@live
def test_a_model_that_cannot_be_loaded_has_no_answer(tmp_path: Path) -> None:
    (tmp_path / "odd.gguf").write_bytes(b"GGUF" + bytes(64))
    (tmp_path / "a.toml").write_text('[local]\nmodel = "odd.gguf"\ncontext = 256\nslots = 1\n')
    config, _ = configured(tmp_path / "a.toml", os.environ)
    assert engine.verdict(asyncio.run(answer.look(config))).state == "wrong"


@live
@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk of its own needs root")
def test_a_disk_that_is_full_and_one_that_may_not_be_written(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("nothing may be mounted here")
    try:
        with pytest.raises(OSError, match="No space"):
            (tmp_path / "much").write_bytes(bytes(8 << 20))
        full = disk.verdict([folder("state", tmp_path / "state", needed=True)])
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        sealed = disk.verdict([folder("state", tmp_path / "state", needed=True)])
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert (full.state, full.said) == ("wrong", f"full: 0 MB are free for the state folder {tmp_path / 'state'}")
    assert sealed.said == f"the state folder {tmp_path / 'state'} cannot be written: its file system is read-only"
