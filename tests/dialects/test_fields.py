"""A wrong field is named by its path, in one sentence that does not repeat it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from appliance.core.fault import BackendError, Fault
from appliance.dialects import fields
from appliance.dialects.fields import Seen


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
    ],
)
def test_a_wrong_type_is_said_with_its_path(read: Callable[..., object], value: Any, sentence: str) -> None:
    assert said(lambda: read({"b": value}, "b", "a")) == (sentence, "a.b")


def test_what_is_no_number_is_said_with_its_path() -> None:
    owner = {"b": True, "c": "1"}
    assert said(lambda: fields.number(owner, "b", Seen(), "a")) == (
        "a.b must be a number, not true or false.",
        "a.b",
    )
    assert said(lambda: fields.integer(owner, "c", Seen(), "a")) == (
        "a.c must be a whole number, not a string.",
        "a.c",
    )


@pytest.mark.parametrize(
    ("value", "low", "high", "sentence"),
    [
        (3, 0, 2, "t must be 0 to 2."),
        (-1, 0, 2, "t must be 0 to 2."),
        (0, 1, None, "t must be at least 1."),
        (9, None, 5, "t must be at most 5."),
        (float("inf"), 0, None, "t is too large a number."),
        (-(10**400), None, None, "t is too large a number."),
    ],
)
@pytest.mark.parametrize("read", [fields.number, fields.integer])
def test_a_wrong_size_is_a_doubt_that_names_the_limits(
    read: Callable[..., object], value: float, low: int, high: int, sentence: str
) -> None:
    seen = Seen()
    assert read({"t": value}, "t", seen, low=low, high=high) is None
    assert (seen.doubts, seen.lost, seen.foreign) == ([("t", sentence)], {"t"}, [])


def test_a_fraction_where_a_whole_number_belongs_is_a_doubt() -> None:
    seen = Seen()
    assert fields.integer({"b": 1.5}, "b", seen, "a", matters=True) is None
    assert seen.doubts == [("a.b", "a.b must be a whole number, not a fraction.")]
    assert (seen.lost, seen.foreign) == (set(), ["a.b"])


def test_limits_are_inside_and_null_is_absent() -> None:
    seen = Seen()
    assert fields.number({"t": 2}, "t", seen, low=0, high=2) == 2.0
    assert fields.integer({"t": 7.0}, "t", seen, low=7, high=7) == 7
    for read in (fields.number, fields.integer):
        assert read({"t": None}, "t", seen) is None
        assert read({}, "t", seen) is None
    assert seen == Seen()
    for read_type in (fields.string, fields.flag, fields.mapping, fields.sequence):
        assert read_type({"t": None}, "t") is None
        assert read_type({}, "t") is None
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
    assert fields.text_of({"a": "\ud83d", "b": "é"}) == '{"a":"\\ud83d","b":"\\u00e9"}'
