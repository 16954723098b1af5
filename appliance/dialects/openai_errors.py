"""What does an error in OpenAI's words mean for us, and how do we say ours in them?

How clouds' words are read stands in `complaints`. A caller of this dialect gets a cloud's own words about his own
mistake as they came; the words of a cloud of another dialect are said anew, in the place of our sentence.
"""

from __future__ import annotations

from typing import Any

from appliance.core.chat import Headers
from appliance.core.fault import BackendError, Fault, Reply
from appliance.dialects import complaints, fields

NAME = "openai"


def decode_error(status: int, headers: Headers, body: bytes) -> BackendError:
    """A whole answer that is none, as the fault it is for us."""
    return complaints.refusal(NAME, status, headers, body)


def decode_stream_error(found: Any) -> BackendError:
    """An error in the place of an event or of an answer, said after a 200."""
    # A chunk can hold more than the error.
    shown = {"error": found["error"]} if isinstance(found, dict) and "error" in found else found
    return complaints.failure(NAME, shown)


def status_of(error: BackendError) -> int:
    """The status under which a client of this dialect sees the error."""
    return complaints.status_of(error, busy=503)


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
    message, code = error.words or error.message, complaints.code_of(error)
    return {"error": {"message": message, "type": named, "param": error.param, "code": code}}


def encode_error(error: BackendError) -> Reply:
    """`error` as a whole answer; a cloud's own words if they are about the caller's own mistake."""
    return complaints.theirs(error, NAME) or Reply(
        status=status_of(error),
        body=fields.compact(error_body(error)),
        headers=complaints.headers_of(error),
        dialect=NAME,
    )
