"""What is refused for its size is refused cheaply, and nothing that an honest client sends is."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.guard.limits import LIMITS, Limits, Room, Tally, connections_for, trouble_in_json

SMALL = Limits(depth=4, values=40)


def nested(levels: int, brackets: str = "[]") -> bytes:
    return (brackets[0] * levels + brackets[1] * levels).encode()


@pytest.mark.parametrize("levels", [1, 63, 64])
def test_64_levels_are_possible(levels):
    assert trouble_in_json(nested(levels)) is None
    assert trouble_in_json(b'{"a":' * levels + b"1" + b"}" * levels) is None


@pytest.mark.parametrize("levels", [65, 1000, 200_000])
def test_65_levels_are_refused_in_one_sentence(levels):
    for body in (nested(levels), b'{"a":' * levels + b"1" + b"}" * levels):
        assert trouble_in_json(body) == (
            "The request body is nested deeper than 64 levels; use fewer levels of lists and objects."
        )


def test_siblings_are_not_levels():
    assert trouble_in_json(b"[" + b"[[]]," * 1000 + b"[]]") is None


@pytest.mark.parametrize(
    "text",
    ["[[[[[[", 'a quote " and [[[[[[', "a backslash \\", 'both \\" [[[[[[ \\\\', "]" * 9, "é[[[🌊["],
)
def test_brackets_inside_strings_are_no_levels(text):
    body = json.dumps([[text, text], text], ensure_ascii=False).encode()
    assert trouble_in_json(body, SMALL) is None


VALUES = st.recursive(
    st.text(alphabet='[]{}",\\a') | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='[]{}",\\a', max_size=3), inner),
    max_leaves=12,
)


def depth(value):
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 0


@given(VALUES)
def test_the_depth_found_is_the_real_one(value):
    body = json.dumps(value).encode()
    for limit in range(0, 5):
        refused = trouble_in_json(body, Limits(depth=limit))
        assert (refused is not None) == (depth(value) > limit)


@pytest.mark.parametrize(
    "body", [b"[" + b"{}," * 40 + b"{}]", b"[" + b"1," * 41 + b"1]", b"[" + b'"",' * 41 + b'""]', b'["' + b'","' * 90]
)
def test_too_many_values_are_refused(body):
    assert trouble_in_json(body, SMALL) == "The request body holds more than 40 values; send fewer, or longer strings."


def test_commas_in_strings_are_no_values():
    assert trouble_in_json(json.dumps(["a,b," * 1000]).encode(), SMALL) is None


@pytest.mark.parametrize(
    "body", [b"", b'"', b'"[[[[[[', b"]]]]]]", b"[[[[[}", b"\\", b'\\"[[[[[[[', b"\xff\xff", b"[}"]
)
def test_what_is_no_json_at_all_raises_nothing(body):
    trouble_in_json(body, SMALL)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 30_000_000,
        b"[" + b"{}," * 10_000_000 + b"{}]",
        b"[" + b'",",' * 7_000_000 + b'""]',
        b'"' + b"\\" * 30_000_000 + b'"',
        b'{"a":"' + b"A" * 30_000_000 + b'"}',
    ],
    ids=["levels", "objects", "strings", "backslashes", "one string"],
)
def test_a_bomb_of_30_mb_costs_no_more_than_a_moment(body):
    begun = time.process_time()
    trouble_in_json(body)
    assert time.process_time() - begun < 1.0  # 0.03 to 0.1 s; the parser needs up to 2.4


def test_a_body_may_stall_for_20_s_and_must_keep_a_minimum_pace():
    by = LIMITS.next_byte_by
    assert by(begun=0, last=0, received=0) == 20
    assert by(begun=0, last=15, received=10) == 35
    assert by(begun=0, last=59, received=0) == 60
    assert by(begun=0, last=100, received=64 * 1024 * 50) == 110


@pytest.mark.parametrize(("files", "connections"), [(20_000, 4096), (1024, 448), (64, 16), (8320, 4096), (8318, 4095)])
def test_connections_leave_files_for_clouds(files, connections):
    assert connections_for(files) == connections


def test_bodies_share_one_room():
    room = Room(10)
    first, second = room.open(), room.open()
    assert first.take(6)
    assert first.take(2)
    assert not second.take(3)
    assert second.take(2)
    first.release()
    first.release()
    assert room.taken == 2
    assert second.take(8)
    assert not second.take(1)
    assert room.taken == 0  # who does not fit holds nothing


def test_a_flood_is_a_line_now_and_then_with_its_count():
    tally = Tally(every=10)
    assert [tally.note(now) for now in (0, 1, 2, 9.9, 10, 11, 30)] == [1, 0, 0, 0, 4, 0, 2]
    assert tally.total == 7
