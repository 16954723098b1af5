"""Walk a Dockerfile's steps in a Debian chroot, where there is no container engine. Root only.

    debootstrap --variant=minbase --include=ca-certificates,LIBRARIES bookworm BASE
    python bench/dockerfile.py build BASE WORK [--python FOLDER] [--wheels FOLDER] [--file Dockerfile]
    python bench/dockerfile.py run WORK models pull starter             as "docker run IMAGE models pull starter"
    python bench/nowhere.py python bench/dockerfile.py ask WORK         serve, be healthy, answer, end; offline

Every stage begins as a copy of BASE with the Python of FOLDER (bin, include, lib) as its /usr/local, which is what the
images of Python are. RUN, COPY, ENV, ARG, WORKDIR and USER are carried out in order, a bind mount of another stage too.
`--wheels` is offered to pip in every step, so that a wheel that is there is not compiled again. WORK/runtime is then
what the image would be, and WORK/runtime.json what the engine would keep beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
MOUNT = re.compile(r"--mount=type=bind,from=(\w+),source=(\S+),target=(\S+)\s+")


def instructions(text: str) -> list[tuple[str, str]]:
    """Each word with its rest, continuation lines joined."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [
        (word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())
    ]


class Stage:
    """A root folder, and what the steps so far have set."""

    def __init__(self, root: Path, wheels: Path | None) -> None:
        self.root, self.folder, self.user, self._wheels = root, "/", "", wheels
        self.environ = {"PATH": PATH}
        self.arguments: dict[str, str] = {}

    def run(self, command: str, mounts: dict[Path, str]) -> None:
        if self._wheels:
            mounts = {**mounts, self._wheels: "/ready"}
        places = [(source, self.root / target.lstrip("/")) for source, target in mounts.items()]
        for source, place in places:
            place.mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", "--bind", source, place], check=True)
        environ = {"HOME": "/root", **self.arguments, **self.environ}
        if self._wheels:
            environ["PIP_FIND_LINKS"] = "/ready"
        try:
            who = [f"--userspec={self.user}"] if self.user else []
            line = f"cd {shlex.quote(self.folder)} && {command}"
            subprocess.run(["chroot", *who, self.root, "/bin/sh", "-c", line], env=environ, check=True)
        finally:
            for _, place in reversed(places):
                subprocess.run(["umount", place], check=True)
                place.rmdir()

    def copy(self, rest: str) -> None:
        *sources, target = rest.split()
        place = self.root / self.folder.lstrip("/") / target
        for source in (ROOT / one for one in sources):
            if source.is_dir():
                shutil.copytree(
                    source, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.gguf")
                )
            else:
                shutil.copy(source, place / source.name)


def begin(base: Path, root: Path, python: Path | None) -> None:
    subprocess.run(["cp", "--archive", "--reflink=auto", base, root], check=True)
    if not python:
        return
    for name in ("bin", "include", "lib"):
        shutil.copytree(python / name, root / "usr/local" / name, symlinks=True, dirs_exist_ok=True)
    for script in (root / "usr/local/bin").iterdir():  # pip names the Python that it was installed for
        if (
            script.is_file()
            and not script.is_symlink()
            and (text := script.read_bytes()).startswith(b"#!" + bytes(python))
        ):
            script.write_bytes(b"#!/usr/local/bin/python3\n" + text.partition(b"\n")[2])
    subprocess.run(["chroot", root, "/sbin/ldconfig"], check=True)


def walk(file: Path, base: Path, work: Path, python: Path | None, wheels: Path | None) -> None:
    stages: dict[str, Stage] = {}
    stage = Stage(base, None)
    kept: dict[str, Any] = {}
    defaults: dict[str, str] = {}
    for word, rest in instructions(file.read_text("utf-8")):
        print(f"== {word} {rest[:150]}", flush=True)
        began = time.monotonic()
        if word == "FROM":
            name = re.split(r"\s+AS\s+", rest)[1]
            begin(base, work / name, python)
            stage = stages[name] = Stage(work / name, wheels)
        elif word == "ARG":
            name, _, value = rest.partition("=")
            (stage.arguments if stages else defaults)[name] = value.strip('"') or defaults.get(name, "")
        elif word == "ENV":
            for pair in shlex.split(rest):
                name, _, value = pair.partition("=")
                stage.environ[name] = value.replace("$PATH", stage.environ["PATH"])
        elif word == "WORKDIR":
            stage.folder = rest
            (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            stage.user = rest
        elif word == "COPY":
            stage.copy(rest)
        elif word == "RUN":
            mounts = {stages[one].root / source.lstrip("/"): target for one, source, target in MOUNT.findall(rest)}
            stage.run(MOUNT.sub("", rest), mounts)
        elif word == "HEALTHCHECK":
            kept["health"] = json.loads(rest.partition("CMD ")[2])
        elif word in ("ENTRYPOINT", "CMD"):
            kept[word.lower()] = json.loads(rest)
        print(f"   [{time.monotonic() - began:.1f} s]", flush=True)
    kept |= {"environ": stage.environ, "user": stage.user, "folder": stage.folder}
    (work / "runtime.json").write_text(json.dumps(kept))


@contextlib.contextmanager
def container(work: Path) -> Iterator[tuple[dict[str, Any], Callable[..., subprocess.Popen[bytes]]]]:
    """What the image keeps, and how a program is started in it: with its user, its environment and its folder."""
    kept = json.loads((work / "runtime.json").read_text())
    root = work / "runtime"
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)

    def start(command: list[str], **streams: int) -> subprocess.Popen[bytes]:
        line = f"cd {shlex.quote(kept['folder'])} && exec {shlex.join(command)}"
        words = ["chroot", f"--userspec={kept['user']}", str(root), "/bin/sh", "-c", line]
        return subprocess.Popen(words, env={"HOME": kept["folder"], **kept["environ"]}, **streams)

    try:
        yield kept, start
    finally:
        subprocess.run(["umount", root / "proc"], check=True)


def ask(work: Path) -> int:
    """The service of the image from its start to its end; 0 if all of it went as it should."""
    with container(work) as (kept, start):
        service = start([*kept["entrypoint"], *kept["cmd"]])
        try:
            for _ in range(120):
                if start(kept["health"], stderr=subprocess.DEVNULL).wait() == 0:
                    break
                time.sleep(1)
            print("healthy", flush=True)
            body = {
                "model": "local",
                "stream": True,
                "max_tokens": 12,
                "messages": [{"role": "user", "content": "Hello!"}],
            }
            cable = http.client.HTTPConnection("127.0.0.1", 8484, timeout=120)
            cable.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
            answer = cable.getresponse().read().decode()
            words = [
                json.loads(line[6:])["choices"][0]["delta"].get("content")
                for line in answer.split("\n")
                if line[:7] == "data: {"
            ]
            print(
                "answered",
                repr("".join(filter(None, words))),
                "whole" if "data: [DONE]" in answer else "cut",
                flush=True,
            )
            owner = Path(f"/proc/{service.pid}").stat().st_uid
        finally:
            service.terminate()
            code = service.wait(60)
        print(f"as user {owner}, ended with {code}", flush=True)
        return 0 if code == 0 and "data: [DONE]" in answer and owner == int(kept["user"].partition(":")[0]) else 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    build = verbs.add_parser("build")
    build.add_argument("base", type=Path)
    build.add_argument("work", type=Path)
    build.add_argument("--python", type=Path)
    build.add_argument("--wheels", type=Path)
    build.add_argument("--file", type=Path, default=ROOT / "Dockerfile")
    run = verbs.add_parser("run")
    run.add_argument("work", type=Path)
    run.add_argument("command", nargs=argparse.REMAINDER)
    verbs.add_parser("ask").add_argument("work", type=Path)
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("dockerfile: only root may use chroot")
    if args.verb == "build":
        args.work.mkdir(parents=True)
        walk(args.file, args.base, args.work, args.python, args.wheels)
    elif args.verb == "run":
        with container(args.work) as (kept, start):
            sys.exit(start([*kept["entrypoint"], *(args.command or kept["cmd"])]).wait())
    else:
        sys.exit(ask(args.work))


if __name__ == "__main__":
    main()
