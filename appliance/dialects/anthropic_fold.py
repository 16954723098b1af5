"""How do the events of a streamed message become the message?

Rules of this file, besides those of `fold`:

1. A piece of a kind that we do not know belongs to a block in a way that we do not know: `Unfoldable`.
2. Token counts are totals, and zeros take back nothing; so they are read in a stream.
3. The input of a call is an object. What is none (cut by `max_tokens`, or written badly) becomes `{}`.
"""

from __future__ import annotations

import json
from typing import Any

from appliance.core.fault import Fault
from appliance.core.seams import Unfoldable
from appliance.dialects import fields
from appliance.dialects.anthropic_out import AnthropicDecoder
from appliance.dialects.fold import StreamFold
from appliance.dialects.stream import count

TEXTS = {"text_delta": "text", "thinking_delta": "thinking"}
STATES = ("signature_delta", "compaction_delta")
"""Pieces that are whole: each of their fields is one of the block's."""
CALLS = ("tool_use", "server_tool_use", "mcp_tool_use")
_INPUTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


class _Block:
    """A block, and the pieces of its texts and of a call's input."""

    __slots__ = ("_said", "_texts", "_written")

    def __init__(self, said: dict[str, Any]) -> None:
        self._said = said
        self._texts: dict[str, list[str]] = {}
        self._written: list[str] = []

    def add(self, delta: dict[str, Any]) -> None:
        kind = delta.get("type")
        if isinstance(kind, str) and kind in TEXTS:
            key = TEXTS[kind]
            if key not in self._texts:
                self._texts[key] = [_text(self._said.get(key))]
            self._texts[key].append(_text(delta.get(key)))
        elif kind == "input_json_delta":
            self._written.append(_json(delta.get("partial_json")))
        elif kind == "citations_delta":
            if not isinstance(self._said.get("citations"), list):
                self._said["citations"] = []
            self._said["citations"].append(delta.get("citation"))
        elif kind in STATES:
            self._said.update((key, value) for key, value in delta.items() if key != "type")
        else:
            raise Unfoldable(Fault.BROKEN, "The cloud sent a piece of an answer that cannot be put together.")

    def whole(self) -> dict[str, Any]:
        said = {**self._said, **{key: "".join(pieces) for key, pieces in self._texts.items()}}
        if said.get("type") not in CALLS and not self._written:
            return said
        written = "".join(self._written) or _json(said.get("input")) or "{}"
        try:
            found = json.loads(written)
        except (ValueError, RecursionError):
            found = {}
        return {**said, "input": found if isinstance(found, dict) else {}}


class _Message:
    """A message, as far as its events were read."""

    __slots__ = ("_blocks", "_last", "_next", "_open", "_said", "_usage")

    def __init__(self) -> None:
        self._said: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._blocks: list[_Block] = []
        self._open: dict[int, _Block] = {}
        self._last = -1
        self._next = 0

    def add(self, said: dict[str, Any], name: str | None) -> None:
        kind, index = said.get("type"), said.get("index")
        match kind if isinstance(kind, str) else name:
            case "message_start":
                self._said = dict(said["message"])
                content = self._said.get("content")
                for at, block in enumerate(content if isinstance(content, list) else ()):
                    self._begin(at, block)
                self._count(self._said.get("usage"))
            case "content_block_start":
                self._begin(index if isinstance(index, int) else self._next, said["content_block"])
            case "content_block_delta":
                self._open[index if isinstance(index, int) else self._last].add(said["delta"])
            case "message_delta":
                beside = {key: value for key, value in said.items() if key not in ("type", "delta", "usage")}
                delta = said.get("delta")
                for key, value in (beside | (delta if isinstance(delta, dict) else {})).items():
                    if value is not None or key not in self._said:
                        self._said[key] = value
                self._count(said.get("usage"))

    def _begin(self, index: int, block: dict[str, Any]) -> None:
        self._open[index] = opened = _Block(dict(block))
        self._blocks.append(opened)
        self._last, self._next = index, index + 1
        if block.get("type") == "fallback" and isinstance(block.get("to"), dict):
            # A whole answer is named after the model that gave it in the end.
            self._said["model"] = block["to"].get("model") or self._said.get("model")

    def _count(self, found: Any) -> None:
        if not isinstance(found, dict):
            return
        read = any(count(found.get(key)) for key in _INPUTS)
        for key, value in found.items():
            unknown = value is None or (key in _INPUTS and not read) or (key == "output_tokens" and not count(value))
            if not unknown or key not in self._usage:
                self._usage[key] = value

    def whole(self) -> dict[str, Any]:
        answer = {**self._said, "content": [block.whole() for block in self._blocks]}
        if self._usage:
            answer["usage"] = self._usage
        return answer


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _json(value: Any) -> str:
    """A call's input as text; some clouds send the object that it is."""
    if isinstance(value, dict):
        return fields.text_of(value)
    return _text(value)


def fold(choices: int) -> StreamFold:
    """What makes one message of a stream of events. There is one choice in this dialect, whatever was asked for."""
    return StreamFold(AnthropicDecoder(), _Message(), choices)
