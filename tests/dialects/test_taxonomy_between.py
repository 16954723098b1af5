"""What is said between us and a cloud: pages of proxies, firewalls and Cloudflare, statuses of their own, and how long
to wait, however it is put. None of it is the caller's mistake, but for a request that is too large for anybody's door.
"""

from __future__ import annotations

import json

import pytest

from appliance.core.chat import Headers
from appliance.core.fault import Fault
from appliance.dialects import waits
from tests.dialects.taxonomy import (
    BROKEN,
    BUSY,
    FAILED,
    KEY,
    MODEL,
    OVERLOADED,
    SILENT,
    THEIRS,
    WIRE,
    Meaning,
    body,
    busy,
    check,
    meaning,
    refused,
)

HTML: Headers = (("content-type", "text/html"),)

PAGES: dict[str, Meaning] = {
    "400_nginx.html": BROKEN,
    "401_nginx.html": KEY,  # a password in front of somebody's own server
    "403_nginx.html": BROKEN,
    "403_cloudflare.json": BROKEN,
    "403_cloudflare.txt": BROKEN,
    "403_cloudflare_blocked.html": BROKEN,  # perhaps for what one request says: no reason to stay away from the cloud
    "403_cloudflare_challenge.html": BROKEN,
    "403_filter.html": BROKEN,
    "404_nginx.html": MODEL,
    "404_go.txt": MODEL,
    "405_nginx.html": KEY,
    "407_squid.html": KEY,
    "413_nginx.html": THEIRS,
    "414_nginx.html": THEIRS,
    "421_apache.html": FAILED,
    "429_cloudflare.html": BUSY,
    "502_nginx.html": FAILED,
    "503_nginx.html": FAILED,
    "503_envoy.txt": FAILED,
    "504_nginx.html": FAILED,
    "511_portal.html": BROKEN,
    "520_cloudflare.html": FAILED,
    "521_cloudflare.html": FAILED,
    "522_cloudflare.html": FAILED,
    "523_cloudflare.html": FAILED,
    "524_cloudflare.html": SILENT,
    "525_cloudflare.html": FAILED,
    "526_cloudflare.html": FAILED,
}


def test_every_page_has_a_row() -> None:
    assert {path.name for path in (WIRE / "between").iterdir() if path.name != "README.md"} == PAGES.keys()


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@pytest.mark.parametrize(("file", "meant"), PAGES.items())
def test_a_page_means_the_same_in_every_dialect(dialect: str, file: str, meant: Meaning) -> None:
    check(dialect, int(file[:3]), HTML, body(f"between/{file}"), meant)


PAGE = b"\n  <!doctype html><title>?</title>"
SAYS_NOTHING = b"{}"
STATUSES: list[tuple[int, bytes, Meaning]] = [
    (400, b"", THEIRS),
    (400, b"Bad Request", THEIRS),
    (402, PAGE, BROKEN),
    (405, SAYS_NOTHING, KEY),
    (407, b"", KEY),
    (408, b"", SILENT),
    (408, PAGE, SILENT),
    (409, b'{"type":"error","error":{"type":"conflict_error","message":"m"}}', FAILED),
    (409, SAYS_NOTHING, THEIRS),
    (410, SAYS_NOTHING, MODEL),
    (410, PAGE, BROKEN),
    (413, SAYS_NOTHING, THEIRS),
    (415, PAGE, BROKEN),
    (418, PAGE, BROKEN),
    (421, SAYS_NOTHING, FAILED),
    (422, SAYS_NOTHING, THEIRS),
    (422, PAGE, BROKEN),
    (424, SAYS_NOTHING, FAILED),
    (425, b"", FAILED),
    (431, PAGE, THEIRS),
    (451, SAYS_NOTHING, KEY),
    (451, PAGE, BROKEN),
    (460, PAGE, FAILED),
    (498, b"", BUSY),
    (499, b"", FAILED),
    (499, b'{"error":{"code":499,"message":"The operation was cancelled.","status":"CANCELLED"}}', FAILED),
    (500, b'{"error":{"code":"context_length_exceeded"}}', FAILED),
    (500, b'{"error":{"code":"insufficient_quota"}}', FAILED),
    (529, b"", OVERLOADED),
    (530, b"error code: 1033", FAILED),
    (598, b"", SILENT),
    (204, b"", BROKEN),
    (302, PAGE, BROKEN),
]


@pytest.mark.parametrize(("status", "said", "meant"), STATUSES, ids=lambda given: repr(given)[:40])
def test_a_status_that_says_more_than_its_body(status: int, said: bytes, meant: Meaning) -> None:
    for dialect in ("openai", "anthropic"):
        check(dialect, status, HTML, said, meant)


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (405, "look at models, aliases and base_url"),
        (407, "the proxy on the way wants a password: look at proxy"),
        (410, "it does not know the model"),
        (451, "it does not serve this country"),
    ],
)
def test_whoever_must_mend_it_is_told_what(status: int, remedy: str) -> None:
    assert remedy in str(refused("openai", status, (), SAYS_NOTHING))


def test_the_country_of_gemini_is_no_key() -> None:
    assert "it does not serve this country" in str(refused("openai", 400, (), body("gemini/400_country.json")))


def test_the_errors_of_a_gateways_provider_are_no_alarm_of_ours() -> None:
    for raw in ("Your credit balance is too low", "Incorrect API key provided", '{"error":{"code":"model_not_found"}}'):
        said = b'{"error":{"message":"Provider returned error","code":400,"metadata":{"raw":%s}}}' % _json(raw)
        check("openai", 400, (), said, BROKEN)
    for raw in (None, 7, {"error": {}}, "[" * 5000, "something else"):
        said = b'{"error":{"message":"Provider returned error","code":400,"metadata":{"raw":%s}}}' % _json(raw)
        check("openai", 400, (), said, THEIRS)


def _json(text: object) -> bytes:
    return json.dumps(text).encode()


# --------------------------------------------------------------------------------------------------- how long to wait

DATE = ("date", "Sat, 21 Nov 2026 11:59:30 GMT")
WAITS: list[tuple[Headers, float | None]] = [
    ((("retry-after", "7"),), 7.0),
    ((("retry-after", "1.5"),), 1.5),
    ((("retry-after", "30s"),), 30.0),
    ((("retry-after-ms", "1200"), ("retry-after", "9")), 1.2),
    ((("retry-after-ms", "soon"), ("retry-after", "9")), 9.0),
    ((("retry-after", "Sat, 21 Nov 2026 12:00:00 GMT"), DATE), 30.0),
    ((("retry-after", "Sat, 21 Nov 2026 11:00:00 GMT"), DATE), 0.0),
    ((("retry-after", "Sat, 21 Nov 2026 12:00:00 GMT"),), None),
    ((("retry-after", "Sat, 21 Now 2026 12:00:00 GMT"), DATE), None),
    ((("retry-after", "-5"),), None),
    ((("retry-after", "inf"), DATE), None),
    ((("retry-after", ""),), None),
    ((("x-ratelimit-reset", "12"),), 12.0),
    ((("ratelimit-reset", "12"), ("ratelimit-remaining", "0")), 12.0),
    ((("x-ratelimit-reset", "1795262400"), DATE), 30.0),
    ((("x-ratelimit-reset", "1795262400000"), DATE), 30.0),
    ((("x-ratelimit-reset", "1795262400"),), None),
    ((("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "6m0s")), 360.0),
    ((("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "7.66s")), 7.66),
    ((("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "120ms")), 0.12),
    ((("x-ratelimit-remaining-tokens", "40"), ("x-ratelimit-reset-tokens", "7s")), None),
    (
        (
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "1h2m3s"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "8s"),
        ),
        3723.0,
    ),
    (
        (
            ("anthropic-ratelimit-tokens-remaining", "0"),
            ("anthropic-ratelimit-tokens-reset", "2026-11-21T12:00:00Z"),
            ("anthropic-ratelimit-requests-remaining", "49"),
            ("anthropic-ratelimit-requests-reset", "2026-11-21T12:30:00Z"),
            DATE,
        ),
        30.0,
    ),
    ((("x-ratelimit-reset-requests", "later"),), None),
    ((), None),
]


@pytest.mark.parametrize(("headers", "seconds"), WAITS)
def test_a_busy_cloud_is_asked_again_when_it_said(headers: Headers, seconds: float | None) -> None:
    found = meaning(refused("openai", 429, headers, b"{}"))
    assert found.wait == (pytest.approx(seconds) if seconds is not None else None)
    assert found.fault is Fault.BUSY
    if seconds is not None and seconds > 2.0:
        assert found.aside == pytest.approx(max(10.0, min(seconds, 600.0)))
    else:
        assert found.aside == 0.0
        assert found.again == found.wait


def test_what_it_asks_for_outright_counts_more_than_when_a_limit_is_full_again() -> None:
    headers: Headers = (("retry-after", "3"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "99"))
    assert meaning(refused("openai", 429, headers, b"")) == busy(3.0)


@pytest.mark.parametrize(
    ("message", "meant"),
    [
        ("Please try again in 7.66s.", busy(7.66)),
        ("Please try again in 6m0s. Visit", busy(360.0)),
        ("Please try again in 120ms", busy(0.12)),
        ("Please try again later", BUSY),
    ],
)
def test_a_sentence_may_say_how_long(message: str, meant: Meaning) -> None:
    assert meaning(refused("openai", 429, (), b'{"error":{"message":%s}}' % _json(message))) == meant


def test_a_limit_that_fills_again_does_not_make_money() -> None:
    headers: Headers = (("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "8s"))
    said = b'{"error":{"message":"You exceeded your current quota, please check your plan and billing details."}}'
    assert meaning(refused("openai", 429, headers, said)) == KEY
    assert meaning(refused("openai", 402, headers, b"{}")) == KEY
    assert meaning(refused("openai", 503, headers, b"{}")) == FAILED
    asked: Headers = (*headers, ("retry-after", "5"))
    assert meaning(refused("openai", 429, asked, said)) == busy(5.0)


@pytest.mark.parametrize("text", ["", "s", "5", "5x", "1.2.3s", "s5", "-5s", "5s5m"])
def test_what_is_no_span_of_time_says_nothing(text: str) -> None:
    assert waits.duration(text) is None
