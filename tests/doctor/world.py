"""A network of one's own: a box behind a gateway, and behind that the clouds, their status page and some name servers.

Two network namespaces and a cable between them. Which of the name servers the box asks decides what it finds: each
tells another story. Needs root and Linux; `missing()` says what is not there.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from appliance.doctor import path
from appliance.doctor.blame import whose
from appliance.doctor.checks.names import Lookup
from appliance.doctor.sight import clouds, resolver, visit
from appliance.drills.certificate import Authority, Certificate
from appliance.upstreams import of_environment

API, STATUS = "api.openai.com", "status.openai.com"
KEY, HEARD = "sk-of-this-world", "heard"
GATEWAY, BOX = "10.77.0.1", "10.77.0.2"
HEALTHY, EXPIRED, FAILING, REFUSING, PORTAL, SLOW, WELL_PAGE, ILL_PAGE = (f"203.0.113.{n}" for n in range(10, 18))
LOST = "203.0.113.99"  # nobody has it, and nobody says so

STORIES: dict[str, dict[str, str | None]] = {  # of a name server each: an address, an rcode, or None for silence
    "well": {API: HEALTHY, STATUS: WELL_PAGE},
    "expired": {API: EXPIRED, STATUS: WELL_PAGE},
    "failing": {API: FAILING, STATUS: ILL_PAGE},
    "refusing": {API: REFUSING, STATUS: WELL_PAGE},
    "spoofed": {"*": PORTAL},
    "broken": {"*": "SERVFAIL"},
    "silent": {"*": None},
    "lost": {API: LOST, STATUS: WELL_PAGE},
    "portal": {API: PORTAL, STATUS: PORTAL},
    "blocked": {API: "127.0.0.1", STATUS: "127.0.0.1"},
    "mute": {API: SLOW, STATUS: WELL_PAGE},
    "unknown": {},
}
SERVERS = {story: f"10.77.0.{number}" for number, story in enumerate(STORIES, 11)}
BREAKS = {  # of the box itself, in the story of "well"; each stays broken, so the order matters
    "no gateway": "ip route del default",
    "cable out": "ip link set eth0 down",
}

MODELS = (200, {"content-type": "application/json"}, b'{"object": "list", "data": []}')
ERRORS = {
    FAILING: (
        529,
        {"content-type": "application/json"},
        b'{"error": {"message": "Overloaded", "type": "server_error"}}',
    ),
    REFUSING: (
        401,
        {"content-type": "application/json"},
        b'{"error": {"message": "Incorrect API key provided.", "type": "x", "code": "invalid_api_key"}}',
    ),
    PORTAL: (302, {"content-type": "text/html", "location": "http://login.hotel.example/"}, b"<html>Welcome</html>"),
}


def page(indicator: str, description: str, *incidents: str) -> bytes:
    status = {"indicator": indicator, "description": description}
    return json.dumps({"status": status, "incidents": [{"name": name} for name in incidents]}).encode()


PAGES = {
    WELL_PAGE: page("none", "All Systems Operational"),
    ILL_PAGE: page("major", "Partial System Outage", "Elevated errors on the API"),
}


def missing() -> str | None:
    """Why there can be none on this machine, if there cannot."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if lacking := [name for name in ("ip", "unshare", "mount") if shutil.which(name) is None]:
        return f"{', '.join(lacking)} is not installed"
    if subprocess.run(["unshare", "-n", "-m", "true"], capture_output=True).returncode:
        return "network namespaces may not be made here"
    return None


@contextmanager
def world(here: Path) -> Iterator[list[str]]:
    """Gives the beginning of a command that is to run on the box of that world; its resolv.conf is in `here`."""
    net, box = f"doctor-net-{os.getpid()}", f"doctor-box-{os.getpid()}"
    setup = f"""
        ip netns add {net}
        ip netns add {box}
        ip -n {box} link add eth0 type veth peer name eth0 netns {net}
        ip -n {net} link set lo up
        ip -n {box} link set lo up
        ip -n {net} addr add {GATEWAY}/24 dev eth0
        ip -n {box} addr add {BOX}/24 dev eth0
        ip -n {net} link set eth0 up
        ip -n {box} link set eth0 up
        ip -n {box} route add default via {GATEWAY}
    """
    addresses = [*SERVERS.values(), HEALTHY, EXPIRED, FAILING, REFUSING, PORTAL, SLOW, WELL_PAGE, ILL_PAGE]
    more = [f"ip -n {net} addr add {address}/32 dev lo" for address in addresses]
    resolv = here / "resolv.conf"
    resolv.write_text("")
    try:
        for line in [
            *filter(None, map(str.strip, setup.splitlines())),
            *more,
            f"ip -n {net} route add blackhole {LOST}",
        ]:
            subprocess.run(line.split(), check=True, capture_output=True)
        servers = subprocess.Popen(
            ["ip", "netns", "exec", net, sys.executable, "-m", "tests.doctor.world", "serve", str(here)],
            stdout=subprocess.PIPE,
        )
        try:
            assert servers.stdout is not None and servers.stdout.readline() == b"open\n"
            mounted = f'mount --bind {resolv} /etc/resolv.conf && exec "$@"'
            yield ["ip", "netns", "exec", box, "unshare", "-m", "sh", "-c", mounted, "box"]
        finally:
            servers.kill()
            servers.communicate()
    finally:
        for name in (net, box):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


# ------------------------------------------------------------------------------------------- behind the gateway


class Names(asyncio.DatagramProtocol):
    """A name server with a story."""

    def __init__(self, story: dict[str, str | None]) -> None:
        self._story = story

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        question = dns.message.from_wire(data)
        name = question.question[0].name.to_text(omit_final_dot=True)
        told = self._story.get(name, self._story.get("*", "NXDOMAIN"))
        if told is None:
            return
        answer = dns.message.make_response(question, recursion_available=True)
        if told.isalpha():
            answer.set_rcode(dns.rcode.from_text(told))
        elif question.question[0].rdtype == dns.rdatatype.A:
            answer.answer.append(dns.rrset.from_text(name + ".", 60, "IN", "A", told))
        self._transport.sendto(answer.to_wire(), addr)  # type: ignore[attr-defined]


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: tuple | None, here: Path) -> None:
    try:
        question = await reader.readuntil(b"\r\n\r\n")
        with (here / HEARD).open("ab") as heard:
            heard.write(question)
        if reply is None:
            await asyncio.sleep(3600)
        status, headers, body = reply
        said = {"content-length": str(len(body)), "date": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())}
        lines = [f"HTTP/1.1 {status} X", *(f"{k}: {v}" for k, v in {**said, **headers}.items())]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await writer.drain()
    except (OSError, EOFError):
        pass
    finally:
        writer.close()


def context(certificate: Certificate, here: Path) -> ssl.SSLContext:
    file = here / "chain.pem"
    file.write_text(certificate.key_pem + certificate.pem)
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.load_cert_chain(file)
    return found


async def serve(here: Path) -> None:
    ours, hotel = Authority("World Authority"), Authority("Hotel Gateway")
    (here / "ca.pem").write_text(ours.pem)
    right = context(ours.vouch(API, STATUS), here)
    contexts = {
        EXPIRED: context(ours.vouch(API, expired=True), here),
        PORTAL: context(hotel.vouch("hotel.example"), here),
    }
    bodies = {address: (200, MODELS[1], body) for address, body in PAGES.items()}
    replies = {HEALTHY: MODELS, EXPIRED: MODELS, SLOW: None, **ERRORS, **bodies}
    for address, reply in replies.items():

        async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: tuple | None = reply) -> None:
            await answer(reader, writer, reply, here)

        await asyncio.start_server(met, address, 443, ssl=contexts.get(address, right))
        await asyncio.start_server(met, address, 80)
    loop = asyncio.get_running_loop()
    for story, address in SERVERS.items():
        await loop.create_datagram_endpoint(lambda told=STORIES[story]: Names(told), local_addr=(address, 53))
    print("open", flush=True)
    await asyncio.sleep(3600)


# --------------------------------------------------------------------------------------------------- on the box


async def look(here: Path) -> dict[str, Any]:
    """What doctor finds of the network in each story. It waits less than it would: here nothing is far."""
    resolver.SECONDS, visit.CONNECT, visit.ANSWER, visit.TUNNEL, visit.HANDSHAKE = 1.0, 1.0, 1.0, 1.0, 1.0
    environ = {"OPENAI_API_KEY": KEY, "SSL_CERT_FILE": str(here / "ca.pem")}
    upstreams, _ = of_environment(environ)
    found = {}
    for story in (*STORIES, *BREAKS):
        (here / "resolv.conf").write_text(f"nameserver {SERVERS.get(story, SERVERS['well'])}\n")
        (here / HEARD).write_bytes(b"")
        if story in BREAKS:
            visit.look_up = known  # type: ignore[assignment]
            subprocess.run(BREAKS[story].split(), check=True)  # noqa: ASYNC221 - nothing else runs
        seen = await clouds.look(upstreams, environ)
        about = path.around(seen, datetime.now(UTC))
        sections = [path.judge(cloud, about) for cloud in seen]
        found[story] = {
            "whose": whose(sections),
            "findings": [(one.layer, one.state) for one in sections[0].findings],
            "heard": KEY.encode() in (here / HEARD).read_bytes(),
        }
    return found


async def known(host: str, port: int, *, public: bool) -> Lookup:
    """As if the name had been looked up a moment ago: the server that knows it is behind the same cable."""
    return Lookup(host=host, found=(HEALTHY,), public=public)


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    if sys.argv[1] == "serve":
        asyncio.run(serve(folder))
    else:
        print(json.dumps(asyncio.run(look(folder))))
