"""What do the facts of a way to a cloud mean, layer by layer?

The layers stand on each other: link, DNS, TCP, the proxy if there is one, TLS, HTTP, the key. Beside them stand what
the provider says of itself, and how long the way is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from statistics import median
from typing import TypeVar

from appliance.doctor.checks import http, key, latency, link, names, page, proxy, tcp, tls
from appliance.doctor.finding import Finding, Section, Step, climb, skipped
from appliance.doctor.sight.clouds import Cloud
from appliance.doctor.sight.visit import Walk

Facts = TypeVar("Facts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What is known from all ways together. ``off``: how far this box's clock is ahead; ``proven``: the hosts far away
    that proved who they are."""

    now: datetime
    off: timedelta | None
    proven: frozenset[str]


def around(clouds: Sequence[Cloud], now: datetime) -> Around:
    walks = [walk for cloud in clouds for walk in (cloud.walk, cloud.page_walk) if walk is not None]
    told = [walk.reply.at for walk in walks if walk.reply is not None and walk.reply.at is not None]
    proven = {walk.goal.host for walk in walks if walk.proven and not _near(walk)}
    off = timedelta(seconds=now.timestamp() - median(told)) if told else None
    return Around(now=now, off=off, proven=frozenset(proven))


def judge(cloud: Cloud, about: Around) -> Section:
    """One upstream."""
    upstream, walk = cloud.upstream, cloud.walk
    findings = [*climb(_steps(cloud, about))]
    if walk.reply is not None and not walk.reply.trouble:
        findings.append(latency.verdict(_times(walk)))
    if cloud.page is not None:
        findings.append(page.verdict(cloud.page))
    by = " through its proxy" if upstream.proxy else ""
    return Section(of=upstream.name, about=f"{upstream.base_url}{by}", findings=tuple(findings))


def _steps(cloud: Cloud, about: Around) -> Iterator[Step]:
    upstream, walk = cloud.upstream, cloud.walk
    goal, proven, near = walk.goal, walk.proven, _near(walk)
    whose = f"{'the proxy of ' if goal.proxy else ''}[[upstream]] {upstream.name}"
    ailing = cloud.page is not None and cloud.page.ailing
    elsewhere = bool(about.proven - {goal.host})
    yield _step(link.LAYER, walk.way, link.verdict)
    yield _step(names.LAYER, walk.lookup, partial(names.verdict, proven=proven, whose=whose, here=goal.here))
    yield _step(tcp.LAYER, walk.knocks, partial(tcp.verdict, near=near, elsewhere=elsewhere))
    if goal.secure and goal.proxy is not None:
        yield _step(proxy.LAYER, walk.tunnel, proxy.verdict)
    if goal.secure:
        portal = http.portal(walk.peek) if goal.public else None  # a server of one's own may show pages on port 80
        judge = partial(tls.verdict, now=about.now, off=about.off, public=goal.public, ailing=ailing, portal=portal)
        yield _step(tls.LAYER, walk.handshake, judge)
    yield _step(http.LAYER, walk.reply, partial(http.verdict, proven=proven or near, public=goal.public))
    accepted = partial(
        key.verdict,
        key_from=upstream.key_from,
        has_key=upstream.key is not None,
        of_callers=upstream.client_key,
        name=upstream.name,
    )
    yield _step(key.LAYER, walk.reply, accepted)


def _step(layer: str, facts: Facts | None, judge: Callable[[Facts], Finding]) -> Step:
    """A layer without facts was not reached, though nothing below it was found wrong: the time was over."""
    if not facts:
        return layer, lambda: skipped(layer, "not reached in time")
    return layer, lambda: judge(facts)


def _near(walk: Walk) -> bool:
    return walk.way is not None and (walk.way.here or walk.way.near)


def _times(walk: Walk) -> latency.Times:
    assert walk.reply is not None
    connected = [knock.seconds for knock in walk.knocks if knock.outcome == "connected"]
    return latency.Times(
        connect=min(connected, default=0.0),
        tls=walk.handshake.seconds if walk.handshake is not None else 0.0,
        first_byte=walk.reply.seconds,
    )
