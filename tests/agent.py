"""The request of a real coding agent, as seen on loopback: its shape and its sizes; the words are made up.

Eighteen thousand tokens of system prompt in three blocks, 24 tools, eight beta names, adaptive thinking, a turn of role
`system` inside the conversation, and a query string.
"""

from __future__ import annotations

import json
from typing import Any

QUERY = "beta=true"
HEADERS = {
    "content-type": "application/json",
    "accept": "application/json",
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "agent-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,"
    "prompt-caching-scope-2026-01-05,effort-2025-11-24,a-new-thing-2026-09-01,token-counting-2024-11-01,x-1",
    "anthropic-dangerous-direct-browser-access": "true",
    "authorization": "Bearer sk-ant-oat01-of-the-agent",
    "user-agent": "an-agent/2.1.197 (external, cli)",
    "x-app": "cli",
    "x-stainless-lang": "js",
    "x-stainless-retry-count": "0",
}
_SENTENCES = (
    "Read the file before you change it, and say in one line what you found there.",
    "Never run a command that deletes what you did not write yourself.",
    "When the user asks a question, answer the question; do not begin to edit.",
    "Prefer small steps, and look at the result of each before the next one.",
    "If a test fails, read the whole failure before you touch the code.",
)


def _prose(words: int, topic: str) -> str:
    text: list[str] = []
    while sum(len(sentence.split()) for sentence in text) < words:
        text.append(f"({topic}, {len(text) + 1}) {_SENTENCES[len(text) % len(_SENTENCES)]}")
    return "\n".join(text)


def tool(index: int) -> dict[str, Any]:
    return {
        "name": f"Tool_{index}",
        "description": _prose(330, f"tool {index}"),
        "input_schema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "path": {"type": "string", "description": "The file, from the root of the project."},
                "limit": {"type": "number", "description": "How many lines at most."},
                "mode": {"type": "string", "enum": ["read", "write"]},
            },
            "required": ["path"],
            "additionalProperties": False,
        },
    }


def body(*, stream: bool = True, model: str = "claude-opus-4-8") -> bytes:
    """The bytes of the request, in an order of keys and with escapes of its own."""
    once = {"type": "ephemeral"}
    asked = {
        "model": model,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi \u2013 what does this project do? \U0001f30a"}]},
            {"role": "system", "content": "The user has opened the file README.md."},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "I should look.", "signature": "EqQBCkYIBRgCKkA="},
                    {"type": "text", "text": "I will look at it."},
                    {"type": "tool_use", "id": "toolu_01A", "name": "Tool_0", "input": {"path": "README.md"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_01A",
                        "content": [{"type": "text", "text": "# Lighthouse\nKeeps the lamp burning."}],
                        "is_error": False,
                    },
                    {"type": "text", "text": "Go on.", "cache_control": once},
                ],
            },
        ],
        "system": [
            {"type": "text", "text": "x-agent: version 2.1.197; entry cli"},
            {"type": "text", "text": "You are an agent that writes code.", "cache_control": once},
            {"type": "text", "text": _prose(10_400, "rules"), "cache_control": once},
        ],
        "tools": [tool(index) for index in range(24)],
        "metadata": {"user_id": "user_0123_account__session_4567"},
        "max_tokens": 64_000,
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
        "stream": stream,
    }
    return json.dumps(asked).encode()


def count_body(*, model: str = "claude-opus-4-8") -> bytes:
    """What the agent asks before it shows how full its context is."""
    asked = json.loads(body(model=model))
    return json.dumps({key: asked[key] for key in ("model", "messages", "system", "tools")}).encode()
