"""What does a cloud say in OpenAI's chat completions, well and unwell?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from appliance.drills.script import (
    CREATED,
    PROMPT_TOKENS,
    UNKNOWN,
    Headers,
    Refusal,
    Said,
    Script,
    Stage,
    compact,
    indented,
)


class OpenAIVoice:
    api = "openai"
    greeting = b": drill\n\n"
    pulse = b": keep-alive\n\n"
    headers: Headers = (
        ("x-request-id", "req_drill"),
        ("openai-processing-ms", "12"),
        ("x-ratelimit-remaining-requests", "59"),
        ("set-cookie", "__drill=1"),
        ("server", "drill"),
    )

    def id(self, tail: str) -> str:
        return f"chatcmpl-drill-{tail}"

    def story(self, script: Script, id: str, *, usage: bool) -> tuple[Said, ...]:
        return tuple(_story(script, id, usage=usage))

    def whole(self, script: Script, id: str) -> bytes:
        message: dict[str, Any] = {"role": "assistant", "content": script.text or None, "refusal": None}
        if script.thinking:
            message["reasoning_content"] = script.thinking
        if script.calls:
            message["tool_calls"] = [_call(script, index) for index in range(len(script.calls))]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(script)}
        return indented(
            {**_envelope(script, id, "chat.completion"), "choices": [choice], "usage": _usage(script), **UNKNOWN}
        )

    def error(self, type: str, message: str, *, code: str | None = None, param: str | None = None) -> bytes:
        return indented({"error": {"message": message, "type": type, "param": param, "code": code}})

    def broke(self) -> bytes:
        return b'{"error":{"message":"The server had an error while processing your request.","type":"server_error"}}'

    def framed(self, script: Script, data: bytes) -> bytes:
        return script.framed(data)

    def piece(self, script: Script, id: str, text: str) -> bytes:
        return script.framed(script.lines(chunk(script, id, {"content": text})))

    def nonsense(self, script: Script) -> bytes:
        return script.framed(b'{"choices":[{"delta":{"content": <nil>}}]}')

    def models(self, script: Script) -> bytes:
        listed = [{"id": script.model, "object": "model", "created": 0, "owned_by": "drill"}]
        return compact({"object": "list", "data": listed})

    @property
    def refusals(self) -> Mapping[str, Refusal]:
        return _REFUSALS


def chunk(script: Script, id: str, delta: Mapping[str, Any], *, finish_reason: str | None = None) -> dict[str, Any]:
    """One chunk, with a field that no client knows."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {**_envelope(script, id, "chat.completion.chunk"), "choices": [choice], **UNKNOWN}


def _story(script: Script, id: str, *, usage: bool) -> Iterator[Said]:
    def said(stage: Stage, payload: Mapping[str, Any], **what: Any) -> Said:
        return Said(stage=stage, data=script.framed(script.lines(payload)), **what)

    def delta(content: Mapping[str, Any], **what: Any) -> Said:
        return said("middle", chunk(script, id, content), piece=True, **what)

    yield said("opening", chunk(script, id, {"role": "assistant", "content": "", "refusal": None}))
    if script.novelties:
        yield Said(stage="opening", data=script.framed(b'{"object":"x.weather","wind":3}', event="x_weather"))
        yield said("opening", chunk(script, id, {"x_note": "between the lines"}))
    for piece in script.thoughts:
        yield delta({"reasoning_content": piece}, thinking=piece)
    for piece in script.pieces:
        yield delta({"content": piece}, text=piece)
    for index, call in enumerate(script.calls):
        begun = _call(script, index)
        begun["function"]["arguments"] = ""
        yield delta({"tool_calls": [{"index": index, **begun}]}, call=index)
        for piece in call.fragments:
            more = {"index": index, "function": {"arguments": piece}}
            yield delta({"tool_calls": [more]}, call=index, arguments=piece)
    yield said("end", chunk(script, id, {}, finish_reason=_reason(script)))
    if usage:
        yield said("end", {**_envelope(script, id, "chat.completion.chunk"), "choices": [], "usage": _usage(script)})
    yield Said(stage="done", data=script.framed(b"[DONE]"))


def _envelope(script: Script, id: str, kind: str) -> dict[str, Any]:
    head = {"id": id, "object": kind, "created": CREATED, "model": script.model}
    return head | {"service_tier": "default", "system_fingerprint": "fp_drill"}


def _call(script: Script, index: int) -> dict[str, Any]:
    call = script.calls[index]
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id or f"call_drill{index}", "type": "function", "function": function}


def _reason(script: Script) -> str:
    return script.stopped or ("tool_calls" if script.calls else "stop")


def _usage(script: Script) -> dict[str, Any]:
    counts = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": script.tokens}
    counts["total_tokens"] = PROMPT_TOKENS + script.tokens
    found: dict[str, Any] = {**counts, "prompt_tokens_details": {"cached_tokens": script.cached, "audio_tokens": 0}}
    if script.thoughts:
        found["completion_tokens_details"] = {"reasoning_tokens": len(script.thoughts)}
    return found


OPENAI_VOICE = OpenAIVoice()


def _refusal(
    status: int, type: str, message: str, *, code: str | None = None, param: str | None = None, later: bool = False
) -> Refusal:
    return Refusal(status=status, body=OPENAI_VOICE.error(type, message, code=code, param=param), later=later)


_REFUSALS = MappingProxyType(
    {
        "server-error": _refusal(
            500, "server_error", "The server had an error while processing your request. Sorry about that!"
        ),
        "overloaded": _refusal(
            503, "service_unavailable_error", "That model is currently overloaded with other requests.", later=True
        ),
        "rate-limit": _refusal(
            429, "requests", "Rate limit reached for requests per minute.", code="rate_limit_exceeded", later=True
        ),
        "quota": _refusal(
            429,
            "insufficient_quota",
            "You exceeded your current quota, please check your plan and billing details.",
            code="insufficient_quota",
        ),
        "payment-required": _refusal(402, "unknown_error", "Insufficient Balance", code="invalid_request_error"),
        "spend-limit": _refusal(
            429,
            "insufficient_quota",
            "Your organization has reached its monthly spend limit.",
            code="organization_spend_limit_exceeded",
        ),
        "spend-cap": _refusal(
            429,
            "insufficient_quota",
            "Your organization has reached the usage limit of its tier.",
            code="organization_usage_limit_exceeded",
        ),
        "wrong-key": _refusal(401, "invalid_request_error", "Incorrect API key provided.", code="invalid_api_key"),
        "forbidden": _refusal(
            403,
            "request_forbidden",
            "Country, region, or territory not supported",
            code="unsupported_country_region_territory",
        ),
        "unknown-model": _refusal(
            404,
            "invalid_request_error",
            "The model does not exist or you do not have access to it.",
            code="model_not_found",
        ),
        "bad-request": _refusal(
            400,
            "invalid_request_error",
            "Unsupported parameter: 'max_tokens' is not supported with this model.",
            code="unsupported_parameter",
            param="max_tokens",
        ),
        "content-policy": _refusal(
            400,
            "invalid_request_error",
            "Your request was rejected as a result of our safety system.",
            code="content_policy_violation",
        ),
        "too-long": _refusal(
            400,
            "invalid_request_error",
            "This model's maximum context length is 16 tokens. However, your messages resulted in 21 tokens.",
            code="context_length_exceeded",
            param="messages",
        ),
        "too-large": _refusal(413, "invalid_request_error", "The request body is too large.", code="request_too_large"),
        "gateway-timeout": _refusal(504, "server_error", "The upstream server timed out."),
        "unknown-url": _refusal(404, "invalid_request_error", "Unknown request URL.", code="unknown_url"),
    }
)
