"""What exactly is asked for? A generate frame, checked, as a value; or a refusal that says what is wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from appliance.core.gbnf import GrammarError, Place, read

EngineFault = Literal["busy", "too_long", "request", "server"]
Template = Mapping[str, Any]
Choice = Literal["auto", "none", "required"]


class Refusal(Exception):
    """This request ends here, the others go on. The sentence holds no prompt text."""

    def __init__(self, fault: EngineFault, message: str, **more: Any) -> None:
        super().__init__(message)
        self.fault: EngineFault = fault
        self.message = message
        self.more = more


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How tokens are drawn. The defaults are those of llama.cpp's server."""

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repeat_penalty: float = 1.0
    seed: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()

    @property
    def greedy(self) -> bool:
        return self.temperature <= 0 or self.top_k == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function the answer may call; `parameters` is a JSON schema, and `strict`: it is to be kept to the letter."""

    name: str
    description: str = field(default="", repr=False)
    parameters: Mapping[str, Any] = field(default_factory=dict, repr=False)
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Words:
    """A piece of an answer that is text."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Call:
    """A piece of an answer that is a call. The arguments are JSON text; those of the last one may be half-written, or
    even its name, if it is `half`."""

    name: str
    arguments: str = field(repr=False)
    half: bool = False


Part = Words | Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """The answer is JSON, of any kind or of this schema, or what this grammar (GBNF) says."""

    schema: Mapping[str, Any] | None = field(default=None, repr=False)
    grammar: str | None = field(default=None, repr=False)
    strict: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is already written of the answer: `parts`, and behind them the text `committed`, which may still grow.

    `prefill` letters of its first text are the client's own. `first`: somebody reads this answer already. Of `tools`
    one must be called if `choice` is "required", and it is `named` if that is not empty. `place` is where the answer's
    text stands in its grammar, if it keeps to one; `logprobs`: so many others are told of beside each token of it.
    `lenient`: it was asked of somebody else, so what nobody here can keep to is done without, and `lost` names it.
    """

    id: int
    messages: tuple[Template, ...] = field(repr=False)
    committed: str = field(default="", repr=False)
    parts: tuple[Part, ...] = field(default=(), repr=False)
    prefill: int = 0
    tools: tuple[Tool, ...] = field(default=(), repr=False)
    choice: Choice = "auto"
    named: str = ""
    parallel: bool = True
    format: Format | None = None
    lenient: bool = False
    lost: tuple[str, ...] = ()
    place: Place | None = None
    logprobs: int | None = None
    effort: str | None = None
    first: bool = False
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    trim: bool = False
    settings: Settings = Settings()

    @property
    def begun(self) -> tuple[Part, ...]:
        """The answer so far."""
        return (*self.parts, Words(self.committed)) if self.committed else self.parts

    @property
    def heard(self) -> str:
        """The text at the end of the answer so far, the client's own words left out: where stop strings may begin."""
        return self.committed if self.parts else self.committed[self.prefill :]

    @property
    def strayed(self) -> bool:
        """Does what somebody else wrote of the answer not keep to its grammar? Then what comes cannot either."""
        return self.format is not None and self.format.grammar is not None and self.place is None

    @property
    def shown(self) -> tuple[Tool, ...]:
        """The tools the model is told of."""
        return () if self.choice == "none" else self.tools

    @property
    def naming(self) -> bool:
        """Does the answer so far end in the name of a call, behind which more of it may come?"""
        last = self.begun[-1] if self.begun else None
        if not isinstance(last, Call) or not last.half or last.arguments:
            return False
        names = [self.named] if self.named else [tool.name for tool in self.shown]
        return any(name != last.name and name.startswith(last.name) for name in names)

    @property
    def thinks(self) -> bool | None:
        """May it think first? None: as its template would have it. What must be JSON begins at once."""
        if self.effort == "none" or self.format is not None or self.choice == "required":
            return False
        return None if self.effort is None else True


NAME = re.compile(r"(?! )[^\"\\<>\[\]{}\x00-\x1f\x7f\u0085\u2028\u2029]+(?<! )")
"""What a tool may be called: in an answer its name stands between marks, or in the quotes of JSON."""
NAMED = "without quotes, backslashes, line ends and brackets of the kinds < >, [ ], { }, and with no space around it"
LARGEST = 1e6
MOST_OTHERS = 20
RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0.0, 100.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "frequency_penalty": (-100.0, 100.0),
    "presence_penalty": (-100.0, 100.0),
    "repeat_penalty": (1e-3, 100.0),
}


def parse(frame: Mapping[str, Any], *, vocabulary: int) -> Job:
    """The job in a generate frame, for a model with `vocabulary` tokens. Raises `Refusal`."""
    parts = _begun(frame.get("committed"))
    end = parts.pop() if parts and isinstance(parts[-1], Words) else None
    committed = end.text if isinstance(end, Words) else ""
    opening = parts[0] if parts else Words(committed)
    prefill = _said(frame, "prefill", 0)
    letters = len(opening.text) if isinstance(opening, Words) else 0
    if isinstance(prefill, bool) or not isinstance(prefill, int) or not 0 <= prefill <= letters:
        raise _wrong("prefill", "a number of letters of 'committed'")
    stop = _said(frame, "stop", [])
    if not isinstance(stop, list) or not all(isinstance(one, str) for one in stop):
        raise _wrong("stop", "a list of texts")
    limit = frame.get("max_tokens")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise _wrong("max_tokens", "a whole number, 0 or more")
    effort = frame.get("effort")
    if effort is not None and not isinstance(effort, str):
        raise _wrong("effort", "a word")
    form = _format(frame.get("format"))
    lenient = _flag(frame, "lenient", False)
    tools, lost = _tools(_said(frame, "tools", []), lenient=lenient)
    choice, named = _choice(_said(frame, "choice", "auto"), tools, lost)
    return Job(
        id=frame["id"],
        messages=_messages(frame.get("messages")),
        committed=committed,
        parts=tuple(parts),
        prefill=prefill,
        tools=tools,
        choice=choice,
        named=named,
        parallel=_flag(frame, "parallel", True),
        format=form,
        lenient=lenient,
        lost=tuple(lost_tool(name) for name in lost),
        place=_place(form, parts, committed[prefill:] if not parts else committed),
        logprobs=_others(frame.get("logprobs")),
        effort=effort,
        first=_flag(frame, "first", bool(committed or parts)),
        max_tokens=limit,
        stop=tuple(stop),
        trim=_flag(frame, "trim", False),
        settings=_settings(_said(frame, "sampling", {}), vocabulary),
    )


def _said(frame: Mapping[str, Any], name: str, default: Any) -> Any:
    value = frame.get(name)
    return default if value is None else value


def _flag(frame: Mapping[str, Any], name: str, default: bool) -> bool:
    value = _said(frame, name, default)
    if not isinstance(value, bool):
        raise _wrong(name, "true or false")
    return value


def _messages(given: Any) -> tuple[Template, ...]:
    if not isinstance(given, list) or not all(isinstance(message, dict) for message in given):
        raise _wrong("messages", "a list of objects")
    for message in given:
        if not isinstance(message.get("role"), str):
            raise _wrong("messages", "a list of objects, each with a 'role'")
        if not all(isinstance(message.get(key) or "", str) for key in ("content", "name", "tool_call_id")):
            raise _wrong("messages", "a list of objects, in which 'content', 'name' and 'tool_call_id' are text")
    return tuple(map(_message, given))


def _message(message: Template) -> Template:
    """The message with no calls, or with a list of them as `{"id", "name", "arguments"}`, all of them text."""
    calls = _said(message, "tool_calls", [])
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise _wrong("messages", "a list of objects, in which 'tool_calls' are lists of objects")
    if not all(isinstance(call.get(key), str) for call in calls for key in ("name", "arguments")):
        raise _wrong("messages", "a list of objects, in which calls have a 'name' and 'arguments' that are text")
    kept = [{"id": str(call.get("id") or ""), "name": call["name"], "arguments": call["arguments"]} for call in calls]
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "tool_calls": kept} if kept else rest


def _begun(given: Any) -> list[Part]:
    if given is None or isinstance(given, str):
        return [Words(given)] if given else []
    if not isinstance(given, list):
        raise _wrong("committed", "text, or a list of parts")
    parts: list[Part] = []
    for one in given:
        match one:
            case {"text": str(text)}:
                if text and parts and isinstance(parts[-1], Words):
                    parts[-1] = Words(parts[-1].text + text)
                elif text:
                    parts.append(Words(text))
            case {"call": {"name": str(name), "arguments": str(arguments)}} if name:
                parts.append(Call(name, arguments, half=_flag(one["call"], "half", False)))
            case _:
                raise _wrong("committed", "text, or a list of parts, each a text or a call with name and arguments")
    return parts


def lost_tool(name: str) -> str:
    """What is said of a tool that is left out, or whose arguments keep to no schema."""
    return f"tools.{re.sub('[^A-Za-z0-9_.-]', '_', name)}"[:64]


def _tools(given: Any, *, lenient: bool) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
    """The tools, and the names of those that cannot be called here."""
    if not isinstance(given, list):
        raise _wrong("tools", "a list of objects")
    tools, lost = [], []
    for place, one in enumerate(given):
        if not isinstance(one, dict) or not isinstance(one.get("name"), str) or not one["name"]:
            raise _wrong("tools", "a list of objects, each with a 'name'")
        name, description, parameters = one["name"], _said(one, "description", ""), _said(one, "parameters", {})
        if not isinstance(description, str) or not isinstance(parameters, dict):
            raise _wrong("tools", "a list of objects, in which descriptions are text and parameters are a schema")
        if NAME.fullmatch(name):
            strict = _flag(one, "strict", False)
            tools.append(Tool(name=name, description=description, parameters=parameters, strict=strict))
        elif lenient:
            lost.append(name)
        else:
            raise _wrong(f"tools[{place}].name", NAMED)
    return tuple(tools), tuple(lost)


def _choice(given: Any, tools: tuple[Tool, ...], lost: tuple[str, ...]) -> tuple[Choice, str]:
    names = {tool.name for tool in tools}
    match given:
        case "required" if lost and not tools:
            return "auto", ""
        case {"name": str(name)} if name in lost:
            return "auto", ""
        case "auto" | "none":
            return given, ""
        case "required" if tools:
            return "required", ""
        case {"name": str(name)} if name in names:
            return "required", name
        case _:
            raise _wrong("tool_choice", "'auto', 'none', 'required' or the name of one of 'tools'")


def _format(given: Any) -> Format | None:
    match given:
        case None:
            return None
        case {"grammar": str(grammar)}:
            return Format(grammar=grammar)
        case {"schema": None}:
            return Format()
        case {"schema": dict(schema)}:
            return Format(schema=schema, strict=_flag(given, "strict", False))
        case _:
            raise _wrong("format", "an object with a 'schema' or a 'grammar'")


def _place(form: Format | None, parts: list[Part], committed: str) -> Place | None:
    """Behind what is written. What the client wrote itself is no part of the answer."""
    if form is None or form.grammar is None:
        return None
    try:
        start = read(form.grammar).start
        return None if parts else start.feed(committed.encode("utf-8", "replace"))
    except GrammarError as error:
        raise Refusal("request", f"The grammar {error}.", param="grammar") from error


def _others(given: Any) -> int | None:
    if given is not None and (isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= MOST_OTHERS):
        raise _wrong("logprobs", f"a whole number from 0 to {MOST_OTHERS}")
    return given


def _settings(given: Mapping[str, Any], vocabulary: int) -> Settings:
    if not isinstance(given, dict):
        raise _wrong("sampling", "an object")
    values: dict[str, Any] = {}
    for name, (low, high) in RANGES.items():
        if given.get(name) is not None:
            values[name] = _number(name, given[name], low, high)
    for name in ("top_k", "seed"):
        value = given.get(name)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int):
                raise _wrong(name, "a whole number")
            values[name] = value
    biases = _said(given, "logit_bias", [])
    if not isinstance(biases, list):
        raise _wrong("logit_bias", "pairs of a token id and a number")
    values["logit_bias"] = tuple(_bias(pair, vocabulary) for pair in biases)
    return Settings(**values)


def _bias(pair: Any, vocabulary: int) -> tuple[int, float]:
    if not isinstance(pair, list) or len(pair) != 2 or isinstance(pair[0], bool) or not isinstance(pair[0], int):
        raise _wrong("logit_bias", "pairs of a token id and a number")
    token, bias = pair
    if not 0 <= token < vocabulary:
        raise _wrong("logit_bias", f"token ids of the local model, which are 0 to {vocabulary - 1}")
    return token, _number("logit_bias", bias, -LARGEST, LARGEST)


def _number(name: str, value: Any, low: float, high: float) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:
        raise _wrong(name, f"a number from {low:g} to {high:g}")
    return float(value)


def _wrong(name: str, expected: str) -> Refusal:
    return Refusal("request", f"'{name}' must be {expected}.", param=name)
