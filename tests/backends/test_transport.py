"""The way to a cloud: certificates, private authorities, proxies, and what the environment says of them."""

import asyncio
import base64
import shutil
import socket
import ssl
import subprocess
from contextlib import asynccontextmanager

import aiohttp
import pytest

from appliance.backends import transport
from appliance.backends.cloud import CloudBackend, CloudTarget
from appliance.core.fault import Fault
from appliance.dialects.openai_chat import OPENAI
from tests.backends.scripted import BODY, WHOLE, Scripted, healthy, heard, listening

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates and is not here"),
]

NO_PROOF = "openai could not prove who it is:"
VARIABLES = "HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY SSL_CERT_FILE SSL_CERT_DIR".split()


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    transport.authorities.cache_clear()
    yield
    transport.authorities.cache_clear()


def openssl(*words, **more):
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, **more)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A private authority, and certificates of it: for "localhost", for a name that is nobody's, and an old one."""
    here = tmp_path_factory.mktemp("authority")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(
        "req", "-x509", *key, "-days", 2, "-subj", "/CN=Ours", "-keyout", here / "ca.key", "-out", here / "ca.pem",
        "-addext", "keyUsage=critical,keyCertSign",
    )  # fmt: skip
    for name, host, days in (
        ("localhost", "localhost", 2),
        ("elsewhere.test",) * 2 + (2,),
        ("expired", "localhost", -1),
    ):
        openssl("req", "-new", *key, "-subj", f"/CN={host}", "-keyout", here / f"{name}.key", "-out", here / "req")
        (here / "ext").write_text(f"subjectAltName=DNS:{host}\n")
        openssl(
            "x509", "-req", "-in", here / "req", "-CA", here / "ca.pem", "-CAkey", here / "ca.key", "-CAcreateserial",
            "-days", days, "-extfile", here / "ext", "-out", here / f"{name}.pem",
        )  # fmt: skip
    return here


def identity(authority, name="localhost"):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority / f"{name}.pem", authority / f"{name}.key")
    return context


class Proxy:
    """A proxy on this machine: it takes CONNECT, and requests with a whole address, and knows what it was asked."""

    def __init__(self, *, refuses=None):
        self.asked = []
        self.authorizations = []
        self._refuses = refuses

    async def speak(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        self.asked.append(f"{method} {target}")
        self.authorizations += [line.partition(": ")[2] for line in lines if line.lower().startswith("proxy-auth")]
        if self._refuses:
            writer.write(b"HTTP/1.1 %d No\r\ncontent-length: 0\r\n\r\n" % self._refuses)
            writer.close()
            return
        host, port = target.removeprefix("http://").partition("/")[0].split(":")
        there, onward = await asyncio.open_connection(host, int(port))
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        else:
            onward.write(head)

        async def pass_on(source, sink):
            try:
                while data := await source.read(65536):
                    sink.write(data)
            finally:
                sink.close()

        await asyncio.gather(pass_on(reader, onward), pass_on(there, writer))


@asynccontextmanager
async def asked(base_url, **target):
    made = CloudBackend(CloudTarget(name="openai", base_url=base_url, **target), OPENAI)
    try:
        yield made
    finally:
        await made.aclose()


def through(proxy, *, tls=None, host="localhost", proxied=None, **target):
    """What comes of two questions to a cloud that stands behind `proxy`, and what the cloud was asked."""

    async def scene():
        cloud = Scripted(healthy)
        async with listening(cloud.speak, ssl=tls) as port, listening(proxy.speak) as gate:
            base = f"{'https' if tls else 'http'}://{host}:{port}/v1"
            way = {"proxy": proxied.format(gate)} if proxied else {}
            async with asked(base, **way, **target) as made:
                found = [await heard(made, body) for body in (BODY, WHOLE)]
        return found, [request.target for request in cloud.sent], port

    return asyncio.run(scene())


def over_tls(authority, *, name="localhost", **target):
    async def scene():
        cloud = Scripted(healthy)
        tls = identity(authority, name)
        async with (
            listening(cloud.speak, ssl=tls) as port,
            asked(f"https://localhost:{port}/v1", **target) as made,
        ):
            return [await heard(made, BODY), await heard(made, BODY)], cloud.made

    return asyncio.run(scene())


# ------------------------------------------------------------------------------------------------ certificates


def test_a_private_authority_vouches_for_its_cloud(authority):
    assert over_tls(authority, ca=authority / "ca.pem") == ([("Hi", None)] * 2, 1)


def test_an_unknown_authority_does_not(authority):
    [(said, error), _], _ = over_tls(authority)
    assert (said, error.fault) == ("", Fault.UNREACHABLE)
    assert error.message == f"{NO_PROOF} its certificate is of an authority that is not known here."


def test_nor_does_it_for_itself(authority):
    [(said, error), _], _ = over_tls(authority, name="ca")
    assert (said, error.fault) == ("", Fault.UNREACHABLE)
    assert error.message == f"{NO_PROOF} its certificate is self-signed."


def test_a_certificate_for_another_name_does_not_either(authority):
    [(said, error), _], _ = over_tls(authority, name="elsewhere.test", ca=authority / "ca.pem")
    assert (said, error.fault) == ("", Fault.UNREACHABLE)
    assert error.message == f"{NO_PROOF} its certificate is for another name."


def test_a_certificate_that_has_expired_does_not_either(authority):
    [(said, error), _], _ = over_tls(authority, name="expired", ca=authority / "ca.pem")
    assert (said, error.fault) == ("", Fault.UNREACHABLE)
    assert error.message == f"{NO_PROOF} its certificate has expired."


def test_the_environment_vouches_for_nobody(authority, monkeypatch):
    """What of it holds, the configuration has read."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
    [(said, error), _], _ = over_tls(authority)
    assert (said, error.fault) == ("", Fault.UNREACHABLE)


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-Other\r\n", b"220 mail ESMTP\r\n"])
def test_a_cloud_that_does_not_speak_tls_cannot_prove_who_it_is(words):
    async def scene():
        async def plain(reader, writer):
            writer.write(words)
            await reader.read()
            writer.close()

        async with listening(plain) as port, asked(f"https://localhost:{port}") as made:
            return await heard(made)

    _, error = asyncio.run(scene())
    assert (error.fault, error.message) == (Fault.UNREACHABLE, "openai speaks no TLS on that port.")


def test_certificates_are_always_checked():
    context = transport.authorities(None)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context is transport.authorities(None)


# ------------------------------------------------------------------------------------------------ time for TLS

CONNECT = 0.1


@asynccontextmanager
async def slow_to_shake_hands(authority, delay):
    """A cloud that lets everybody in, and thinks for a while before it proves who it is."""
    cloud = Scripted(healthy)
    loop = asyncio.get_running_loop()

    async def receive(listener):
        while True:
            connection, _ = await loop.sock_accept(listener)
            try:
                await asyncio.sleep(delay)
            except asyncio.CancelledError:
                connection.close()
                raise
            reader = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(reader, cloud.speak)
            await loop.connect_accepted_socket(lambda: protocol, connection, ssl=identity(authority))  # noqa: B023

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        receiving = asyncio.create_task(receive(listener))
        yield listener.getsockname()[1]
        receiving.cancel()
        await asyncio.wait([receiving])


def shaking_hands(authority, *, delay, proxied=False, **target):
    async def scene():
        async with slow_to_shake_hands(authority, delay) as port, listening(Proxy().speak) as gate:
            way = {"proxy": f"http://127.0.0.1:{gate}"} if proxied else {}
            async with asked(f"https://localhost:{port}/v1", ca=authority / "ca.pem", **way, **target) as made:
                return await heard(made)

    return asyncio.run(scene())


@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "proxied"])
def test_tls_may_take_longer_than_the_connection(authority, proxied):
    found = shaking_hands(authority, delay=3 * CONNECT, proxied=proxied, connect=CONNECT)
    assert found == ("Hi", None)


@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "proxied"])
def test_tls_has_an_end_of_its_own(authority, monkeypatch, proxied):
    monkeypatch.setattr(transport, "HANDSHAKE", CONNECT)
    said, error = shaking_hands(authority, delay=3600, proxied=proxied, connect=3600)
    assert (said, error.fault, error.status) == ("", Fault.UNREACHABLE, 504)
    assert error.message == "openai took the connection, but the TLS handshake did not end in time."


def test_a_handshake_that_the_time_for_all_addresses_ends_is_said_too(authority, monkeypatch):
    request = transport.Transport.request

    async def hurried(self, *args):
        self._open()._timeout = aiohttp.ClientTimeout(connect=CONNECT, sock_connect=3600)
        return await request(self, *args)

    monkeypatch.setattr(transport.Transport, "request", hurried)
    _, error = shaking_hands(authority, delay=3600)
    assert error.message == "openai took the connection, but the TLS handshake did not end in time."


@pytest.mark.parametrize("reset", [False, True])
def test_who_hangs_up_in_the_middle_of_tls_has_not_taken_the_connection(reset):
    async def scene():
        async def rude(reader, writer):
            await reader.read(1)
            writer.transport.abort() if reset else writer.close()

        async with listening(rude) as port, asked(f"https://localhost:{port}") as made:
            return await heard(made)

    _, error = asyncio.run(scene())
    assert (error.fault, error.status) == (Fault.UNREACHABLE, 502)
    assert error.message == "openai cannot be reached: it hung up before the connection stood."


# ----------------------------------------------------------------------------------------------------- proxies


def test_a_proxy_carries_plain_requests():
    proxy = Proxy()
    found, targets, port = through(proxy, proxied="http://127.0.0.1:{}")
    assert found == [("Hi", None)] * 2
    assert set(proxy.asked) == {f"POST http://localhost:{port}/v1/chat/completions"}
    assert len(targets) == 2


def test_a_proxy_makes_a_tunnel_for_tls_and_the_certificate_is_the_clouds(authority):
    proxy = Proxy()
    found, targets, port = through(
        proxy, tls=identity(authority), proxied="http://127.0.0.1:{}", ca=authority / "ca.pem"
    )
    assert found == [("Hi", None)] * 2
    assert proxy.asked == [f"CONNECT localhost:{port}"]
    assert targets == ["/v1/chat/completions"] * 2
    found, _, _ = through(Proxy(), tls=identity(authority), proxied="http://127.0.0.1:{}")
    assert [error.fault for _, error in found] == [Fault.UNREACHABLE] * 2


def test_a_proxy_that_wants_a_password_gets_it(authority):
    proxy = Proxy()
    through(proxy, tls=identity(authority), proxied="http://me:se%2Fcret@127.0.0.1:{}", ca=authority / "ca.pem")
    assert [base64.b64decode(one.removeprefix("Basic ")) for one in proxy.authorizations] == [b"me:se/cret"]
    proxy = Proxy()
    through(proxy, proxied="http://me:secret@127.0.0.1:{}")
    assert {base64.b64decode(one.removeprefix("Basic ")) for one in proxy.authorizations} == {b"me:secret"}


@pytest.mark.parametrize(("status", "fault"), [(403, Fault.UNREACHABLE), (407, Fault.CONFIG), (502, Fault.UNREACHABLE)])
def test_a_proxy_that_refuses_leaves_the_cloud_unreachable_and_wrong_credentials_are_to_be_mended(
    authority, status, fault
):
    found, targets, _ = through(Proxy(refuses=status), tls=identity(authority), proxied="http://me:secret@127.0.0.1:{}")
    assert [(error.fault, "secret" in str(error)) for _, error in found] == [(fault, False)] * 2
    assert targets == []


def test_a_proxy_that_is_not_there_leaves_the_cloud_unreachable():
    found, targets, _ = through(Proxy(), proxied="http://127.0.0.1:1")
    assert [error.fault for _, error in found] == [Fault.UNREACHABLE] * 2
    assert targets == []


@pytest.mark.parametrize("proxied", ["socks5://127.0.0.1:{}", "http://[::1", "nonsense"])
def test_a_proxy_of_another_kind_is_said_and_never_passed_by(proxied):
    found, targets, _ = through(Proxy(), proxied=proxied)
    assert [error.fault for _, error in found] == [Fault.CONFIG] * 2
    assert targets == []


def test_a_proxy_of_the_environment_is_not_asked_unless_the_configuration_says_so(monkeypatch):
    async def scene():
        cloud, proxy = Scripted(healthy), Proxy()
        async with listening(cloud.speak) as port, listening(proxy.speak) as gate:
            for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{gate}")
            async with asked(f"http://localhost:{port}/v1") as made:
                return await heard(made), bool(proxy.asked)

    assert asyncio.run(scene()) == (("Hi", None), False)


def test_no_password_is_looked_up_in_a_file(monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine localhost login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    async def scene():
        cloud = Scripted(healthy)
        async with listening(cloud.speak) as port, asked(f"http://localhost:{port}/v1") as made:
            await heard(made)
        return cloud.sent[0].values("authorization")

    assert asyncio.run(scene()) == []
