"""A model hub on a real socket, that breaks as it is told.

It answers what huggingface-hub asks (HEAD and GET of ``/OWNER/REPO/resolve/REVISION/FILE``, the list of a repository)
and redirects every GET of a file to a path like those of its network of caches, where the bytes come from and where
they break.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import pytest
from huggingface_hub import constants

COMMIT = "c0ffee" + "0" * 34


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """What happens to one answer of the network of caches. `after` counts its bytes."""

    how: Literal["reset", "close", "silence", "status", "no range", "wrong range", "wrong length", "change"]
    after: int = 0
    status: int = 503


@dataclass
class FakeHub:
    files: dict[str, bytes] = field(default_factory=dict)
    breaks: deque[Break] = field(default_factory=deque)
    refusals: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    busy: int = 0
    """To how many questions it answers 503 first."""
    hashes: bool = True
    sizes: bool = True
    """Does it say them?"""
    over: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    sent: int = 0
    """Bytes of files, all answers together."""
    url: str = ""
    caches: str = ""
    """Where the bytes come from: another host, which must not see the token."""

    def put(self, name: str, content: bytes) -> str:
        """OWNER/REPO/FILE. Gives its hash."""
        self.files[name] = content
        return hashlib.sha256(content).hexdigest()

    def gets(self) -> list[str | None]:
        """The ranges that were asked for, of all answers that carried bytes."""
        return [headers.get("range") for method, path, headers in self.asked if path.startswith("/cache/")]


@contextmanager
def standing(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that listens, and an environment that says nothing of another."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy") or name.startswith("HF_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # it has read the environment already
    hub = FakeHub()
    with serve(hub) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield hub
        hub.over.set()
        server.shutdown()
        thread.join()


def serve(hub: FakeHub) -> ThreadingHTTPServer:
    """The hub's listener, ready to `serve_forever`."""

    class Listener(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def note(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            hub.asked.append((self.command, self.path, headers))

        def say(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            if "Content-Length" not in (headers or {}):
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.note()
            self.resolve()

        def do_GET(self) -> None:
            self.note()
            if self.path.startswith("/cache/"):
                self.bytes_of(self.path.removeprefix("/cache/"))
            elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/.*)?", self.path):
                self.list_of(match[1])
            else:
                self.resolve()

        def resolve(self) -> None:
            if hub.busy:
                hub.busy -= 1
                return self.say(503)
            match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
            assert match is not None, self.path
            repo, revision, file = match.groups()
            if repo in hub.refusals:
                return self.say(*hub.refusals[repo])
            if not any(name.startswith(repo + "/") for name in hub.files):
                return self.say(404, {"X-Error-Code": "RepoNotFound"})
            if revision not in ("main", COMMIT):
                return self.say(404, {"X-Error-Code": "RevisionNotFound"})
            content = hub.files.get(f"{repo}/{file}")
            if content is None:
                return self.say(404, {"X-Error-Code": "EntryNotFound"})
            mark = hashlib.sha256(content).hexdigest() if hub.hashes else "0123"
            size = {"X-Linked-Size": str(len(content))} if hub.sizes else {}
            where = {"Location": f"{hub.caches}/cache/{repo}/{file}"}
            self.say(302, {**where, **size, "X-Repo-Commit": COMMIT, "X-Linked-Etag": f'"{mark}"'})

        def list_of(self, repo: str) -> None:
            files = [name.removeprefix(repo + "/") for name in hub.files if name.startswith(repo + "/")]
            rows = [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in files]
            body: Any = rows if "/tree/" in self.path else {"id": repo, "siblings": [{"rfilename": f} for f in files]}
            self.say(200, {"Content-Type": "application/json"}, json.dumps(body).encode())

        def bytes_of(self, name: str) -> None:
            content = hub.files[name]
            fault = hub.breaks.popleft() if hub.breaks else None
            if fault and fault.how == "status":
                return self.say(fault.status)
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
            at = int(asked[1]) if asked and not (fault and fault.how == "no range") else 0
            shift = 1 if fault and fault.how == "wrong range" else 0
            total = len(content) + (7 if fault and fault.how == "wrong length" else 0)
            headers = {"Content-Length": str(total - at)}
            if at:
                headers["Content-Range"] = f"bytes {at + shift}-{len(content) - 1}/{total}"
            self.say(206 if at else 200, headers)
            end = min(at + fault.after, len(content)) if fault and fault.after else len(content)
            self.send(content[at:end])
            if fault and fault.how == "change":
                hub.files[name] = content[::-1]
            if end < len(content) or (fault and fault.how == "wrong length"):
                self.part(fault)

        def send(self, content: bytes) -> None:
            try:
                for start in range(0, len(content), 1 << 16):
                    self.wfile.write(chunk := content[start : start + (1 << 16)])
                    hub.sent += len(chunk)
            except OSError:  # whoever asked is gone
                self.close_connection = True

        def part(self, fault: Break | None) -> None:
            """The end of an answer that is not whole."""
            self.close_connection = True
            if fault and fault.how == "silence":
                hub.over.wait(30)
            if fault and fault.how == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # connections break here on purpose

    server = Server(("127.0.0.1", 0), Listener)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    hub.caches = f"http://localhost:{server.server_port}"
    return server
