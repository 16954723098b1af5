"""How is a model told of tools, of calls and of what they answered?

Rules:

1. The model's own template tells it, if it can; what it can is found out by trying, once. Templates differ in how they
   want arguments (as text, or as an object), in how many calls a message may hold, and in whether they keep what is
   said beside a call. The first form in which nothing gets lost is taken.
2. Else we tell it in Hermes' manner: the tools in the system message, before anything else, as they are the longest
   that an agent's conversations share; calls as text of the assistant, their results as messages of the user.
3. Where a template knows no system message, what it says stands in front of the first message of the user; where roles
   must alternate, messages side by side become one.
4. A conversation without tools, calls and results is given as it is. Only if the template refuses it is it `mended`,
   and where a template would leave out what the system says later on, the user says it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from appliance.engine.job import Template, Tool
from appliance.engine.speech import Speech, told
from appliance.engine.templates import Compiled
from appliance.engine.vocabulary import Vocabulary

ID = 9
"""Letters of a call's id: some templates want exactly so many, and all can live with that."""
UNREAD = "arguments"
"""Under this name stand arguments that are no JSON object, where a template wants an object."""
INTRODUCTION = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
)
INSTRUCTION = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within"
    " <tool_call></tool_call> XML tags:\n"
    '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)
RESULT = ("<tool_response>\n", "\n</tool_response>")

Argued = Literal["text", "object"]
Beside = Literal["same", "apart", "nowhere"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How messages are handed to a template. `own`: it is told of tools itself; the next three are for that, and
    the last two for when we tell of them. `beside`: what the assistant says beside a call stands in the same message,
    in one of its own, or nowhere. `late`: what the system says later on is told as such, which some templates would
    leave out."""

    own: bool
    arguments: Argued = "text"
    beside: Beside = "same"
    single: bool = False
    system: bool = True
    alternate: bool = False
    late: bool = True


BESIDE: tuple[Beside, ...] = ("same", "apart", "nowhere")
ARGUED: tuple[Argued, ...] = ("text", "object")
OWN = tuple(
    Manner(own=True, beside=beside, single=single, arguments=argued)
    for beside, single, argued in itertools.product(BESIDE, (False, True), ARGUED)
)
OURS = tuple(
    Manner(own=False, system=system, alternate=alternate)
    for system, alternate in itertools.product((True, False), (False, True))
)


def settle(template: Compiled, row: Speech, vocabulary: Vocabulary) -> tuple[Manner, Speech]:
    """The manner that this template needs, and the speech that goes with it."""
    late = _hears_late(template)
    if row.shown != "never":
        for manner in OWN:
            if _tells(template, manner, row):
                return replace(manner, late=late), row
    ours = told(row, vocabulary)
    manner = next((manner for manner in OURS if _keeps(template, manner, ours)), OURS[0])
    return replace(manner, late=late), ours


def arranged(
    messages: Sequence[Template], shown: Sequence[Template], manner: Manner, speech: Speech
) -> tuple[Sequence[Template], Sequence[Template] | None]:
    """The messages, which are `readable`, as the template wants them, and the tools if it is to tell of them."""
    if not manner.late:
        messages = _early(messages)
    if manner.own:
        return _owned(messages, manner), shown or None
    if not shown and not any(_is_of_tools(message) for message in messages):
        return messages, None
    return _ours(messages, shown, manner, speech), None


def readable(message: Template, manner: Manner) -> Template:
    """The message with its calls' ids and arguments in the form that the template wants."""
    if message.get("role") == "tool":
        return {**message, "tool_call_id": _id(str(message.get("tool_call_id") or ""))}
    if not message.get("tool_calls"):
        return message
    objects = manner.own and manner.arguments == "object"
    calls = [
        {
            "id": _id(call["id"]),
            "name": call["name"],
            "arguments": _object(call["arguments"]) if objects else call["arguments"] or "{}",
        }
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _early(messages: Sequence[Template]) -> Sequence[Template]:
    """What the system says later on is said by the user."""
    first = next((at for at, message in enumerate(messages) if message.get("role") != "system"), len(messages))
    return [
        {**message, "role": "user"} if at > first and message.get("role") == "system" else message
        for at, message in enumerate(messages)
    ]


def mended(messages: Sequence[Template]) -> list[Sequence[Template]]:
    """The conversation for a template that refuses it: first for one that is strict about whose turn it is, then for
    one that knows no system besides. Nothing that was said is left out."""
    choices = (_by_turns(messages), _by_turns(_without_system(messages)))
    return [choice for choice in choices if choice != list(messages)]


def _by_turns(messages: Sequence[Template]) -> list[Template]:
    """Nobody speaks twice, the system only at the beginning, and what a user says behind a tool's result stands in that
    result."""
    given: list[Template] = []
    for message in messages:
        last = given[-1] if given else {"role": "system"}
        role, before = message.get("role"), last["role"]
        if role == "system" and before != "system":
            role = "user"
        twice = role == before and not message.get("tool_calls") and not last.get("tool_calls")
        if given and ((twice and role != "tool") or (role == "user" and before == "tool")):
            said = filter(None, (last.get("content"), message.get("content")))
            given[-1] = {**last, "content": "\n\n".join(said)}
        else:
            given.append({**message, "role": role})
    return given


def declared(tool: Tool) -> Template:
    """A tool as templates know it."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _is_of_tools(message: Template) -> bool:
    return message.get("role") == "tool" or bool(message.get("tool_calls"))


def _object(arguments: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError):
        read = json.loads(arguments or "{}")
        if isinstance(read, dict):
            return read
    return {UNREAD: arguments}


# --------------------------------------------------------------------------------------- the template tells of tools


def _owned(messages: Sequence[Template], manner: Manner) -> list[Template]:
    given: list[Template] = []
    for message, results in _steps(messages):
        if not message.get("tool_calls"):
            given += [message, *results]
            continue
        calls, text = message["tool_calls"], message.get("content") or ""
        if manner.beside != "same":
            if manner.beside == "apart" and text:
                given.append({"role": "assistant", "content": text})
            text = ""
        if not manner.single:
            given += [{"role": "assistant", "content": text, "tool_calls": list(map(_call, calls))}, *results]
            continue
        left = results
        for call in calls:
            mine = [one for one in left if one["tool_call_id"] == call["id"]]
            left = [one for one in left if one["tool_call_id"] != call["id"]]
            given += [{"role": "assistant", "content": text, "tool_calls": [_call(call)]}, *mine]
            text = ""
        given += left
    return given


def _steps(messages: Sequence[Template]) -> list[tuple[Template, list[Template]]]:
    """Each message that is no result, with the results behind it."""
    steps: list[tuple[Template, list[Template]]] = []
    names: dict[str, str] = {}
    for message in messages:
        if message.get("role") == "tool":
            name = message.get("name") or names.get(message["tool_call_id"]) or "tool"
            result = {**message, "name": name, "content": message.get("content") or ""}
            if steps:
                steps[-1][1].append(result)
            else:
                steps.append((result, []))
        else:
            names |= {call["id"]: call["name"] for call in message.get("tool_calls") or ()}
            steps.append((message, []))
    return steps


def _call(call: Template) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": call["arguments"]}
    return {"id": call["id"], "type": "function", "function": function}


def _id(given: str) -> str:
    if len(given) == ID and given.isascii() and given.isalnum():
        return given
    return hashlib.blake2b(given.encode("utf-8", "replace"), digest_size=8).hexdigest()[:ID]


# ------------------------------------------------------------------------------------------------ we tell of tools


def _ours(messages: Sequence[Template], shown: Sequence[Template], manner: Manner, speech: Speech) -> list[Template]:
    given: list[Template] = []
    for message, results in _steps(messages):
        if message.get("role") == "tool":
            results = [message, *results]
        elif message.get("tool_calls"):
            text = message.get("content") or ""
            calls = speech.after_call.join(speech.call(one["name"], one["arguments"]) for one in message["tool_calls"])
            given.append({"role": "assistant", "content": text + (speech.after_text if text else "") + calls})
        else:
            given.append(message)
        if results:
            said = "\n".join(RESULT[0] + one["content"] + RESULT[1] for one in results)
            given.append({"role": "user", "content": said})
    if shown:
        given = _with_system(given, described(shown))
    if not manner.system:
        given = _without_system(given)
    return _alternating(given) if manner.alternate else given


def described(shown: Sequence[Template]) -> str:
    """The tools, and how to call one."""
    return INTRODUCTION + "\n".join(json.dumps(one, ensure_ascii=False) for one in shown) + INSTRUCTION


def _with_system(messages: list[Template], text: str) -> list[Template]:
    """The text stands at the beginning of the first message, which is the system's."""
    if messages and messages[0].get("role") == "system":
        said = messages[0].get("content") or ""
        return [{**messages[0], "content": f"{text}\n\n{said}" if said else text}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _without_system(messages: Sequence[Template]) -> list[Template]:
    said = "\n\n".join(message.get("content") or "" for message in messages if message.get("role") == "system")
    others = [message for message in messages if message.get("role") != "system"]
    if not said:
        return others
    if others and others[0].get("role") == "user":
        return [{**others[0], "content": f"{said}\n\n{others[0].get('content') or ''}"}, *others[1:]]
    return [{"role": "user", "content": said}, *others]


def _alternating(messages: list[Template]) -> list[Template]:
    given: list[Template] = []
    for message in messages:
        if given and given[-1].get("role") == message.get("role"):
            given[-1] = {**given[-1], "content": f"{given[-1]['content']}\n{message['content']}"}
        else:
            given.append(message)
    return given


# ----------------------------------------------------------------------------------------------------------- trials

TRIED = Tool(
    name="look_up",
    description="Find a thing.",
    parameters={"type": "object", "properties": {"thing": {"type": "string", "description": "Which?"}}},
)
ARGUMENTS = '{"thing": "a lamp"}'


def _trials() -> tuple[list[Template], list[Template]]:
    """A conversation with two calls in one message, words beside them and a question behind; and an agent's, which
    ends with a result."""
    first, second = ({"id": f"call0000{n}", "name": TRIED.name, "arguments": ARGUMENTS} for n in (1, 2))
    results: list[Template] = [
        {"role": "tool", "tool_call_id": "call00001", "name": TRIED.name, "content": "Lamp found."},
        {"role": "tool", "tool_call_id": "call00002", "name": TRIED.name, "content": "Lamp lost."},
    ]
    question = {"role": "user", "content": "Where is it?"}
    long: list[Template] = [
        {"role": "system", "content": "Be kind."},
        question,
        {"role": "assistant", "content": "Let me see.", "tool_calls": [first, second]},
        *results,
        {"role": "assistant", "content": "It is here."},
        {"role": "user", "content": "Thank you."},
    ]
    short: list[Template] = [question, {"role": "assistant", "content": "", "tool_calls": [first]}, results[0]]
    return long, short


def _render(
    template: Compiled, messages: Sequence[Template], manner: Manner, speech: Speech, tools: Sequence[Tool]
) -> str:
    read = [readable(message, manner) for message in messages]
    given, shown = arranged(read, list(map(declared, tools)), manner, speech)
    return template.render(given, tools=shown)


def _tells(template: Compiled, manner: Manner, row: Speech) -> bool:
    """Does the template itself tell of everything, in the row's words?"""
    long, short = _trials()
    with contextlib.suppress(Exception):
        for messages in (long, short):
            text = _render(template, messages, manner, row, [TRIED])
            silent = _render(template, messages, manner, row, [])
            if TRIED.description not in text or TRIED.description in silent:
                return False
            calls = 2 if messages is long else 1
            for one in (text, silent):
                written = one.count(row.call(TRIED.name, ARGUMENTS)) if row.shown == "fits" else one.count(ARGUMENTS)
                if written < calls or "{" + ARGUMENTS in one or "Lamp found." not in one:
                    return False
                if messages is long and "Lamp lost." not in one:
                    return False
                if messages is long and manner.beside != "nowhere" and "Let me see." not in one:
                    return False
        return True
    return False


def _hears_late(template: Compiled) -> bool:
    """Is nothing left out of what the system says in the middle of a conversation? A refusal can be mended."""
    said = [("user", "Where is it?"), ("assistant", "Here."), ("system", "Be brief."), ("user", "Thank you.")]
    with contextlib.suppress(Exception):
        return "Be brief." in template.render([{"role": role, "content": content} for role, content in said])
    return True


def _keeps(template: Compiled, manner: Manner, speech: Speech) -> bool:
    """Is nothing lost of what we tell?"""
    with contextlib.suppress(Exception):
        for messages in _trials():
            for tools in ([TRIED], []):
                text = _render(template, messages, manner, speech, tools)
                said = [speech.call(TRIED.name, ARGUMENTS), *(TRIED.description for _ in tools)]
                said += [message["content"] for message in messages]
                if not all(one in text for one in said):
                    return False
        return True
    return False
