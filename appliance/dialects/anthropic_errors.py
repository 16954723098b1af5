"""What does an error in Anthropic's words mean for us, and how do we say ours in them?

How clouds' words are read stands in `complaints`. Agents read more than the status: the type (they wait for an
`overloaded_error`), `error_code`, the request's id, and in one case the sentence itself.
"""

from __future__ import annotations

from typing import Any

from appliance.core.chat import Headers
from appliance.core.fault import BackendError, Fault, Reply
from appliance.dialects import complaints, fields

NAME = "anthropic"

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
TOO_LONG = "prompt is too long"
"""What Anthropic says of a conversation that does not fit. It has no code for it, so agents look for these words and
then shorten the conversation."""


def decode_error(status: int, headers: Headers, body: bytes) -> BackendError:
    """A whole answer that is none, as the fault it is for us."""
    return complaints.refusal(NAME, status, headers, body)


def decode_stream_error(found: Any) -> BackendError:
    """An error in the place of an event or of an answer, said after a 200."""
    return complaints.failure(NAME, found)


def status_of(error: BackendError) -> int:
    """The status under which a client of this dialect sees the error."""
    return complaints.status_of(error, busy=529)


def error_body(error: BackendError, id: str = "") -> dict[str, Any]:
    """Anthropic's error object; `id` is the request's."""
    said: dict[str, Any] = {"type": _type(error), "message": _message(error)}
    code = complaints.code_of(error)
    if code is not None:
        said["details"] = {"error_code": code}
    body: dict[str, Any] = {"type": "error", "error": said}
    return {**body, "request_id": id} if id else body


def _type(error: BackendError) -> str:
    status = status_of(error)
    if error.fault is Fault.BUSY and status != 429:
        return "overloaded_error"
    return TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


def _message(error: BackendError) -> str:
    message = error.words or error.message
    if error.fault is Fault.TOO_LONG and TOO_LONG not in message.lower():
        return f"{TOO_LONG}: {message}"
    return message


def encode_error(error: BackendError, *, id: str = "") -> Reply:
    """`error` as a whole answer; a cloud's own words if they are about the caller's own mistake."""
    named: Headers = (("request-id", id),) if id else ()
    return complaints.theirs(error, NAME) or Reply(
        status=status_of(error),
        body=fields.compact(error_body(error, id)),
        headers=complaints.headers_of(error) + named,
        dialect=NAME,
    )
