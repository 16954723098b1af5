"""The way from a fresh clone to a running box: the scripts, with a Python that only pretends to install."""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import progress

ROOT = Path(__file__).parents[1]
SCRIPTS = ("scripts/run", "scripts/test", "scripts/check", "scripts/setup", ".ci/run")

# Stands for any Python: makes a venv with itself inside, and writes down what pip is asked.
PRETENDER = """#!/bin/sh
case "$*" in
  *ensurepip*) exit ${NO_VENV:-0} ;;
  *version_info*) exit ${TOO_OLD:-0} ;;
  *find_spec*) exit ${NOT_BUILT:-0} ;;
  "-m venv --clear "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
  *"pip cache"*) exit 1 ;;
  *"pip uninstall"*) echo "uninstall" >> "$ASKED" ;;
  *"pip install"*) echo "$*" >> "$ASKED"; echo "Installing collected packages: a, b"; exit ${PIP_EXIT:-0} ;;
  *progress.py*) exec "$REAL_PYTHON" "$@" ;;
  *) echo "Python 3.99" ;;
esac
"""


class Clone:
    """A fresh clone without .venv, on a machine whose only Python is the pretender."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "clone"
        self.asked = folder / "asked"
        self.path = folder / "bin"
        (self.root / "scripts").mkdir(parents=True)
        self.path.mkdir()
        for script in (*SCRIPTS[:4], "scripts/progress.py", "pyproject.toml"):
            shutil.copy(ROOT / script, self.root / script)
        for tool in "bash cat cp cut dirname env getconf grep mkdir rm sed sh tail".split():
            (self.path / tool).symlink_to(shutil.which(tool) or tool)

    def program(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)
        (self.path / name).chmod(0o755)

    def run(self, script: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.root / script, *arguments],
            env={"PATH": str(self.path), "ASKED": str(self.asked), "REAL_PYTHON": sys.executable, **environ},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
        )

    @property
    def pip(self) -> list[str]:
        """What pip was asked for, from the first option that matters on."""
        lines = self.asked.read_text().splitlines() if self.asked.exists() else []
        return [line.partition("--disable-pip-version-check ")[2] or line for line in lines]


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    fresh = Clone(tmp_path)
    fresh.program("python3", PRETENDER)
    return fresh


def test_setup_makes_a_venv_and_installs_the_project(clone: Clone) -> None:
    done = clone.run("scripts/setup")
    assert (done.returncode, done.stdout) == (0, "")
    assert clone.pip == [f"--editable {clone.root}"]
    assert "installing 2 packages" in done.stderr


def test_setup_is_silent_and_does_nothing_when_nothing_has_changed(clone: Clone) -> None:
    clone.run("scripts/setup", "test")
    for arguments in (["test"], []):
        again = clone.run("scripts/setup", *arguments)
        assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert clone.pip == [f"--editable {clone.root}[test]"]


def test_setup_installs_again_when_the_project_file_has_changed(clone: Clone) -> None:
    clone.run("scripts/setup", "test")
    with (clone.root / "pyproject.toml").open("a") as file:
        file.write("# another day\n")
    clone.run("scripts/setup")
    clone.run("scripts/setup", "test")
    assert clone.pip == [f"--editable {clone.root}[test]", f"--editable {clone.root}", f"--editable {clone.root}[test]"]


def test_setup_says_first_that_llama_cpp_will_be_compiled(clone: Clone) -> None:
    clone.program("c++", "#!/bin/sh\n")
    done = clone.run("scripts/setup", NOT_BUILT="1")
    assert done.returncode == 0
    assert "8.5 minutes on 2 cores" in done.stderr


def test_own_compiler_flags_are_not_served_from_the_cache_and_stay(clone: Clone) -> None:
    clone.program("c++", "#!/bin/sh\n")
    clone.run("scripts/setup")
    clone.run("scripts/setup", CMAKE_ARGS="-DGGML_CUDA=ON")
    assert clone.pip[1:] == ["uninstall", f"--no-cache-dir --editable {clone.root}"]
    for environ in ({}, {"CMAKE_ARGS": "-DGGML_CUDA=ON"}):
        clone.run("scripts/setup", **environ)
    assert len(clone.pip) == 3


def test_a_failed_installation_names_the_log_and_is_tried_again(clone: Clone) -> None:
    failed = clone.run("scripts/setup", PIP_EXIT="1")
    log = clone.root / ".venv/install.log"
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].endswith(f"the whole story is in {log}")
    assert "Installing collected packages" in log.read_text()
    assert clone.run("scripts/setup").returncode == 0
    assert len(clone.pip) == 2


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"TOO_OLD": "1"}, "no Python 3.11 or newer was found"),
        ({"NO_VENV": "1"}, "python3 has no venv module; install it"),
        ({"NOT_BUILT": "1"}, "no C++ compiler was found, and llama.cpp has to be compiled; install one"),
    ],
)
def test_what_a_machine_lacks_is_said_in_one_sentence(clone: Clone, environ: dict[str, str], sentence: str) -> None:
    done = clone.run("scripts/run", **environ)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("setup: ")
    assert sentence in done.stderr.splitlines()[-1]
    assert clone.pip == []


# Stands for the installed program; its model store is a folder beside it, and it has no network.
APPLIANCE = """#!/bin/sh
echo "$$ $*" >> "$ASKED"
case "$1 $2" in "models path") echo "$MODEL" ;; "models pull") exit 1 ;; esac
"""


def asked_of_the_appliance(clone: Clone, model: Path, *arguments: str) -> tuple[int, list[str], bool]:
    """Exit code of scripts/run, what the program was asked, and whether the last was asked in the same process."""
    clone.run("scripts/setup")
    clone.asked.unlink()
    program = clone.root / ".venv/bin/appliance"
    program.write_text(APPLIANCE)
    program.chmod(0o755)
    environ = {"PATH": str(clone.path), "ASKED": str(clone.asked), "MODEL": str(model)}
    with subprocess.Popen([clone.root / "scripts/run", *arguments], env=environ, stderr=subprocess.DEVNULL) as running:
        code = running.wait(timeout=30)
    lines = [line.partition(" ") for line in clone.asked.read_text().splitlines()]
    return code, [line[2] for line in lines], int(lines[-1][0]) == running.pid


def test_run_fetches_the_starter_once_and_becomes_the_service(clone: Clone, tmp_path: Path) -> None:
    model = tmp_path / "starter.gguf"
    first = asked_of_the_appliance(clone, model, "--port", "9")
    assert first == (0, ["models path starter", "models pull starter", "serve --port 9"], True)
    model.touch()
    again = asked_of_the_appliance(clone, model, "--port", "9")
    assert again == (0, ["models path starter", "serve --port 9"], True)


@pytest.mark.parametrize("arguments", [("--config", "my box.toml"), ("--config=my box.toml",)])
def test_run_looks_for_the_starter_where_the_configuration_says(
    clone: Clone, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    _, asked, _ = asked_of_the_appliance(clone, tmp_path / "starter.gguf", *arguments)
    told = " ".join(arguments)
    assert asked == [f"models path starter {told}", f"models pull starter {told}", f"serve {told}"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_can_be_started_and_parses(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    assert (ROOT / script).read_text().startswith("#!/usr/bin/env bash\n")
    assert subprocess.run(["bash", "-n", ROOT / script], capture_output=True).stderr == b""


def test_ci_runs_the_tests_and_nothing_else() -> None:
    assert (ROOT / ".ci/run").read_text().splitlines()[1:] == ["exec ./scripts/test"]


STORY = """\
Collecting llama-cpp-python
  Downloading llama_cpp_python-0.3.36.tar.gz (76.6 MB)
  Building wheel for llama-cpp-python (pyproject.toml): started
  [1/20] /usr/bin/g++ -DGGML_BUILD
  [2/20] /usr/bin/g++ -DGGML_BUILD
  [3/20] /usr/bin/g++ -DGGML_BUILD
  [20/20] /usr/bin/g++ -shared
Installing collected packages: a, b, c
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_each_tenth_of_the_compilation_is_a_line() -> None:
    log, screen = io.StringIO(), io.StringIO()
    progress.follow(io.StringIO(STORY), log, screen)
    assert log.getvalue() == STORY
    assert screen.getvalue().splitlines() == [
        "  downloading llama_cpp_python-0.3.36.tar.gz (76.6 MB)",
        "  compiling llama-cpp-python",
        "  compiling  10 %  0:00",
        "  compiling 100 %  0:00",
        "  installing 3 packages",
    ]


def test_on_a_terminal_one_line_is_written_over() -> None:
    screen = Terminal()
    progress.follow(io.StringIO(STORY), io.StringIO(), screen)
    line = screen.getvalue().splitlines(keepends=True)
    assert screen.getvalue().count("\r") == 4
    assert "\r  compiling [###...........................]  10 %  0:00 \r" in screen.getvalue()
    assert line[-1] == "  installing 3 packages\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [("  [16/193] g++", 8), ("[ 43%] Building CXX object", 43), ("[100%] Built", 100), ("-- [1] x", None), ("", None)],
)
def test_ninja_and_make_both_tell_how_far_they_are(line: str, expected: int | None) -> None:
    assert progress.percent(line) == expected
