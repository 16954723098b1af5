"""Did the application get one whole answer, in which every character is the one that its author wrote there?

Rules of this file:

1. It is pure: what was asked, what came and what the clouds said go in, complaints come out.
2. An error is right only where nobody could have gone on, and then in the words of the client's dialect, with all that
   was said before it and without an end.
3. From the real engine nobody knows what it will say: of it the beginning, the end and the form are judged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from campaign_clouds import Told
from campaign_plan import ANYWHERE, DRIP, named
from campaign_words import BOX, FIRST, OPENS, SECOND, Segment, segments, thought

from appliance.core.sse import SseParser
from appliance.core.verdict import refused_after
from appliance.drills.application import LAST_WORDS, Heard
from appliance.drills.exchange import Exchange
from appliance.drills.faults import FLAWS, CloudFault
from appliance.drills.verdict import said_by
from tests.core.schemas import fits

Outcome = Literal["cloud", "box", "continued", "caller", "error"]
Sort = Literal["lost", "characters", "false end", "document", "fallback", "error", "form"]
LENGTH = ("length", "max_tokens")
CALLED = {"openai": "tool_calls", "anthropic": "tool_use"}
STOPPED = {"openai": "stop", "anthropic": "end_turn"}
TWO_DEATHS = refused_after(2).message
UNCONTINUABLE = "cannot be continued by another"
UNREADABLE = "cannot go on from what was written"


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    sort: Sort
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    outcome: Outcome
    complaints: tuple[Complaint, ...]


def judge(told: Told, heard: Heard, *, deaths: int = 0, real: bool = False) -> Judgement:
    """`deaths` of the engine while the answer was under way."""
    case = _Case(told, heard, deaths, real)
    return Judgement(outcome=case.outcome, complaints=tuple(case.complaints()))


class _Case:
    def __init__(self, told: Told, heard: Heard, deaths: int, real: bool) -> None:
        self.plan, self.heard, self.deaths, self.real = told.plan, heard, deaths, real
        self.exchanges, self._of_second, self._entries = told.exchanges, told.of_second, told.entries
        self.said = said_by(self.exchanges) if self.plan.stream else ""
        if self.plan.fault == DRIP:  # it says another word or two before it hears that it was given up
            seam = heard.text.find(OPENS)
            self.said = self.said[:seam] if 0 <= len(self.said) - seam < 24 else self.said
        # From the bytes: a comment of a cloud's may stand before it in the same event.
        takeovers = re.findall(rb"(?m)^: appliance takeover \S+->(\S+)", heard.body)
        self.boxed = heard.headers.get("x-appliance-served-by") == "local" or b"local" in takeovers
        self.handed_over = bool(takeovers)
        self.limited = real and bool(set(heard.finishes) & set(LENGTH))

    @property
    def begun(self) -> bool:
        """Had the client something of a cloud's?"""
        return self.plan.stream and any(one.text or one.thinking or one.arguments for one in self.exchanges)

    @property
    def outcome(self) -> Outcome:
        if self.mistake is not None:
            return "caller"
        if self._wrong or self.heard.status != 200:
            return "error"
        if not self.boxed and not self.handed_over:
            return "cloud"
        return "continued" if self.begun else "box"

    @property
    def _wrong(self) -> tuple[str, ...]:
        """What the client found wrong. Of several choices one may go on when another is at its end."""
        return tuple(
            one for one in self.heard.errors if self.plan.choices == 1 or one != "something came after the end"
        )

    @property
    def mistake(self) -> Exchange | None:
        """The exchange in which a cloud found that the request itself is wrong."""
        if not self.exchanges or self.begun:
            return None
        last = self.exchanges[-1]
        return last if self._fault(last).outcome(stream=self.plan.stream) == "caller" else None

    def _second(self, exchange: Exchange) -> bool:
        return any(one is exchange for one in self._of_second)

    def _fault(self, exchange: Exchange) -> CloudFault:
        return named(self.plan.second if self._second(exchange) else self.plan.fault)

    def complaints(self) -> Iterator[Complaint]:
        match self.outcome:
            case "caller":
                yield from self._callers()
            case "error":
                yield from self._errors()
            case _:
                yield from self._ends()
                yield from self._whose()
                yield from self._texts()
                if self.plan.choices == 1 or not self.boxed:  # else nobody can tell the choices apart here
                    yield from self._thoughts()
                    yield from self._calls()
                    yield from self._engine() if self.boxed else ()

    # ------------------------------------------------------------------------------------------- no answer at all

    def _callers(self) -> Iterator[Complaint]:
        heard, last = self.heard, self.mistake
        assert last is not None
        if not 400 <= heard.status < 500:
            yield Complaint(sort="fallback", says=f"the caller's own mistake became {heard.status}")
        if sum(self._second(one) == self._second(last) for one in self.exchanges) != 1 or self.boxed:
            yield Complaint(sort="fallback", says="somebody else was asked after the caller's own mistake")
        elif last.asked.api == heard.api and heard.body != last.body:
            yield Complaint(sort="form", says="the cloud's words of the mistake were changed")
        if not in_dialect(heard):
            yield Complaint(sort="form", says="the mistake was not told in the client's dialect")

    def _errors(self) -> Iterator[Complaint]:
        heard = self.heard
        if not heard.status:
            yield Complaint(sort="lost", says="; ".join(heard.errors) or "no answer")
            return
        if not self._may_fail():
            yield Complaint(sort="error", says=f"{heard.status}: {'; '.join(heard.errors)}")
        if not in_dialect(heard):
            yield Complaint(sort="form", says=f"no error of {heard.api}: {'; '.join(heard.errors)}")
        if heard.dones or (heard.finishes and self.plan.choices == 1):
            yield Complaint(sort="false end", says="an error and an end")
        if not heard.text.startswith(self.said):
            yield Complaint(sort="characters", says="characters were lost before the error")

    def _may_fail(self) -> bool:
        said = "; ".join(self.heard.errors)
        if self.deaths >= 2 and TWO_DEATHS in said:
            return True
        if self.plan.choices > 1 and (self.begun or self.deaths):
            return UNCONTINUABLE in said
        return bool(self.plan.astray) and UNREADABLE in said

    # ----------------------------------------------------------------------------------------------------- ends

    def _ends(self) -> Iterator[Complaint]:
        heard, plan = self.heard, self.plan
        if not (heard.finishes and len(heard.finishes) <= plan.choices):
            yield Complaint(sort="false end" if heard.finishes else "lost", says=f"{len(heard.finishes)} ends")
        if plan.stream and heard.dones != 1:
            yield Complaint(sort="false end", says=f"{heard.dones} times {LAST_WORDS[heard.api]}")
        wanted = (CALLED if heard.calls else STOPPED)[heard.api]
        if not self.limited and set(heard.finishes) - {wanted}:
            yield Complaint(sort="false end", says=f"it ends with {heard.finishes[0]} instead of {wanted}")
        if len(heard.ids) > 1:
            yield Complaint(sort="form", says="it changed its id")
        if "x-appliance-request-id" not in heard.headers:
            yield Complaint(sort="form", says="it has no x-appliance-request-id")

    def _whose(self) -> Iterator[Complaint]:
        """Was nobody else asked where nothing was wrong?"""
        plan = self.plan
        wanted = named(plan.fault).outcome(stream=plan.stream) if plan.fault != ANYWHERE else "continued"
        asked_in_vain = plan.choices > 1 and plan.fault == "no-done"
        if plan.route and wanted == "cloud" and self.outcome != "cloud" and not asked_in_vain:
            reason = self.heard.headers.get("x-appliance-fallback")
            yield Complaint(sort="fallback", says=f"{plan.fault}: {self.outcome} because of {reason}")

    # ----------------------------------------------------------------------------------------------------- text

    def _texts(self) -> Iterator[Complaint]:
        plan, text = self.plan, self.heard.text
        if plan.stream and not text.startswith(self.said):
            yield Complaint(sort="characters", says=f"of {len(self.said)} characters {_agree(text, self.said)} came")
            return
        if plan.choices > 1 and self.boxed:
            return
        if plan.schema is not None:
            yield from self._document(plan.schema, text)
            return
        if self.real and self.boxed:
            return
        if not self.boxed and text != (self.said if plan.stream else self.exchanges[-1].text):
            yield Complaint(sort="characters", says="it is not what the cloud said")
        if plan.fault in (*FLAWS, DRIP) or plan.second in FLAWS:
            return
        yield from self._segments(text)

    def _segments(self, text: str) -> Iterator[Complaint]:
        parts = list(segments(text))
        for part in parts:
            whole = self._whole(part, text)
            if not whole.startswith(part.text):
                yield Complaint(
                    sort="characters", says=f"{part.author} was changed at {part.at + _agree(whole, part.text)}"
                )
            elif part is parts[-1] and part.text != whole and not self._may_be_empty():
                yield Complaint(sort="false end", says=f"it ends inside what {part.author} says")
        begins = len(self.said)
        if self.boxed and len(text) > begins and text[begins] != OPENS:
            yield Complaint(sort="characters", says=f"nobody signed what follows the clouds' {begins} characters")

    def _whole(self, part: Segment, text: str) -> str:
        """What this author says when nothing stops it."""
        if part.marked:
            return part.whole(text, self.plan.key, self.plan.hint.words)
        if part.author == SECOND:
            return self.plan.script_of_second.text
        return self.plan.script.text if part.author == FIRST else ""

    def _may_be_empty(self) -> bool:
        """Whoever goes on may say that there is nothing more to say."""
        return bool(self._of_second) and self.plan.second == "empty-answer"

    def _document(self, schema: str, text: str) -> Iterator[Complaint]:
        if self.limited:
            return
        yield from _fit(schema, text, "the answer")

    # ---------------------------------------------------------------------------------------- thoughts and calls

    def _thoughts(self) -> Iterator[Complaint]:
        """Whoever cannot go on from half a thought has one of his own."""
        own = thought(BOX, self.plan.key, 4)
        clouds = [one.thinking for one in self.exchanges] if self.plan.stream or not self.boxed else []
        begun = "".join(clouds) if self.plan.stream else "".join(clouds[-1:])
        rest = self.heard.thinking.removeprefix(begun)
        if not self.heard.thinking.startswith(begun):
            yield Complaint(sort="characters", says="the cloud's thoughts were changed")
        elif not self.real and rest.replace(own, ""):
            yield Complaint(sort="characters", says=f"thoughts that nobody had: {rest[:60]!r}")
        elif not self.real and rest.count(own) > (self.boxed and self.plan.hint.thinks) + self.deaths:
            yield Complaint(sort="characters", says="thoughts were repeated")

    def _calls(self) -> Iterator[Complaint]:
        plan, calls = self.plan, self.heard.calls
        begun = self._begun_calls()
        if len(calls) < len(begun) or (not self.boxed and len(calls) != len(begun)):
            yield Complaint(sort="lost", says=f"{len(calls)} of the cloud's {len(begun)} calls")
            return
        for at, (name, arguments) in enumerate(calls):
            if at < len(begun):
                yield from self._begun_call(at, begun[at], last=at == len(begun) - 1)
                if plan.astray and at == len(plan.script.calls) - 1:
                    # Of its schema it never was; and where it is not even JSON, that is the cloud's affair.
                    yield from _fit("{}", arguments, f"call {at}") if self.boxed and not self.limited else ()
                    continue
            if name not in plan.schemas:
                yield Complaint(sort="document", says=f"there is no tool {name}")
            elif not (self.limited and at == len(calls) - 1):
                yield from _fit(plan.schemas[name], arguments, f"call {at}")

    def _begun_calls(self) -> Sequence[str]:
        """The arguments of the calls that a cloud began and the client was told of."""
        if not self.plan.stream and self.boxed:
            return ()
        found = [one.arguments for one in self.exchanges if one.arguments]
        return [found[-1][index] for index in sorted(found[-1])] if found else ()

    def _begun_call(self, at: int, begun: str, *, last: bool) -> Iterator[Complaint]:
        plan, (name, arguments) = self.plan, self.heard.calls[at]
        call = plan.script.calls[at]
        if name != call.name:
            yield Complaint(sort="characters", says=f"call {at} is of {name} instead of {call.name}")
        if not last or (
            self._bare(begun) == self._bare(call.arguments) and not (self.boxed and _parsed(begun) is None)
        ):
            broken = plan.astray and not plan.stream and _parsed(begun) is None
            if not broken and not self._same(arguments, begun):
                yield Complaint(sort="characters", says=f"the arguments of call {at} were changed")
        elif not self._bare(arguments).startswith(self._bare(begun)):
            yield Complaint(sort="characters", says=f"the cloud's half of call {at} was changed")
        elif not self.boxed:
            yield Complaint(sort="false end", says=f"call {at} is half")

    def _engine(self) -> Iterator[Complaint]:
        """Was the engine given what the client had, and did the client get what it said?"""
        heard, arguments = self.heard, [arguments for _, arguments in self.heard.calls]
        for at, entry in enumerate(self._entries):
            last = at == len(self._entries) - 1
            text = entry.given + entry.said
            if not (heard.text == text if last else heard.text.startswith(entry.given)):
                sort: Sort = "false end" if text.startswith(heard.text) else "characters"
                yield Complaint(sort=sort, says=f"the engine was given {len(entry.given)} characters and said {text!r}")
            given = dict(enumerate(entry.calls_given))
            wanted = {
                index: given.get(index, "") + entry.calls_said.get(index, "") for index in {**given, **entry.calls_said}
            }
            if last and not (
                len(wanted) == len(arguments)
                and all(self._same(arguments[index], one) for index, one in wanted.items())
            ):
                yield Complaint(sort="characters", says=f"the engine wrote the calls {wanted}")

    def _same(self, some: str, others: str) -> bool:
        """A whole answer is written anew for clients of another dialect."""
        return self._bare(some) == self._bare(others) or (not self.plan.stream and _parsed(some) == _parsed(others))

    def _bare(self, arguments: str) -> str:
        """Anthropic's SDK cannot read white space in front of them, so its clients are not given any of another's."""
        return arguments.lstrip(" \t\r\n") if self.heard.api == "anthropic" else arguments


# ------------------------------------------------------------------------------------------------------ the parts


def in_dialect(heard: Heard) -> bool:
    """Is the error in the words of the client's dialect, and the last thing that was said?"""
    if heard.headers.get("content-type", "").startswith("text/event-stream"):
        events = [event for event in SseParser().feed(heard.body) if event.data is not None]
        if not events:
            return False
        body = _parsed(events[-1].data.decode()) if events[-1].data is not None else None
        named = heard.api != "anthropic" or events[-1].event == "error"
    else:
        body, named = _parsed(heard.body.decode("utf-8", "replace")), True
    if not named or not isinstance(body, dict) or not isinstance(body.get("error"), dict):
        return False
    error = body["error"]
    worded = isinstance(error.get("message"), str) and isinstance(error.get("type"), str)
    return worded and (heard.api != "anthropic" or body.get("type") == "error")


def _fit(schema: str, text: str, what: str) -> Iterator[Complaint]:
    try:
        value = json.loads(text)
    except ValueError:
        yield Complaint(sort="document", says=f"{what} does not parse: {text[-60:]!r}")
        return
    if not fits(json.loads(schema), value):
        yield Complaint(sort="document", says=f"{what} is not of its schema")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _agree(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
