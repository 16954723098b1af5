"""Legs, events and the telling of conversations with the relay, for its tests."""

from appliance.core.actions import Call, Done, Emit
from appliance.core.attempt import Tried
from appliance.core.chat import ChatRequest, Message, Text
from appliance.core.events import Finish, Started, TextDelta
from appliance.core.fault import BackendError, Fault
from appliance.core.pulse import Timeouts
from appliance.core.relay import Relay
from appliance.core.route import Leg
from appliance.core.scopes import Breakers

CLAUDE = Leg(name="claude", model="sonnet", continues=False)
OPENAI = Leg(name="openai", model="gpt", continues=True)
GEMINI = Leg(name="gemini", model="pro", continues=True)
BOX = Leg(name="local", model="starter", continues=True, offers=frozenset({"json"}))
LIMITS = Timeouts(first_content=12.0, stall=20.0, whole=60.0, total=600.0)
START = Started(id="c1", model="sonnet", created=7)
A, B = TextDelta(text="a"), TextDelta(text="b")
ENDED = Finish(reason="stop")


def broke(fault=Fault.BROKEN, message="It broke.", **more):
    return BackendError(fault, message, **more)


def ask(**changes):
    question = Message(role="user", parts=(Text("Why?"),))
    return ChatRequest(**{"dialect": "openai", "model": "m", "messages": (question,), "stream": True, **changes})


def begin(*legs, request=None, now=0.0, limits=LIMITS, **breakers):
    """A relay that has been started, and what it answered to that."""
    relay = Relay(request or ask(), legs, breakers, limits=limits, jitter=0.5)
    return relay, relay.start(now)


def opened(error=None):
    """A breaker that opened at 0 and lets a trial through at 10."""
    breaker = Breakers(failures=1, cooldown=10.0)
    breaker.fail(
        breaker.begin(0.0, CLAUDE.model), 0.0, error or broke(Fault.SERVER, "claude said 500.", status=500), jitter=0.5
    )
    return breaker


def told(actions):
    """Actions as plain values: errors by their fault, calls by the leg and what it is to go on from."""
    plain = []
    for action in actions:
        match action:
            case Call(leg, request):
                plain.append(("call", leg.name, request.committed.text if request.committed else None))
            case Emit(events):
                plain.append(("emit", *events))
            case Tried(leg=leg, error=error):
                plain.append(("tried", leg, error and error.fault))
            case Done(error):
                plain.append(("done", error and error.fault))
    return plain


def verdict(actions):
    """What the client hears in the end."""
    error = actions[-1].error
    return error.fault, error.status, error.message
