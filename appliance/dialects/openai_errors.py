"""What does an error in OpenAI's words mean for us, and how do we say ours in them?

The order of reading is code, then type, then phrase, then status; quota before rate limit; a 5xx is a failure of the
cloud whatever its body says. A 400 is the caller's, but for spent money, bad keys and too many tokens dressed as 400.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from appliance.core.chat import BackendError, Fault, Headers, Reply
from appliance.dialects import fields

# Codes and types of OpenAI, and of the clouds that imitate it.
MONEY = frozenset(
    """insufficient_quota credit_balance_exhausted organization_spend_limit_exceeded project_spend_limit_exceeded
    organization_usage_limit_exceeded billing_hard_limit_reached billing_not_active insufficient_balance
    insufficient_credits insufficient_user_quota account_deactivated""".split()
)
ACCESS = frozenset(
    """invalid_api_key incorrect_api_key authentication_error invalid_authentication permission_error permission_denied
    unauthenticated unsupported_country_region_territory model_not_found""".split()
)
FULL = frozenset("context_length_exceeded context_window_exceeded exceed_context_size_error".split())
FILTERED = frozenset(
    """content_policy_violation content_filter responsibleaipolicyviolation moderation_blocked invalid_prompt
    cyber_policy_violation""".split()
)
HURRIED = frozenset(
    """rate_limit_exceeded rate_limit_error rate_limit_reached too_many_requests resource_exhausted overloaded_error
    server_is_overloaded engine_overloaded slow_down""".split()
)
MISTAKEN = frozenset(
    """invalid_request_error bad_request invalid_argument unsupported_parameter unsupported_value
    string_above_max_length""".split()
)
FAILED = frozenset("server_error internal_error internal_server_error internal service_unavailable_error".split())

_TOKENS = re.compile(
    r"maximum context length|context length (?:of|is|exceeded)|exceeds? the (?:available |model'?s? )?context|"
    r"context window|prompt is too long",
    re.IGNORECASE,
)
_SPENT = re.compile(
    r"credit balance|insufficient (?:credits?|balance|funds|quota)|(?:more|no|out of|requires) credits|"
    r"exceeded your current quota|quota (?:is |was |has been )?(?:exceeded|exhausted)|billing (?:hard |soft )?limit|"
    r"billing details|billing (?:account|is not|not active)|enable billing|spend(?:ing)? limit|payment required",
    re.IGNORECASE,
)
_KEY = re.compile(
    r"(?:invalid|incorrect|expired|missing|no) api[ _-]?key|api[ _-]?key (?:is |was )?(?:not valid|invalid|expired)",
    re.IGNORECASE,
)
_FLAGGED = re.compile(r"content management policy|content policy|moderation|input was flagged", re.IGNORECASE)

_SECRET = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|hf|r8|nvapi|key)[-_][\w*.+/=-]{4,}|\bAIza[\w-]{8,}|(?<=provided: )\S+|"
    r"(?<=bearer )\S+|(?=[a-z_+=*]*\d)[a-z0-9_+=*]{20,}",
    re.IGNORECASE,
)
_SAID = 200  # characters of a cloud's own words that one of our sentences repeats

_KEPT = frozenset(("content-type", "x-request-id", "retry-after", "retry-after-ms", "x-should-retry"))
_KEPT_FAMILIES = ("x-ratelimit-", "openai-", "anthropic-")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Complaint:
    """What a body says went wrong."""

    code: str
    type: str
    message: str
    param: str | None
    number: int | None
    flagged: bool
    wait: float | None


def _complaint(found: Any) -> _Complaint:
    """Every shape in which clouds of this dialect put an error, Gemini's one-element list included."""
    if isinstance(found, list) and found:
        found = found[0]
    outer = found if isinstance(found, dict) else {}
    inner = outer.get("error")
    error: dict[str, Any] = inner if isinstance(inner, dict) else outer
    message = inner if isinstance(inner, str) else error.get("message") or outer.get("detail")
    code, named, param = error.get("code"), error.get("type") or error.get("status"), error.get("param")
    metadata = error.get("metadata")
    return _Complaint(
        code=code.lower() if isinstance(code, str) else "",
        type=named.lower() if isinstance(named, str) else "",
        message=message if isinstance(message, str) else "",
        param=param if isinstance(param, str) else None,
        number=code if isinstance(code, int) and not isinstance(code, bool) else None,
        flagged=isinstance(metadata, dict) and "flagged_input" in metadata,
        wait=_retry_delay(error.get("details")),
    )


def _retry_delay(details: Any) -> float | None:
    """Google's RetryInfo: "34s"."""
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)s", delay)):
            return float(match[1])
    return None


def retry_after(headers: Headers) -> float | None:
    """The seconds a cloud asks us to wait. A date would need a clock, and is taken for silence."""
    given = dict(headers)
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(given.get(name, "")) / scale
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


def decode_error(status: int, headers: Headers, body: bytes) -> BackendError:
    """A whole answer that is none, as the fault it is for us."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    complaint = _complaint(found)
    wait = retry_after(headers)
    wait = complaint.wait if wait is None else wait
    fault = _fault(status, complaint, wait)
    if status == 400 and fault is Fault.REQUEST and body.lstrip()[:1] == b"<":
        fault = Fault.BROKEN  # a page: whoever said this is between us and the cloud
    theirs = Reply(status=status, body=body, headers=_meaningful(headers)) if _is_the_callers(fault) else None
    return BackendError(
        fault,
        _sentence(fault, status, complaint),
        status=status,
        retry_after=wait,
        reply=theirs,
        code=complaint.code or None,
        param=complaint.param,
    )


def decode_stream_error(found: Any) -> BackendError:
    """An error in the place of an event or of an answer, said after a 200."""
    complaint = _complaint(found)
    status = complaint.number if complaint.number is not None and 400 <= complaint.number < 600 else None
    if status is None:
        fault = _by_words(complaint) or _said_in_a_stream(complaint)
    else:
        fault = Fault.BROKEN if status >= 500 else _fault(status, complaint, complaint.wait)
    theirs = None
    if _is_the_callers(fault):
        body = {"error": found["error"]} if isinstance(found, dict) and "error" in found else found
        kind = (("content-type", "application/json"),)
        theirs = Reply(status=status or 400, body=fields.compact(body), headers=kind)
    return BackendError(
        fault,
        _sentence(fault, status, complaint),
        status=status,
        retry_after=complaint.wait,
        reply=theirs,
        code=complaint.code or None,
        param=complaint.param,
    )


def _said_in_a_stream(complaint: _Complaint) -> Fault:
    if not FAILED.isdisjoint((complaint.code, complaint.type)):
        return Fault.BROKEN
    mistaken = not MISTAKEN.isdisjoint((complaint.code, complaint.type))
    return _by_phrase(complaint) or (Fault.REQUEST if mistaken else Fault.BROKEN)


def _is_the_callers(fault: Fault) -> bool:
    return fault in (Fault.REQUEST, Fault.TOO_LONG)


def _by_words(complaint: _Complaint) -> Fault | None:
    """Code, then type, then phrase, as far as they decide by themselves."""
    for word in (complaint.code, complaint.type):
        for words, fault in (
            (MONEY | ACCESS, Fault.CONFIG),
            (FULL, Fault.TOO_LONG),
            (FILTERED, Fault.REQUEST),
            (HURRIED, Fault.BUSY),
        ):
            if word in words:
                return fault
    return None


def _by_phrase(complaint: _Complaint) -> Fault | None:
    for phrase, fault in ((_TOKENS, Fault.TOO_LONG), (_SPENT, Fault.CONFIG), (_KEY, Fault.CONFIG)):
        if phrase.search(complaint.message):
            return fault
    return None


def _fault(status: int, complaint: _Complaint, wait: float | None) -> Fault:
    if status < 400 or status == 511:  # a redirect, an empty success, a captive portal's own status
        return Fault.BROKEN
    if status >= 500:
        return Fault.BUSY if status in (503, 529) and wait is not None else Fault.SERVER
    words = _by_words(complaint)
    match status:
        case 401 | 404:
            return Fault.CONFIG
        case 402:
            return Fault.CONFIG if wait is None else Fault.BUSY
        case 403:
            flagged = words is Fault.REQUEST or complaint.flagged or _FLAGGED.search(complaint.message)
            return Fault.REQUEST if flagged else Fault.CONFIG
        case 408:
            return Fault.SILENT
        case 429:
            # "You exceeded your current quota" with a time to wait is a limit per minute (Gemini).
            spent = words is Fault.CONFIG or (wait is None and _by_phrase(complaint) is Fault.CONFIG)
            return Fault.CONFIG if spent else Fault.BUSY
        case 413 if words is Fault.BUSY:
            return Fault.TOO_LONG  # one request over the tokens of a whole minute (Groq): waiting does not help
    if words in (Fault.CONFIG, Fault.TOO_LONG, Fault.REQUEST):
        return words
    return _by_phrase(complaint) or Fault.REQUEST


_SENTENCES = {
    Fault.CONFIG: "The cloud refuses us{status}; check its key, its credit and the model's name",
    Fault.REQUEST: "The cloud refuses the request{status}",
    Fault.TOO_LONG: "The conversation is longer than the cloud can hold{status}",
    Fault.BUSY: "The cloud is busy{status}",
    Fault.SERVER: "The cloud failed{status}",
    Fault.SILENT: "The cloud took too long{status}",
    Fault.BROKEN: "The cloud answered with something that is no answer{status}",
}


def _sentence(fault: Fault, status: int | None, complaint: _Complaint) -> str:
    said = _SENTENCES[fault].format(status="" if status is None else f" ({status})")
    if fault is Fault.CONFIG and complaint.message:
        # Only here: whoever runs the box must read it. Elsewhere the words could repeat a prompt.
        return f"{said}. It says: {masked(complaint.message)[:_SAID]}"
    word = complaint.code or complaint.type
    return f"{said}: {word[:60]}." if re.fullmatch(r"[a-z_.]+", word) else f"{said}."


def masked(text: str) -> str:
    """`text` on one line, without anything that looks like a key."""
    return _SECRET.sub("***", " ".join(text.split()))


def _meaningful(headers: Headers) -> Headers:
    return tuple((name, value) for name, value in headers if name in _KEPT or name.startswith(_KEPT_FAMILIES))


# ---------------------------------------------------------------------------------------------------- saying

_STATUS = {
    Fault.REQUEST: 400,
    Fault.TOO_LONG: 400,
    Fault.CONFIG: 502,
    Fault.BUSY: 503,
    Fault.SERVER: 500,
    Fault.BROKEN: 502,
    Fault.UNREACHABLE: 502,
    Fault.SILENT: 504,
    Fault.CRASHED: 500,
    Fault.GONE: 499,
}
_CODE = {
    Fault.TOO_LONG: "context_length_exceeded",
    Fault.CONFIG: "upstream_refused",
    Fault.BUSY: "server_is_overloaded",
    Fault.SERVER: "upstream_failed",
    Fault.BROKEN: "upstream_broken",
    Fault.UNREACHABLE: "upstream_unreachable",
    Fault.SILENT: "upstream_timeout",
    Fault.CRASHED: "engine_crashed",
}


def status_of(error: BackendError) -> int:
    """The error's own status where a client may see it. A cloud that refuses *our* key must not look to the client
    as if it had refused his, and a redirect of a cloud is no redirect of ours."""
    given = error.status
    if given is not None:
        fits = {
            Fault.REQUEST: 400 <= given < 500,
            Fault.TOO_LONG: 400 <= given < 500,
            Fault.CONFIG: given == 404 or given >= 500,
            Fault.BUSY: given in (429, 503, 529),
        }.get(error.fault, 500 <= given < 600)
        if fits:
            return given
    return _STATUS[error.fault]


def error_body(error: BackendError) -> dict[str, Any]:
    """OpenAI's error object."""
    status = status_of(error)
    if error.fault is Fault.BUSY:
        named = "rate_limit_error" if status == 429 else "service_unavailable_error"
    elif status < 500:
        named = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
            status, "invalid_request_error"
        )
    else:
        named = "server_error"
    code = error.code or _CODE.get(error.fault)
    return {"error": {"message": error.message, "type": named, "param": error.param, "code": code}}


def encode_error(error: BackendError) -> Reply:
    """`error` as a whole answer; a cloud's own words if they are about the caller's own mistake."""
    if error.reply is not None and _is_the_callers(error.fault):
        return error.reply
    headers = [("content-type", "application/json")]
    if error.fault is Fault.BUSY:
        headers.append(("retry-after", str(max(1, math.ceil(error.retry_after or 1)))))
    if error.fault not in (Fault.BUSY, Fault.REQUEST, Fault.TOO_LONG):
        headers.append(("x-should-retry", "false"))
    return Reply(status=status_of(error), body=fields.compact(error_body(error)), headers=tuple(headers))
