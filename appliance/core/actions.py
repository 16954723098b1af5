"""What the relay says is to be done next."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.core.attempt import Tried
from appliance.core.chat import ChatRequest
from appliance.core.events import Event
from appliance.core.fault import BackendError
from appliance.core.route import Leg


@dataclass(frozen=True, slots=True)
class Call:
    """Ask this leg; an earlier call that still runs is to be closed first."""

    leg: Leg
    request: ChatRequest


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for so many seconds: what comes next is asked of the same leg again."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Emit:
    """Send these on to the client."""

    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Race:
    """Ask this leg as well; the running call goes on."""

    leg: Leg
    request: ChatRequest


@dataclass(frozen=True, slots=True)
class Drop:
    """Close this leg's call; the other one goes on."""

    leg: Leg


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing more will come; with an error, the client is told so."""

    error: BackendError | None = None


Action = Call | Race | Drop | Emit | Pause | Tried | Done
