"""A wrong field is named by its path, in one sentence that does not repeat it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from appliance.core.chat import BackendError, Fault
from appliance.dialects import fields


def said(read: Callable[[], object]) -> tuple[str, str | None]:
    with pytest.raises(BackendError) as caught:
        read()
    error = caught.value
    assert (error.fault, error.status) == (Fault.REQUEST, 400)
    return str(error), error.param


@pytest.mark.parametrize(
    ("read", "value", "sentence"),
    [
        (fields.string, 1, "a.b must be a string, not a number."),
        (fields.string, True, "a.b must be a string, not true or false."),
        (fields.flag, "yes", "a.b must be true or false, not a string."),
        (fields.mapping, [], "a.b must be an object, not a list."),
        (fields.sequence, {}, "a.b must be a list, not an object."),
        (fields.number, True, "a.b must be a number, not true or false."),
        (fields.number, float("inf"), "a.b is too large a number."),
        (fields.number, 10**400, "a.b is too large a number."),
        (fields.integer, "1", "a.b must be a whole number, not a string."),
        (fields.integer, 1.5, "a.b must be a whole number, not a fraction."),
    ],
)
def test_a_wrong_type_is_said_with_its_path(read: Callable[..., object], value: Any, sentence: str) -> None:
    assert said(lambda: read({"b": value}, "b", "a")) == (sentence, "a.b")


@pytest.mark.parametrize(
    ("value", "low", "high", "sentence"),
    [
        (3, 0, 2, "t must be 0 to 2."),
        (-1, 0, 2, "t must be 0 to 2."),
        (0, 1, None, "t must be at least 1."),
        (9, None, 5, "t must be at most 5."),
    ],
)
def test_a_wrong_size_is_said_with_its_limits(value: int, low: int, high: int, sentence: str) -> None:
    assert said(lambda: fields.number({"t": value}, "t", low=low, high=high)) == (sentence, "t")
    assert said(lambda: fields.integer({"t": value}, "t", low=low, high=high)) == (sentence, "t")


def test_limits_are_inside_and_null_is_absent() -> None:
    assert fields.number({"t": 2}, "t", low=0, high=2) == 2.0
    assert fields.integer({"t": 7.0}, "t", low=7, high=7) == 7
    for read in (fields.string, fields.flag, fields.mapping, fields.sequence, fields.number, fields.integer):
        assert read({"t": None}, "t") is None
        assert read({}, "t") is None
    assert fields.objects({}, "t") == []


def test_an_item_of_a_list_is_named_by_its_place() -> None:
    assert said(lambda: fields.objects({"t": [{}, 1]}, "t", "a")) == (
        "a.t[1] must be an object, not a number.",
        "a.t[1]",
    )


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "The request body is empty; send a JSON object."),
        (b" \n", "The request body is empty; send a JSON object."),
        (b'{"secret": nope', "The request body is not valid JSON; it goes wrong at line 1, column 12 (character 11)."),
        (b'{"a":\n "\\q"}', "The request body is not valid JSON; it goes wrong at line 2, column 3 (character 8)."),
        (b"\xef\xbb\xbf{}", "The request body is not valid JSON; it goes wrong at line 1, column 1 (character 0)."),
        (b'{"a": "\xff"}', "The request body is not UTF-8 text: byte 7 does not fit."),
        (b"[]", "The request body must be a JSON object, not a list."),
        (b'{"a": NaN}', "The request body holds NaN, which is not a JSON number."),
        (b'{"a": -Infinity}', "The request body holds -Infinity, which is not a JSON number."),
        (b'{"a": ' + b"9" * 5000 + b"}", "The request body holds a number with too many digits."),
        (b"[" * 200_000, "The request body is nested too deeply; use fewer levels of lists and objects."),
    ],
)
def test_a_body_that_is_no_json_object_is_refused_without_repeating_it(body: bytes, sentence: str) -> None:
    assert said(lambda: fields.document(body)) == (sentence, None)


def test_of_a_repeated_key_the_last_counts() -> None:
    assert fields.document(b'{"a": 1, "a": 2}') == {"a": 2}


def test_json_is_written_as_readable_text_and_half_a_pair_as_an_escape() -> None:
    assert fields.compact({"a": "é"}) == '{"a":"é"}'.encode()
    assert fields.compact({"a": "\ud83d"}) == b'{"a":"\\ud83d"}'
