"""What one row of the table of failures means, all of it: the fault, whose it is, and what the breakers do about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from appliance.core.actions import Call, Done
from appliance.core.again import pause_before
from appliance.core.breaker import CONFIG_COOLDOWN, LONGEST_RETRY_AFTER, SHORT_RETRY_AFTER
from appliance.core.chat import ChatRequest, Headers, Message, Text
from appliance.core.fault import BackendError, Fault, Reply
from appliance.core.pulse import Timeouts
from appliance.core.relay import Relay
from appliance.core.route import Leg
from appliance.core.scopes import Breakers, Scope, scope
from appliance.dialects.known import DIALECTS

WIRE = Path(__file__).parent.parent / "wire"
COOLDOWN, LIMIT = 10.0, 3
EVEN = 0.5  # the jitter that changes nothing
BACK_OFF = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """``scope``: in whom it counts, ``None`` for nobody. ``aside``: how long that one is asked nothing after the first
    of them; 0 if it takes `LIMIT` in a row. ``again``: after how long the same cloud is asked once more, if it is.
    ``wait``: what the cloud asks for. ``alarm``: must somebody mend something?"""

    fault: Fault
    scope: Scope | None
    aside: float = 0.0
    again: float | None = None
    wait: float | None = None
    alarm: bool = False

    @property
    def callers(self) -> bool:
        """Does the cloud's answer go back to the caller as it came, if nobody else can do better?"""
        return self.scope is None


THEIRS = Meaning(fault=Fault.REQUEST, scope=None)
TOO_LONG = Meaning(fault=Fault.TOO_LONG, scope=None)
KEY = Meaning(fault=Fault.CONFIG, scope="upstream", aside=CONFIG_COOLDOWN, alarm=True)
MODEL = replace(KEY, scope="model")
FAILED = Meaning(fault=Fault.SERVER, scope="upstream", again=BACK_OFF)
OVERLOADED = replace(FAILED, scope="model")
BUSY = Meaning(fault=Fault.BUSY, scope="model")
SILENT = Meaning(fault=Fault.SILENT, scope="model")
BROKEN = Meaning(fault=Fault.BROKEN, scope="model")


def busy(seconds: float, scope: Scope = "model") -> Meaning:
    """It says when to come back: soon enough to wait for it, or not."""
    if seconds <= SHORT_RETRY_AFTER:
        return replace(BUSY, scope=scope, wait=seconds, again=seconds)
    return replace(BUSY, scope=scope, wait=seconds, aside=max(COOLDOWN, min(seconds, LONGEST_RETRY_AFTER)))


def body(file: str) -> bytes:
    return (WIRE / file).read_bytes()


def refused(dialect: str, status: int, headers: Headers, said: bytes) -> BackendError:
    return DIALECTS[dialect].decode_error(status, headers, said)


def meaning(error: BackendError) -> Meaning:
    """What this failure of one call of the model "asked" does, seen by asking the real breakers."""
    after_one = breakers_after(error, 1)
    after_many = breakers_after(error, LIMIT)
    counted = after_many.state(0.0, "asked") == "open"
    found: Scope | None = None
    if counted:
        found = "upstream" if after_many.state(0.0, "another") == "open" else "model"
        assert found == scope(error)
    return Meaning(
        fault=error.fault,
        scope=found,
        aside=after_one.reopens_in(0.0, "asked") or 0.0,
        again=pause_before(error, EVEN),
        wait=error.retry_after,
        alarm=after_one.alarm is not None,
    )


def breakers_after(error: BackendError, times: int) -> Breakers:
    """The breakers of a cloud whose other model has been well, after so many answers that ended by `error`."""
    breakers = Breakers(failures=LIMIT, cooldown=COOLDOWN)
    well = breakers.begin(0.0, "another")
    assert well is not None
    breakers.succeed(well, 0.0)
    for _ in range(times):
        leave = breakers.begin(0.0, "asked")
        if leave is None:
            break
        breakers.fail(leave, 0.0, error, jitter=EVEN)
    return breakers


def asked() -> Relay:
    """A relay that has asked a cloud behind which only the box stands."""
    question = Message(role="user", parts=(Text("Why?"),))
    request = ChatRequest(dialect="openai", model="m", messages=(question,), stream=True)
    legs = [
        Leg(name="cloud", model="asked", continues=False),
        Leg(name="local", model="starter", continues=True),
    ]
    relay = Relay(request, legs, {}, limits=Timeouts(first_content=12.0, stall=20.0, whole=60.0, total=600.0))
    relay.start(0.0)
    return relay


def goes_to(error: BackendError) -> str:
    """Who is next when the cloud has failed like this before its first word: the box, or the caller."""
    match asked().fail(error, 1.0)[-1]:
        case Call(leg):
            return leg.name
        case Done(told) if told is error:
            return "caller"
        case other:
            raise AssertionError(other)


def check(dialect: str, status: int, headers: Headers, said: bytes, meant: Meaning) -> None:
    """One row: what it means, and what the caller gets to see of it."""
    error = refused(dialect, status, headers, said)
    assert meaning(error) == meant
    assert error.status == status
    assert goes_to(error) == ("caller" if error.fault is Fault.REQUEST else "local")
    speaks = DIALECTS[dialect]
    if meant.callers:
        kind = tuple(one for one in headers if one[0] != "date")
        assert speaks.encode_error(error) == Reply(status=status, body=said, headers=kind, dialect=dialect)
        if meant.fault is Fault.TOO_LONG:
            assert breakers_after(error, 100).state(0.0, "asked") == "closed"
    else:
        assert error.reply is None
        assert error.words is None
        told = speaks.encode_error(error)
        assert told.body != said
        assert 429 <= told.status < 600 or status == 404  # never a refusal of his own key, or his own mistake
