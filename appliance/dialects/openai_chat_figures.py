"""The numbers beside an answer of OpenAI's chat completions: how many tokens, and how likely each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from appliance.core.events import Odds, Usage


def usage(usage: Usage) -> dict[str, Any]:
    """The tokens of an answer, and of what it is an answer to."""
    written: dict[str, Any] = {"cache_write_tokens": usage.cache_written_tokens} if usage.cache_written_tokens else {}
    counted = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, **written},
    }
    if usage.reasoning_tokens:
        counted["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return counted


def logprobs(odds: Sequence[Odds]) -> dict[str, Any] | None:
    """How likely the tokens of some text were; nothing if nobody told."""
    return {"content": [_token(one) for one in odds], "refusal": None} if odds else None


def _token(one: Odds) -> dict[str, Any]:
    return {**_named(one.token, one.logprob), "top_logprobs": [_named(token, value) for token, value in one.others]}


def _named(token: bytes, logprob: float) -> dict[str, Any]:
    return {"token": _spelled(token), "logprob": logprob, "bytes": list(token)}


def _spelled(token: bytes) -> str:
    """As OpenAI writes it: what is no whole character byte by byte."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02x}" for byte in token)
