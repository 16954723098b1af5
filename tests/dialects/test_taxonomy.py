"""Every refusal of a cloud from the bytes it sends: whose mistake it is, whom it counts against, for how long that one
is set aside, whether it is asked again, and what the caller sees.

The Responses dialect (its error events, quota after the first chunk) has no rows yet; they come with that dialect.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from appliance.core.chat import Headers
from appliance.dialects import words
from tests.dialects.taxonomy import (
    BROKEN,
    BUSY,
    FAILED,
    KEY,
    MODEL,
    OVERLOADED,
    SILENT,
    THEIRS,
    TOO_LONG,
    WIRE,
    Meaning,
    body,
    busy,
    check,
    refused,
)

JSON: Headers = (("content-type", "application/json"),)
LATER: Headers = (*JSON, ("retry-after", "41"))
SOON: Headers = (*JSON, ("retry-after", "1"))
NOON: Headers = (*JSON, ("date", "Sat, 21 Nov 2026 12:00:00 GMT"))

# (file, headers, meaning); the file's name begins with the status.
ANTHROPIC: list[tuple[str, Headers, Meaning]] = [
    ("400_invalid", JSON, THEIRS),
    ("400_filtered", JSON, THEIRS),
    ("400_spend_limit", JSON, KEY),
    ("400_credit", JSON, KEY),
    ("400_on_hold", JSON, KEY),
    ("400_too_long", JSON, TOO_LONG),
    ("400_too_long_with_answer", JSON, TOO_LONG),
    ("401_key", JSON, KEY),
    ("402_billing", JSON, KEY),
    ("403_permission", JSON, KEY),
    ("404_model", JSON, MODEL),
    ("413_too_large", JSON, THEIRS),
    ("429_rate", LATER, busy(41.0)),
    ("429_rate", SOON, busy(1.0)),
    ("429_rate", (*JSON, ("retry-after", "86400")), busy(86400.0)),
    ("429_rate", JSON, BUSY),
    ("429_spend_limit", JSON, KEY),
    ("429_spend_limit", LATER, replace(KEY, wait=41.0)),
    ("429_ramp", LATER, busy(41.0)),
    ("429_long_context", JSON, TOO_LONG),
    ("500_api", JSON, FAILED),
    ("504_timeout", JSON, FAILED),
    ("529_overloaded", JSON, OVERLOADED),
    ("529_overloaded", LATER, busy(41.0)),
]
OPENAI: list[tuple[str, Headers, Meaning]] = [
    ("400_parameter", JSON, THEIRS),
    ("400_too_long", JSON, TOO_LONG),
    ("400_vllm_too_long", JSON, TOO_LONG),
    ("400_policy", JSON, THEIRS),
    ("400_azure_filter", JSON, THEIRS),
    ("400_deepseek_model", JSON, MODEL),
    ("400_groq_decommissioned", JSON, MODEL),
    ("400_mistral_model", JSON, MODEL),
    ("400_dashscope_money", JSON, KEY),
    ("400_echo", JSON, THEIRS),
    ("401_key", JSON, KEY),
    ("403_country", JSON, KEY),
    ("403_model", JSON, MODEL),
    ("404_model", JSON, MODEL),
    ("404_url", JSON, MODEL),  # one by one: nothing tells a wrong address from a model that one cloud's path names
    ("405_method", JSON, KEY),
    ("410_model", JSON, MODEL),
    ("413_groq", JSON, TOO_LONG),
    ("429_rate", LATER, busy(41.0)),
    ("429_rate", JSON, busy(20.0)),  # only its sentence says how long
    ("429_too_large", LATER, replace(TOO_LONG, wait=41.0)),
    ("429_quota", JSON, KEY),
    ("429_credit_balance_exhausted", JSON, KEY),
    ("429_organization_spend_limit_exceeded", JSON, KEY),
    ("429_project_spend_limit_exceeded", JSON, KEY),
    ("429_organization_usage_limit_exceeded", JSON, KEY),
    ("498_groq_flex", JSON, BUSY),
    ("500_server", JSON, FAILED),
    ("503_unavailable", JSON, FAILED),
    ("503_unavailable", LATER, busy(41.0, "upstream")),
]
GEMINI: list[tuple[str, Headers, Meaning]] = [
    ("400_argument", JSON, THEIRS),
    ("400_key", JSON, KEY),
    ("400_country", JSON, KEY),
    ("400_billing", JSON, KEY),
    ("400_file", JSON, THEIRS),
    ("400_too_long", JSON, TOO_LONG),
    ("400_model", JSON, MODEL),
    ("403_permission", JSON, KEY),
    ("403_file", JSON, THEIRS),
    ("404_model", JSON, MODEL),
    ("429_minute", JSON, busy(34.074824224)),
    ("429_day", JSON, KEY),
    ("429_bare", JSON, BUSY),
    ("500_internal", JSON, FAILED),
    ("503_unavailable", JSON, FAILED),
    ("504_deadline", JSON, FAILED),
]
OPENROUTER: list[tuple[str, Headers, Meaning]] = [
    ("400_invalid", JSON, THEIRS),
    ("400_model", JSON, MODEL),
    ("400_provider", JSON, THEIRS),
    ("400_provider_too_long", JSON, TOO_LONG),
    ("400_provider_country", JSON, BROKEN),  # not our country: its provider's, and the next one may be elsewhere
    ("401_key", JSON, KEY),
    ("402_credits", JSON, KEY),
    ("402_credits", LATER, busy(41.0)),
    ("403_moderation", JSON, THEIRS),
    ("403_limit", JSON, KEY),
    ("404_endpoints", JSON, MODEL),
    ("408_timeout", JSON, SILENT),
    ("429_provider", JSON, BUSY),
    ("429_day", (*NOON, ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1795262440000")), busy(40.0)),
    ("502_provider", JSON, FAILED),
    ("503_none", JSON, FAILED),
]
TABLES = {
    "anthropic/errors": ("anthropic", ANTHROPIC),
    "openai/errors": ("openai", OPENAI),
    "gemini": ("openai", GEMINI),
    "openrouter": ("openai", OPENROUTER),
}
ROWS = [
    pytest.param(dialect, f"{folder}/{name}.json", headers, meant, id=f"{folder.partition('/')[0]}-{name}-{at}")
    for folder, (dialect, table) in TABLES.items()
    for at, (name, headers, meant) in enumerate(table)
]


def test_every_recorded_refusal_has_a_row() -> None:
    for folder, (_, table) in TABLES.items():
        assert {path.stem for path in (WIRE / folder).glob("*.json")} == {name for name, _, _ in table}


@pytest.mark.parametrize(("dialect", "file", "headers", "meant"), ROWS)
def test_a_refusal_means_what_the_table_says(dialect: str, file: str, headers: Headers, meant: Meaning) -> None:
    check(dialect, int(file.rpartition("/")[2][:3]), headers, body(file), meant)


CODES = {
    KEY: words.MONEY | words.ACCESS | words.DENIED - {"not_found_error"},
    MODEL: words.NO_MODEL | {"not_found_error"},
    TOO_LONG: words.FULL,
    THEIRS: words.FILTERED | words.MISTAKEN,
}
NAMED = """insufficient_quota credit_balance_exhausted organization_spend_limit_exceeded project_spend_limit_exceeded
    organization_usage_limit_exceeded enforced_spend_limit_reached billing_error invalid_api_key authentication_error
    permission_error unsupported_country_region_territory model_not_found not_found_error failed_precondition
    permission_denied api_key_invalid model_decommissioned""".split()
ONE_BY_ONE = [(word, meant) for meant, known in CODES.items() for word in sorted(known)]


def test_the_words_that_say_who_must_mend_something_are_known() -> None:
    assert set(NAMED) <= {word for word, meant in ONE_BY_ONE if meant in (KEY, MODEL)}


def test_a_404_that_names_no_code_is_given_none() -> None:
    assert refused("openai", 404, JSON, body("openai/errors/404_url.json")).code is None
    assert refused("anthropic", 404, JSON, body("anthropic/errors/404_model.json")).code is None


@pytest.mark.parametrize("status", [401, 402, 407])
def test_a_refused_key_says_nothing_of_models(status: int) -> None:
    said = b'{"error":{"message":"The model x does not exist, or your key may not see it."}}'
    check("openai", status, JSON, said, KEY)


@pytest.mark.parametrize(("word", "meant"), ONE_BY_ONE)
@pytest.mark.parametrize("place", ["code", "type"])
def test_a_code_or_a_type_decides_by_itself(word: str, meant: Meaning, place: str) -> None:
    for said in (word, word.upper()):
        check("openai", 400, JSON, json.dumps({"error": {"message": "m", place: said}}).encode(), meant)


@pytest.mark.parametrize(
    ("message", "meant"),
    [
        ("User location is not supported for the API use.", KEY),
        ("This service is not available in your country.", KEY),
        ("Insufficient balance", KEY),
        ("API key expired. Please renew the API key.", KEY),
        ("Model Not Exist", MODEL),
        ("Invalid model name passed in model=gpt-9. Call `/v1/models` to view available models for your key.", MODEL),
        ("The requested model is not supported.", MODEL),
        ("Input is too long for requested model.", TOO_LONG),
        ("This model's maximum prompt length is 131072 but the request contains 150000 tokens.", TOO_LONG),
        ("Invalid request: Your request exceeded model token limit: 8192", TOO_LONG),
        ("Range of input length should be [1, 129024]", TOO_LONG),
        ("Prompt exceeds max length", TOO_LONG),
    ],
)
def test_a_sentence_decides_where_no_code_does(message: str, meant: Meaning) -> None:
    check("openai", 400, JSON, json.dumps({"error": {"message": message, "type": "bad_request"}}).encode(), meant)


@pytest.mark.parametrize("name", [name for name, _, _ in GEMINI])
def test_googles_own_shape_means_the_same_as_the_list_of_one(name: str) -> None:
    listed = body(f"gemini/{name}.json").strip()
    own = listed.removeprefix(b"[").removesuffix(b"]").strip()
    assert own.startswith(b"{")
    for file, headers, meant in GEMINI:
        if file == name:
            check("openai", int(name[:3]), headers, own, meant)


@pytest.mark.parametrize(
    ("table", "dialect", "other"), [(ANTHROPIC, "anthropic", "openai"), (OPENAI, "openai", "anthropic")]
)
def test_a_gateway_may_use_the_words_of_the_other_dialect(
    table: list[tuple[str, Headers, Meaning]], dialect: str, other: str
) -> None:
    for name, headers, meant in table:
        check(other, int(name[:3]), headers, body(f"{dialect}/errors/{name}.json"), meant)
