"""The table of providers: whole, without contradictions, and true for the models there are."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

import pytest
from openai.types.shared import ChatModel

from appliance.config import PUBLIC_CLOUDS
from appliance.presets import BY_NAME, PRESETS, Preset, at
from appliance.settings import SECTIONS, Key


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_a_preset_says_only_what_an_owner_could_write(preset: Preset) -> None:
    said = {
        "name": preset.name,
        "api": preset.api,
        "base_url": preset.base_url or preset.address_like,
        "key_header": preset.key_header or "x",
        "models": list(preset.models),
        "status_page": preset.status_page or "https://none.example",
    }
    for key, value in said.items():
        rule = SECTIONS["upstream"][key]
        assert isinstance(rule, Key)
        assert rule.accept(value) in (value, tuple(value))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_a_preset_is_known_by_its_own_address_unless_that_is_this_box(preset: Preset) -> None:
    address = preset.base_url or preset.address_like
    local = urlsplit(address).hostname == "127.0.0.1"
    assert at(address, preset.api) is (None if local else preset)
    assert (preset.variable is None) == local
    assert preset.url(preset.api) == preset.base_url
    assert preset.url("anthropic" if preset.api == "openai" else "openai") == preset.anthropic_url


def test_no_two_presets_share_a_name_or_a_variable() -> None:
    assert len(BY_NAME) == len(PRESETS)
    variables = [preset.variable for preset in PRESETS if preset.variable]
    assert len(set(variables)) == len(variables)


def test_the_contract_names_those_that_a_key_alone_sets_up_and_their_order() -> None:
    assert [cloud.variable for cloud in PUBLIC_CLOUDS] == [
        "ANTHROPIC_API_KEY",
        "OPENAI_API_KEY",
        "GEMINI_API_KEY",
        "DEEPSEEK_API_KEY",
        "OPENROUTER_API_KEY",
        "N1N_API_KEY",
    ]
    assert all(cloud.base_url for cloud in PUBLIC_CLOUDS)


def takes(patterns: tuple[str, ...], model: str) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in patterns)


NO_EFFORT = (
    *("claude-haiku-4-5", "claude-haiku-4-5-20251001", "claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
    *("claude-sonnet-4-20250514", "claude-opus-4-20250514", "claude-opus-4-1-20250805", "claude-opus-4-1"),
    *("claude-3-7-sonnet-20250219", "claude-3-5-haiku-latest"),
)
EFFORT = (
    *("claude-opus-4-5-20251101", "claude-opus-4-6", "claude-opus-4-8", "claude-sonnet-4-6", "claude-opus-5-5"),
    *("claude-sonnet-5", "claude-haiku-5-5", "claude-fable-5-2", "claude-mythos-preview"),
)


def test_the_claudes_that_take_an_effort_are_told_from_those_that_refuse_it() -> None:
    patterns = BY_NAME["anthropic"].quirks.effort
    assert [model for model in EFFORT if not takes(patterns, model)] == []
    assert [model for model in NO_EFFORT if takes(patterns, model)] == []


def anthropic_models() -> list[str]:
    """Those the official SDK names; it is not everywhere that these tests run."""
    types = pytest.importorskip("anthropic.types.model_param")
    return [model for part in get_args(types.ModelParam) for model in get_args(part)]


def test_every_claude_that_the_sdk_names_is_sorted() -> None:
    unsorted = set(anthropic_models()) - set(EFFORT) - set(NO_EFFORT)
    assert [model for model in sorted(unsorted) if not takes(BY_NAME["anthropic"].quirks.effort, model)] == []


def test_every_reasoning_model_of_openai_gets_the_new_limit_and_no_older_one() -> None:
    old = ("gpt-3.5", "gpt-4", "chatgpt-4o", "gpt-audio", "codex-mini")
    patterns = BY_NAME["openai"].quirks.new_limit
    models = get_args(ChatModel)
    assert len(models) > 50
    assert [model for model in models if takes(patterns, model) == model.startswith(old)] == []


@pytest.mark.parametrize(
    ("model", "taken"),
    [
        ("o1", True),
        ("o3-mini", True),
        ("o4-mini-2025-04-16", True),
        ("gpt-5", True),
        ("gpt-5-mini", True),
        ("gpt-5-nano-2025-08-07", True),
        ("gpt-5-2025-08-07", True),
        ("gpt-5.1", True),
        ("gpt-5.1-2025-11-13", True),
        ("gpt-5-chat-latest", False),
        ("gpt-5-pro", False),
        ("gpt-5.1-codex", False),
        ("gpt-5.2", False),
        ("gpt-5.6-sol", False),
        ("gpt-6-astra", False),
        ("gpt-4o", False),
    ],
)
def test_openai_is_told_an_effort_only_where_tools_do_not_forbid_it(model: str, taken: bool) -> None:
    assert takes(BY_NAME["openai"].quirks.effort, model) is taken


def test_the_deepseeks_that_think_get_their_thoughts_back() -> None:
    back = BY_NAME["deepseek"].quirks.reasoning_back
    models = ("deepseek-chat", "deepseek-reasoner", "deepseek-v3.2", "deepseek-v4-flash", "deepseek-v4-pro")
    assert [any(fnmatchcase(model, pattern) for pattern in back) for model in models] == [0, 1, 0, 1, 1]


def test_only_anthropic_wants_signed_thinking_and_only_mistral_no_user_behind_a_tool() -> None:
    assert [preset.name for preset in PRESETS if preset.quirks.signed_thinking] == ["anthropic"]
    assert [preset.name for preset in PRESETS if not preset.quirks.user_after_tool] == ["mistral"]


def test_a_model_served_at_home_is_told_an_effort_only_if_it_is_known_to_take_one() -> None:
    patterns = BY_NAME["ollama"].quirks.effort
    assert (takes(patterns, "gpt-oss:20b"), takes(patterns, "openai/gpt-oss-120b")) == (True, True)
    assert takes(patterns, "llama3.3") is False


def test_no_code_outside_the_table_knows_a_provider() -> None:
    """A name, or an address, in a string of the code would be a fact in the wrong place."""
    domains = [domain.lstrip(".") for preset in PRESETS for domain in preset.domains]
    root = Path(__file__).parents[1] / "appliance"
    found = [
        f"{path.relative_to(root)}: {domain}"
        for path in root.rglob("*.py")
        if path.name != "presets.py"
        for domain in domains
        if domain in path.read_text("utf-8")
    ]
    assert found == []
