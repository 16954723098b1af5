"""What all dialects read alike: the shapes of complaints, and what must not be repeated."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.core.fault import BackendError, Fault, Reply
from appliance.dialects import complaints
from tests.dialects.taxonomy import DIALECTS, meaning


def test_a_list_of_wrong_fields_is_one_sentence_and_the_place_of_the_first() -> None:
    found = {
        "detail": [
            {"loc": ["body", "messages", 0, "role"], "msg": "Field required", "type": "missing"},
            {"loc": ["body"], "msg": "Too long"},
            {"msg": 7},
            "x",
        ]
    }
    assert complaints.read(found).message == "messages.0.role: Field required; Too long"
    assert complaints.read(found).param == "messages.0.role"
    assert (complaints.read({"detail": "No."}).message, complaints.read({"detail": []}).message) == ("No.", "")


def test_the_code_in_the_details_is_the_code() -> None:
    found = {"error": {"type": "a", "code": 400, "details": {"error_code": "File_Expired"}}}
    complaint = complaints.read(found)
    assert (complaint.code, complaint.type, complaint.number) == ("file_expired", "a", 400)
    assert complaints.read({"error": {"details": {"error_code": 7}}}).code == ""


@pytest.mark.parametrize("found", [None, [], {}, "x", {"error": None}, {"error": []}, {"error": {"message": 5}}, [[]]])
def test_what_is_no_complaint_is_an_empty_one(found: object) -> None:
    complaint = complaints.read(found)
    assert (complaint.code, complaint.type, complaint.message, complaint.wait) == ("", "", "", None)


def test_a_clouds_answer_goes_on_only_in_its_own_dialect() -> None:
    reply = Reply(status=400, body=b"{}", dialect="a")
    error = BackendError(Fault.REQUEST, "m", reply=reply)
    assert complaints.theirs(error, "a") == reply
    assert complaints.theirs(error, "b") is None
    assert complaints.theirs(BackendError(Fault.CONFIG, "m", reply=reply), "a") is None


KEYS = """error message code type status param detail details metadata raw reason error_code retryDelay
    flagged_input""".split()
WORDS = [
    "model_not_found",
    "not_found_error",
    "400",
    "502",
    "34s",
    "9" * 400 + "s",
    'No such File: "',
    "messages[0]: \\",
]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(WORDS)
FOUND = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
)
BODIES = FOUND.map(lambda found: json.dumps(found).encode()) | st.binary()


@pytest.mark.parametrize("dialect", DIALECTS)
@given(status=st.integers(100, 999), body=BODIES)
@example(status=400, body=b"[" * 100_000)
@example(status=400, body=b'{"error":' * 900 + b"1" + b"}" * 900)
@example(status=400, body=b'{"error":{"code":%s}}' % (b"9" * 5000))
@example(status=429, body=b'{"error":{"details":[{"retryDelay":"%ss"}]}}' % (b"9" * 400))
@example(status=404, body=b'{"error":{"message":"\\ud800","param":"\\udfff"}}')
@settings(max_examples=150, deadline=None)
def test_no_body_of_whatever_status_breaks_the_reading(dialect: str, status: int, body: bytes) -> None:
    speaks = DIALECTS[dialect]
    error = speaks.decode_error(status, (), body)
    meaning(error)
    assert 400 <= speaks.encode_error(error).status < 600


@pytest.mark.parametrize("dialect", DIALECTS)
@given(found=FOUND)
@settings(max_examples=100, deadline=None)
def test_no_error_in_a_stream_breaks_the_reading(dialect: str, found: Any) -> None:
    error = complaints.failure(dialect, found)
    meaning(error)
    assert 400 <= DIALECTS[dialect].encode_error(error).status < 600
