"""What does a cloud say in Anthropic's Messages, well and unwell?

Rules of this file:

1. The grammar is the real one: message_start, then blocks, each closed before the next opens, message_delta with the
   reason, message_stop. A ping may stand anywhere; one stands behind the start of the first block.
2. An event is named twice: on its `event:` line and by its `type`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from appliance.drills.script import PROMPT_TOKENS, UNKNOWN, Headers, Refusal, Said, Script, Stage, compact, indented

REQUEST_ID = "req_drill"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'


class AnthropicVoice:
    api = "anthropic"
    greeting = b""
    pulse = PING
    headers: Headers = (
        ("request-id", REQUEST_ID),
        ("anthropic-organization-id", "0b5e0c64-0000-4000-8000-00000000d111"),
        ("anthropic-ratelimit-requests-limit", "60"),
        ("anthropic-ratelimit-requests-remaining", "59"),
        ("anthropic-ratelimit-requests-reset", "2025-11-21T09:00:00Z"),
        ("set-cookie", "__drill=1"),
        ("server", "drill"),
    )

    def id(self, tail: str) -> str:
        return f"msg_drill_{tail.replace('-', '_')}"

    def story(self, script: Script, id: str, *, usage: bool) -> tuple[Said, ...]:
        return tuple(_story(script, id))

    def whole(self, script: Script, id: str) -> bytes:
        content = [complete for _, _, complete in _blocks(script)]
        # The parts of a whole answer come in another order than those of a stream, as they do from the real one.
        message = {
            "model": script.model,
            "id": id,
            "type": "message",
            "role": "assistant",
            "content": content,
            **_stop(script),
            "usage": _input(script) | {"output_tokens": script.tokens, "service_tier": "standard"},
            **UNKNOWN,
        }
        return indented(message)

    def error(self, type: str, message: str, *, code: str | None = None, param: str | None = None) -> bytes:
        """`code` goes where the real one puts it; it names no `param`."""
        error: dict[str, Any] = {"type": type, "message": message}
        if code is not None:
            error["details"] = {"error_code": code, "error_visibility": "user_facing"}
        return compact({"type": "error", "error": error, "request_id": REQUEST_ID})

    def broke(self) -> bytes:
        return b'{"type":"error","error":{"details":null,"type":"overloaded_error","message":"Overloaded"}}'

    def framed(self, script: Script, data: bytes) -> bytes:
        """Under the name that the data gives itself, if it gives one."""
        try:
            found = json.loads(data)
        except ValueError:
            found = None
        return script.framed(data, event=str(found.get("type", "")) if isinstance(found, dict) else "")

    def piece(self, script: Script, id: str, text: str) -> bytes:
        index = next((at for at, (kind, _, _) in enumerate(_blocks(script)) if kind == "text"), 0)
        return _event(script, "content_block_delta", index=index, delta={"type": "text_delta", "text": text})

    def nonsense(self, script: Script) -> bytes:
        data = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text": <nil>}}'
        return script.framed(data, event="content_block_delta")

    def models(self, script: Script) -> bytes:
        listed = {
            "type": "model",
            "id": script.model,
            "display_name": "Failing Cloud 1",
            "created_at": "2025-11-13T00:00:00Z",
            "lifecycle": "active",
        }
        return compact({"data": [listed], "has_more": False, "first_id": script.model, "last_id": script.model})

    @property
    def refusals(self) -> Mapping[str, Refusal]:
        return _REFUSALS


def _story(script: Script, id: str) -> Iterator[Said]:
    stage: Stage = "opening"

    def said(type: str, **fields: Any) -> Said:
        return Said(stage=stage, data=_event(script, type, **fields))

    def delta(index: int, type: str, key: str, value: str, **what: Any) -> Said:
        data = _event(script, "content_block_delta", index=index, delta={"type": type, key: value}, **UNKNOWN)
        return Said(stage="middle", data=data, **what)

    message = {
        "model": script.model,
        "id": id,
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _input(script) | {"output_tokens": 1, "service_tier": "standard"},
        **UNKNOWN,
    }
    yield said("message_start", message=message)
    if script.novelties:
        yield said("x_weather", wind=3)
    calls = 0
    for index, (kind, begun, complete) in enumerate(_blocks(script)):
        content = kind in ("tool_use", "x_card")  # the start alone says something
        start = _event(script, "content_block_start", index=index, content_block=begun)
        yield Said(
            stage="middle" if content else stage, data=start, piece=content, call=calls if kind == "tool_use" else None
        )
        if index == 0 and not content:
            yield Said(stage=stage, data=script.ended(PING.split(b"\n")[:-1]))
        stage = "middle"
        match kind:
            case "thinking":
                for piece in script.thoughts:
                    yield delta(index, "thinking_delta", "thinking", piece, piece=True, thinking=piece)
                yield delta(index, "signature_delta", "signature", script.signature)
            case "text":
                for piece in script.pieces:
                    yield delta(index, "text_delta", "text", piece, piece=True, text=piece)
                if script.novelties:
                    yield delta(index, "x_note_delta", "note", "between the lines", piece=True)
            case "tool_use":
                yield delta(index, "input_json_delta", "partial_json", "", call=calls)
                for piece in script.calls[calls].fragments:
                    yield delta(
                        index, "input_json_delta", "partial_json", piece, piece=True, call=calls, arguments=piece
                    )
                calls += 1
            case _:
                yield delta(index, "x_card_delta", "title", complete["title"], piece=True)
        yield said("content_block_stop", index=index)
    stage = "end"
    yield said("message_delta", delta=_stop(script), usage=_input(script) | {"output_tokens": script.tokens})
    stage = "done"
    yield said("message_stop")


def _blocks(script: Script) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The blocks of the answer: of what kind, as they begin, and complete."""
    if script.thinking:
        begun: dict[str, Any] = {"type": "thinking", "thinking": "", "signature": ""}
        yield "thinking", begun, begun | {"thinking": script.thinking, "signature": script.signature}
    if script.text:
        yield "text", {"type": "text", "text": ""}, {"type": "text", "text": script.text}
    if script.novelties:
        yield "x_card", {"type": "x_card", "title": ""}, {"type": "x_card", "title": "A card"}
    for at, call in enumerate(script.calls):
        begun = {"type": "tool_use", "id": call.id or f"toolu_drill{at}", "name": call.name, "input": {}}
        try:
            complete = json.loads(call.arguments)
        except ValueError:
            complete = {}
        yield "tool_use", begun, begun | {"input": complete}


def _event(script: Script, type: str, **fields: Any) -> bytes:
    return script.framed(script.lines({"type": type, **fields}), event=type)


def _stop(script: Script) -> dict[str, Any]:
    natural = "stop_sequence" if script.stop_string is not None else "tool_use" if script.calls else "end_turn"
    return {"stop_reason": script.stopped or natural, "stop_sequence": script.stop_string}


def _input(script: Script) -> dict[str, int]:
    """The three add up to the whole prompt."""
    return {
        "input_tokens": PROMPT_TOKENS - script.cached - script.cache_written,
        "cache_creation_input_tokens": script.cache_written,
        "cache_read_input_tokens": script.cached,
    }


ANTHROPIC_VOICE = AnthropicVoice()


def _refusal(status: int, type: str, message: str, *, code: str | None = None, later: bool = False) -> Refusal:
    return Refusal(status=status, body=ANTHROPIC_VOICE.error(type, message, code=code), later=later)


_REFUSALS = MappingProxyType(
    {
        "server-error": _refusal(500, "api_error", "Internal server error"),
        "overloaded": _refusal(529, "overloaded_error", "Overloaded", later=True),
        "rate-limit": _refusal(
            429, "rate_limit_error", "This request would exceed your organization's rate limit.", later=True
        ),
        "quota": _refusal(
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API. "
            "Please go to Plans & Billing to upgrade or purchase credits.",
        ),
        "payment-required": _refusal(402, "billing_error", "Your account has no payment method; see Plans & Billing."),
        "spend-limit": _refusal(
            400,
            "invalid_request_error",
            "You have reached your specified API usage limits. You will regain access on 2025-12-01 at 00:00 UTC.",
        ),
        "spend-cap": _refusal(
            429,
            "rate_limit_error",
            "You have reached the monthly spend limit of your usage tier.",
            code="enforced_spend_limit_reached",
        ),
        "wrong-key": _refusal(401, "authentication_error", "invalid x-api-key"),
        "forbidden": _refusal(403, "forbidden", "Request not allowed"),
        "unknown-model": _refusal(404, "not_found_error", "model: failing-cloud-0"),
        "bad-request": _refusal(
            400, "invalid_request_error", "messages.0.content.0.type: Field required; max_tokens: Field required"
        ),
        "content-policy": _refusal(400, "invalid_request_error", "Output blocked by content filtering policy"),
        "too-long": _refusal(400, "invalid_request_error", "prompt is too long: 21 tokens > 16 maximum"),
        "too-large": _refusal(413, "request_too_large", "Request exceeds the maximum size"),
        "gateway-timeout": _refusal(504, "timeout_error", "Request timed out"),
        "unknown-url": _refusal(404, "not_found_error", "Not Found"),
    }
)
