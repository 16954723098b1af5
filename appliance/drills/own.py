"""The user's own configuration, with nobody real in it: what is asked, of whom, and how long is waited.

Rules of this file:

1. What stands in for a cloud has its name, its wire, its models and its settings; never its address, key or headers.
2. Nothing is written where the service writes: the folder of the state is the rehearsal's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from appliance.config import Config, ServerConfig, TimeoutConfig, UpstreamConfig
from appliance.core.route import Offer

MAX_TOKENS = 24
CREDENTIAL: Mapping[str, str] = MappingProxyType({"authorization": "Bearer of-the-rehearsal"})
QUESTION = "Write one sentence about a lighthouse."
WAIT = 1.0  # seconds that a silent cloud is given in a rehearsal
LONGEST_WAIT = 30.0
MADE_UP = UpstreamConfig(name="cloud", base_url="http://127.0.0.1:9/v1")


def own(config: Config, state: Path) -> Config:
    """The rehearsal's configuration: a listener of its own, and `state` for whatever is written."""
    return replace(config, server=ServerConfig(), paths=replace(config.paths, state=state))


def question(model: str, *, stream: bool, max_tokens: int = MAX_TOKENS) -> dict[str, Any]:
    """The same in both dialects."""
    messages = [{"role": "user", "content": QUESTION}]
    return {"model": model, "messages": messages, "max_tokens": max_tokens, "stream": stream}


def asked_models(upstreams: Sequence[UpstreamConfig]) -> tuple[tuple[UpstreamConfig, ...], Mapping[str, str]]:
    """For each wire there is, a model that the first cloud of that wire gets to answer. Clouds whose patterns cannot be
    guessed take every model in a rehearsal."""
    found: dict[str, str] = {}
    for api in dict.fromkeys(upstream.api for upstream in upstreams):
        model = asked_model([upstream for upstream in upstreams if upstream.api == api])
        if model is None:
            upstreams = [replace(one, models=("*",)) if one.api == api else one for one in upstreams]
            model = "drill"
        found[api] = model
    return tuple(upstreams), found


def asked_model(upstreams: Sequence[UpstreamConfig]) -> str | None:
    """A model that the first cloud wants, by one of its patterns; ``None`` if none of them can be guessed."""
    first = upstreams[0]
    patterns = (*first.models, *(pattern for pattern, _ in first.aliases))
    guesses = (pattern.replace("*", "drill").replace("?", "x") for pattern in patterns)
    return next((guess for guess in guesses if called(guess, first) is not None), None)


def called(model: str, upstream: UpstreamConfig) -> str | None:
    """What this cloud calls a model; ``None`` if it is not asked for it."""
    return Offer(name=upstream.name, models=upstream.models, aliases=upstream.aliases).resolve(model)


def shorter(timeouts: TimeoutConfig, tok_s: float) -> TimeoutConfig:
    """The limits for clouds that fall silent, so that a rehearsal takes seconds. `total` binds the box as well, so a
    slow box gets more."""

    def least(wish: object) -> float:
        return min(wish, WAIT) if isinstance(wish, float | int) else WAIT

    total = min(timeouts.total, LONGEST_WAIT, 2 * WAIT + 4 * MAX_TOKENS / tok_s)
    return replace(
        timeouts,
        connect=min(timeouts.connect, WAIT / 2),  # before the first word is overdue
        first_content=least(timeouts.first_content),
        stall=least(timeouts.stall),
        total=total,
    )


def in_place_of(upstream: UpstreamConfig, root: str, *, ca: Path | None = None) -> UpstreamConfig:
    """Nothing of the real one is left but what the box knows about it: no key, no address, no page of its status, and
    no questions that nobody asked."""
    return replace(
        upstream,
        base_url=root + ("/v1" if upstream.api == "openai" else ""),
        key=None,
        headers=(),
        proxy=None,
        ca=ca,
        status_page=None,
        canary=None,
    )
