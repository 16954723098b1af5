"""What pip says becomes one sentence, and when we are ended nothing of it goes on."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from appliance.store import pip
from appliance.store.pip import why_not


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            "/v/bin/python: No module named pip",
            f'this Python has no pip, which fetches x 1.0; run "{sys.executable} -m ensurepip" and try again.',
        ),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE",
            "x 1.0 could not be downloaded: the package index sent something with a wrong hash; try another index.",
        ),
        (
            "ERROR: Could not install: [Errno 28] No space left on device",
            "x 1.0 could not be downloaded: the disk is full; free some space and try again.",
        ),
        (
            "WARNING: Retrying after connection broken by 'NewConnectionError'\n"
            "ERROR: No matching distribution found for x==1.0",
            "x 1.0 could not be downloaded: the package index cannot be reached; check the network and try again.",
        ),
        (
            "ERROR: No matching distribution found for uvloop==0.21; python_version < '4' (from -r /t (line 1))",
            "x 1.0 could not be downloaded: the package index has no ready-made wheel of uvloop 0.21; bring it.",
        ),
        ("ERROR: first\nERROR: It broke.\n", "x 1.0 could not be downloaded: It broke."),
        ("", "x 1.0 could not be downloaded: pip did not say why."),
    ],
)
def test_what_pip_says_becomes_one_sentence(said: str, sentence: str) -> None:
    assert why_not(said, "x 1.0", "bring it") == sentence


@pytest.mark.live
def test_a_bundle_that_is_told_to_end_leaves_no_compiler_and_no_folder(tmp_path: Path, isolated: Path) -> None:
    """A pip is played that starts a compiler in a group of its own, as ninja does, and never ends."""
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip/__init__.py").touch()
    (tmp_path / "pip/__main__.py").write_text(
        "import os, subprocess, time\n"
        "compiler = subprocess.Popen(['sleep', '60'], process_group=0)\n"
        "open(os.environ['TMPDIR'] + '/object', 'w')\n"
        f"with open({str(tmp_path / 'told')!r}, 'w') as told: told.write(str(compiler.pid))\n"
        "time.sleep(60)\n"
    )
    os.mkfifo(tmp_path / "told")
    told = os.open(tmp_path / "told", os.O_RDWR)
    command = [sys.executable, "-m", "appliance", "bundle", "create", "--without-model", "-o", tmp_path / "b.tar"]
    ours = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(tmp_path)}, stderr=subprocess.PIPE, text=True)
    assert select.select([told], [], [], 30)[0]
    compiler = psutil.Process(int(os.read(told, 20)))
    assert list(isolated.rglob("object")) != []
    ours.send_signal(signal.SIGTERM)
    said = ours.communicate(timeout=30)[1]
    assert (ours.returncode, said.splitlines()[-1]) == (130, "Interrupted; no bundle was written.")
    assert not compiler.is_running() or compiler.status() == psutil.STATUS_ZOMBIE
    assert [path.name for path in isolated.rglob("*") if path.is_file()] == ["build.log"]
    assert list((isolated / "cache").iterdir()) == [isolated / "cache/wheels"]


@pytest.mark.live
def test_what_outlived_its_own_parent_is_ended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pip is played that starts one thing after the other, as make does; each leaves a compiler behind."""
    kept: list[int] = []

    class Played(subprocess.Popen[str]):
        def __init__(self, _: object, **how: object) -> None:
            script = "sh -c 'while :; do sh -c \"sleep 60 & sleep 0.01\"; echo; done' & wait"
            super().__init__(["sh", "-c", script], **how)  # type: ignore[call-overload]

        def communicate(self, *_: object, **__: object) -> tuple[str, str]:
            assert self.stdout is not None
            for _ in range(5):
                self.stdout.readline()
            kept.append(os.dup(self.stdout.fileno()))
            raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Played)
    with pytest.raises(KeyboardInterrupt):
        pip.run("wheel", beside=tmp_path, log=subprocess.PIPE)  # type: ignore[arg-type]
    while select.select(kept, [], [], 5)[0]:
        if os.read(kept[0], 1000) == b"":  # nobody is left who could write
            break
    else:
        pytest.fail("something of it is still alive")
    os.close(kept[0])
