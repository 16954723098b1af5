"""Who may speak to us: by the Host it asked for, by the page it comes from, by the type it sends."""

import pytest

from appliance.guard.host import admit, hostname, is_json


def knock(host, origin=None, *, own_names=("box.lan",), origins=("https://app.example",)):
    """The status and the first words of the refusal, or ``None`` for a welcome."""
    refusal = admit(host, origin, own_names=own_names, origins=origins)
    return None if refusal is None else (refusal.status, " ".join(refusal.message.split()[:3]))


NOT_OURS = (403, "The Host header")
FOREIGN_PAGE = (403, "Web pages may")


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8484", "localhost"),
        ("127.0.0.1:8484", "127.0.0.1"),
        ("[::1]:8484", "::1"),
        ("[::1]", "::1"),
        ("", None),
        (":8484", None),
        ("[::1", None),
        ("::1", None),
    ],
)
def test_the_name_in_a_host_header_is_without_its_port(header, name):
    assert hostname(header) == name


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8484", "LOCALHOST", "127.0.0.1:1", "[::1]:8484", "box.lan", "chat.localhost:8484"]
)
def test_a_program_that_asks_for_one_of_our_names_is_welcome(host):
    assert knock(host) is None


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "evil.example:8484",
        "localhost.evil.example",
        "evillocalhost",
        "127.0.0.1.evil.example",
        "box.lan.evil.example",
        "xbox.lan",
        "localhost@evil.example",
        "[::1",
        "[::2]:8484",
    ],
)
def test_a_name_that_is_not_ours_is_refused_because_dns_can_be_rebound(host):
    assert knock(host) == NOT_OURS


@pytest.mark.parametrize("host", ["localhost:8484", "127.0.0.1:8484", "[::1]:8484", "box.lan:8484", "a.localhost:8484"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_our_own_page_may_call_us(host, scheme):
    assert knock(host, f"{scheme}://{host}") is None


def test_our_own_page_is_ours_in_any_case():
    assert knock("LocalHost:8484", "http://localhost:8484") is None


def test_a_page_from_the_configuration_may_call_us():
    assert knock("localhost:8484", "https://app.example") is None


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://app.example",
        "https://app.example:444",
        "https://app.example.evil.example",
        "http://localhost:3000",
        "http://localhost",
        "http://127.0.0.1:8484",  # asked as localhost: another origin for a browser
        "https://user@localhost:8484",
        "null",
        "",
        "file://",
        "http://[::1",
    ],
)
def test_any_other_page_is_refused_though_it_asks_for_our_name(origin):
    assert knock("localhost:8484", origin) == FOREIGN_PAGE


def test_a_listed_page_does_not_excuse_a_foreign_host():
    assert knock("evil.example", "https://app.example") == NOT_OURS
    assert knock("evil.example", "http://evil.example") == NOT_OURS


def test_each_refusal_says_what_to_do():
    by_host = admit("evil.example", None, own_names=(), origins=())
    by_page = admit("localhost", "https://evil.example", own_names=(), origins=())
    assert [by_host.message, by_page.message] == [
        "The Host header does not name this appliance; use its own address.",
        "Web pages may not call this appliance; list the page's origin under server.origins to allow it.",
    ]


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON", "application/json; charset=utf-8", " application/json "]
)
def test_json_is_what_a_page_cannot_send_unasked(content_type):
    assert is_json(content_type)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "text/plain; application/json",
        "application/jsonp",
        "application/json, text/plain",
    ],
)
def test_anything_else_is_not_json(content_type):
    assert not is_json(content_type)


def test_a_configured_name_with_capitals_is_ours_too():
    assert knock("mybox.lan", own_names=("MyBox.lan",)) is None
