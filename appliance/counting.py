"""How many tokens is a conversation? A cloud of the request's own dialect says so as it likes; without one the box
counts by its own vocabulary, and while it cannot, its letters are counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from appliance.backends.cloud import CloudBackend
from appliance.backends.local import LocalBackend
from appliance.core.chat import ChatRequest
from appliance.core.fault import BackendError, Fault, Reply
from appliance.core.relay import SKIPPED
from appliance.core.route import LOCAL, Leg
from appliance.core.scopes import Breakers

COUNT_PATH = "v1/messages/count_tokens"
LETTERS_PER_TOKEN = 3
"""Of JSON, on the safe side; for the time in which nobody can count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """A number of tokens, or a cloud's own reply that holds it. `degraded`: it is only a guess."""

    served_by: str
    tokens: int = 0
    reply: Reply | None = None
    fallback: str | None = None
    degraded: str | None = None


async def count_tokens(
    request: ChatRequest,
    body: Callable[[str], bytes],
    *,
    legs: Sequence[Leg],
    clouds: Mapping[str, CloudBackend],
    breakers: Mapping[str, Breakers],
    box: LocalBackend,
) -> Counted:
    """`legs` are those that may answer the request, and `clouds` those that speak its dialect; one is asked with `body`
    under its own name for the model.

    Raises:
        BackendError: REQUEST, as the cloud says it.
    """
    reasons: list[str] = []
    error: BackendError | None = None
    now = asyncio.get_running_loop().time()
    for leg in legs:
        if leg.name not in clouds:
            continue
        if not breakers[leg.name].admits(now, leg.model):
            reasons.append(SKIPPED)
            continue
        try:
            reply = await clouds[leg.name].ask(COUNT_PATH, body(leg.model), request)
            if b'"input_tokens"' not in reply.body:
                raise BackendError(Fault.BROKEN, f"{leg.name} counted no tokens.")
            return Counted(served_by=leg.name, reply=reply, fallback=reasons[0] if reasons else None)
        except BackendError as refused:
            if refused.fault is Fault.REQUEST:
                raise
            error = refused
            reasons.append(refused.fault.value)
    fallback = reasons[0] if reasons else None
    if reasons and not any(leg.local for leg in legs):
        raise error or BackendError(Fault.BUSY, "The clouds that could count this are set aside.", status=503)
    try:
        return Counted(served_by=LOCAL, tokens=await box.count(request), fallback=fallback)
    except BackendError as refused:
        if refused.fault in (Fault.REQUEST, Fault.TOO_LONG):
            raise
        guess = len(request.raw) // LETTERS_PER_TOKEN
        return Counted(served_by=LOCAL, tokens=guess, fallback=fallback, degraded="count")
