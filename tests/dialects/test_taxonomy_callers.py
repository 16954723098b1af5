"""What is the caller's own affair: things that he names by an id and that are not there, and his own words, which
clouds repeat when they complain. Whatever he writes, nobody else loses a model or a cloud by it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.core.fault import BackendError, Fault
from tests.dialects.taxonomy import DIALECTS, KEY, MODEL, THEIRS, TOO_LONG, Meaning, breakers_after, check, refused


def said(message: str, **more: Any) -> bytes:
    return json.dumps({"error": {"message": message, **more}}).encode()


# ------------------------------------------------------------------------------------------------------- what he names

THINGS = [
    "No such File object: file-abc",
    "Image file-abc not found",
    "The file was uploaded too long ago and has expired",
    "File not found: file_011CNha8iCJcU1wXNR6q4V8w",
    "File 'model answers.pdf' not found.",
    "File model-2.key.pdf not found.",
    "Previous response with id 'resp_1' not found.",
    "Response with ID resp_1 was not found.",
    "Item with id 'rs_1' not found. Items are not persisted when `store` is set to false.",
    "Vector store with id ['vs_1'] not found.",
    "No vector store found with id 'vs_1'.",
    "No assistant found with id 'asst_1'.",
    "No thread found with id 'thread_1'.",
    "No batch found with id 'batch_1'",
    "Container container_01 does not exist",
    "Container is expired.",
    "Skill not found: skill_01",
    "Prompt with id 'pmpt_1' not found.",
    "Conversation with id 'conv_1' not found.",
    "Could not find fine tune: ftjob-1",
    "Not found: cached content metadata for 6116704758662168576.",
    "Cache content 7016131366404227072 is expired.",
    "CachedContent not found (or permission denied)",
    "You do not have permission to access the File abc-123 or it may not exist.",
]


@pytest.mark.parametrize("message", THINGS)
def test_a_thing_that_only_the_caller_knows_takes_no_model_away(message: str) -> None:
    for dialect in DIALECTS:
        for status, type in (
            (404, "not_found_error"),
            (404, "invalid_request_error"),
            (400, "not_found_error"),
            (403, "permission_denied"),
            (400, "failed_precondition"),
        ):
            check(dialect, status, (), said(message, type=type), THEIRS)


@pytest.mark.parametrize("code", ["previous_response_not_found", "file_not_found", "container_expired"])
def test_a_code_may_name_the_thing(code: str) -> None:
    check("openai", 404, (), said("Nothing there.", code=code), THEIRS)


@pytest.mark.parametrize("param", ["file_id", "messages", "tools[0].vector_store_ids[0]", "previous_response_id"])
def test_a_404_about_a_field_is_about_what_stands_in_it(param: str) -> None:
    check("openai", 404, (), said("Nothing there.", type="invalid_request_error", param=param), THEIRS)


MODELS = [
    "The model `gpt-9` does not exist or you do not have access to it.",
    "model 'file not found' not found",
    "model: claude-opus-9",
    "models/gemini-9-pro is not found for API version v1main, or is not supported for generateContent.",
    "The API deployment for this resource does not exist.",
    "Publisher Model `projects/p/locations/l/publishers/google/models/m` was not found",
    "Image model `paint-9` not found",
    "No such image model: paint-9",
    "No such image model.",
    "The fine-tuned model ft:gpt-9 does not exist",
    "File API endpoint not found",
    "Requested entity was not found.",
    "Not Found",
    "",
]


@pytest.mark.parametrize("message", MODELS)
def test_a_model_that_is_not_there_is_set_aside(message: str) -> None:
    for param in (None, "", "None", "model", "body.model", "deployment_id"):
        check("openai", 404, (), said(message, type="not_found_error", param=param), MODEL)
    for code in ("model_not_found", "DeploymentNotFound"):
        check("openai", 404, (), said(message, code=code, param="messages"), MODEL)


def test_a_refused_key_is_no_field_of_the_callers() -> None:
    for param in ("api_key", "Authorization", "x-api-key"):
        check("openai", 400, (), said("Wrong.", type="permission_error", param=param), KEY)
        check("openai", 403, (), said("Wrong.", param=param), KEY)
    check("openai", 400, (), said("Wrong.", code="invalid_api_key", param="tools"), KEY)


@pytest.mark.parametrize("type", ["not_found_error", "permission_denied", None])
def test_a_stream_that_misses_a_thing_tells_the_caller(type: str | None) -> None:
    found = {"error": {"message": "File not found: file_1", "type": type}}
    for speaks in DIALECTS.values():
        decoder = speaks.decoder()
        with pytest.raises(BackendError) as raised:
            decoder.feed(b"event: error\ndata: " + json.dumps(found).encode() + b"\n\n")
            decoder.close()
        assert raised.value.fault is Fault.REQUEST
        assert breakers_after(raised.value, 9).state(0.0, "asked") == "closed"


# ------------------------------------------------------------------------------------------- nobody talks a cloud down

CREDIT = "Your credit balance is too low"


@pytest.mark.parametrize(
    "message",
    [
        f'messages: Unexpected role "{CREDIT}". Allowed roles are "user" or "assistant"',
        f"tools.0.name: '{CREDIT}' should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'",
        f"unknown field `{CREDIT}`",
        'tool "x" says "Invalid API key"',
        'tool "unexpected model name format"',
        'system: "User location is not supported for the API use."',
        'metadata: "The model x does not exist"',
        "tools.0.description: there the model x does not exist",
        f"messages.0.content: {CREDIT}",
        f"messages[2].tool_calls: {CREDIT}",
        f"tools.3.input_schema.properties.{CREDIT}: not allowed",
        f"* GenerateContentRequest.contents[0].parts: {CREDIT}",
        f"body.messages.0: {CREDIT}",
        f"metadata.user_id: {CREDIT}",
        f'Invalid role: "a \\" {CREDIT}". Try "user".',
        f"Invalid role: 'a \\' {CREDIT}'.",
        f"Invalid role: `a \\` {CREDIT}`.",
        f'Invalid role: "{CREDIT}',
        f"Invalid role: '{CREDIT}",
        f"Invalid role: `{CREDIT}\\",
        f'Invalid role: "a\n{CREDIT}',
        f"Invalid role: 'it's. {CREDIT}'",
        f'Invalid role: "a" {CREDIT} "b". Try "user".',
        f"Invalid role: 'a' {CREDIT}, 'b'.",
    ],
)
def test_what_a_caller_wrote_and_a_cloud_repeats_sets_nobody_aside(message: str) -> None:
    for status in (400, 422):
        for dialect in DIALECTS:
            check(dialect, status, (), said(message, type="invalid_request_error"), THEIRS)


@pytest.mark.parametrize("param", ["messages[0].role", "tools[0].function.name"])
def test_what_is_said_of_a_field_is_not_about_the_account(param: str) -> None:
    check("openai", 400, (), said(f"{CREDIT} is no role", param=param), THEIRS)
    for none in (None, "", "None", "model"):
        check("openai", 400, (), said(f"{CREDIT} is no role", param=none), KEY)


@pytest.mark.parametrize(
    ("message", "meant"),
    [
        (f"error: {CREDIT}", KEY),
        (f"litellm.BadRequestError: {CREDIT}", KEY),
        (f"insufficient_quota: {CREDIT}", KEY),
        (f"{CREDIT} for `m`", KEY),
        (f"Model 'm' of your organization's plan: {CREDIT}", KEY),
        ("* GenerateContentRequest.model: unexpected model name format\n", MODEL),
        ("The model `m` does not exist; try `n`, or `o`.", MODEL),
        ("messages: prompt is too long: 208310 tokens > 200000 maximum", TOO_LONG),
    ],
)
def test_what_a_cloud_says_of_its_own_is_heard(message: str, meant: Meaning) -> None:
    check("openai", 400, (), said(message, type="invalid_request_error"), meant)


def test_a_long_quotation_takes_no_long_time() -> None:
    for message in ('"' * 200_001, "'a" * 100_000, "`\\" * 100_000, "messages" + ".0" * 100_000, "File " * 40_000):
        assert refused("openai", 404, (), said(message)).fault in (Fault.CONFIG, Fault.REQUEST)
