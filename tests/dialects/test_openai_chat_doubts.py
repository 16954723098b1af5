"""What a cloud of OpenAI's dialect may take and we cannot use is doubted, not refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.core.chat import ChatRequest, Foreign, JsonFormat, Message, Sampling, Text, ToolCall
from appliance.dialects.openai_chat import OPENAI

HI = {"role": "user", "content": "hi"}


def asked(**body: Any) -> ChatRequest:
    return OPENAI.parse(json.dumps({"model": "gpt-4o", "messages": [HI], **body}).encode())


def declared(parameters: Any, *, old: bool = False) -> dict[str, Any]:
    """A body with one tool, that is called with these."""
    function = {"name": "f", "parameters": parameters}
    return {"functions": [function]} if old else {"tools": [{"type": "function", "function": function}]}


NO_SCHEMAS = [
    ("x", "must be a JSON schema, such as {}, not a string."),
    ([], "must be a JSON schema, such as {}, not a list."),
    (False, "must be a JSON schema, such as {}, not false, which nothing fits."),
]
EMPTY = "is an empty string; leave it out or give the text to stop at."


@pytest.mark.parametrize(
    ("body", "path", "sentence"),
    [
        ({"temperature": 2.1}, "temperature", "must be 0 to 2."),
        ({"temperature": -1}, "temperature", "must be 0 to 2."),
        ({"top_p": -0.1}, "top_p", "must be 0 to 1."),
        ({"top_k": -2}, "top_k", "must be at least -1."),
        ({"presence_penalty": 3}, "presence_penalty", "must be -2 to 2."),
        ({"frequency_penalty": 10**400}, "frequency_penalty", "is too large a number."),
        ({"min_p": 2}, "min_p", "must be 0 to 1."),
        ({"repetition_penalty": -1}, "repetition_penalty", "must be at least 0."),
        ({"seed": 2**63}, "seed", f"must be {-(2**63):g} to {2**63 - 1:g}."),
    ],
)
def test_a_number_of_style_that_we_cannot_use_is_doubted_and_lost(
    body: dict[str, Any], path: str, sentence: str
) -> None:
    request = asked(**body)
    assert request.doubts == ((path, f"{path} {sentence}"),)
    assert (request.unsaid, request.foreign, request.sampling) == ((path,), (), Sampling())


@pytest.mark.parametrize(
    ("body", "path", "sentence"),
    [
        ({"n": 0}, "n", "must be 1 to 128."),
        ({"n": 129}, "n", "must be 1 to 128."),
        ({"max_tokens": -2}, "max_tokens", "must be at least 1."),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens", "must be a whole number, not a fraction."),
        ({"logit_bias": {"5": 101}}, "logit_bias.5", "must be -100 to 100."),
        ({"logit_bias": [[5, 1]]}, "logit_bias", "must be an object, not a list."),
        (
            {"logit_bias": {"the": 1}},
            "logit_bias",
            'has a key that is not a token id; keys are ids such as "1234".',
        ),
        ({"top_logprobs": -1}, "top_logprobs", "must be 0 to 20."),
        ({"top_logprobs": 21}, "top_logprobs", "must be 0 to 20."),
        ({"grammar": "root ::= x"}, "grammar", "is wrong in line 1: there is no rule 'x'."),
        ({"grammar": ["x"]}, "grammar", "must be a grammar in GBNF, as text."),
        (
            {"grammar": 'root ::= "x"', "response_format": {"type": "json_object"}},
            "grammar",
            "cannot be kept to together with tools or response_format.",
        ),
        (
            {"messages": [HI, {"role": "narrator", "content": "x"}]},
            "messages[1].role",
            "is unknown; it must be one of system, developer, user, assistant, tool, function.",
        ),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages[0].tool_call_id",
            "is missing; it says which call this is the result of.",
        ),
        (
            {"messages": [{"role": "user", "content": [{"image": "x"}]}]},
            "messages[0].content[0].type",
            "is missing; it says what kind of part this is.",
        ),
        *((declared(value), "tools[0].function.parameters", flaw) for value, flaw in NO_SCHEMAS),
        *((declared(value, old=True), "functions[0].parameters", flaw) for value, flaw in NO_SCHEMAS),
        (
            {"response_format": {"type": "yaml"}},
            "response_format.type",
            "is unknown; it must be one of text, json_object, json_schema.",
        ),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            "must be an object with a schema, not null.",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": "x"}}},
            "response_format.json_schema.schema",
            "must be a JSON schema, such as {}, not a string.",
        ),
    ],
)
def test_what_matters_and_cannot_be_used_is_doubted_and_foreign(body: dict[str, Any], path: str, sentence: str) -> None:
    request = asked(**body)
    assert request.doubts == ((path, f"{path} {sentence}"),)
    assert (request.foreign, request.unsaid) == ((path,), ())
    assert (request.max_tokens, request.sampling.logit_bias) == (None, ())


def test_true_is_a_schema_and_means_anything() -> None:
    for request in (asked(**declared(True)), asked(**declared(True, old=True))):
        assert (request.tools[0].parameters, request.doubts, request.foreign) == ({"type": "object"}, (), ())
    wanted = asked(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": True}})
    assert (wanted.format, wanted.doubts, wanted.foreign) == (JsonFormat(schema={}, name="x"), (), ())


@pytest.mark.parametrize(
    ("body", "path", "sentence"),
    [
        ({"stop": ""}, "stop", EMPTY),
        ({"stop": ["a", ""]}, "stop[1]", EMPTY),
        (
            {"messages": [{"role": "user", "content": None}]},
            "messages[0].content",
            "is missing; send a string or a list of parts.",
        ),
        ({"logprobs": 2}, "logprobs", "must be true or false, not a number."),
    ],
)
def test_what_says_nothing_is_only_doubted(body: dict[str, Any], path: str, sentence: str) -> None:
    request = asked(**body)
    assert request.doubts == ((path, f"{path} {sentence}"),)
    assert (request.foreign, request.unsaid) == ((), ())
    assert "" not in request.stop


def test_doubts_stand_in_the_order_they_were_met_and_the_bytes_stay() -> None:
    request = asked(stop="", temperature=3)
    assert [path for path, _ in request.doubts] == ["temperature", "stop"]
    assert OPENAI.render(request, "gpt-4o") == request.raw


def test_the_smallest_and_the_largest_are_beyond_doubt() -> None:
    assert asked(temperature=0, top_p=1, n=128, max_tokens=1, presence_penalty=-2, top_k=-1, seed=-(2**63)).doubts == ()


@pytest.mark.parametrize("key", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("value", [-1, -1.0])
def test_minus_one_and_nothing_are_no_limit(key: str, value: float) -> None:
    request = asked(**{key: value})
    assert (request.max_tokens, request.doubts, request.foreign, request.unsaid) == (None, (), (), ())
    assert OPENAI.render(request, "gpt-4o") == request.raw


@pytest.mark.parametrize(("n", "read", "needs"), [(0, 1, set()), (-3, 1, set()), (10**9, 128, {"n"})])
def test_too_many_answers_are_as_many_as_there_can_be(n: int, read: int, needs: set[str]) -> None:
    assert (asked(n=n).n, asked(n=n).needs) == (read, frozenset(needs))


def test_a_message_of_an_unknown_role_is_the_users() -> None:
    request = asked(messages=[{"role": "latest_reminder", "content": "soon"}, {"role": "x"}])
    assert request.messages == (Message(role="user", parts=(Text("soon"),)), Message(role="user", parts=()))


def test_shapes_that_local_servers_take_are_understood() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"a": [1, "é"]}}}
    request = asked(
        messages=[
            {"role": "user", "content": ["a", {"type": "text", "text": "b"}]},
            {"role": "assistant", "tool_calls": [call]},
        ]
    )
    assert request.messages == (
        Message(role="user", parts=(Text("a"), Text("b"))),
        Message(role="assistant", parts=(ToolCall(id="c", name="f", arguments='{"a":[1,"é"]}'),)),
    )
    assert (request.doubts, request.foreign) == ((), ())


def test_a_type_that_fits_no_header_is_not_repeated() -> None:
    request = asked(messages=[{"role": "user", "content": [{"type": "a\r\nb"}]}])
    assert (request.needs, request.messages[0].parts) == (frozenset({"unknown"}), (Foreign("unknown"),))
