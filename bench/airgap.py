"""From one file to a streamed answer, in a network that leads nowhere: every command as a person would type it.

    python bench/nowhere.py python bench/airgap.py BUNDLE.tar           root; on a box with Python and curl
    python bench/nowhere.py python bench/airgap.py BUNDLE.tar --root FOLDER     inside a chroot, as user 8484

Unpacks and installs with `sh install.sh`, serves, asks with curl, and installs the same file again as an upgrade, while
the first one serves. Prints a transcript; exit code 0 if every command did what it should. `nowhere.py` adds what left.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PORT = 8497
ASK = (
    f"curl -sN http://127.0.0.1:{PORT}/v1/chat/completions -H 'content-type: application/json' -d "
    '\'{"model": "local", "stream": true, "max_tokens": 12, "messages": [{"role": "user", "content": "Say hello."}]}\''
)


class Shell:
    """Where the commands are typed, in an environment with nothing of ours in it."""

    def __init__(self, home: Path, root: str | None) -> None:
        self.home, self._inside = home, ["chroot", "--userspec=8484:8484", root] if root else []
        self._environ = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}

    def type(self, line: str, *, shown: int = 12) -> str:
        print(f"$ {line}", flush=True)
        began = time.monotonic()
        run = subprocess.run(self.words(line), env=self._environ, capture_output=True, text=True, check=False)
        said = (run.stdout + run.stderr).rstrip().splitlines()
        for text in said[:shown] + [f"... {len(said) - shown} more lines"] * (len(said) > shown):
            print(f"  {text}")
        print(f"  [{run.returncode}, {time.monotonic() - began:.1f} s]", flush=True)
        if run.returncode != 0:
            sys.exit("airgap: that should have worked")
        return run.stdout

    def words(self, line: str) -> list[str]:
        return [*self._inside, "sh", "-c", f"cd {shlex.quote(str(self.home))} && {line}"]

    def start(self, line: str) -> subprocess.Popen[str]:
        print(f"$ {line} &", flush=True)
        return subprocess.Popen(self.words(f"exec {line}"), env=self._environ)


def walk(shell: Shell, bundle: str) -> None:
    shell.type(f"tar xf {bundle}")
    shell.type("sh appliance-bundle-*/install.sh --prefix $HOME/appliance")
    shell.type("rm -r appliance-bundle-*")
    shell.type("appliance/bin/appliance models list", shown=4)
    service = shell.start(f"appliance/bin/appliance serve --port {PORT}")
    try:
        ready = f"curl -sf --retry 60 --retry-delay 1 --retry-all-errors http://127.0.0.1:{PORT}/readyz"
        shell.type(ready)
        before = shell.type(ASK)
        shell.type(f"appliance/bin/appliance bundle install {bundle}")
        shell.type("ls appliance/versions appliance/current/bin/appliance")
        after = shell.type(ASK, shown=2)
        if not all("data: [DONE]" in answer and '"content":' in answer for answer in (before, after)):
            sys.exit("airgap: that was no whole stream")
    finally:
        service.terminate()
        print(f"  [the service ended with {service.wait(60)}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--root", type=Path, help="a chroot with Python and curl in it")
    args = parser.parse_args()
    if not args.root:
        with tempfile.TemporaryDirectory() as scratch:
            return walk(Shell(Path(scratch), None), str(args.bundle.resolve()))
    inside = Path("/home/airgap")
    home = Path(f"{args.root}{inside}")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    shutil.copy(args.bundle, home / "appliance.tar")
    for path in (home, home / "appliance.tar"):
        os.chown(path, 8484, 8484)
    walk(Shell(inside, str(args.root)), f"{inside}/appliance.tar")


if __name__ == "__main__":
    main()
