"""How long a cloud asks us to wait: a time, or nothing at all."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.core.chat import Headers
from appliance.core.fault import BackendError, Fault
from appliance.dialects import complaints, waits

NOON = ("date", "Sat, 21 Nov 2026 12:00:00 GMT")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ((), None),
        ((("retry-after", "7"),), 7.0),
        ((("retry-after", " 7 "),), 7.0),
        ((("retry-after", "0.5"),), 0.5),
        ((("retry-after-ms", "1500"), ("retry-after", "9")), 1.5),
        ((("retry-after-ms", "1e308"), ("retry-after", "9")), 9.0),
        ((("retry-after-ms", "9" * 400), ("retry-after", "9")), 9.0),
        ((("retry-after", "Sat, 21 Nov 2026 12:00:30 GMT"), NOON), 30.0),
        ((("retry-after", "2026-11-21T12:00:30.5Z"), NOON), 30.0),
    ],
)
def test_the_time_to_wait_is_in_seconds(headers: Headers, seconds: float | None) -> None:
    assert waits.asked(headers) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "nan",
        "inf",
        "1e3",
        "1_0",
        "+1",
        "-1",
        "\u0663",
        "0x10",
        "9" * 400,
        "9" * 400 + "s",
        "99999d",
        "Mon, 31 Feb 2027 10:00:00 GMT",
        "Mon, 01 Smr 2027 10:00:00 GMT",
        "Mon, 01 Jan 0000 00:00:00 GMT",
        "Mon, 01 Jan 2027 24:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "2027-13-01T00:00:00Z",
        "2027-02-30T00:00:00Z",
        "0000-01-01T00:00:00Z",
    ],
)
def test_what_is_no_time_says_nothing(text: str) -> None:
    assert waits.asked((("retry-after", text), NOON)) is None
    assert waits.asked((("retry-after", "30s"), ("date", text))) == 30.0
    assert waits.refilled((("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", text), NOON)) is None


@pytest.mark.parametrize("name", ["retry-after", "retry-after-ms", "x-ratelimit-reset"])
def test_no_wait_is_longer_than_a_client_can_be_told(name: str) -> None:
    """What is left of it goes out as a header, in whole seconds."""
    for text in ("9" * 400, "9" * 400 + "s", "9" * 400 + "ms"):
        error = complaints.refusal("openai", 429, ((name, text), NOON), b"")
        assert error.fault is Fault.BUSY
        assert dict(complaints.headers_of(error))["retry-after"] == "1"


def test_the_seconds_of_a_busy_cloud_are_rounded_up() -> None:
    error = BackendError(Fault.BUSY, "m", retry_after=1.2)
    assert dict(complaints.headers_of(error))["retry-after"] == "2"


NUMBERS = st.integers(0, 10**15).map(str) | st.floats().map(repr) | st.sampled_from(["9" * 400, "1_0", "\u0663"])
TIMES = st.one_of(
    st.text(max_size=12),
    NUMBERS,
    st.builds("{}{}".format, NUMBERS, st.sampled_from(["ms", "s", "m", "h", "d", "h9s"])),
    st.builds("Mon, {:02} {} {:04} {:02}:00:00 GMT".format, *[st.integers(0, 99), st.sampled_from(["Feb", "Smr"])],
              st.integers(0, 9999), st.integers(0, 99)),
    st.builds("{:04}-{:02}-{:02}T00:{:02}:00Z".format, st.integers(0, 9999), *[st.integers(0, 99)] * 3),
)  # fmt: skip
NAMES = ["date", "retry-after", "retry-after-ms", "x-ratelimit-reset", "ratelimit-remaining", "ratelimit-reset"]


@given(headers=st.lists(st.tuples(st.sampled_from(NAMES), TIMES)).map(tuple), said=TIMES)
@example(headers=(("retry-after", "Mon, 31 Feb 2025 10:00:00 GMT"), NOON), said="")
@example(headers=(("retry-after", "2025-13-01T00:00:00Z"),), said="9" * 400 + "s")
@settings(max_examples=300, deadline=None)
def test_whatever_is_said_the_wait_is_a_finite_time(headers: Headers, said: str) -> None:
    for wait in (
        waits.asked(headers),
        waits.refilled(headers, f"Please try again in {said}."),
        waits.retry_delay([{"retryDelay": said}]),
    ):
        assert wait is None or (math.isfinite(wait) and wait >= 0.0)
