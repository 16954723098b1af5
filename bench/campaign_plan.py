"""What is asked in request number K of a seed, of which clouds, and how do they fail? A value, by chance and again.

Rules of this file:

1. `plan(seed, key)` is pure: nothing depends on the requests before.
2. What is wrong is one thing at a time: a cloud that fails in one way (`fault`), a second one that may fail as well, an
   engine that dies once, a client that leaves.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from campaign_words import FIRST, SECOND, Hint, compact, thought, usable, words

from appliance.drills.faults import FAULTS, FLAWS, HEALTHY, CloudFault
from appliance.drills.script import Call, Script
from tests.core import schemas

ANYWHERE = "anywhere"
"""A stream that is cut behind any of its bytes; see `campaign_clouds`."""
DRIP = "drip"
UPSTREAMS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "o": {"api": "openai", "cloud": "first"},
        "a": {"api": "anthropic", "cloud": "first"},
        "w": {"api": "openai", "cloud": "first", "watch_whole": True},
        "x": {"api": "anthropic", "cloud": "first", "watch_whole": True},
        "r": {"api": "openai", "cloud": "closed"},
        "s": {"api": "anthropic", "cloud": "closed"},
        "p": {"api": "openai", "cloud": "second", "prefill": True},
        "q": {"api": "anthropic", "cloud": "second", "prefill": True},
        "e": {"api": "openai", "cloud": "second"},
        "f": {"api": "anthropic", "cloud": "second"},
    }
)
"""The clouds of each lane. A request names those it is for by their letters, in this order."""
FRAMING: tuple[Mapping[str, Any], ...] = (
    {}, {}, {}, {}, {"crlf": True}, {"comments": True}, {"multiline": True}, {"gzip": True}, {"cut": 16}, {"cut": 40},
)  # fmt: skip
ON_THE_WIRE = tuple(name for name in FAULTS if name not in ("refused", DRIP))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`kind` is what the clouds say: words, calls behind words, or a document. `route` are letters of `UPSTREAMS`, none
    for the box itself. `cut` is the share of its bytes behind which a stream is cut anywhere. `leaves` is when the
    client goes, in seconds. `astray`: a cloud keeps to no schema, or to no JSON."""

    key: int
    api: str
    stream: bool
    kind: str
    route: str
    fault: str
    second: str
    script: Script
    script_of_second: Script
    body: Mapping[str, Any] = field(repr=False)
    schemas: Mapping[str, str] = field(repr=False)
    """Of the tools, by name, as JSON text."""
    schema: str | None = field(default=None, repr=False)
    """Of the document."""
    hint: Hint
    cut: float = 0.0
    leaves: float | None = None
    astray: str = ""
    choices: int = 1

    @property
    def faults(self) -> tuple[CloudFault, ...]:
        return tuple(named(name) for name in (self.fault, self.second))

    def model(self, lane: int) -> str:
        return f"{lane}-{self.route}" if self.route else "local"


def named(name: str) -> CloudFault:
    """The fault of that name; a cut anywhere is like one in mid-answer."""
    if name == "healthy":
        return HEALTHY
    return FLAWS.get(name) or FAULTS["cut-reset" if name == ANYWHERE else name]


def plan(seed: int, key: int, *, real: bool = False) -> Plan:
    """Request `key` of `seed`. `real`: for an engine that is slow, and reads no hints."""
    chance = random.Random(f"{seed}:{key}")
    api = chance.choice(["openai", "anthropic"])
    stream = chance.random() < 0.7
    fault, route = _fault_and_route(chance)
    second = "healthy" if chance.random() < 0.5 else _fault(chance)
    kind = chance.choices(["words", "calls", "document"], [40, 45, 15])[0]
    if fault in FLAWS or fault in ("empty-answer", DRIP) or second in FLAWS or second == "empty-answer":
        kind = "words"
    choices = 2 if api == "openai" and not set(route) & set("axsqf") and route and chance.random() < 0.04 else 1
    told = Hint(
        key=key,
        words=chance.randint(1, 12),
        calls=chance.choice([0, 1, 1, 2]) if kind == "calls" else 0,
        thinks=chance.random() < 0.1,
        dies=chance.randint(0, 12) if chance.random() < 1 / (40 if real else 300) else -1,
    )
    made = Plan(
        key=key,
        api=api,
        stream=stream,
        kind=kind,
        route=route,
        fault=fault,
        second=second,
        script=Script(),
        script_of_second=Script(),
        body={},
        schemas={},
        hint=told,
        cut=chance.random(),
        leaves=chance.uniform(0.0, 0.3) if chance.random() < 0.02 else None,
        choices=choices,
    )
    made = _with_tools(made, chance) if kind == "calls" else made
    made = replace(made, schema=_schema(chance)) if kind == "document" else made
    made = _with_scripts(made, chance)
    return replace(made, body=_body(made, chance, real=real))


def _fault(chance: random.Random) -> str:
    roll = chance.random()
    if roll < 0.12:
        return "healthy"
    if roll < 0.40:
        return ANYWHERE
    return chance.choice([*ON_THE_WIRE, *FLAWS])


def _fault_and_route(chance: random.Random) -> tuple[str, str]:
    """Nobody else is asked but the box in three of five."""
    behind = chance.choice(["", "", "", "", "", "", "p", "q", "e", "f"])
    roll = chance.random()
    if roll < 0.03:
        return "healthy", ""
    if roll < 0.05:
        return "refused", chance.choice("rs") + behind
    if roll < 0.051:
        return DRIP, chance.choice("oa")
    return _fault(chance), chance.choice("oooaaawx") + behind


# ------------------------------------------------------------------------------------------- what the clouds say


def _with_scripts(made: Plan, chance: random.Random) -> Plan:
    key, count = made.key, chance.randint(3, 30)
    text = words(FIRST, key, count)
    calls: tuple[Call, ...] = ()
    if made.kind == "calls":
        text = text if chance.random() < 0.5 else ""
        calls = tuple(_call(made, at, chance) for at in range(1 if not _several(made) else chance.choice([1, 1, 2, 3])))
        if not chance.randrange(25):
            calls = (*calls[:-1], replace(calls[-1], arguments=_astray(chance)))
            made = replace(made, astray="document")
    if made.kind == "document":
        assert made.schema is not None
        text = _written(made.schema, chance)
    thinks = made.fault not in ("empty-answer", DRIP, *FLAWS) and chance.random() < 0.15
    framing = {} if {made.fault, made.second} & {DRIP, *FLAWS} else dict(chance.choice(FRAMING))
    script = Script(
        text=text, thinking=thought(FIRST, key, chance.randint(2, 9)) if thinks else "", calls=calls, retry_after=30
    )
    script = replace(script, after=chance.randint(1, max(1, script.tokens)), **framing)
    # A second cloud that says the same can be asked to repeat it.
    other = (
        replace(script, text=words(SECOND, key, count)) if made.kind == "words" and chance.random() < 0.5 else script
    )
    return replace(made, script=script, script_of_second=other)


def _several(made: Plan) -> bool:
    return made.hint.calls != 0


def _call(made: Plan, at: int, chance: random.Random) -> Call:
    name = chance.choice([*made.schemas])
    return Call(name=name, arguments=_written(made.schemas[name], chance))


def _astray(chance: random.Random) -> str:
    return chance.choice(
        ['{"no such key": [1, {"a": "b"}], "n": 3}', '{"note": 7, "more": true}', '{"note": "a', "{'note': 1}", "{note"]
    )


def _with_tools(made: Plan, chance: random.Random) -> Plan:
    found = {f"{name}_{made.key}": _schema(chance) for name in chance.sample(["look", "wait", "send", "find"], 2)}
    return replace(made, schemas=found)


def _schema(chance: random.Random) -> str:
    """An object with parts of any kind, and a note that is free text."""
    while True:
        names = chance.sample(["alpha", "b/c", "\u00e9", "n"], chance.randint(0, 3))
        parts: dict[str, Any] = {name: schemas.schema(chance, 2) for name in names}
        again: dict[str, Any] = {}
        for part in parts.values():
            again |= part.pop("$defs", {})
        made: dict[str, Any] = {
            "type": "object",
            "properties": {"note": {"type": "string"}, **parts},
            "required": [name for name in ["note", *names] if chance.random() < 0.7],
            "additionalProperties": False,
        }
        if again:
            made["$defs"] = again
        text = compact(made)
        if usable(text) and _value(made, chance) is not None:
            return text


def _value(schema: dict[str, Any], chance: random.Random, tries: int = 40) -> Any:
    """A value of it; none if chance does not find one."""
    for _ in range(tries):
        value = schemas.document(schema, chance)
        if "note" in value:
            value["note"] = words("n", chance.randrange(1000), chance.randint(0, 6))
        if schemas.fits(schema, value):
            return value
    return None


def _written(schema: str, chance: random.Random) -> str:
    """A document, in an order of keys, spacing and escapes that nobody would choose."""
    value = _value(json.loads(schema), chance, 5_000)  # one was found when the schema was made
    assert value is not None
    return str(schemas.spelled(value, chance))


# ---------------------------------------------------------------------------------------------------- the request


def _body(made: Plan, chance: random.Random, *, real: bool) -> dict[str, Any]:
    asked = f"Say something about the sea. {made.hint}"
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": asked}],
        "max_tokens": 160 if real else 512,
        "stream": made.stream,
    }
    if real:
        body["temperature"] = 0.7
    if made.choices > 1:
        body["n"] = made.choices
    if made.kind == "calls":
        body |= (_tools_in_openai if made.api == "openai" else _tools_in_anthropic)(made, chance)
    if made.schema is not None:
        schema = json.loads(made.schema)
        if made.api == "openai":
            wanted = {"name": "answer", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": wanted}
        else:
            body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    return body


def _tools_in_openai(made: Plan, chance: random.Random) -> dict[str, Any]:
    tools = [
        {"type": "function", "function": {"name": name, "description": "A tool.", "parameters": json.loads(schema)}}
        for name, schema in made.schemas.items()
    ]
    said: dict[str, Any] = {"tools": tools}
    wish = _wish(made, chance)
    if wish:
        said["tool_choice"] = wish if wish == "required" else {"type": "function", "function": {"name": wish}}
    if not _several(made):
        said["parallel_tool_calls"] = False
    return said


def _tools_in_anthropic(made: Plan, chance: random.Random) -> dict[str, Any]:
    tools = [
        {"name": name, "description": "A tool.", "input_schema": json.loads(schema)}
        for name, schema in made.schemas.items()
    ]
    wish = _wish(made, chance)
    choice: dict[str, Any] = {"type": "auto"}
    if wish:
        choice = {"type": "any"} if wish == "required" else {"type": "tool", "name": wish}
    if not _several(made):
        choice["disable_parallel_tool_use"] = True
    return {"tools": tools, "tool_choice": choice}


def _wish(made: Plan, chance: random.Random) -> str:
    """Which call is insisted on; none in three of four, and none where the cloud says words first."""
    return chance.choice(["", "", "", "", "", "", "required", next(iter(made.schemas))])
