"""What does a cloud complain of, and what does that mean for us? The part that all dialects share.

Rules of this file:

1. The order of reading is code, then type, then phrase, then status; quota before rate limit; a 5xx is a failure of
   the cloud whatever its body says.
2. A 400 is the caller's, but for spent money, bad keys and too many tokens dressed as 400.
3. One table of words for all dialects: clouds imitate each other, and a gateway speaks several tongues at once.
4. Our sentences repeat a cloud's words only where somebody must mend a configuration, and then without its keys.
   For the caller of another dialect they stand in `words`.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from appliance.core.chat import BackendError, Fault, Headers, Reply
from appliance.dialects import fields

# Codes and types of OpenAI and Anthropic, and of the clouds that imitate them.
MONEY = frozenset(
    """insufficient_quota credit_balance_exhausted organization_spend_limit_exceeded project_spend_limit_exceeded
    organization_usage_limit_exceeded billing_hard_limit_reached billing_not_active insufficient_balance
    insufficient_credits insufficient_user_quota account_deactivated billing_error enforced_spend_limit_reached
    contract_spend_limit_reached linked_organization_spend_limit_reached linked_organization_billing_unavailable
    user_profile_not_billable user_profile_billing_not_authorized""".split()
)
ACCESS = frozenset(
    """invalid_api_key incorrect_api_key authentication_error invalid_authentication permission_error permission_denied
    unauthenticated unsupported_country_region_territory model_not_found not_found_error organization_on_hold
    api_key_scope_missing key_profile_mismatch workspace_policy_violation""".split()
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
    string_above_max_length request_too_large""".split()
)
FAILED = frozenset(
    """server_error internal_error internal_server_error internal service_unavailable_error api_error
    timeout_error""".split()
)

_TOKENS = re.compile(
    r"maximum context length|context length (?:of|is|exceeded)|exceeds? the (?:available |model'?s? )?context|"
    r"context window|prompt is too long|exceeds? context limit|required for long context",
    re.IGNORECASE,
)
_SPENT = re.compile(
    r"credit balance|insufficient (?:credits?|balance|funds|quota)|(?:more|no|out of|requires) credits|"
    r"exceeded your current quota|quota (?:is |was |has been )?(?:exceeded|exhausted)|billing (?:hard |soft )?limit|"
    r"billing details|billing (?:account|is not|not active)|enable billing|spend(?:ing)? limit|payment required|"
    r"(?:reached|exceeded) your (?:\w+ ){0,3}usage limits?",
    re.IGNORECASE,
)
_KEY = re.compile(
    r"(?:invalid|incorrect|expired|missing|no) (?:x-)?api[ _-]?key|"
    r"api[ _-]?key (?:is |was )?(?:not valid|invalid|expired)|"
    r"organization has been disabled|credential is only authorized",
    re.IGNORECASE,
)
_FLAGGED = re.compile(r"content management policy|content policy|moderation|input was flagged", re.IGNORECASE)

_KEPT = frozenset(("content-type", "request-id", "x-request-id", "retry-after", "retry-after-ms", "x-should-retry"))
_KEPT_FAMILIES = ("x-ratelimit-", "openai-", "anthropic-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """What a body says went wrong."""

    code: str
    type: str
    message: str
    param: str | None
    number: int | None
    flagged: bool
    wait: float | None


def read(found: Any) -> Complaint:
    """Every shape in which clouds put an error, Gemini's one-element list included."""
    if isinstance(found, list) and found:
        found = found[0]
    outer = found if isinstance(found, dict) else {}
    inner = outer.get("error")
    error: dict[str, Any] = inner if isinstance(inner, dict) else outer
    message = inner if isinstance(inner, str) else error.get("message") or outer.get("detail")
    code, named, param = error.get("code"), error.get("type") or error.get("status"), error.get("param")
    metadata, details = error.get("metadata"), error.get("details")
    number = code if isinstance(code, int) and not isinstance(code, bool) else None
    if isinstance(details, dict) and isinstance(details.get("error_code"), str):
        code = details["error_code"]  # Anthropic's
    return Complaint(
        code=code.lower() if isinstance(code, str) else "",
        type=named.lower() if isinstance(named, str) else "",
        message=message if isinstance(message, str) else "",
        param=param if isinstance(param, str) else None,
        number=number,
        flagged=isinstance(metadata, dict) and "flagged_input" in metadata,
        wait=_retry_delay(details),
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


def refusal(dialect: str, status: int, headers: Headers, body: bytes) -> BackendError:
    """A whole answer that is none, as the fault it is for us."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    complaint = read(found)
    wait = retry_after(headers)
    wait = complaint.wait if wait is None else wait
    fault = _fault(status, complaint, wait)
    if status == 400 and fault is Fault.REQUEST and body.lstrip()[:1] == b"<":
        fault = Fault.BROKEN  # a page: whoever said this is between us and the cloud
    kept = tuple((name, value) for name, value in headers if name in _KEPT or name.startswith(_KEPT_FAMILIES))
    theirs = Reply(status=status, body=body, headers=kept, dialect=dialect)
    return _error(fault, status, complaint, wait, theirs)


def failure(dialect: str, found: Any) -> BackendError:
    """An error in the place of an event or of an answer, said after a 200. `found` is what a caller may be shown."""
    complaint = read(found)
    status = complaint.number if complaint.number is not None and 400 <= complaint.number < 600 else None
    if status is None:
        fault = _by_words(complaint) or _said_in_a_stream(complaint)
    else:
        fault = Fault.BROKEN if status >= 500 else _fault(status, complaint, complaint.wait)
    kind = (("content-type", "application/json"),)
    theirs = Reply(status=status or 400, body=fields.compact(found), headers=kind, dialect=dialect)
    return _error(fault, status, complaint, complaint.wait, theirs)


def _error(fault: Fault, status: int | None, complaint: Complaint, wait: float | None, theirs: Reply) -> BackendError:
    callers = is_the_callers(fault)
    return BackendError(
        fault,
        _sentence(fault, status, complaint),
        status=status,
        retry_after=wait,
        reply=theirs if callers else None,
        words=(complaint.message if callers else "") or None,
        code=complaint.code or None,
        param=complaint.param,
    )


def _said_in_a_stream(complaint: Complaint) -> Fault:
    if not FAILED.isdisjoint((complaint.code, complaint.type)):
        return Fault.BROKEN
    mistaken = not MISTAKEN.isdisjoint((complaint.code, complaint.type))
    return _by_phrase(complaint) or (Fault.REQUEST if mistaken else Fault.BROKEN)


def is_the_callers(fault: Fault) -> bool:
    """Does the caller get to read what the cloud said?"""
    return fault in (Fault.REQUEST, Fault.TOO_LONG)


def _by_words(complaint: Complaint) -> Fault | None:
    """Code, then type, as far as they decide by themselves."""
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


def _by_phrase(complaint: Complaint) -> Fault | None:
    for phrase, fault in ((_TOKENS, Fault.TOO_LONG), (_SPENT, Fault.CONFIG), (_KEY, Fault.CONFIG)):
        if phrase.search(complaint.message):
            return fault
    return None


def _fault(status: int, complaint: Complaint, wait: float | None) -> Fault:
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
            # "You exceeded your current quota" with a time to wait is a limit per minute (Gemini); without one
            # waiting does not help, nor with a conversation that only costlier plans take (Anthropic).
            meant = Fault.CONFIG if words is Fault.CONFIG else _by_phrase(complaint) if wait is None else None
            return meant or Fault.BUSY
        case 413 if words is Fault.BUSY:
            return Fault.TOO_LONG  # one request over the tokens of a whole minute (Groq): waiting does not help
    if words in (Fault.CONFIG, Fault.TOO_LONG, Fault.REQUEST):
        return words
    return _by_phrase(complaint) or Fault.REQUEST


_SENTENCES = {
    Fault.REQUEST: "The cloud refuses the request{status}",
    Fault.TOO_LONG: "The conversation is longer than the cloud can hold{status}",
    Fault.BUSY: "The cloud is busy{status}",
    Fault.SERVER: "The cloud failed{status}",
    Fault.SILENT: "The cloud took too long{status}",
    Fault.BROKEN: "The cloud answered with something that is no answer{status}",
}


def _sentence(fault: Fault, status: int | None, complaint: Complaint) -> str:
    """One sentence for the log, the status page and whoever asks next. Nothing of the cloud's own, which may repeat a
    prompt or a key, but its code, if that is one."""
    told = "" if status is None else f" ({status})"
    word = (complaint.code or complaint.type)[:60]
    code = f": {word}" if re.fullmatch(r"[a-z_.]+", word) else ""
    if fault is Fault.CONFIG:
        return f"The cloud refuses us{told}{code}; {_remedy(status, complaint)}."
    return f"{_SENTENCES[fault].format(status=told)}{code}."


def _remedy(status: int | None, complaint: Complaint) -> str:
    said = (complaint.code, complaint.type)
    if status == 402 or not MONEY.isdisjoint(said) or _SPENT.search(complaint.message):
        return "its credit is used up or a limit of spending is reached: look at its billing page"
    if status == 404 or not {"model_not_found", "not_found_error"}.isdisjoint(said):
        return "it does not know the model or the address: look at models, aliases and base_url"
    if "unsupported_country_region_territory" in said:
        return "it does not serve this country"
    return "it does not accept the key: look at the key and what it may do"


# ---------------------------------------------------------------------------------------------------- saying

_STATUS = {
    Fault.REQUEST: 400,
    Fault.TOO_LONG: 400,
    Fault.CONFIG: 502,
    Fault.SERVER: 500,
    Fault.BROKEN: 502,
    Fault.UNREACHABLE: 502,
    Fault.SILENT: 504,
    Fault.CRASHED: 500,
    Fault.GONE: 499,
}


def status_of(error: BackendError, *, busy: int) -> int:
    """The error's own status where a client may see it, `busy` for one that names none. A cloud that refuses *our* key
    must not look to the client as if it had refused his, and a redirect of a cloud is no redirect of ours."""
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
    return _STATUS.get(error.fault, busy)


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


def code_of(error: BackendError) -> str | None:
    """The cloud's own code, else our word for the fault, if it needs one."""
    return error.code or _CODE.get(error.fault)


def theirs(error: BackendError, dialect: str) -> Reply | None:
    """The cloud's own answer, if it is in the client's dialect and about the caller's own mistake."""
    reply = error.reply
    return reply if reply is not None and reply.dialect == dialect and is_the_callers(error.fault) else None


def headers_of(error: BackendError) -> Headers:
    """What a client's retries obey: a time to wait where waiting helps, and no retries where we have tried all."""
    headers = [("content-type", "application/json")]
    if error.fault is Fault.BUSY:
        headers.append(("retry-after", str(max(1, math.ceil(error.retry_after or 1)))))
    elif not is_the_callers(error.fault):
        headers.append(("x-should-retry", "false"))
    return tuple(headers)
