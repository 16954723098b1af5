"""What of these letters belongs to the document, and what of that is said?"""

import pytest

from appliance.core.structure import grammar_of, shortest
from appliance.engine.edges import along
from appliance.engine.writing import Writing, begin

NUMBERS = grammar_of('{"type": "object", "additionalProperties": {"type": "number"}}', objects=True)


def fed(*pieces: bytes, driven: bool = True) -> Writing:
    one = begin(NUMBERS)
    for piece in pieces:
        following = one.feed(piece, driven=driven)
        assert following is not None
        one = following[0]
    return one


def test_letters_behind_its_end_are_somebody_elses() -> None:
    following = begin(NUMBERS).feed(b' {"a": 1}\n</tool_call>', driven=False)
    assert following is not None
    assert (following[0].state.over, *following[1:]) == (True, b'{"a": 1}', b"\n</tool_call>")


def test_white_space_is_said_only_once_it_has_begun() -> None:
    one = begin(NUMBERS).feed(b" \n", driven=False)
    assert one is not None
    assert (one[0].begun, one[0].blank, one[1]) == (False, 2, b"")
    two = fed(b'{"a": 1,').feed(b" \n", driven=False)
    assert two is not None
    assert (two[0].begun, two[0].blank, two[1]) == (True, 2, b" \n")


def test_white_space_is_counted_over_all_the_tokens_it_comes_in() -> None:
    assert [fed(b'{"a": 1,', b" ", b" \n").blank, fed(b" ", b'{"a"').blank] == [3, 0]


def test_what_does_not_fit_the_grammar_cannot_follow() -> None:
    assert fed(b'{"a": ').feed(b'"', driven=True) is None


def test_only_what_somebody_else_wrote_is_kept_to_be_read_again() -> None:
    assert fed(b" ", b' {"a"', b": 1").theirs == b' {"a": 1'
    assert fed(b'{"a"', b": 1", driven=False).theirs == b""
    assert shortest(fed(b'{"a"', driven=False).state) == b":0}"


@pytest.mark.parametrize(
    ("data", "gone"),
    [
        (b"<l", (2, {b"ook": 1, b"augh": 2})),
        (b"<lo", (3, {b"ok": 1})),
        (b"<look> at", (5, {b"": 1})),
        (b"<x", (1, {})),
        (b"x", (0, {})),
        (b"", (0, {b"<look": 1, b"<laugh": 2})),
    ],
)
def test_letters_go_along_the_ways_up_to_the_end_of_one(data: bytes, gone: tuple[int, dict[bytes, int]]) -> None:
    assert along(data, {b"<look": 1, b"<laugh": 2}) == gone
