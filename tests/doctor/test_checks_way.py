"""The layers of a way to a cloud, judged: what is said, whose it is, and what there is to do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from appliance.core.fault import BackendError, Fault
from appliance.dialects.anthropic import ANTHROPIC
from appliance.dialects.openai_chat import OPENAI
from appliance.doctor.checks import http, key, latency, link, names, page, proxy, tcp, tls
from appliance.doctor.checks.http import Reply
from appliance.doctor.checks.latency import Times
from appliance.doctor.checks.link import Way
from appliance.doctor.checks.names import Lookup, Server
from appliance.doctor.checks.page import Page
from appliance.doctor.checks.proxy import Tunnel
from appliance.doctor.checks.tcp import Knock
from appliance.doctor.checks.tls import Certificate, Handshake
from appliance.doctor.finding import Finding

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def brief(finding: Finding) -> tuple[str, str | None, str]:
    """A finding, but for its layer and its remedy: who is not well has one, or there is nothing to do but wait."""
    assert finding.layer and (finding.fix or finding.state != "wrong") and not finding.said.endswith(".")
    return finding.state, finding.who, finding.said


# ------------------------------------------------------------------------------------------------------- link

WAYS = [
    (Way(here=True, source="127.0.0.1"), ("ok", None, "it is on this very box")),
    (Way(here=True), ("wrong", "you", "the loopback interface is down")),
    (
        Way(source="192.0.2.7", interface="wlan0", up=("wlan0",)),
        ("ok", None, "a route by wlan0 from 192.0.2.7"),
    ),
    (
        Way(source="10.0.0.2", interface="eth0", near=True),
        ("ok", None, "a route by eth0 from 10.0.0.2, to a network this box is part of"),
    ),
    (Way(), ("wrong", "you", "no network interface is up, and there is none but the loopback")),
    (
        Way(down=("eth0", "wlan0")),
        ("wrong", "you", "no network interface is up (eth0 and wlan0 are down or without a carrier)"),
    ),
    (
        Way(up=("eth0",), address="203.0.113.9"),
        ("wrong", "you", "eth0 is up, but there is no route to 203.0.113.9"),
    ),
    (Way(up=("eth0",)), ("wrong", "you", "eth0 is up, but there is no route to anywhere outside")),
]


@pytest.mark.parametrize(("way", "expected"), WAYS)
def test_a_way_out(way: Way, expected: tuple[str, str | None, str]) -> None:
    assert brief(link.verdict(way)) == expected


# ------------------------------------------------------------------------------------------------------ names

HOST, GOOD = "api.openai.com", "203.0.113.10"
FOUND = Lookup(
    host=HOST, found=(GOOD,), seconds=0.02, public=True, servers=(Server(address="10.0.0.1", said="NOERROR"),)
)
NOTHING = Lookup(host=HOST, trouble="no answer", public=True)


def said(lookup: Lookup, *, proven: bool = False) -> tuple[str, str | None, str]:
    return brief(names.verdict(lookup, proven=proven, whose="[[upstream]] openai"))


def servers(*words: str) -> tuple[Server, ...]:
    return tuple(Server(address=f"10.0.0.{at}", said=word) for at, word in enumerate(words, 1))


def test_a_name_that_leads_somewhere() -> None:
    assert said(FOUND) == ("ok", None, "api.openai.com is 203.0.113.10 (20 ms)")
    assert said(replace(FOUND, written=True)) == ("ok", None, "api.openai.com is 203.0.113.10 (20 ms), from /etc/hosts")
    literal = Lookup(host=GOOD, found=(GOOD,), literal=True)
    assert said(literal) == ("ok", None, "an address, no name to look up")


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ("127.0.0.1", "which is this very box"),
        ("0.0.0.0", "an address of nobody"),
        ("::", "an address of nobody"),
        ("10.1.2.3", "which is a private address"),
        ("fd00::1", "which is a private address"),
        ("100.64.0.1", "which is a private address"),
    ],
)
def test_an_address_that_cannot_be_right_is_spoofed(found: str, why: str) -> None:
    lookup = replace(FOUND, found=(found,))
    assert said(lookup) == ("wrong", "you", f"spoofed: api.openai.com is {found} by the name server 10.0.0.1, {why}")


def test_whoever_proved_to_be_the_cloud_may_be_at_any_address() -> None:
    for lookup in (replace(FOUND, found=("10.1.2.3",)), replace(FOUND, invented=(GOOD,))):
        assert said(lookup, proven=True)[0] == "ok"


def test_a_private_address_is_odd_for_a_public_cloud_only() -> None:
    assert said(replace(FOUND, found=("10.1.2.3",), public=False))[0] == "ok"


def test_an_address_that_is_given_for_every_name_is_spoofed() -> None:
    sentence = "and so is every name that does not exist (203.0.113.10)"
    assert said(replace(FOUND, invented=(GOOD,)))[2].endswith(sentence)
    assert said(replace(FOUND, invented=(GOOD,)))[:2] == ("wrong", "you")


def test_a_resolver_that_only_invents_other_names_is_worth_a_warning() -> None:
    state, who, words = said(replace(FOUND, invented=("198.51.100.1",)))
    assert (state, who) == ("warn", "you")
    assert words.endswith("; but names that do not exist are answered too, with 198.51.100.1")


def test_what_stands_in_etc_hosts_is_looked_for_there() -> None:
    found = names.verdict(replace(FOUND, found=("127.0.0.1",), written=True), proven=False, whose="")
    assert found.said == "spoofed: api.openai.com is 127.0.0.1 in /etc/hosts, which is this very box"
    assert found.fix == "Delete the line of api.openai.com from /etc/hosts."


@pytest.mark.parametrize(
    ("lookup", "expected"),
    [
        (NOTHING, "api.openai.com has no address: no name server is configured"),
        (replace(NOTHING, servers=servers("silence")), "broken: the name server 10.0.0.1 does not answer"),
        (
            replace(NOTHING, servers=servers("silence", "silence")),
            "broken: the name server 10.0.0.1 and 10.0.0.2 do not answer",
        ),
        (
            replace(NOTHING, servers=servers("silence", "SERVFAIL")),
            "broken: the name server 10.0.0.2 answers SERVFAIL for api.openai.com",
        ),
        (
            replace(NOTHING, trouble="no such name", servers=servers("NXDOMAIN")),
            "blocked: the name server 10.0.0.1 says that api.openai.com has no address",
        ),
        (
            replace(NOTHING, host="llm.corp", public=False, trouble="no such name", servers=servers("NXDOMAIN")),
            "there is no such name as llm.corp",
        ),
        (
            replace(NOTHING, public=False, trouble="too slow", servers=servers("NOERROR")),
            "broken: api.openai.com could not be looked up (too slow)",
        ),
    ],
)
def test_a_name_that_leads_nowhere(lookup: Lookup, expected: str) -> None:
    assert said(lookup) == ("wrong", "you", expected)


def test_a_name_that_does_not_exist_is_a_mistake_in_the_configuration() -> None:
    lookup = replace(NOTHING, public=False, trouble="no such name", servers=servers("NXDOMAIN"))
    found = names.verdict(lookup, proven=False, whose="[[upstream]] mine")
    assert found.fix == "Correct the address of [[upstream]] mine in appliance.toml."


# -------------------------------------------------------------------------------------------------------- TCP

KNOCK = Knock(address=GOOD, port=443, outcome="connected", seconds=0.012)


def knocked(outcome: str, *, near: bool = False, elsewhere: bool = False) -> tuple[str, str | None, str]:
    knock = replace(KNOCK, outcome=outcome)
    return brief(tcp.verdict((knock,), near=near, elsewhere=elsewhere))


def test_a_door_that_opens() -> None:
    assert knocked("connected") == ("ok", None, "203.0.113.10:443 in 12 ms")


@pytest.mark.parametrize("outcome", ["refused", "silence", "unreachable", "reset", "failed"])
def test_a_door_that_stays_shut_is_theirs_only_if_others_open(outcome: str) -> None:
    assert knocked(outcome, elsewhere=True)[:2] == ("wrong", "them")
    assert knocked(outcome, elsewhere=False)[:2] == ("wrong", "you")
    assert knocked(outcome, near=True, elsewhere=True)[:2] == ("wrong", "you")


def test_the_own_firewall_is_told_from_others() -> None:
    assert knocked("forbidden", elsewhere=True) == (
        "wrong",
        "you",
        "203.0.113.10:443 may not be called: this box's own firewall forbids it",
    )


def test_a_server_of_ones_own_that_is_not_started() -> None:
    knock = Knock(address="::1", port=8080, outcome="refused", seconds=0.0)
    found = tcp.verdict((knock,), near=True, elsewhere=False)
    assert found.said == "[::1]:8080 refuses the connection: nothing listens there"


def test_the_address_that_got_furthest_is_the_one_that_is_told() -> None:
    no_way = Knock(address="2001:db8::1", port=443, outcome="unreachable", seconds=0.0)
    found = tcp.verdict((no_way, replace(KNOCK, outcome="refused")), near=False, elsewhere=True)
    assert found.said.startswith("203.0.113.10:443 refuses the connection")


def test_one_address_that_answers_is_enough_and_the_deaf_one_is_told() -> None:
    deaf = Knock(address="2001:db8::1", port=443, outcome="silence", seconds=3.0)
    found = tcp.verdict((deaf, KNOCK), near=False, elsewhere=True)
    assert brief(found) == ("warn", "you", "203.0.113.10:443 in 12 ms; but [2001:db8::1]:443 does not answer the knock")


# ------------------------------------------------------------------------------------------------------ proxy


@pytest.mark.parametrize(
    ("status", "trouble", "expected"),
    [
        (200, "", ("ok", None, "proxy:3128 leads to api.openai.com (50 ms)")),
        (407, "", ("wrong", "you", "proxy:3128 wants other credentials (407)")),
        (403, "", ("wrong", "you", "proxy:3128 forbids api.openai.com (403)")),
        (503, "", ("wrong", "you", "proxy:3128 finds no way to api.openai.com (503)")),
        (None, "hangs up", ("wrong", "you", "proxy:3128 hangs up")),
        (None, "", ("wrong", "you", "proxy:3128 does not answer as a proxy does")),
    ],
)
def test_a_proxy(status: int | None, trouble: str, expected: tuple[str, str | None, str]) -> None:
    tunnel = Tunnel(at="proxy:3128", host=HOST, status=status, seconds=0.05, trouble=trouble)
    assert brief(proxy.verdict(tunnel)) == expected


# -------------------------------------------------------------------------------------------------------- TLS

SHAKEN = Handshake(outcome="ok", host=HOST, version="TLSv1.3", seconds=0.03)
SHOWN = Certificate(
    issuer="Acme Web Gateway",
    subject="*.acme.example",
    names=("acme.example", "www.acme.example"),
    begins=datetime(2026, 11, 25, tzinfo=UTC),
    ends=datetime(2026, 11, 18, 12, tzinfo=UTC),
)


def shaken(code: int, **more: object) -> Finding:
    ca, shown = bool(more.pop("ca", False)), more.pop("shown", SHOWN)
    given = {"now": NOW, "off": None, "public": True, **more}
    return tls.verdict(Handshake(outcome="untrusted", host=HOST, code=code, shown=shown, ca=ca), **given)  # type: ignore[arg-type]


def test_a_cloud_that_proves_who_it_is() -> None:
    found = tls.verdict(SHAKEN, now=NOW, off=None, public=True)
    assert brief(found) == ("ok", None, "TLSv1.3, api.openai.com proved who it is (30 ms)")


def test_an_expired_certificate_is_theirs() -> None:
    expected = ("wrong", "them", "the certificate of api.openai.com expired 3 days ago (2026-11-18)")
    assert brief(shaken(tls.EXPIRED)) == expected
    assert brief(shaken(tls.EXPIRED, off=timedelta(seconds=30))) == expected


def above(**more: object) -> Finding:
    return shaken(tls.EXPIRED, shown=replace(SHOWN, ends=datetime(2027, 1, 20, tzinfo=UTC)), **more)


def test_an_old_certificate_above_a_good_one_is_ours_where_everybody_else_gets_through() -> None:
    found = above(off=timedelta(seconds=30))
    said = "a certificate above that of api.openai.com has expired (its own has not: 2027-01-20)"
    assert brief(found) == ("wrong", "box", said)
    assert found.fix is not None and "pip install --upgrade certifi" in found.fix
    assert brief(above(public=False)) == ("wrong", "them", said)
    given = above(public=False, ca=True)
    assert (given.who, given.fix) == ("box", "Renew the file of `ca` (or SSL_CERT_FILE): its authorities are old.")
    found = above(off=timedelta(days=400))
    assert (found.who, found.fix) == ("box", tls.CLOCK_FIX)
    assert found.said == f"{said}, by this box's clock, 400 days ahead"


def test_unless_it_is_the_clock() -> None:
    found = shaken(tls.EXPIRED, off=timedelta(days=5))
    assert (found.who, found.fix) == ("box", tls.CLOCK_FIX)
    assert found.said.endswith("but only by this box's clock, which is 5 days ahead")


def test_a_certificate_of_tomorrow_is_the_clock() -> None:
    expected = "the certificate of api.openai.com is not valid before 2026-11-25, and this box's clock says 2026-11-21"
    assert brief(shaken(tls.NOT_YET)) == ("wrong", "box", expected)


@pytest.mark.parametrize(
    ("code", "public", "expected"),
    [
        (
            20,
            True,
            'api.openai.com is vouched for by "Acme Web Gateway", which is not known here: '
            "a proxy of your company or a login page is in between",
        ),
        (19, False, 'api.openai.com is vouched for by "Acme Web Gateway", which is not known here'),
        (18, False, 'api.openai.com vouches for itself (self-signed, "Acme Web Gateway")'),
        (62, True, "the certificate is not for api.openai.com, but for acme.example and www.acme.example"),
    ],
)
def test_somebody_in_between(code: int, public: bool, expected: str) -> None:
    assert brief(shaken(code, public=public)) == ("wrong", "you", expected)


def test_an_authority_of_ones_own_that_did_not_sign_it() -> None:
    assert "add its authority" in (shaken(20, ca=True).fix or "")


def test_a_login_page_beside_it_names_the_portal_but_not_for_a_date() -> None:
    portal = "we are sent on to login.hotel.example (302)"
    assert shaken(20, portal=portal).said == f"a captive portal is in between: {portal}"
    assert shaken(tls.EXPIRED, portal=portal).who == "them"


@pytest.mark.parametrize("outcome", ["hung up", "silence"])
def test_a_handshake_that_is_cut_is_theirs_if_their_page_says_so(outcome: str) -> None:
    cut = replace(SHAKEN, outcome=outcome)
    assert tls.verdict(cut, now=NOW, off=None, public=True, ailing=True).who == "them"
    assert tls.verdict(cut, now=NOW, off=None, public=True, ailing=False).who == "you"


# ------------------------------------------------------------------------------------------------ HTTP and key

JSON = (("content-type", "application/json"),)
HTML = (("content-type", "text/html; charset=utf-8"),)
URL = "https://api.openai.com/v1/models"


def reply(status: int, headers: tuple[tuple[str, str], ...] = JSON, body: bytes = b"{}", dialect=OPENAI) -> Reply:
    error = dialect.decode_error(status, headers, body) if status != 200 else None
    return Reply(url=URL, status=status, headers=headers, body=body, seconds=0.1, error=error)


REPLIES = [
    (reply(200), True, ("ok", None, "answers 200 (100 ms)")),
    (reply(401), True, ("ok", None, "answers 401 (100 ms)")),
    (reply(529, dialect=ANTHROPIC), True, ("wrong", "them", "it answers 529 (overloaded)")),
    (reply(503, HTML, b"<html>"), True, ("wrong", "them", "it answers 503 (unavailable)")),
    (reply(599), True, ("wrong", "them", "it answers 599")),
    (reply(429), True, ("wrong", "key", "it answers 429: too many requests with this key")),
    (
        reply(302, (("location", "http://login.hotel.example/"),)),
        False,
        ("wrong", "you", "a captive portal is in between: we are sent on to login.hotel.example (302)"),
    ),
    (
        reply(302, (("location", "https://www.openai.com/"),)),
        True,
        ("wrong", "you", "it sends us on to www.openai.com (302)"),
    ),
    (
        reply(200, HTML, b"<html>"),
        False,
        ("wrong", "you", "a captive portal is in between: a page for people answers"),
    ),
    (
        reply(511, HTML),
        False,
        ("wrong", "you", "a captive portal is in between: it says that the network wants a login (511)"),
    ),
    (reply(200, HTML, b"<html>"), True, ("wrong", "you", "it answers with text/html")),
    (reply(200, JSON, b"hello"), True, ("wrong", "you", "what it calls JSON is none")),
    (reply(407), True, ("wrong", "you", "its proxy wants other credentials (407)")),
    (
        reply(403, (*HTML, ("server", "cloudflare")), b"<html>"),
        True,
        ("wrong", "you", "its gate turns us away with a page (403, cloudflare)"),
    ),
    (reply(404), True, ("wrong", "you", f"there is no list of models at {URL} (404)")),
    (Reply(url=URL, trouble="silence"), True, ("wrong", "them", "it took the question and said nothing")),
    (Reply(url=URL, trouble="hung up"), True, ("wrong", "them", "it hung up without an answer")),
    (Reply(url=URL, trouble="no HTTP"), True, ("wrong", "you", "what answers there speaks no HTTP")),
]


@pytest.mark.parametrize(("seen", "proven", "expected"), REPLIES)
def test_an_answer(seen: Reply, proven: bool, expected: tuple[str, str | None, str]) -> None:
    assert brief(http.verdict(seen, proven=proven, public=True)) == expected


def test_a_server_of_ones_own_may_have_no_list_of_models() -> None:
    assert http.verdict(reply(404), proven=True, public=False).state == "warn"


def test_nothing_that_somebody_else_says_reaches_the_terminal_as_a_command() -> None:
    odd = reply(302, (("location", "https://a\x9b31m.example/"), ("server", "\x9bx")))
    assert "\x9b" not in http.verdict(odd, proven=False, public=True).said
    assert "\x9b" not in http.verdict(reply(200, (("content-type", "\x9bx"),)), proven=True, public=True).said


def test_how_long_a_key_has_to_wait_is_told() -> None:
    found = http.verdict(reply(429, (*JSON, ("retry-after", "20"))), proven=True, public=True)
    assert found.fix == "Wait 20 s, or raise the limit of the key; the box answers meanwhile."


def test_the_time_of_an_answer_is_read_and_nonsense_is_none() -> None:
    at = "Sat, 21 Nov 2026 12:00:00 GMT"
    assert reply(200, (*JSON, ("date", at))).at == NOW.timestamp()
    assert (reply(200).at, reply(200, (("date", "yesterday"),)).at) == (None, None)


def accepted(seen: Reply, **more: object) -> tuple[str, str | None, str]:
    given = {"key_from": "env:KEY", "has_key": True, "of_callers": False, "name": "openai", **more}
    return brief(key.verdict(seen, **given))  # type: ignore[arg-type]


BAD_KEY = b'{"error": {"message": "Incorrect API key provided: sk-secret", "code": "invalid_api_key"}}'
NO_MONEY = b'{"error": {"message": "x", "type": "insufficient_quota", "code": "insufficient_quota"}}'
NOT_HERE = b'{"error": {"message": "x", "code": "unsupported_country_region_territory"}}'


@pytest.mark.parametrize(
    ("seen", "more", "expected"),
    [
        (reply(200), {}, ("ok", None, "the key from env:KEY is accepted")),
        (reply(404), {}, ("ok", None, "the key from env:KEY was not refused")),
        (reply(200), {"has_key": False}, ("ok", None, "none is set, and none was asked for")),
        (reply(401), {"of_callers": True}, ("ok", None, "the callers bring their own")),
        (reply(401), {"has_key": False}, ("wrong", "key", "it wants a key (401), and none is set")),
        (
            reply(401, body=BAD_KEY),
            {},
            ("wrong", "key", "the key from env:KEY is refused (401): invalid_api_key; it does not accept the key"),
        ),
        (
            reply(401, body=BAD_KEY),
            {"key_from": ""},
            ("wrong", "key", "the key in appliance.toml is refused (401): invalid_api_key; it does not accept the key"),
        ),
        (
            reply(429, body=NO_MONEY),
            {},
            (
                "wrong",
                "key",
                "the key from env:KEY is refused (429): insufficient_quota; "
                "its credit is used up or a limit of spending is reached",
            ),
        ),
        (
            reply(403, body=NOT_HERE),
            {},
            (
                "wrong",
                "you",
                "the key from env:KEY is refused (403): unsupported_country_region_territory; "
                "it does not serve this country",
            ),
        ),
    ],
)
def test_a_key(seen: Reply, more: dict[str, object], expected: tuple[str, str | None, str]) -> None:
    assert accepted(seen, **more) == expected


def test_no_finding_repeats_what_a_cloud_says_of_a_key() -> None:
    assert "sk-secret" not in str(accepted(reply(401, body=BAD_KEY)))


def test_a_fault_that_is_no_matter_of_the_key_is_no_matter_of_the_key() -> None:
    busy = replace(reply(200), status=429, error=BackendError(Fault.BUSY, "The cloud is busy."))
    assert accepted(busy)[0] == "ok"


# -------------------------------------------------------------------------------------- status page and latency


def test_a_status_page_is_read() -> None:
    body = b'{"status": {"indicator": "major", "description": "Partial\\nOutage"}, "incidents": [{"name": "Errors"}]}'
    found = page.read("https://status.example", body)
    assert found == Page(
        url="https://status.example", indicator="major", description="Partial Outage", incidents=("Errors",)
    )
    assert brief(page.verdict(found)) == ("warn", "them", "Partial Outage: Errors (https://status.example)")


def test_a_page_on_which_all_is_well() -> None:
    found = page.read(
        "u", b'{"status": {"indicator": "none", "description": "All Systems Operational"}, "incidents": []}'
    )
    assert brief(page.verdict(found)) == ("ok", None, "All Systems Operational")


def test_a_page_that_leaves_the_judgement_to_its_reader() -> None:
    assert (
        page.verdict(page.read("u", b'{"incidents": [{"name": "Old", "status": "resolved"}]}')).said == "no incidents"
    )
    found = page.verdict(page.read("u", b'{"incidents": [{"name": "Slow answers", "status": "investigating"}]}'))
    assert brief(found) == ("warn", "them", "incidents: Slow answers (u)")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"status": 3}', b'{"incidents": [3]}', b"\xff"])
def test_a_page_that_is_for_people_only(body: bytes) -> None:
    found = page.verdict(page.read("https://status.example", body))
    assert found.state == "skipped" and "look at https://status.example" in found.said


@pytest.mark.parametrize(
    ("times", "state", "who", "ending"),
    [
        (Times(connect=0.01, tls=0.02, first_byte=0.1), "ok", None, "connect 10 ms, TLS 20 ms, first byte 100 ms"),
        (Times(connect=0.01, tls=0.0, first_byte=0.1), "ok", None, "connect 10 ms, first byte 100 ms"),
        (Times(connect=1.2, tls=2.0, first_byte=1.5), "warn", "you", "a slow line"),
        (Times(connect=0.01, tls=0.02, first_byte=3.0), "warn", "them", "a slow cloud"),
    ],
)
def test_how_long_the_way_is(times: Times, state: str, who: str | None, ending: str) -> None:
    found = latency.verdict(times)
    assert (found.state, found.who, found.said.endswith(ending)) == (state, who, True)
