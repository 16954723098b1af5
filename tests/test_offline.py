"""A box without clouds sends nothing anywhere: not when it starts, not when it answers, not when it is looked at.

Shown by a capture, in a network of its own where every attempt to leave would go out and be seen (bench/nowhere.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.live
NOWHERE = Path(__file__).parents[1] / "bench/nowhere.py"
LEFT, NO_NETWORK = 3, 4
A_DAY = """
import http.client, json, re, subprocess, sys
appliance = [sys.executable, "-m", "appliance"]
service = subprocess.Popen([*appliance, "serve", "--port", "0"], stdout=subprocess.PIPE, text=True)
for line in service.stdout:
    if "http://127.0.0.1:" in line:
        port = int(re.search(r"127.0.0.1:(\\d+)", line)[1])
    if "ready in" in line:
        break
ask = {"model": "local", "stream": True, "max_tokens": 4, "messages": [{"role": "user", "content": "Say hello."}]}
cable = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
for method, path, body in (("POST", "/v1/chat/completions", json.dumps(ask)), ("GET", "/v1/models", None)):
    cable.request(method, path, body, {"content-type": "application/json"})
    answer = cable.getresponse()
    print(path, answer.status, "[DONE]" in answer.read().decode(), flush=True)
for words in (["models", "list"], ["models", "verify"], ["doctor"]):
    done = subprocess.run([*appliance, *words], capture_output=True, text=True)
    print(*words, done.returncode < 64, done.stderr[-300:] if done.returncode >= 64 else "", flush=True)
service.terminate()
print("ended", service.wait(60), flush=True)
"""


def nowhere(*command: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run this where nothing can be reached, or skip where that cannot be had."""
    if os.geteuid() != 0:
        pytest.skip("only root may have a network namespace of its own")
    environ = {**os.environ, "APPLIANCE_HOME": str(home)}
    run = subprocess.run(
        [sys.executable, str(NOWHERE), *command], capture_output=True, text=True, env=environ, timeout=120
    )
    if run.returncode == NO_NETWORK:
        pytest.skip(run.stderr.splitlines()[-1])
    if "nothing is proven" in run.stderr:
        pytest.skip("the capture does not see its own packets here")
    return run


def test_a_box_without_clouds_sends_nothing_out(isolated: Path, starter_gguf: Path) -> None:
    (isolated / "models").mkdir()
    (isolated / "models" / starter_gguf.name).symlink_to(starter_gguf)
    run = nowhere(sys.executable, "-c", A_DAY, home=isolated)
    assert run.stdout.splitlines() == [
        "/v1/chat/completions 200 True",
        "/v1/models 200 False",
        "models list True ",
        "models verify True ",
        "doctor True ",
        "ended 0",
    ]
    assert "nowhere: 0 packets left; three of our own were seen" in run.stderr
    assert run.returncode == 0


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ("socket.getaddrinfo('example.org', 443)", "udp to 192.0.2.1 port 53"),
        ("socket.create_connection(('198.51.100.7', 443), 0.2)", "tcp to 198.51.100.7 port 443"),
        ("socket.create_connection(('2001:db8:7::7', 443), 0.2)", "tcp to 2001:db8:7::7 port 443"),
    ],
)
def test_whoever_tries_to_leave_is_seen(isolated: Path, code: str, seen: str) -> None:
    run = nowhere(sys.executable, "-c", f"import socket; {code}", home=isolated)
    assert f"x {seen}" in run.stderr
    assert run.returncode == LEFT
