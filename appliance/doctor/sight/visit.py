"""Walks to an address layer by layer, on one connection, as far as it gets, and keeps what was seen of each.

Rules of this file:

1. Nothing is judged here. A layer that was not reached has no facts.
2. The question is one that costs nothing: `GET`, of a list of models or of a status page. It goes the way that the
   appliance's own requests go: by the same proxy, trusting the same authorities, with the same key.
3. A key is written only to who has proved to be the cloud; without TLS, only where the configuration says http.
4. Every layer has its time, and all of them together have `SECONDS`.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import h11

from appliance.backends.transport import NO_TLS, authorities
from appliance.core.address import authority
from appliance.core.chat import Headers
from appliance.core.offline import place
from appliance.doctor import certificate
from appliance.doctor.checks.http import Reply, Trouble
from appliance.doctor.checks.link import Way
from appliance.doctor.checks.names import Lookup
from appliance.doctor.checks.proxy import Tunnel
from appliance.doctor.checks.tcp import Knock, Outcome, most_telling
from appliance.doctor.checks.tls import Certificate, Handshake
from appliance.doctor.sight.links import way_to
from appliance.doctor.sight.resolver import look_up
from appliance.proxies import PORTS

SECONDS = 12.0
CONNECT, TUNNEL, HANDSHAKE, ANSWER, SECOND_LOOK = 3.0, 4.0, 4.0, 5.0, 2.0
HTTP_PORT = 80
ADDRESSES = 4  # of a name, knocked at together
BODY_LIMIT = 512 * 1024
_READ = 64 * 1024
URL_SIGNS = "%/:=&?~+!$,;'@()*[]"

_OUTCOMES: Mapping[int, Outcome] = {
    errno.ECONNREFUSED: "refused",
    errno.ETIMEDOUT: "silence",
    errno.ECONNRESET: "reset",
    errno.EPERM: "forbidden",
    errno.EACCES: "forbidden",
    **dict.fromkeys((errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN), "unreachable"),
}  # fmt: skip

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What to ask for, and by which way. ``public``: the host is a provider that everybody reaches."""

    url: str
    headers: Headers = field(default=(), repr=False)
    proxy: str | None = field(default=None, repr=False)
    ca: Path | None = None
    public: bool = False

    @property
    def host(self) -> str:
        return _host(self.url)

    @property
    def port(self) -> int:
        return _port(self.url)

    @property
    def authority(self) -> str:
        """Host and port as HTTP writes them."""
        return authority(self.host, None if self.port == PORTS[urlsplit(self.url).scheme] else self.port)

    @property
    def target(self) -> str:
        """What is asked for there."""
        parts = urlsplit(self.url)
        return quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=URL_SIGNS)

    @property
    def first(self) -> tuple[str, int]:
        """The first stop: host and port of the proxy, else of the address itself."""
        stop = self.proxy or self.url
        return _host(stop), _port(stop)

    @property
    def secure(self) -> bool:
        return self.url.startswith("https:")

    @property
    def here(self) -> bool:
        """Does it need no network?"""
        return place(self.url, self.proxy) is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """What was seen, from the bottom up. ``peek``: what answered without TLS where nobody could prove who he is, as a
    login page does."""

    goal: Goal
    lookup: Lookup | None = None
    way: Way | None = None
    knocks: tuple[Knock, ...] = ()
    tunnel: Tunnel | None = None
    handshake: Handshake | None = None
    reply: Reply | None = None
    peek: Reply | None = None

    @property
    def proven(self) -> bool:
        """Did somebody prove to be who was looked for?"""
        return self.handshake is not None and self.handshake.outcome == "ok"


class _Over(Exception):
    """It goes no further."""


class _Walker:
    def __init__(self, goal: Goal) -> None:
        self._goal = goal
        self._clock = asyncio.get_running_loop().time
        self._until = self._clock() + SECONDS
        self._streams: Streams | None = None
        self.walk = Walk(goal=goal)

    def _time(self, most: float) -> float:
        return max(0.2, min(most, self._until - self._clock()))

    def _saw(self, **facts: object) -> None:
        self.walk = replace(self.walk, **facts)  # type: ignore[arg-type]

    async def go(self) -> None:
        goal = self._goal
        host, port = goal.first
        try:
            with suppress(_Over):
                lookup = await look_up(host, port, public=goal.public and goal.proxy is None)
                self._saw(lookup=lookup, way=way_to(lookup.found, port, here=goal.here))
                await self._connect(lookup.found, port)
                if goal.proxy is not None:
                    await self._pass_proxy(urlsplit(goal.proxy).scheme, host)
                if goal.secure:
                    await self._prove(goal.host, ca=goal.ca)
                await self._ask()
            if goal.secure and goal.proxy is None and not self.walk.proven and self.walk.knocks:
                await self._peek()
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
        self._streams = None

    # --------------------------------------------------------------------------------------------- connecting

    async def _connect(self, addresses: Sequence[str], port: int) -> None:
        if not addresses:
            raise _Over
        tries = await asyncio.gather(*(self._knock(address, port) for address in addresses[:ADDRESSES]))
        self._saw(knocks=tuple(knock for knock, _ in tries))
        standing = sorted(((k, s) for k, s in tries if s is not None), key=lambda one: one[0].seconds)
        for _, (_, writer) in standing[1:]:
            writer.transport.abort()
        if not standing:
            raise _Over
        self._streams = standing[0][1]

    async def _knock(self, address: str, port: int) -> tuple[Knock, Streams | None]:
        began = self._clock()
        streams: Streams | None = None
        outcome: Outcome = "connected"
        try:
            async with asyncio.timeout(self._time(CONNECT)):
                streams = await asyncio.open_connection(address, port)
        except TimeoutError:
            outcome = "silence"
        except OSError as error:
            outcome = _OUTCOMES.get(error.errno or 0, "failed")
        return Knock(address=address, port=port, outcome=outcome, seconds=self._clock() - began), streams

    async def _pass_proxy(self, scheme: str, host: str) -> None:
        """Through the proxy to the cloud. A cloud without TLS is asked for in the question itself."""
        goal, began = self._goal, self._clock()
        at = f"{host}:{goal.first[1]}"
        if scheme == "https":
            await self._prove(host, ca=goal.ca)
            self._saw(handshake=None)  # that was the proxy's
        if not goal.secure:
            return
        to = authority(goal.host, goal.port)
        reply = await self._say("CONNECT", to, (("host", to), *_credentials(goal.proxy)), self._time(TUNNEL))
        trouble = {"silence": "took the connection and says nothing", "hung up": "hangs up"}.get(reply.trouble, "")
        tunnel = Tunnel(
            at=at, host=goal.host, status=reply.status or None, seconds=self._clock() - began, trouble=trouble
        )
        self._saw(tunnel=tunnel)
        if not 200 <= reply.status < 300:
            raise _Over

    # ---------------------------------------------------------------------------------------------------- TLS

    async def _prove(self, host: str, *, ca: Path | None) -> None:
        assert self._streams is not None
        began = self._clock()
        writer = self._streams[1]
        seen = Handshake(outcome="failed", host=host, ca=ca is not None)
        try:
            async with asyncio.timeout(self._time(HANDSHAKE)):
                await writer.start_tls(authorities(ca), server_hostname=host)
            version = writer.get_extra_info("ssl_object").version() or ""
            seen = replace(seen, outcome="ok", version=version, seconds=self._clock() - began)
        except TimeoutError:
            seen = replace(seen, outcome="silence")
        except ssl.SSLCertVerificationError as error:
            shown = await self._shown(host)
            seen = replace(
                seen, outcome="untrusted", code=error.verify_code, reason=str(error.verify_message), shown=shown
            )
        except ssl.SSLError as error:
            reason = (error.reason or "").replace("_", " ").lower()
            seen = replace(seen, outcome="no TLS" if error.reason in NO_TLS else "failed", reason=reason)
        except (OSError, EOFError):
            seen = replace(seen, outcome="hung up")
        self._saw(handshake=seen)
        if seen.outcome != "ok":
            raise _Over

    async def _shown(self, host: str) -> Certificate | None:
        """The certificate that was not believed, from a second connection on which nothing is said."""
        if self._goal.proxy is not None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # only looked at
        knock = next(knock for knock in self.walk.knocks if knock.outcome == "connected")
        try:
            async with asyncio.timeout(SECOND_LOOK):
                _, writer = await asyncio.open_connection(knock.address, knock.port, ssl=context, server_hostname=host)
        except OSError:
            return None
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        return certificate.read(der) if der else None

    # --------------------------------------------------------------------------------------------------- HTTP

    async def _ask(self) -> None:
        goal = self._goal
        target = goal.target
        headers: Headers = (("host", goal.authority), *goal.headers, ("connection", "close"))
        if not goal.secure and goal.proxy is not None:
            target, headers = f"http://{goal.authority}{target}", (*headers, *_credentials(goal.proxy))
        self._saw(reply=await self._say("GET", target, headers, self._time(ANSWER)))

    async def _peek(self) -> None:
        """What does a browser see that knows of no TLS? Nothing of ours is said."""
        self._hang_up()
        _, self._streams = await self._knock(most_telling(self.walk.knocks).address, HTTP_PORT)
        if self._streams is None:
            return
        url = f"http://{self._goal.host}/"
        headers = (("host", self._goal.host), ("accept", "text/html"), ("connection", "close"))
        self._saw(peek=replace(await self._say("GET", "/", headers, self._time(SECOND_LOOK)), url=url))

    async def _say(self, method: str, target: str, headers: Headers, seconds: float) -> Reply:
        """One question, and the beginning of its answer."""
        assert self._streams is not None
        reader, writer = self._streams
        began, trouble = self._clock(), ""
        first: float | None = None
        line = h11.Connection(h11.CLIENT)
        said = line.send(h11.Request(method=method, target=target, headers=list(headers)))
        said = (said or b"") + (line.send(h11.EndOfMessage()) or b"")
        status, body, data, opening = 0, b"", b"", b""
        found: Headers = ()
        try:
            async with asyncio.timeout(seconds):
                writer.write(said)
                while True:
                    event = line.next_event()
                    if event is h11.NEED_DATA:
                        data = await reader.read(_READ)
                        first = first if first is not None else self._clock()
                        opening = opening or data
                        line.receive_data(data)
                    elif isinstance(event, h11.Response):
                        status = event.status_code
                        found = tuple((n.decode("latin-1"), v.decode("latin-1")) for n, v in event.headers)
                        if method == "CONNECT":
                            break
                    elif isinstance(event, h11.Data):
                        body += event.data
                        if len(body) >= BODY_LIMIT:
                            break
                    elif not isinstance(event, h11.InformationalResponse):
                        break
        except TimeoutError:
            trouble = "silence"
        except (OSError, EOFError):
            trouble = "hung up"
        except h11.RemoteProtocolError:
            ended = not data and (not opening or opening.startswith(b"HTTP/"))
            trouble = "hung up" if ended else "no HTTP"
        until = (first or self._clock()) - began
        known: Trouble = "" if status else trouble or "hung up"  # type: ignore[assignment]
        return Reply(url=self._goal.url, status=status, headers=found, body=body, seconds=until, trouble=known)


async def visit(goal: Goal) -> Walk:
    """As far as it gets, within `SECONDS`."""
    walker = _Walker(goal)
    with suppress(TimeoutError):
        async with asyncio.timeout(SECONDS + 1):
            await walker.go()
    return walker.walk


def _host(url: str) -> str:
    """As DNS and certificates write it."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        return host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        return host


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or PORTS[parts.scheme]


def _credentials(proxy: str | None) -> Headers:
    parts = urlsplit(proxy or "")
    if parts.username is None:
        return ()
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return (("proxy-authorization", "Basic " + base64.b64encode(pair).decode()),)
