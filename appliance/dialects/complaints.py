"""What does a cloud complain of, and what does that mean for us? The part that all dialects share.

Rules of this file:

1. The order of reading is code, then type, then phrase, then status; quota before rate limit; a 5xx is a failure of
   the cloud whatever its body says.
2. A 400 is the caller's, but for spent money, bad keys, unknown models and too many tokens dressed as 400.
3. A page is not the cloud's word: somebody on the way said it, about no mistake of the caller's.
4. Nobody may talk a cloud down: what stands in or between a sentence's quotations, or is said of one field of the
   request, may be the caller's own words, and is not searched for phrases that would set the cloud aside for everybody.
   Nor does it matter to anybody else that a file, or whatever a caller names by an id, is not there.
5. Our sentences repeat a cloud's words only where somebody must mend a configuration, and then without its keys.
   For the caller of another dialect they stand in `words`.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from appliance.core.chat import Headers
from appliance.core.fault import BackendError, Fault, Reply
from appliance.dialects import fields, waits, words

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
    behind: Any = None
    """What the provider behind a gateway said, if the gateway only passes it on."""

    @property
    def unquoted(self) -> str:
        """The message without its quotations."""
        return words.QUOTED.sub("_", self.message)

    @property
    def around(self) -> str:
        """The message before its first quotation and after its last: whoever is quoted may close a quotation too."""
        first, *rest = words.QUOTED.split(self.message)
        return f"{first}_{rest[-1]}" if rest else first

    @property
    def of_a_field(self) -> bool:
        """Is it about one field of the caller's request, other than the model?"""
        if not words.NO_FIELD.fullmatch(self.param or ""):
            return True
        return words.FIELD.match(self.message) is not None

    @property
    def of_the_callers(self) -> bool:
        """Is it about what only the caller knows: one of his fields, or a thing that he names by an id?"""
        said = (self.unquoted, self.code.replace("_", " "))
        return self.of_a_field or any(map(words.OWN_THING.match, said))


def read(found: Any) -> Complaint:
    """Every shape in which clouds put an error, Gemini's one-element list included."""
    if isinstance(found, list) and found:
        found = found[0]
    outer = found if isinstance(found, dict) else {}
    inner = outer.get("error")
    error: dict[str, Any] = inner if isinstance(inner, dict) else outer
    said, place = _of_fields(outer.get("detail"))
    message = inner if isinstance(inner, str) else error.get("message") or said
    code, named, param = error.get("code"), error.get("type") or error.get("status"), error.get("param") or place
    metadata, details = error.get("metadata"), error.get("details")
    number = code if isinstance(code, int) and not isinstance(code, bool) else None
    if isinstance(code, str) and code.isdecimal() and len(code) == len("400"):
        number = int(code)  # LiteLLM's
    metadata = metadata if isinstance(metadata, dict) else {}
    code = _detailed(details) or code
    return Complaint(
        code=code.lower() if isinstance(code, str) else "",
        type=named.lower() if isinstance(named, str) else "",
        message=message if isinstance(message, str) else "",
        param=param if isinstance(param, str) else None,
        number=number,
        flagged="flagged_input" in metadata,
        wait=waits.retry_delay(details),
        behind=metadata.get("raw"),
    )


def _of_fields(detail: Any) -> tuple[Any, str | None]:
    """FastAPI's list of what is wrong with the fields, as one sentence, and the place of the first."""
    if not isinstance(detail, list):
        return detail, None
    said: list[tuple[str, str]] = []
    for one in detail:
        if isinstance(one, dict) and isinstance(one.get("msg"), str):
            loc = one.get("loc")
            steps = [str(step) for step in loc if step != "body"] if isinstance(loc, list) else []
            said.append((".".join(steps), one["msg"]))
    return "; ".join(f"{place}: {wrong}" if place else wrong for place, wrong in said), said[0][0] if said else None


def _detailed(details: Any) -> str | None:
    """The code in the details: Anthropic's, or the reason in Google's ErrorInfo."""
    if isinstance(details, dict):
        code = details.get("error_code")
        return code if isinstance(code, str) else None
    for detail in details if isinstance(details, list) else ():
        reason = detail.get("reason") if isinstance(detail, dict) else None
        if isinstance(reason, str) and reason:
            return reason
    return None


def refusal(dialect: str, status: int, headers: Headers, body: bytes) -> BackendError:
    """A whole answer that is none, as the fault it is for us."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    complaint = read(found)
    wait = waits.asked(headers)
    wait = complaint.wait if wait is None else wait
    fault = _fault(status, complaint, wait)
    if fault in (Fault.REQUEST, Fault.CONFIG) and status not in _ALSO_IN_PAGES and _is_a_page(body, found):
        fault = Fault.BROKEN
    if fault is Fault.BUSY and wait is None:
        wait = waits.refilled(headers, complaint.message)
    kept = tuple((name, value) for name, value in headers if name in _KEPT or name.startswith(_KEPT_FAMILIES))
    theirs = Reply(status=status, body=body, headers=kept, dialect=dialect)
    return _error(fault, status, complaint, wait, theirs)


_ALSO_IN_PAGES = (401, 404, 405, 407, 413, 414, 431)
"""What servers in front of a model say in pages of their own, and mean as it stands."""


def _is_a_page(body: bytes, found: Any) -> bool:
    """Did somebody on the way say this: a firewall, a proxy, Cloudflare in its several ways?"""
    if isinstance(found, dict):
        return found.get("cloudflare_error") is True
    return body.lstrip()[:1] == b"<" or words.CLOUDFLARES.fullmatch(body) is not None


def failure(dialect: str, found: Any) -> BackendError:
    """An error in the place of an event or of an answer, said after a 200. `found` is what a caller may be shown."""
    complaint = read(found)
    status = complaint.number if complaint.number is not None and 400 <= complaint.number < 600 else None
    if status is None:
        fault = _by_words(complaint) or _said_in_a_stream(complaint)
    else:
        fault = Fault.BROKEN if status >= 500 else _fault(status, complaint, complaint.wait)
        fault = Fault.BROKEN if fault is Fault.SERVER else fault
    kind = (("content-type", "application/json"),)
    theirs = Reply(status=status or 400, body=fields.compact(found), headers=kind, dialect=dialect)
    return _error(fault, status, complaint, complaint.wait, theirs)


def _error(fault: Fault, status: int | None, complaint: Complaint, wait: float | None, theirs: Reply) -> BackendError:
    callers = is_the_callers(fault)
    unknown = fault is Fault.CONFIG and _is_of_a_model(status, complaint)
    return BackendError(
        fault,
        _sentence(fault, status, complaint),
        status=status,
        retry_after=wait,
        reply=theirs if callers else None,
        words=(complaint.message if callers else "") or None,
        code=(words.UNKNOWN_MODEL if unknown else complaint.code) or None,
        param=complaint.param,
    )


def _is_of_a_model(status: int | None, complaint: Complaint) -> bool:
    """Does a refusal tell about this model alone?"""
    if status in (401, 402, 407) or not words.MONEY.isdisjoint((complaint.code, complaint.type)):
        return False
    named = status != 404 and "not_found_error" in (complaint.code, complaint.type)  # a 404 speaks for itself
    return status == 410 or named or _names_no_model(complaint)


def _said_in_a_stream(complaint: Complaint) -> Fault:
    if not words.FAILED.isdisjoint((complaint.code, complaint.type)):
        return Fault.BROKEN
    mistaken = not words.MISTAKEN.isdisjoint((complaint.code, complaint.type))
    return _by_phrase(complaint) or (Fault.REQUEST if mistaken or complaint.of_the_callers else Fault.BROKEN)


def is_the_callers(fault: Fault) -> bool:
    """Does the caller get to read what the cloud said?"""
    return fault in (Fault.REQUEST, Fault.TOO_LONG)


def _by_words(complaint: Complaint) -> Fault | None:
    """Code, then type, as far as they decide by themselves."""
    for word in (complaint.code, complaint.type):
        for known, fault in (
            (words.MONEY | words.ACCESS | words.NO_MODEL, Fault.CONFIG),
            (words.FULL, Fault.TOO_LONG),
            (words.FILTERED, Fault.REQUEST),
            (words.HURRIED, Fault.BUSY),
        ):
            if word in known:
                return fault
        if word in words.DENIED:
            return Fault.REQUEST if complaint.of_the_callers else Fault.CONFIG
    return None


def _by_phrase(complaint: Complaint) -> Fault | None:
    if words.TOKENS.search(complaint.message):
        return Fault.TOO_LONG
    if complaint.of_a_field:
        return None
    said = complaint.around
    refused = (
        words.SPENT.search(said) or words.KEY.search(said) or words.COUNTRY.search(said) or _names_no_model(complaint)
    )
    return Fault.CONFIG if refused else None


def _names_no_model(complaint: Complaint) -> bool:
    if not words.NO_MODEL.isdisjoint((complaint.code, complaint.type)):
        return True
    return not complaint.of_a_field and words.NO_MODEL_SAID.search(complaint.unquoted) is not None


def _behind(complaint: Complaint) -> Fault | None:
    """What the words of a gateway's own provider mean for us. Keys, money and countries are the gateway's there."""
    if not isinstance(complaint.behind, str):
        return None
    try:
        found = json.loads(complaint.behind)
    except (ValueError, RecursionError):
        found = {"message": complaint.behind}
    inner = read(found)
    fault = _by_words(inner) or _by_phrase(inner)
    return Fault.BROKEN if fault is Fault.CONFIG else fault if fault is Fault.TOO_LONG else None


def _fault(status: int, complaint: Complaint, wait: float | None) -> Fault:
    if status < 400 or status == 511:  # a redirect, an empty success, a captive portal's own status
        return Fault.BROKEN
    if status in _WAITED_IN_VAIN:
        return Fault.SILENT
    if status >= 500 or status in _FAILED_ON_THE_WAY:
        return Fault.BUSY if status in (503, 529) and wait is not None else Fault.SERVER
    said = _by_words(complaint)
    match status:
        case 401 | 405 | 407 | 410 | 451:
            return Fault.CONFIG
        case 402:
            return Fault.CONFIG if wait is None else Fault.BUSY
        case 403:
            flagged = complaint.flagged or words.FLAGGED.search(complaint.message)
            return Fault.REQUEST if flagged else _refused(said, complaint)
        case 404:
            return _refused(said, complaint)
        case 409 if complaint.type == "conflict_error":
            return Fault.SERVER  # two of its own got into each other's way (Anthropic): it passes
        case 429:
            # "You exceeded your current quota" with a time to wait is a limit per minute (Gemini); without one
            # waiting does not help, nor with a conversation that only costlier plans take (Anthropic) or with one
            # request over the tokens of a whole minute (OpenAI).
            if words.TOO_MUCH.search(complaint.message):
                return Fault.TOO_LONG
            meant = Fault.CONFIG if said is Fault.CONFIG else _by_phrase(complaint) if wait is None else None
            return meant or Fault.BUSY
        case 413 if said is Fault.BUSY:
            return Fault.TOO_LONG  # the same as Groq says it
        case 498:
            return Fault.BUSY  # Groq: no room in the cheaper tier
    if said in (Fault.CONFIG, Fault.TOO_LONG, Fault.REQUEST):
        return said
    return _by_phrase(complaint) or _behind(complaint) or Fault.REQUEST


def _refused(said: Fault | None, complaint: Complaint) -> Fault:
    """What we are not given: something of the caller's, or the model or the cloud itself."""
    callers = said is Fault.REQUEST or (said is not Fault.CONFIG and complaint.of_the_callers)
    return Fault.REQUEST if callers else Fault.CONFIG


_WAITED_IN_VAIN = (408, 524, 598)
"""Somebody on the way waited for the cloud, and gave up. Who asks again waits again."""
_FAILED_ON_THE_WAY = (421, 424, 425, 460, 499)
"""Accidents between the servers of a cloud, that say of themselves that another try may do."""


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
    if status == 402 or not words.MONEY.isdisjoint(said) or words.SPENT.search(complaint.message):
        return "its credit is used up or a limit of spending is reached: look at its billing page"
    if status == 407:
        return "the proxy on the way wants a password: look at proxy"
    if status in (404, 405, 410) or "not_found_error" in said or _names_no_model(complaint):
        return "it does not know the model or the address: look at models, aliases and base_url"
    if status == 451 or "unsupported_country_region_territory" in said or words.COUNTRY.search(complaint.message):
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
    Fault.QUALITY: 502,
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
    Fault.QUALITY: "upstream_bad_answer",
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
