"""Who may answer, for every wish and every kind of model name."""

from dataclasses import replace

import pytest

from appliance.core.chat import ChatRequest, Message, Text, Tool, ToolChoice
from appliance.core.fault import BackendError, Fault
from appliance.core.route import BOX_OFFERS, Leg, Offer, for_the_box, legs, models, stops_for_box

CLAUDE = Offer(name="claude", models=("claude-*",), aliases=(("gpt-*", "claude-sonnet"), ("gpt-4", "never reached")))
OPENAI = Offer(name="openai", models=("gpt-*", "o1"), prefill=True)
BOTH = (CLAUDE, OPENAI)
BOX = Leg(name="local", model="starter", continues=True, offers=BOX_OFFERS)


def ask(model="gpt-4", *needs):
    question = Message(role="user", parts=(Text("Hello"),))
    return ChatRequest(dialect="openai", model=model, messages=(question,), needs=frozenset(needs))


def route(request, upstreams=BOTH, wish="auto"):
    return legs(request, upstreams, wish=wish, box_model="starter")


def names(request, upstreams=BOTH, wish="auto"):
    return [leg.name for leg in route(request, upstreams, wish)]


def refusal(request, upstreams=BOTH, wish="auto"):
    with pytest.raises(BackendError) as caught:
        route(request, upstreams, wish)
    error = caught.value
    return error.fault, error.status, error.message


def test_the_clouds_come_in_the_order_of_the_configuration_and_the_box_last():
    assert route(ask("gpt-4")) == (
        Leg(name="claude", model="claude-sonnet", continues=False),
        Leg(name="openai", model="gpt-4", continues=True),
        BOX,
    )
    assert names(ask("gpt-4"), (OPENAI, CLAUDE)) == ["openai", "claude", "local"]


def test_a_cloud_is_offered_only_the_models_it_wants():
    assert names(ask("claude-opus")) == ["claude", "local"]
    assert names(ask("o1")) == ["openai", "local"]


def test_the_first_alias_that_matches_gives_the_name_and_goes_before_the_patterns():
    both = Offer(name="x", models=("gpt-4",), aliases=(("gpt-4", "first"), ("gpt-*", "second")))
    assert (both.resolve("gpt-4"), both.resolve("gpt-5"), both.resolve("o1")) == ("first", "second", None)


def test_patterns_mind_the_case():
    assert Offer(name="x", models=("GPT-*",)).resolve("gpt-4") is None


def test_an_offer_without_patterns_takes_every_model():
    assert Offer(name="x").resolve("anything/at:all") == "anything/at:all"


def test_an_empty_alias_target_is_a_target():
    assert names(ask("a"), (Offer(name="x", models=(), aliases=(("a", ""),)),)) == ["x", "local"]


@pytest.mark.parametrize("wish", ["auto", "local", "cloud", "claude"])
def test_the_model_named_local_is_always_the_box(wish):
    assert route(ask("local"), wish=wish) == (BOX,)


def test_the_wish_local_is_always_the_box():
    assert route(ask("claude-opus"), wish="local") == (BOX,)
    assert route(ask("nobody-has-this"), wish="local") == (BOX,)
    assert route(ask("x"), (), wish="local") == (BOX,)


def test_without_any_cloud_the_box_answers_whatever_the_model_is_called():
    assert route(ask("no-such-model"), ()) == (BOX,)


def test_the_wish_cloud_leaves_the_box_out():
    assert names(ask("gpt-4"), wish="cloud") == ["claude", "openai"]


def test_the_wish_for_one_upstream_asks_that_one_alone():
    assert names(ask("gpt-4"), wish="openai") == ["openai"]
    assert route(ask("gpt-4"), wish="claude") == (Leg(name="claude", model="claude-sonnet", continues=False),)


def test_a_model_nobody_wants_is_a_404_that_names_the_models_there_are():
    assert refusal(ask("llama")) == (
        Fault.REQUEST,
        404,
        "No upstream here offers the model 'llama'; the models there are: local, gpt-*, gpt-4, claude-*, o1.",
    )


def test_the_404_has_the_code_that_clients_know():
    with pytest.raises(BackendError) as caught:
        route(ask("llama"))
    assert caught.value.code == "model_not_found"


def test_a_wish_for_one_upstream_names_its_models_only():
    assert refusal(ask("llama"), wish="openai")[2] == (
        "No upstream here offers the model 'llama'; the models there are: local, gpt-*, o1."
    )


def test_a_long_model_name_is_cut_in_the_message():
    assert f"the model {'x' * 100!r};" in refusal(ask("x" * 5000))[2]


def test_a_wish_for_nobody_is_a_400_that_lists_the_wishes():
    assert refusal(ask(), wish="gemini") == (
        Fault.REQUEST,
        400,
        "x-appliance-route must be auto, local, cloud or one of the upstreams (claude, openai).",
    )
    assert "(none)" in refusal(ask(), (), wish="gemini")[2]


def test_a_wish_for_a_cloud_where_there_is_none_says_so():
    assert refusal(ask(), (), wish="cloud") == (
        Fault.REQUEST,
        404,
        "No cloud is configured, so x-appliance-route: cloud leads nowhere; use auto or local.",
    )


@pytest.mark.parametrize(
    ("model", "upstreams", "wish"), [("local", BOTH, "auto"), ("x", (), "auto"), ("x", (), "local")]
)
def test_the_box_refuses_what_it_was_itself_asked_for_and_cannot_do(model, upstreams, wish):
    request = ask(model, "tools", "json", "n", "logprobs", "audio", "images")
    assert refusal(request, upstreams, wish) == (
        Fault.REQUEST,
        400,
        "The model on this box cannot do this yet: audio, images; leave it out, or ask a cloud's model.",
    )
    with pytest.raises(BackendError) as caught:
        route(request, upstreams, wish)
    assert caught.value.param == "modalities"  # where the wish for audio is


def test_of_answers_to_one_request_the_box_writes_only_so_many():
    many = replace(ask("local", "n"), n=9)
    with pytest.raises(BackendError) as caught:
        route(many)
    assert (caught.value.param, str(caught.value)) == ("n", "n can be at most 8 on this box.")
    assert route(replace(many, n=8)) == (BOX,)
    box = route(replace(many, model="gpt-4"), [OPENAI])[-1]
    assert box.lacks(many) == ("n",)
    assert (for_the_box(many, stands_in=True, trim=False).n, for_the_box(ask(), stands_in=True, trim=False).n) == (8, 1)


def test_as_a_fallback_the_box_takes_what_it_cannot_do_and_knows_what_it_lacks():
    request = ask("gpt-4", "tools", "audio", "images")
    box = route(request)[-1]
    assert box == BOX
    assert box.lacks(request) == ("audio", "images")
    assert box.lacks(ask()) == ()


def test_a_leg_lacks_only_what_it_does_not_offer():
    leg = Leg(name="local", model="m", continues=True, offers=frozenset({"tools"}))
    assert leg.lacks(ask("m", "tools", "json")) == ("json",)


@pytest.mark.parametrize(("model", "wish"), [("local", "auto"), ("gpt-4", "local")])
def test_the_box_itself_can_be_asked_for_tools_and_json(model, wish):
    assert route(ask(model, "tools", "json"), BOTH, wish) == (BOX,)


@pytest.mark.parametrize(
    ("foreign", "lacks"),
    [
        ("tools[3]", ("tools",)),
        ("tools[0].function.parameters", ("tools",)),
        ("tool_choice", ("tools",)),
        ("functions", ("tools",)),
        ("mcp_servers", ("tools",)),
        ("response_format", ("json",)),
        ("output_config.format", ("json",)),
        ("output_format", ("json",)),
        ("messages[2].content[0]", ()),
    ],
)
def test_tools_and_forms_that_only_a_cloud_of_the_dialect_knows_the_box_lacks(foreign, lacks):
    request = replace(ask("m", "tools", "json"), foreign=(foreign,))
    assert BOX.lacks(request) == lacks
    assert BOX.lacks(replace(request, needs=frozenset())) == ()


TOOL = Tool(name="look")


@pytest.mark.parametrize(
    ("choice", "tools", "kept"),
    [
        (ToolChoice("required"), (TOOL,), True),
        (ToolChoice("required"), (), False),
        (ToolChoice("named", "look"), (TOOL,), True),
        (ToolChoice("named", "bash"), (TOOL,), False),
        (ToolChoice("none"), (), True),
    ],
)
def test_who_stands_in_is_not_held_to_a_tool_it_does_not_know(choice, tools, kept):
    request = replace(ask(), tool_choice=choice, tools=tools)
    assert for_the_box(request, stands_in=True, trim=True).tool_choice == (choice if kept else None)
    assert for_the_box(request, stands_in=False, trim=True).tool_choice == choice


def test_what_was_asked_of_a_cloud_the_box_takes_as_far_as_it_can():
    assert for_the_box(ask(), stands_in=True, trim=False).lenient
    assert not for_the_box(ask(), stands_in=False, trim=False).lenient


def test_a_cloud_judges_for_itself_what_it_can_do():
    assert route(ask("gpt-4", "tools", "audio"))[0].lacks(ask("gpt-4", "tools")) == ()


def test_only_the_leg_named_local_is_the_box():
    assert [leg.local for leg in route(ask("gpt-4"))] == [False, False, True]


def test_the_list_of_models_begins_with_the_box_and_names_nothing_twice():
    assert models(()) == ("local",)
    assert models((OPENAI, CLAUDE)) == ("local", "gpt-*", "o1", "gpt-4", "claude-*")


def test_a_name_that_is_alias_and_pattern_of_one_cloud_is_listed_once():
    assert models((Offer(name="x", models=("gpt-4",), aliases=(("gpt-4", "big"),)),)) == ("local", "gpt-4")


def translated(*, foreign: tuple[str, ...] = (), objection: str | None = None, client_key: bool = False):
    anthropic = Offer(
        name="claude",
        dialect="anthropic",
        aliases=(("gpt-*", "c"),),
        objection=lambda _: objection,
        client_key=client_key,
    )
    return replace(ask(), foreign=foreign), anthropic


def test_an_upstream_of_another_dialect_is_asked_when_everything_can_be_said_there():
    asked, anthropic = translated()
    assert names(asked, [anthropic]) == ["claude", "local"]


@pytest.mark.parametrize("says", [{"foreign": ("functions",)}, {"objection": "n"}])
def test_what_cannot_be_translated_leaves_the_upstream_out(says):
    asked, anthropic = translated(**says)
    assert names(asked, [anthropic, OPENAI]) == ["openai", "local"]
    with pytest.raises(BackendError) as refused:
        route(asked, [anthropic])
    field = says.get("objection") or says["foreign"][0]
    assert (refused.value.fault, refused.value.status, refused.value.param) == (Fault.REQUEST, 400, field)
    assert refused.value.message.startswith(f"{field} cannot be translated: claude speaks the anthropic dialect")


def test_an_upstream_of_the_same_dialect_gets_what_no_other_understands():
    assert names(replace(ask(), foreign=("functions",)), [OPENAI]) == ["openai", "local"]


def test_a_callers_own_credential_is_never_shown_to_a_cloud_of_another_dialect():
    asked, anthropic = translated(client_key=True)
    assert names(asked, [anthropic, OPENAI]) == ["openai", "local"]
    with pytest.raises(BackendError, match="the caller's own credential"):
        route(asked, [anthropic])


def test_the_box_looks_for_sixteen_stop_strings_of_256_characters():
    assert stops_for_box(("a",) * 16) == ("a",) * 16
    assert stops_for_box(("a",) * 17) == ("a",) * 16
    assert stops_for_box(("x" * 257, "y" * 256)) == ("y" * 256,)
