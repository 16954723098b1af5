"""The question that is asked of a cloud, and what several ways together tell."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from appliance.config import UpstreamConfig
from appliance.doctor import path
from appliance.doctor.checks.http import Reply
from appliance.doctor.checks.link import Way
from appliance.doctor.checks.names import Lookup
from appliance.doctor.checks.page import Page
from appliance.doctor.checks.tcp import Knock
from appliance.doctor.checks.tls import Handshake
from appliance.doctor.path import Around
from appliance.doctor.sight.clouds import Cloud, goal, is_public
from appliance.doctor.sight.visit import Goal, Walk
from appliance.upstreams import of_environment

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
OPENAI = UpstreamConfig(name="openai", base_url="https://api.openai.com/v1/", key="sk-a", key_from="env:A")


def test_openai_is_asked_for_its_models_with_a_bearer() -> None:
    asked = goal(OPENAI)
    assert asked.url == "https://api.openai.com/v1/models"
    assert dict(asked.headers)["authorization"] == "Bearer sk-a"
    assert asked.public


def test_anthropic_is_asked_with_its_version_and_its_own_header() -> None:
    (upstream,), _ = of_environment({"ANTHROPIC_API_KEY": "sk-b"})
    asked = goal(upstream)
    assert asked.url == "https://api.anthropic.com/v1/models"
    assert {"x-api-key": "sk-b", "anthropic-version": "2023-06-01"}.items() <= dict(asked.headers).items()


def test_headers_of_the_configuration_hold_and_a_callers_key_is_not_ours_to_show() -> None:
    upstream = UpstreamConfig(
        name="x", base_url="http://10.0.0.1/v1", client_key=True, headers=(("User-Agent", "me"), ("X-Team", "a"))
    )
    headers = dict(goal(upstream).headers)
    assert (headers["user-agent"], headers["x-team"], "authorization" in headers) == ("me", "a", False)


def test_no_goal_shows_a_key() -> None:
    assert "sk-a" not in repr(goal(OPENAI))


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://api.openai.com/v1", True),
        ("https://mine.openai.azure.com/openai/v1", False),  # may be a private link
        ("http://192.168.0.7:8000/v1", False),
    ],
)
def test_only_addresses_that_everybody_shares_are_public(url: str, public: bool) -> None:
    assert is_public(UpstreamConfig(name="x", base_url=url)) is public


# ------------------------------------------------------------------------------------------- several together


def way(host: str, *, proven: bool = True, near: bool = False, date: str | None = None) -> Walk:
    url = f"https://{host}/v1/models"
    return Walk(
        goal=Goal(url=url),
        lookup=Lookup(host=host, found=("203.0.113.1",)),
        way=Way(source="10.0.0.2", near=near),
        knocks=(Knock(address="203.0.113.1", port=443, outcome="connected", seconds=0.01),),
        handshake=Handshake(outcome="ok" if proven else "hung up", host=host),
        reply=Reply(url=url, status=200, headers=(("date", date),)) if date else None,
    )


def cloud(walk: Walk, page: Walk | None = None, said: Page | None = None) -> Cloud:
    return Cloud(upstream=OPENAI, walk=walk, page=said, page_walk=page)


def test_who_proved_himself_far_away() -> None:
    seen = [cloud(way("a"), way("status.a")), cloud(way("b", proven=False)), cloud(way("c", near=True))]
    assert path.around(seen, NOW).proven == {"a", "status.a"}


def test_how_far_the_clock_is_off_is_what_most_say() -> None:
    early, right = "Sat, 21 Nov 2026 10:00:00 GMT", "Sat, 21 Nov 2026 11:59:50 GMT"
    seen = [cloud(way("a", date=right), way("s", date=early)), cloud(way("b", date=right))]
    assert path.around(seen, NOW).off == timedelta(seconds=10)
    assert path.around([cloud(way("a"))], NOW).off is None


def test_a_cloud_is_not_its_own_witness() -> None:
    dead = way("a", proven=False)
    shut = Walk(goal=dead.goal, lookup=dead.lookup, way=dead.way,
                knocks=(Knock(address="203.0.113.1", port=443, outcome="silence", seconds=3.0),))  # fmt: skip

    def who(*proven: str) -> str | None:
        about = Around(now=NOW, off=None, proven=frozenset(proven))
        return next(one.who for one in path.judge(cloud(shut), about).findings if one.layer == "TCP")

    assert (who(), who("a"), who("a", "b")) == ("you", "you", "them")


@pytest.mark.parametrize(("public", "who"), [(True, "a captive portal is in between: a page for people answers"),
                                             (False, "somebody hangs up as soon as a is named")])  # fmt: skip
def test_a_page_on_port_80_is_a_portal_only_where_a_public_cloud_should_be(public: bool, who: str) -> None:
    shows = Reply(url="http://a/", status=200, headers=(("content-type", "text/html"),))
    dead = way("a", proven=False)
    walk = replace(dead, goal=replace(dead.goal, public=public), peek=shows)
    findings = path.judge(cloud(walk), Around(now=NOW, off=None, proven=frozenset())).findings
    assert next(one.said for one in findings if one.layer == "TLS") == who


def test_what_was_not_reached_in_time_is_not_judged() -> None:
    walk = Walk(goal=Goal(url="https://a/v1/models"), lookup=Lookup(host="a", found=("203.0.113.1",)),
                way=Way(source="10.0.0.2"))  # fmt: skip
    findings = path.judge(cloud(walk), Around(now=NOW, off=None, proven=frozenset())).findings
    assert [(one.layer, one.state) for one in findings] == [
        ("link", "ok"), ("DNS", "ok"), ("TCP", "skipped"), ("TLS", "skipped"), ("HTTP", "skipped"), ("key", "skipped")
    ]  # fmt: skip
    assert {one.said for one in findings[2:]} == {"not reached in time"}


def test_a_page_that_tells_of_trouble_makes_a_cut_handshake_theirs() -> None:
    about = Around(now=NOW, off=None, proven=frozenset({"b"}))
    said = Page(url="u", indicator="major", description="Outage")
    for page, who in ((None, "you"), (said, "them")):
        findings = path.judge(cloud(way("a", proven=False), said=page), about).findings
        assert next(one.who for one in findings if one.layer == "TLS") == who
