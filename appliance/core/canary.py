"""Does this cloud still answer sensibly? A small question with a known answer, and whose turn it is to be asked one.

Rules of this file:

1. The questions are so easy that every model knows the answer, and so many that no cache on the way answers in a
   model's place for long.
2. Judged mildly: the answer must be among the words that came, however they are written and whatever stands around
   them. What no answer may be is `quality`'s to say.
3. It costs money: asked only while people use the upstream, and never twice within the interval.
4. Asked of who is closed. A trial is a user's: it costs them nothing, and a canary in its place would send them to the
   next leg for as long as it takes. Only where none came for a whole interval the canary is the trial: nobody else asks
   for that model, so nobody else would ever find it well.
5. No clock and no randomness: `now`, `number` and `jitter` are arguments.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from appliance.core.chat import ChatRequest, Message, Text
from appliance.core.events import FinishReason
from appliance.core.fault import BackendError, Fault
from appliance.core.quality import Taste
from appliance.core.scopes import LATELY, Breakers

ROOM = 1024
"""Tokens for an answer. One word needs five; but thinking counts as well, where a model cannot be told to leave it, and
in the time there is few write more. It is a bound and not a price: who does not think uses five."""
EFFORT = "low"  # where it can be told at all; not every model can be told not to think
OK = "ok"
JITTER = 0.2

# ------------------------------------------------------------------------------------------------ the questions


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """`answers` are the words of which one must come, in lower case."""

    text: str
    answers: tuple[str, ...]

    def request(self, *, dialect: str, model: str) -> ChatRequest:
        """It as a request of nobody's."""
        said = Message(role="user", parts=(Text(self.text),))
        return ChatRequest(dialect=dialect, model=model, messages=(said,), max_tokens=ROOM, effort=EFFORT)


_NUMBERS = (
    *("four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen"),
    *("sixteen", "seventeen", "eighteen"),
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September", "October"),
    *("November", "December"),
)
_CAPITALS = {
    "Egypt": "Cairo",
    "France": "Paris",
    "Germany": "Berlin",
    "Greece": "Athens",
    "Italy": "Rome",
    "Japan": "Tokyo",
    "Norway": "Oslo",
    "Spain": "Madrid",
}


def _asked(text: str, *answers: str) -> Question:
    return Question(text=text, answers=tuple(answer.lower() for answer in answers))


def _after(kind: str, names: tuple[str, ...]) -> tuple[Question, ...]:
    following = (*names[1:], names[0])
    return tuple(
        _asked(f"Which {kind} comes after {name}? Answer with one word.", after)
        for name, after in zip(names, following, strict=True)
    )


QUESTIONS: tuple[Question, ...] = (
    *(
        _asked(f"What is {one} plus {other}? Answer with the number only.", str(one + other), _NUMBERS[one + other - 4])
        for one in range(2, 10)
        for other in range(2, 10)
    ),
    *_after("day of the week", _DAYS),
    *_after("month", _MONTHS),
    *(_asked(f"What is the capital of {land}? Answer with one word.", city) for land, city in _CAPITALS.items()),
)


def question(number: int) -> Question:
    """The question that goes by this number; any number is somebody's."""
    return QUESTIONS[number % len(QUESTIONS)]


# -------------------------------------------------------------------------------------------------- the answer

_WORD = re.compile(r"\d+|[^\W\d_]+")  # so that a number is a word of its own where no spaces are written


def judge(asked: Question, text: str, finished: FinishReason, *, name: str) -> BackendError | None:
    """What is wrong with this answer of `name` that reached its end, without any of its text; ``None`` if nothing."""
    if not text and finished == "length":
        return None  # it was still thinking when the room was used up: ours to have made it small, and no bad answer
    taste = Taste()
    complaint = taste.tell(text) or taste.finish()
    if complaint is not None:
        return _bad(f"Asked something easy, {name} {complaint.says}.")
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    if not any(answer in words for answer in asked.answers):
        return _bad(f"Asked something easy, {name} gave a wrong answer.")
    return None


def _bad(sentence: str) -> BackendError:
    return BackendError(Fault.QUALITY, sentence, status=502)


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryReport:
    """How an upstream's canary is. `last` is "ok" or a fault's word, `at` the Unix time of it; of all that were asked
    so many were `well`."""

    model: str
    last: str
    at: float
    asked: int
    well: int

    @classmethod
    def of(cls, before: CanaryReport | None, model: str, last: str, at: float) -> CanaryReport:
        """The one behind `before`. Another model begins anew."""
        asked, well = (before.asked, before.well) if before is not None and before.model == model else (0, 0)
        return cls(model=model, last=last, at=at, asked=asked + 1, well=well + (last == OK))


# -------------------------------------------------------------------------------------------------- whose turn


@dataclass(slots=True)
class _Turn:
    since: float  # when a canary was last sent, or first wanted
    wait: float  # how many intervals the next comes after that
    deserted: float | None = None  # since when it waits for a trial, without a pause


class Turns:
    """Whose turn is it? To be told regularly of all who have a canary, as (upstream, model).

    The first comes within a fifth of the interval, each further one after the interval, up to a fifth later, so that
    boxes behind one cloud do not ask in step.
    """

    def __init__(self) -> None:
        self._turns: dict[tuple[str, str], _Turn] = {}

    def due(
        self, kept: Mapping[tuple[str, str], Breakers], now: float, *, interval: float, jitter: Callable[[], float]
    ) -> list[tuple[str, str]]:
        """Those to be asked now. `jitter` draws from [0, 1)."""
        self._turns = {key: turn for key, turn in self._turns.items() if key in kept}
        due = []
        for key, breakers in kept.items():
            turn = self._turns.get(key)
            if turn is None:
                turn = self._turns[key] = _Turn(now, JITTER * jitter())
            allowed = _may_ask(turn, breakers, key[1], now, interval)
            if allowed and now >= turn.since + turn.wait * interval:
                turn.since, turn.wait = now, 1.0 + JITTER * jitter()
                due.append(key)
        return due


def _may_ask(turn: _Turn, breakers: Breakers, model: str, now: float, interval: float) -> bool:
    """Would it be no waste, and in nobody's way?"""
    state = breakers.state(now, model)
    if state != "half-open":
        turn.deserted = None
    elif turn.deserted is None:
        turn.deserted = now
    # Narrower than `in_use`, which holds as long as anything is open: of that alone nobody should pay for canaries.
    wanted = breakers.asked_at is not None and now - breakers.asked_at <= LATELY
    deserted = turn.deserted is not None and now - turn.deserted >= interval
    return wanted and (state == "closed" or deserted)
