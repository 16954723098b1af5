"""How do the chunks of a chat completion become the completion?

Rules of this file, besides those of `fold`:

1. In a delta a string is a piece, and is written behind what was there; unknown ones too, since that is what a delta
   is, and what OpenAI's own SDK does. What names something (`NAMES`) is said once, or again and again; only what a call
   calls (`CALLED`) is said in pieces as well.
2. Outside of the deltas everything is a state: the last one counts. The id, the time and the model are the first that
   were said, as in a stream.
3. Which call a piece belongs to is decided as it is in a stream.
4. An answer has as many pieces as it likes: a string that grows is `_Pieces`, and is put together once, at the end.
"""

from __future__ import annotations

import json
from typing import Any

from appliance.dialects.fold import StreamFold
from appliance.dialects.openai_chat_out import Calls, ChatDecoder

NAMES = frozenset("role id type name format status object mime_type".split())
"""Strings that are no pieces; what ends in `_id` is none either."""
CALLED = frozenset("function function_call custom".split())
"""Objects whose name some clouds say in pieces, and some again and again."""

_IDENTITY = ("id", "created", "model")
_NO_MEMBERS = frozenset("choices object obfuscation".split())
_READ = frozenset("index delta message finish_reason logprobs".split())
_LISTS = ("token_ids",)
"""Lists of a choice of which each chunk has a piece (vLLM's)."""


class _Pieces:
    """A string that grows."""

    __slots__ = ("pieces",)

    def __init__(self, *pieces: str) -> None:
        self.pieces = list(pieces)


class _Choice:
    """One answer, as far as its deltas were read."""

    __slots__ = ("_calls", "_given", "_logprobs", "_message", "_reason", "_rest")

    def __init__(self) -> None:
        self._message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        self._given: list[dict[str, Any]] = []
        self._calls = Calls()
        self._logprobs: Any = None
        self._reason: Any = None
        self._rest: dict[str, Any] = {}

    def add(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta")
        if delta is None:
            delta = choice.get("message") or {}
        for key, value in delta.items():
            if key == "tool_calls":
                for fragment in value or ():
                    self._call(fragment)
            elif key == "content":
                self._message[key] = _content(self._message[key], value)
            else:
                self._message[key] = _grown(self._message.get(key), value, key)
        self._logprobs = _grown(self._logprobs, choice.get("logprobs"), "logprobs")
        self._reason = self._reason or choice.get("finish_reason")
        for key, value in choice.items():
            if key in _READ:
                continue
            if key in _LISTS:
                self._rest[key] = _grown(self._rest.get(key), value, key)
            else:
                _state(self._rest, key, value)

    def _call(self, fragment: dict[str, Any]) -> None:
        made = fragment.get("function") or fragment.get("custom") or {}
        name = made.get("name") if isinstance(made, dict) else None
        at, begins = self._calls.place(fragment.get("index"), str(fragment.get("id") or ""), str(name or ""))
        if begins:
            self._given.append({})
        call = self._given[at]
        for key, value in fragment.items():
            if key == "index":
                continue
            if key == "function" and isinstance(value, dict) and isinstance(value.get("arguments"), dict | list):
                value = {**value, "arguments": json.dumps(value["arguments"])}
            call[key] = _grown(call.get(key), value, key)

    def whole(self, index: int) -> dict[str, Any]:
        message = _joined(self._message)
        if self._given:
            message["tool_calls"] = [_called(_joined(call)) for call in self._given]
        if any(message.get(key) for key in ("tool_calls", "refusal", "function_call", "audio")):
            message["content"] = message["content"] or None
        said = {"index": index, "message": message, "logprobs": _joined(self._logprobs), "finish_reason": self._reason}
        return {**said, **_joined(self._rest)}


class _Completion:
    """A completion, as far as its chunks were read."""

    __slots__ = ("_choices", "_head")

    def __init__(self) -> None:
        self._head: dict[str, Any] = {"id": "", "object": "chat.completion", "created": 0, "model": "", "choices": []}
        self._choices: dict[int, _Choice] = {}

    def add(self, said: dict[str, Any], name: str | None) -> None:
        for key, value in said.items():
            if key in _IDENTITY:
                self._head[key] = self._head[key] or value
            elif key not in _NO_MEMBERS:
                _state(self._head, key, value)
        for choice in said.get("choices") or ():
            index = choice.get("index")
            self._choices.setdefault(index if isinstance(index, int) else 0, _Choice()).add(choice)

    def whole(self) -> dict[str, Any]:
        choices = [self._choices[index].whole(index) for index in sorted(self._choices)]
        answer = {**self._head, "choices": choices}
        if answer.get("usage", "") is None:  # every chunk says so while they are not known
            del answer["usage"]
        return answer


def _state(owner: dict[str, Any], key: str, value: Any) -> None:
    """The last one counts; nothing is not said by who does not know yet."""
    if value is not None or key not in owner:
        owner[key] = value


def _grown(kept: Any, new: Any, key: str) -> Any:
    """What was there with a piece more of it."""
    if new is None:
        return kept
    if isinstance(new, str) and isinstance(kept, _Pieces):
        kept.pieces.append(new)
        return kept
    if isinstance(new, str) and isinstance(kept, str):
        grows = kept and new and key not in NAMES and not key.endswith("_id")
        return _Pieces(kept, new) if grows else kept or new
    if isinstance(new, dict) and (kept is None or isinstance(kept, dict)):
        kept = {} if kept is None else kept
        for name, value in new.items():
            before = kept.get(name)
            pieces = key in CALLED and name == "name" and isinstance(before, str) and isinstance(value, str)
            kept[name] = _grown(before, value, name) if not pieces else before if before == value else before + value
        return kept
    if isinstance(new, list) and (kept is None or isinstance(kept, list)):
        kept = [] if kept is None else kept
        for entry in new:
            _append(kept, entry)
        return kept
    return new


def _append(kept: list[Any], entry: Any) -> None:
    """An entry of a list, or a piece of one that has its number and is of its kind."""
    if isinstance(entry, dict) and isinstance(entry.get("index"), int):
        for at, other in enumerate(kept):
            if isinstance(other, dict) and all(other.get(key) == entry.get(key) for key in ("index", "type")):
                kept[at] = _grown(other, entry, "")
                return
    kept.append(entry)


def _joined(grown: Any) -> Any:
    """The same, with every string that grew put together."""
    if isinstance(grown, _Pieces):
        return "".join(grown.pieces)
    if isinstance(grown, dict):
        for key, value in grown.items():
            grown[key] = _joined(value)
    elif isinstance(grown, list):
        for at, entry in enumerate(grown):
            grown[at] = _joined(entry)
    return grown


def _content(kept: Any, new: Any) -> Any:
    """What was said with a piece more of it. Mistral says in parts what it thinks, and the rest in strings."""
    if new is None or not (isinstance(kept, list) or isinstance(new, list)):
        return _grown(kept, new, "content")
    parts = _parts(kept)
    for part in _parts(new):
        _put(parts, part)
    return parts


def _parts(content: Any) -> list[Any]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []


def _put(parts: list[Any], part: Any) -> None:
    """One more, or more of the last, if both are text or both a thought."""
    last: Any = parts[-1] if parts else None
    match last, part:
        case {"type": "text", "text": str() | _Pieces() as text}, {"type": "text", "text": str(piece)}:
            last.update({**part, "text": _grown(text, piece, "text")})
        case {"type": "thinking", "thinking": list(thoughts)}, {"type": "thinking", "thinking": list(more)}:
            for thought in more:
                _put(thoughts, thought)
            last.update({**part, "thinking": thoughts})
        case _:
            parts.append(part)


def _called(call: dict[str, Any]) -> dict[str, Any]:
    """A call as whole answers have it; in a stream a cloud may leave out what goes without saying."""
    function = call.get("function")
    if not isinstance(function, dict):
        return call
    function = {"name": "", "arguments": "", **_known(function)}
    return {"id": "", "type": "function", **_known(call), "function": function}


def _known(owner: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in owner.items() if value is not None}


def fold(choices: int) -> StreamFold:
    """What makes one completion of a stream of chunks."""
    return StreamFold(ChatDecoder(), _Completion(), choices)
