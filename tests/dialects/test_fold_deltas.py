"""How the pieces of each dialect are put together, one kind after the other."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.core.seams import Unfoldable
from appliance.dialects.anthropic import ANTHROPIC
from tests.dialects.folded import anthropic_stream, begins, chunk, completion, delta, ends, folded, message, opens, said

# ---------------------------------------------------------------------------------------------- OpenAI's deltas


def test_nothing_said_is_null_and_an_empty_text_is_empty() -> None:
    assert said({"role": "assistant"}) == {"role": "assistant", "content": None, "refusal": None}
    assert said({"content": ""})["content"] == ""
    assert said({"content": "", "refusal": "N"}, {"refusal": "o"}) == {
        "role": "assistant",
        "content": None,
        "refusal": "No",
    }


def test_what_names_something_is_said_once_and_every_other_string_is_a_piece() -> None:
    details = [{"type": "reasoning.text", "text": word, "format": "f", "index": 0, "id": "r"} for word in ("a", "b")]
    details.append({"type": "reasoning.encrypted", "data": "x", "format": "f", "index": 0})
    deltas = [{"role": "assistant", "of_tomorrow": "x", "reasoning_details": [one]} for one in details]
    assert said(*deltas) | {"content": "any"} == {
        "role": "assistant",
        "content": "any",
        "refusal": None,
        "of_tomorrow": "xxx",
        "reasoning_details": [{**details[0], "text": "ab"}, details[2]],
    }


def test_lists_without_numbers_grow_and_objects_are_merged() -> None:
    notes = [{"type": "url_citation", "url_citation": {"url": url}} for url in "ab"]
    thing = [{"annotations": notes[:1], "extra": {"a": 1, "t": "x"}}, {"annotations": notes[1:], "extra": {"t": "y"}}]
    message = said(*thing)
    assert (message["annotations"], message["extra"]) == (notes, {"a": 1, "t": "xy"})


def test_mistrals_parts_become_whole_parts() -> None:
    def thought(text: str) -> dict[str, Any]:
        return {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]}

    assert said({"content": ""}, thought("a"), thought("b"), {"content": "Hel"}, {"content": "lo"})["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "ab"}]},
        {"type": "text", "text": "Hello"},
    ]
    assert said({"content": ""}, {"content": ""}, thought("a"))["content"] == thought("a")["content"]
    assert said({"content": "a"}, {"content": "b"}, thought("c"), {"content": "d"})["content"] == [
        {"type": "text", "text": "ab"},
        {"type": "thinking", "thinking": [{"type": "text", "text": "c"}]},
        {"type": "text", "text": "d"},
    ]


@pytest.mark.parametrize(
    ("fragments", "calls"),
    [
        # all under the same number, as Gemini sends them
        (
            [
                {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "1"}},
                {"index": 0, "id": "b", "type": "function", "function": {"name": "g", "arguments": "2"}},
            ],
            [("a", "f", "1"), ("b", "g", "2")],
        ),
        # without numbers, without a type, the arguments as an object
        (
            [{"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}, {"function": {"arguments": " "}}],
            [("a", "f", '{"x": 1} ')],
        ),
        # a new id and the name for each piece
        (
            [
                {"index": 0, "id": "a", "function": {"name": "f", "arguments": "1"}},
                {"index": 0, "id": "z", "function": {"name": None, "arguments": "2"}},
            ],
            [("a", "f", "12")],
        ),
        ([{"index": 3, "id": None, "function": {"name": "f", "arguments": None}}], [("", "f", "")]),
    ],
)
def test_calls_are_told_apart_as_in_a_stream(fragments: list[Any], calls: list[tuple[str, str, str]]) -> None:
    message = said(*({"tool_calls": [one]} for one in fragments), reason="tool_calls")
    assert message["tool_calls"] == [
        {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
        for id, name, arguments in calls
    ]


@pytest.mark.parametrize(
    ("names", "whole"),
    [
        (["get_", "weather"], "get_weather"),
        (["look", "look", None], "look"),
        (["g", "e", "t"], "get"),
        ([None, "f"], "f"),
    ],
)
def test_a_name_is_said_in_pieces_or_again_and_again(names: list[str | None], whole: str) -> None:
    made = [{"name": name, "arguments": piece} for name, piece in zip(names, "{ }", strict=False)]
    calls = [{"index": 0, "id": "a" if at == 0 else None, "function": one} for at, one in enumerate(made)]
    [call] = said(*({"tool_calls": [one]} for one in calls), reason="tool_calls")["tool_calls"]
    assert call["function"] == {"name": whole, "arguments": "{ }"[: len(names)]}
    assert said(*({"function_call": one} for one in made))["function_call"]["name"] == whole


def test_a_custom_call_has_its_input() -> None:
    first = {"index": 0, "id": "c", "type": "custom", "custom": {"name": "sql", "input": "sel"}}
    more = {"index": 0, "custom": {"input": "ect"}}
    assert said({"tool_calls": [first]}, {"tool_calls": [more]}, reason="tool_calls")["tool_calls"] == [
        {"id": "c", "type": "custom", "custom": {"name": "sql", "input": "select"}}
    ]


def test_outside_of_the_deltas_the_last_word_counts_and_nothing_takes_nothing_back() -> None:
    found = completion(
        {**chunk(), "id": "", "model": "", "created": 0, "choices": [], "citations": ["a"]},
        chunk({"content": "x"}, citations=["a", "b"], service_tier="auto", usage={"prompt_tokens": 1}),
        chunk(service_tier=None, usage=None, obfuscation="zzz"),
    )
    assert found == {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "x", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "citations": ["a", "b"],
        "service_tier": "auto",
        "usage": {"prompt_tokens": 1},
    }


def test_what_stands_beside_a_delta_is_kept() -> None:
    parts = [chunk({"content": "x"}), chunk({"content": "y"})]
    for part, token, reason in zip(parts, "xy", (None, "STOP"), strict=True):
        part["choices"][0] |= {"token_ids": [ord(token)], "native_finish_reason": reason}
        part["choices"][0]["logprobs"] = {"content": [{"token": token}]}
    [choice] = completion(*parts)["choices"]
    assert (choice["token_ids"], choice["native_finish_reason"]) == ([120, 121], "STOP")
    assert choice["logprobs"] == {"content": [{"token": "x"}, {"token": "y"}]}


# ------------------------------------------------------------------------------------------- Anthropic's deltas


def test_a_piece_of_a_kind_of_tomorrow_cannot_be_put_together() -> None:
    with pytest.raises(Unfoldable, match=r"^The cloud sent a piece of an answer that cannot be put together\.$"):
        message(opens(0, type="text", text=""), delta(0, "smell_delta", smell="rose"), *ends())


def test_a_block_of_tomorrow_is_kept_as_it_came() -> None:
    block = {"type": "smell", "smell": "rose"}
    assert message(opens(0, **block), *ends())["content"] == [block]


def test_a_compaction_is_what_its_piece_says() -> None:
    block = {"type": "compaction", "content": None}
    found = message(opens(0, **block), delta(0, "compaction_delta", content="brief", encrypted_content="e"), *ends())
    assert found["content"] == [{"type": "compaction", "content": "brief", "encrypted_content": "e"}]


@pytest.mark.parametrize(
    ("given", "written", "found"),
    [
        ({}, ['{"a"', ": 1}"], {"a": 1}),
        ({"b": 2}, [], {"b": 2}),
        ({"b": 2}, [""], {"b": 2}),
        ("", [""], {}),
        (None, [], {}),
        ({}, ['{"a": "cu'], {}),
        ({}, ["[1]"], {}),
        ({}, [{"a": 1}], {"a": 1}),
    ],
)
def test_a_calls_input_is_an_object(given: Any, written: list[Any], found: Any) -> None:
    opened = {"type": "tool_use", "id": "t", "name": "n"} | ({} if given is None else {"input": given})
    parts = [delta(0, "input_json_delta", partial_json=piece) for piece in written]
    assert message(opens(0, **opened), *parts, *ends("tool_use"))["content"][0]["input"] == found


def test_counts_are_totals_and_zeros_take_nothing_back() -> None:
    first = begins(usage={"input_tokens": 5, "cache_read_input_tokens": 2, "output_tokens": 1, "service_tier": "s"})
    last = {"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0, "service_tier": None, "speed": "fast"}
    found = folded(ANTHROPIC, anthropic_stream([first, *ends(usage=last)]))
    assert found["usage"] == {**first["message"]["usage"], "speed": "fast"}
    last = {"input_tokens": 0, "cache_read_input_tokens": 9, "output_tokens": 3}
    found = folded(ANTHROPIC, anthropic_stream([first, *ends(usage=last)]))
    assert found["usage"] == {**last, "service_tier": "s"}


def test_what_stands_beside_the_last_delta_is_the_messages() -> None:
    found = message(*ends(context_management={"applied_edits": []}, input_transformations=None))
    assert found["context_management"] == {"applied_edits": []}


def test_the_model_is_the_one_that_answered_in_the_end() -> None:
    found = message(opens(0, type="fallback", **{"from": {"model": "m"}, "to": {"model": "small"}}), *ends())
    assert found["model"] == "small"


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ([begins(content="a"), *ends()], []),
        ([begins(), opens(0, type="smell", text=5), delta(0, "text_delta", text="a"), *ends()], "a"),
        ([begins(), opens(0, type="smell"), delta(0, "thinking_delta", thinking=5), *ends()], None),
        ([begins(), opens(0, type=["smell"]), {**ends()[0], "delta": ["end"]}, *ends()], None),
    ],
)
def test_what_is_of_no_type_that_it_ought_to_be_says_nothing(parts: list[Any], found: Any) -> None:
    content = folded(ANTHROPIC, anthropic_stream(parts))["content"]
    assert (content[0].get("text") if content else content) == found


def test_a_kind_that_is_no_word_cannot_be_put_together_either() -> None:
    with pytest.raises(Unfoldable):
        message(opens(0, type="text", text=""), {**delta(0, ""), "delta": {"type": ["text_delta"]}}, *ends())
