"""Who counts tokens when the cloud can, and who when it cannot? Only Anthropic's wire has that question."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from appliance.drills.application import VERSION
from appliance.drills.cloud import FailingCloud
from appliance.drills.faults import FAULTS
from appliance.drills.own import CREDENTIAL, question

NAME = "count-tokens"
SAYS = "it counts tokens, and then it fails to (Anthropic's wire only)"
PATH = "/v1/messages/count_tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """One answer to the question. `by` is who gave it; `guessed`: nobody could count."""

    tokens: int | None
    by: str
    guessed: bool
    complaints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """While the cloud is well, and while it is not."""

    well: Count
    unwell: Count

    @property
    def complaints(self) -> tuple[str, ...]:
        return (*self.well.complaints, *self.unwell.complaints)


async def count(client: httpx.AsyncClient, clouds: Sequence[FailingCloud], *, model: str) -> Counting:
    well = await _ask(client, model, cloud_is_well=True)
    for cloud in clouds:
        cloud.counting = FAULTS["server-error"].act
    return Counting(well=well, unwell=await _ask(client, model, cloud_is_well=False))


async def _ask(client: httpx.AsyncClient, model: str, *, cloud_is_well: bool) -> Count:
    asked = {name: value for name, value in question(model, stream=False).items() if name in ("model", "messages")}
    response = await client.post(PATH, json=asked, headers={**dict([VERSION]), **CREDENTIAL})
    by = response.headers.get("x-appliance-served-by", "nobody")
    try:
        tokens = response.json()["input_tokens"]
    except (json.JSONDecodeError, LookupError, TypeError):
        tokens = None
    wrong = [] if response.status_code == httpx.codes.OK else [f"tokens: the status is {response.status_code}"]
    if not isinstance(tokens, int) or tokens < 1:
        wrong.append("tokens: there is no number")
    if (by == "local") is cloud_is_well:
        wrong.append(f"tokens: counted by {by} while the cloud is {'well' if cloud_is_well else 'unwell'}")
    guessed = "count" in response.headers.get("x-appliance-degraded", "")
    return Count(tokens=tokens if isinstance(tokens, int) else None, by=by, guessed=guessed, complaints=tuple(wrong))
