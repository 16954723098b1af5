"""A generate frame is checked before anything is done with it."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.engine.job import Call, Format, Job, Part, Refusal, Settings, Tool, Words, parse


def job(**more: Any) -> Job:
    return parse({"id": 1, "messages": [{"role": "user", "content": "x"}], **more}, vocabulary=100)


def test_what_is_not_said_is_the_default() -> None:
    one = job(committed=None, max_tokens=None, sampling={"temperature": None})
    assert (one.committed, one.max_tokens, one.stop, one.trim, one.settings) == ("", None, (), False, Settings())


def test_what_is_said_counts() -> None:
    settings = job(sampling={"temperature": 0, "top_k": 5, "seed": 7, "logit_bias": [[99, -1]]}).settings
    assert settings == Settings(temperature=0.0, top_k=5, seed=7, logit_bias=((99, -1.0),))
    assert settings.greedy


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"sampling": {"logit_bias": [[100, 1]]}}, "logit_bias"),
        ({"sampling": {"logit_bias": [[-1, 1]]}}, "logit_bias"),
        ({"sampling": {"logit_bias": [["1", 1]]}}, "logit_bias"),
        ({"sampling": {"logit_bias": [[1, "x"]]}}, "logit_bias"),
        ({"sampling": {"temperature": -1}}, "temperature"),
        ({"sampling": {"temperature": float("nan")}}, "temperature"),
        ({"sampling": {"temperature": True}}, "temperature"),
        ({"sampling": {"top_p": 1.5}}, "top_p"),
        ({"sampling": {"repeat_penalty": 0}}, "repeat_penalty"),
        ({"sampling": {"top_k": 1.5}}, "top_k"),
        ({"sampling": {"seed": "x"}}, "seed"),
        ({"sampling": []}, "sampling"),
        ({"sampling": [1]}, "sampling"),
        ({"sampling": {"logit_bias": 5}}, "logit_bias"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"stop": "x"}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"committed": 3}, "committed"),
        ({"committed": "x", "prefill": 2}, "prefill"),
        ({"committed": "x", "prefill": -1}, "prefill"),
        ({"committed": "x", "prefill": True}, "prefill"),
        ({"prefill": 1}, "prefill"),
        ({"messages": "x"}, "messages"),
        ({"messages": [1]}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": 7}]}, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": "f"}]}, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"name": "f"}]}]}, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": {}}]}]}, "messages"),
        ({"tools": 3}, "tools"),
        ({"tools": [3]}, "tools"),
        ({"tools": [{"description": "x"}]}, "tools"),
        ({"tools": [{"name": ""}]}, "tools"),
        ({"tools": [{"name": 'f", "arguments": '}]}, "tools[0].name"),
        ({"tools": [{"name": "f"}, {"name": "f[ARGS]"}]}, "tools[1].name"),
        ({"tools": [{"name": " f"}]}, "tools[0].name"),
        ({"tools": [{"name": "f\n"}]}, "tools[0].name"),
        ({"tools": [{"name": "f", "strict": 1}]}, "strict"),
        ({"lenient": 1}, "lenient"),
        ({"tools": [{"name": "f", "description": 1}]}, "tools"),
        ({"tools": [{"name": "f", "parameters": []}]}, "tools"),
        ({"choice": "often"}, "tool_choice"),
        ({"choice": "required"}, "tool_choice"),
        ({"choice": {}}, "tool_choice"),
        ({"choice": {"name": "g"}, "tools": [{"name": "f"}]}, "tool_choice"),
        ({"parallel": "no"}, "parallel"),
        ({"trim": 1}, "trim"),
        ({"first": "x"}, "first"),
        ({"effort": 3}, "effort"),
        ({"format": {}}, "format"),
        ({"format": {"schema": []}}, "format"),
        ({"format": {"grammar": None}}, "format"),
        ({"committed": [{"text": 1}]}, "committed"),
        ({"committed": [{"call": {"name": "", "arguments": ""}}]}, "committed"),
        ({"committed": [{"call": {"name": "f", "arguments": {}}}]}, "committed"),
        ({"committed": [{"call": {"name": "f", "arguments": ""}}, {"text": "x"}], "prefill": 1}, "prefill"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_name(more: dict[str, Any], param: str) -> None:
    with pytest.raises(Refusal) as caught:
        job(**more)
    assert (caught.value.fault, caught.value.more) == ("request", {"param": param})
    assert caught.value.message.startswith(f"'{param}' must be ")


@pytest.mark.parametrize(
    ("more", "first"), [({}, False), ({"committed": "x"}, True), ({"committed": "x", "first": False}, False)]
)
def test_who_is_read_already_goes_first_unless_it_is_said_otherwise(more: dict[str, Any], first: bool) -> None:
    assert job(**more).first is first


def test_a_job_does_not_show_what_was_written() -> None:
    assert "secret" not in repr(job(messages=[{"role": "user", "content": "secret"}], committed="secret"))


# ----------------------------------------------------------------------------------------------- tools and structure

DECLARED = [{"name": "f", "description": "Finds.", "parameters": {"type": "object"}}, {"name": "ns.g/h:1-2"}]
CALL = {"call": {"name": "f", "arguments": '{"a'}}


def test_tools_are_values() -> None:
    tools = job(tools=DECLARED).tools
    assert tools == (Tool(name="f", description="Finds.", parameters={"type": "object"}), Tool(name="ns.g/h:1-2"))


def test_a_name_may_have_spaces() -> None:
    assert job(tools=[{"name": "look it up"}]).tools == (Tool(name="look it up"),)


@pytest.mark.parametrize(
    ("choice", "kept"),
    [("auto", "auto"), ("required", "required"), ({"name": "f[1]"}, "auto"), ({"name": "g"}, "required")],
)
def test_of_anothers_tools_only_that_is_left_out_which_cannot_be_called(choice: Any, kept: str) -> None:
    one = job(tools=[{"name": "f[1]"}, {"name": "g"}], choice=choice, lenient=True)
    assert (one.tools, one.lost, one.choice) == ((Tool(name="g"),), ("tools.f_1_",), kept)
    assert job(tools=[{"name": "f[1]"}], choice="required", lenient=True).choice == "auto"


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        (None, ("auto", "")),
        ("auto", ("auto", "")),
        ("none", ("none", "")),
        ("required", ("required", "")),
        ({"name": "f"}, ("required", "f")),
    ],
)
def test_a_tool_may_must_or_must_not_be_called(choice: Any, kept: tuple[str, str]) -> None:
    one = job(tools=DECLARED, choice=choice)
    assert (one.choice, one.named) == kept
    assert one.shown == (() if choice == "none" else one.tools)
    assert one.thinks is (False if kept[0] == "required" else None)


@pytest.mark.parametrize(
    ("committed", "parts", "text"),
    [
        (None, (), ""),
        ("x", (), "x"),
        ([], (), ""),
        ([{"text": ""}], (), ""),
        ([{"text": "x"}, {"text": "y"}], (), "xy"),
        ([CALL], (Call("f", '{"a'),), ""),
        ([{"text": "x"}, CALL], (Words("x"), Call("f", '{"a')), ""),
        ([CALL, {"text": "x"}, {"text": "y"}], (Call("f", '{"a'),), "xy"),
    ],
)
def test_what_is_committed_is_parts_and_the_text_at_their_end(
    committed: Any, parts: tuple[Part, ...], text: str
) -> None:
    one = job(committed=committed)
    assert (one.parts, one.committed) == (parts, text)
    assert one.begun == (*parts, *([Words(text)] if text else []))
    assert one.first is bool(one.begun)


@pytest.mark.parametrize(
    ("call", "more", "naming"),
    [
        ({"name": "get_", "half": True}, {}, True),
        ({"name": "get", "half": True}, {}, True),
        ({"name": "get_", "half": False}, {}, False),
        ({"name": "get_"}, {}, False),
        ({"name": "get_", "half": True, "arguments": "{"}, {}, False),
        ({"name": "get_x", "half": True}, {}, False),
        ({"name": "get_weather", "half": True}, {}, False),
        ({"name": "get", "half": True}, {"choice": {"name": "get"}}, False),
        ({"name": "get", "half": True}, {"choice": {"name": "get_weather"}}, True),
        ({"name": "get", "half": True}, {"choice": "none"}, False),
    ],
)
def test_it_is_known_whether_more_of_a_name_may_come(call: dict[str, Any], more: dict[str, Any], naming: bool) -> None:
    tools = [{"name": "get"}, {"name": "get_weather"}]
    begun = [{"text": "I look."}, {"call": {"arguments": "", **call}}]
    assert job(tools=tools, committed=begun, **more).naming is naming
    assert not job(tools=tools, committed=[*begun, {"text": "So"}], **more).naming


def test_the_clients_beginning_is_letters_of_the_first_text() -> None:
    assert job(committed=[{"text": "Well, x"}, CALL], prefill=5).prefill == 5
    assert job(committed="Well, x", prefill=6).heard == "x"
    assert job(committed=[{"text": "Well, x"}, CALL, {"text": "y"}], prefill=5).heard == "y"


@pytest.mark.parametrize(
    ("form", "kept"),
    [
        (None, None),
        ({"schema": None}, Format()),
        ({"schema": {"type": "object"}}, Format(schema={"type": "object"})),
        ({"grammar": "root ::= [a]"}, Format(grammar="root ::= [a]")),
    ],
)
def test_an_answer_may_have_a_form(form: Any, kept: Format | None) -> None:
    assert job(format=form).format == kept


def test_calls_are_kept_as_text() -> None:
    call = {"id": None, "name": "f", "arguments": "{}", "more": 1}
    first, second = job(
        messages=[{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "user", "tool_calls": []}]
    ).messages
    assert first["tool_calls"] == [{"id": "", "name": "f", "arguments": "{}"}]
    assert second == {"role": "user"}


def test_what_was_called_is_not_shown_either() -> None:
    tools = [{"name": "f", "description": "secret", "parameters": {"const": "secret"}}]
    one = job(
        tools=tools, committed=[{"call": {"name": "f", "arguments": "secret"}}], format={"schema": {"x": "secret"}}
    )
    assert "secret" not in repr(one)
