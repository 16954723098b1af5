"""What can be known about the images without a container engine: the files, walked instruction by instruction."""

import ast
import json
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance import __version__
from appliance.config import ServerConfig
from appliance.store.manifest import BASELINES

ROOT = Path(__file__).parents[1]
FILES = ("Dockerfile", "Dockerfile.cuda")
[BASELINE] = [set(one.cmake) for one in BASELINES if one.name == "x86-64-v3"]  # what bundles are built for, too
STATE = "/var/lib/appliance"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    stage: str
    word: str
    rest: str


def steps(text: str) -> list[Step]:
    """The instructions, continuation lines joined, each with the stage it belongs to."""
    joined = re.sub(r"\\\n\s*", " ", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    found, stage = [], ""
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stage = re.split(r"\s+AS\s+", rest)[1]
        found.append(Step(stage=stage, word=word, rest=rest.strip()))
    return found


@pytest.fixture(params=FILES)
def image(request: pytest.FixtureRequest) -> list[Step]:
    return steps((ROOT / request.param).read_text())


def last(image: list[Step], word: str) -> str:
    return [step.rest for step in image if step.word == word and step.stage == "runtime"][-1]


def of(image: list[Step], word: str) -> list[str]:
    return [step.rest for step in image if step.word == word]


def test_only_known_instructions_are_used(image: list[Step]) -> None:
    known = set("ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL RUN STOPSIGNAL USER VOLUME WORKDIR".split())
    assert {step.word for step in image} <= known


def test_the_compiler_stays_in_the_builder(image: list[Step]) -> None:
    assert [step.stage for step in image if step.word == "FROM"] == ["builder", "runtime"]
    assert [step.stage for step in image if "build-essential" in step.rest] == ["builder"]
    assert [step.stage for step in image if "libgomp1" in step.rest] == ["runtime"]


def test_base_images_are_named_by_version(image: list[Step]) -> None:
    defaults = dict(rest.split("=", 1) for rest in of(image, "ARG") if "=" in rest)
    for rest in of(image, "FROM"):
        tag = re.sub(r"\$\{(\w+)\}", lambda found: defaults[found[1]], rest.split()[0]).partition(":")[2]
        assert re.search(r"\d+\.\d+", tag)


def test_whatever_is_copied_exists_and_is_let_through(image: list[Step]) -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for rest in of(image, "COPY") for source in rest.split()[:-1]}
    assert copied == let_through
    assert [source for source in copied if not (ROOT / source).exists()] == []


def test_the_image_can_build_the_wheel_from_what_is_copied(image: list[Step]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"}
    needed |= set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]) | {"appliance"}
    assert needed <= {source for rest in of(image, "COPY") for source in rest.split()[:-1]}


def test_the_baseline_is_stated_and_nothing_is_native(image: list[Step]) -> None:
    text = " ".join(step.rest for step in image)
    assert set(re.findall(r"-DGGML_(?!CUDA)\w+=\w+", text)) == BASELINE


def test_only_the_cuda_image_asks_for_cuda() -> None:
    asked = ["-DGGML_CUDA=ON" in (ROOT / file).read_text() for file in FILES]
    assert asked == [False, True]


def test_the_list_of_requirements_is_the_project_s(image: list[Step]) -> None:
    [command] = [step.rest for step in image if "requirements.txt" in step.rest and step.word == "RUN"]
    code = shlex.split(command)[2]
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert printed.splitlines() == project["dependencies"]


def test_a_finding_of_the_linter_is_passed_over_only_with_a_reason(
    image: list[Step], request: pytest.FixtureRequest
) -> None:
    lines = (ROOT / request.node.callspec.params["image"]).read_text().splitlines()
    passed_over = [number for number, line in enumerate(lines) if line.startswith("# hadolint ignore=")]
    reasons = {lines[number]: lines[number - 1] for number in reversed(passed_over)}
    assert sorted(reasons) == ["# hadolint ignore=DL3008", "# hadolint ignore=DL3013"]
    assert all(re.match(r"# \w+ .+\.$", reason) for reason in reasons.values())


def test_every_step_is_a_shell_command(image: list[Step]) -> None:
    for rest in of(image, "RUN"):
        command = re.sub(r"^(--mount=\S+\s+)+", "", rest)
        assert subprocess.run(["sh", "-n", "-c", command], capture_output=True).stderr == b""


def test_the_service_is_nobody_special(image: list[Step]) -> None:
    uid, _, gid = last(image, "USER").partition(":")
    assert int(uid) >= 1000
    assert uid == gid
    [made] = [step.rest for step in image if "useradd" in step.rest]
    assert f"--uid {uid} " in made
    order = [step.word for step in image if step.stage == "runtime"]
    assert order.index("USER") < order.index("VOLUME") < order.index("ENTRYPOINT")


def test_state_lies_in_the_volume(image: list[Step]) -> None:
    assert last(image, "VOLUME") == STATE
    assert f"APPLIANCE_HOME={STATE}" in last(image, "ENV").split()


def test_a_signal_reaches_the_service(image: list[Step]) -> None:
    assert last(image, "STOPSIGNAL") == "SIGTERM"
    assert json.loads(last(image, "ENTRYPOINT")) == ["appliance"]  # exec form: no shell between
    assert json.loads(last(image, "CMD")) == ["serve"]


def test_health_is_asked_of_the_service_itself(image: list[Step]) -> None:
    program, option, code = json.loads(last(image, "HEALTHCHECK").partition("CMD ")[2])
    assert (program, option) == ("python", "-c")
    constants = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
    assert {ServerConfig().host, ServerConfig().port, "/healthz", 200} <= set(constants)
    assert last(image, "EXPOSE") == str(ServerConfig().port)


def test_the_label_tells_the_version(image: list[Step]) -> None:
    assert f'org.opencontainers.image.version="{__version__}"' in last(image, "LABEL")


def test_no_secret_is_baked_in(image: list[Step]) -> None:
    named = " ".join(of(image, "ARG") + of(image, "ENV"))
    assert re.findall(r"(?i)key|token|secret|password", named) == []
