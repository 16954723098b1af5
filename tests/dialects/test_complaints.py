"""What all dialects read alike: how long to wait, and what must not be repeated."""

from __future__ import annotations

import pytest

from appliance.core.chat import BackendError, Fault, Headers, Reply
from appliance.dialects import complaints


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ((), None),
        ((("retry-after", "7"),), 7.0),
        ((("retry-after", "0.5"),), 0.5),
        ((("retry-after-ms", "1500"), ("retry-after", "9")), 1.5),
        ((("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"),), None),
        ((("retry-after", "nan"),), None),
        ((("retry-after", "-1"),), None),
    ],
)
def test_the_time_to_wait_is_in_seconds(headers: Headers, seconds: float | None) -> None:
    assert complaints.retry_after(headers) == seconds


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
