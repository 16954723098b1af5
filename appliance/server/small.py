"""The small calls that applications make beside their conversations: lists of models, counts of tokens.

Both dialects share the port and some paths: who sends `anthropic-version`, or asks under /v1/messages, speaks
Anthropic's; everybody else OpenAI's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import Request
from starlette.responses import JSONResponse, Response

from appliance.core.chat import ChatRequest
from appliance.core.seams import Dialect
from appliance.counting import Counted
from appliance.dialects import anthropic_body, anthropic_in
from appliance.dialects.anthropic import ANTHROPIC
from appliance.dialects.openai_chat import OPENAI

EPOCH = "1970-01-01T00:00:00Z"
"""Anthropic's word for a model whose time of release is not known."""


def spoken(path: str, headers: Collection[str | bytes]) -> Dialect:
    """The dialect of whoever asks for `path` with these header names."""
    asked = path.startswith("/v1/messages") or "anthropic-version" in headers or b"anthropic-version" in headers
    return ANTHROPIC if asked else OPENAI


def dialect_of(request: Request) -> Dialect:
    return spoken(request.url.path, request.headers.keys())


def model_list(names: Sequence[str], dialect: Dialect) -> dict[str, Any]:
    """The answer to GET /v1/models; all of it is on one page."""
    listed = [model_entry(name, dialect) for name in names]
    if dialect is not ANTHROPIC:
        return {"object": "list", "data": listed}
    ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
    return {"data": listed, "has_more": False, **ends}


def model_entry(name: str, dialect: Dialect) -> dict[str, Any]:
    """One model of the list."""
    if dialect is ANTHROPIC:
        return {"type": "model", "id": name, "display_name": name, "created_at": EPOCH}
    return {"id": name, "object": "model", "created": 0, "owned_by": "appliance"}


def parse_count(body: bytes, request: Request) -> tuple[ChatRequest, Callable[[str], bytes]]:
    """A request for a count, and how it is written for a cloud that knows the model by another name.

    Raises:
        BackendError: REQUEST.
    """
    headers = tuple((name.lower(), value) for name, value in request.headers.items())
    parsed = replace(anthropic_in.parse_count(body, headers), query=request.url.query)
    return parsed, partial(anthropic_body.count_body, parsed)


def counted(count: Counted, id: str) -> Response:
    """The answer to a request for a count."""
    found = [("x-appliance-request-id", id), ("x-appliance-served-by", count.served_by)]
    if count.fallback:
        found.append(("x-appliance-fallback", count.fallback))
    if count.degraded:
        found.append(("x-appliance-degraded", count.degraded))
    if count.reply is None:
        return JSONResponse({"input_tokens": count.tokens}, headers=dict(found))
    response = Response(count.reply.body, status_code=count.reply.status)
    for name, value in (*count.reply.headers, *found):
        response.headers[name] = value
    return response
