"""The way to a cloud: certificates, private authorities, proxies, and what the environment says of them."""

import asyncio
import base64
import shutil
import ssl
import subprocess
from contextlib import asynccontextmanager

import pytest

from appliance.backends import transport
from appliance.backends.cloud import CloudBackend, CloudTarget
from appliance.core.chat import Fault
from appliance.dialects.openai_chat import OPENAI
from tests.backends.scripted import BODY, WHOLE, Scripted, healthy, heard, listening

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates and is not here"),
]

VARIABLES = "HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY SSL_CERT_FILE SSL_CERT_DIR".split()


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    transport._authorities.cache_clear()
    yield
    transport._authorities.cache_clear()


def openssl(*words, **more):
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, **more)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A private authority, and a certificate of it for "localhost" and for a name that is nobody's."""
    here = tmp_path_factory.mktemp("authority")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(
        "req", "-x509", *key, "-days", 2, "-subj", "/CN=Ours", "-keyout", here / "ca.key", "-out", here / "ca.pem",
        "-addext", "keyUsage=critical,keyCertSign",
    )  # fmt: skip
    for name in ("localhost", "elsewhere.test"):
        openssl("req", "-new", *key, "-subj", f"/CN={name}", "-keyout", here / f"{name}.key", "-out", here / "req")
        (here / "ext").write_text(f"subjectAltName=DNS:{name}\n")
        openssl(
            "x509", "-req", "-in", here / "req", "-CA", here / "ca.pem", "-CAkey", here / "ca.key", "-CAcreateserial",
            "-days", 2, "-extfile", here / "ext", "-out", here / f"{name}.pem",
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
    assert error.message == "openai could not prove who it is: the TLS handshake failed."


def test_a_certificate_for_another_name_does_not_either(authority):
    [(said, error), _], _ = over_tls(authority, name="elsewhere.test", ca=authority / "ca.pem")
    assert (said, error.fault, "prove" in error.message) == ("", Fault.UNREACHABLE, True)


def test_the_environment_vouches_for_nobody(authority, monkeypatch):
    """What of it holds, the configuration has read."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
    [(said, error), _], _ = over_tls(authority)
    assert (said, error.fault) == ("", Fault.UNREACHABLE)


def test_a_cloud_that_does_not_speak_tls_cannot_prove_who_it_is():
    async def scene():
        async def plain(reader, writer):
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await reader.read()
            writer.close()

        async with listening(plain) as port, asked(f"https://localhost:{port}") as made:
            return await heard(made)

    _, error = asyncio.run(scene())
    assert error.fault is Fault.UNREACHABLE


def test_certificates_are_always_checked():
    context = transport._authorities(None)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context is transport._authorities(None)


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
