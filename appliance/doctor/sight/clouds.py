"""Walks to each upstream and to its status page, all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from appliance import __version__, presets, proxies
from appliance.config import UpstreamConfig
from appliance.core.seams import credential
from appliance.dialects.known import DIALECTS
from appliance.doctor.checks.page import SUMMARY, Page, read
from appliance.doctor.sight.visit import Goal, Walk, visit

OK = 200
_ABOUT = (
    ("accept", "application/json"),
    ("accept-encoding", "identity"),
    ("user-agent", f"fallback-appliance/{__version__}"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """An upstream, what was seen on the way to it, and what its provider says."""

    upstream: UpstreamConfig
    walk: Walk
    page: Page | None = None
    page_walk: Walk | None = None


async def look(upstreams: tuple[UpstreamConfig, ...], environ: Mapping[str, str]) -> tuple[Cloud, ...]:
    """All of them."""
    return tuple(await asyncio.gather(*(_look(upstream, environ) for upstream in upstreams)))


async def _look(upstream: UpstreamConfig, environ: Mapping[str, str]) -> Cloud:
    if upstream.status_page is None:
        return Cloud(upstream=upstream, walk=_understood(await visit(goal(upstream)), upstream))
    walk, page_walk = await asyncio.gather(visit(goal(upstream)), visit(_page_goal(upstream, environ)))
    page = _page(upstream.status_page, page_walk)
    return Cloud(upstream=upstream, walk=_understood(walk, upstream), page=page, page_walk=page_walk)


def goal(upstream: UpstreamConfig) -> Goal:
    """The free question, as the appliance's own probes ask it."""
    dialect = DIALECTS[upstream.api]
    ours = {name.lower(): value for name, value in (*dialect.said_anyway, *_ABOUT, *upstream.headers)}
    if upstream.key is not None and not upstream.client_key:
        ours.update([credential(upstream.key, upstream.key_header or dialect.key_header)])
    return Goal(
        url=f"{upstream.base_url.rstrip('/')}/{dialect.models_path}",
        headers=tuple(ours.items()),
        proxy=upstream.proxy,
        ca=upstream.ca,
        public=is_public(upstream),
    )


def is_public(upstream: UpstreamConfig) -> bool:
    """Is its address one that everybody reaches under the same name? Addresses of one's own may well be private."""
    known = presets.at(upstream.base_url, upstream.api)
    return known is not None and urlsplit(upstream.base_url).hostname in known.domains


def _page_goal(upstream: UpstreamConfig, environ: Mapping[str, str]) -> Goal:
    url = f"{(upstream.status_page or '').rstrip('/')}/{SUMMARY}"
    found = proxies.of_environment(url, environ)
    return Goal(url=url, headers=_ABOUT, proxy=upstream.proxy or (found.url if found else None), ca=upstream.ca)


def _understood(walk: Walk, upstream: UpstreamConfig) -> Walk:
    """With what the reply means, if it is no answer."""
    reply = walk.reply
    if reply is None or reply.trouble or reply.status == OK:
        return walk
    error = DIALECTS[upstream.api].decode_error(reply.status, reply.headers, reply.body)
    return replace(walk, reply=replace(reply, error=error))


def _page(url: str, walk: Walk) -> Page:
    if walk.reply is None or walk.reply.trouble:
        return Page(url=url, unread="it could not be reached")
    if walk.reply.status != OK:
        return Page(url=url, unread=f"it answers {walk.reply.status}")
    return read(url, walk.reply.body)
