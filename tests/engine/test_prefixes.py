"""Where a request goes: told what every sequence holds, and asked where to sit."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.engine.prefixes import COPY_WORTH, MOST_MARKS, Holder, Prefixes, Seat

A, B, C = [list(range(start, start + 400)) for start in (1000, 2000, 3000)]
REQUEST, STANDBY, URGENT, NOBODY = Holder.REQUEST, Holder.STANDBY, Holder.URGENT, Holder.NOBODY


def world(*sequences: tuple[Holder, list[int]], rewinds: bool = True, context: int = 2000) -> Prefixes:
    """Sequences with these holders that hold this, used in this order."""
    prefixes = Prefixes(slots=len(sequences), context=context, rewinds=rewinds)
    for slot, (holder, tokens) in enumerate(sequences):
        prefixes.computed(slot, tokens)
        if tokens or holder:
            prefixes.take(slot, holder)
    return prefixes


def seat(prefixes: Prefixes, wanted: list[int], holder: Holder = REQUEST, **more: object) -> Seat | None:
    return prefixes.seat(wanted, most=len(wanted) - 1, holder=holder, **more)  # type: ignore[arg-type]


EMPTY: tuple[Holder, list[int]] = (NOBODY, [])


def test_the_next_turn_goes_where_the_last_one_was() -> None:
    assert seat(world(EMPTY, (NOBODY, A), (NOBODY, B)), B + C) == Seat(slot=2, reuse=400)


def test_the_same_again_leaves_one_token_to_compute() -> None:
    assert seat(world((NOBODY, A)), A) == Seat(slot=0, reuse=399)


@pytest.mark.parametrize("rewinds", [True, False])
def test_the_same_again_leaves_nothing_to_compute_if_what_follows_is_known(rewinds: bool) -> None:
    prefixes = world((NOBODY, A), rewinds=rewinds)
    prefixes.tail(0)
    assert seat(prefixes, A) == Seat(slot=0, reuse=400)
    assert seat(prefixes, A[:300]) == Seat(slot=0, reuse=299 if rewinds else 0), "what follows the 300th is not"
    assert seat(prefixes, A + B) == Seat(slot=0, reuse=400)


def test_what_follows_is_no_longer_known_once_the_sequence_changes_and_goes_along_with_a_copy() -> None:
    def known(slot: int) -> bool:
        taken = seat(prefixes, A)
        return taken is not None and (taken.slot, taken.reuse) == (slot, 400)

    prefixes = world((NOBODY, A), EMPTY)
    prefixes.tail(0)
    prefixes.cut(0, 400)
    assert known(0)
    prefixes.copied(0, 1)
    prefixes.cut(0, 399)
    prefixes.computed(0, A[399:])
    assert known(1)
    prefixes.computed(1, B)
    prefixes.cut(1, 400)
    assert not known(0)
    assert not known(1)


def test_a_running_conversations_beginning_is_copied_as_far_as_it_is_computed() -> None:
    prefixes = world((REQUEST, A[:300]), EMPTY)
    assert seat(prefixes, A + B) == Seat(slot=1, reuse=300, copy_from=0)


def test_a_short_match_is_not_worth_a_copy() -> None:
    for length in (COPY_WORTH - 1, COPY_WORTH):
        taken = seat(world((REQUEST, A), EMPTY), A[:length] + B)
        assert taken == (Seat(slot=1, reuse=length, copy_from=0) if length == COPY_WORTH else Seat(slot=1, reuse=0))


def test_a_system_prompt_is_copied_so_that_the_other_conversation_keeps_its_own() -> None:
    assert seat(world((NOBODY, A + B), EMPTY), A + C) == Seat(slot=1, reuse=400, copy_from=0)


def test_without_an_empty_sequence_a_match_of_most_of_it_is_used_in_place() -> None:
    assert seat(world((NOBODY, C), (NOBODY, A + B[:300])), A + C) == Seat(slot=1, reuse=400)
    assert seat(world((NOBODY, C), (NOBODY, A + B + C)), A + C) == Seat(slot=0, reuse=400, copy_from=1)


def test_who_would_be_pushed_out_anyway_is_used_in_place() -> None:
    assert seat(world((NOBODY, A[:50] + B), (NOBODY, C)), A) == Seat(slot=0, reuse=50)


def test_what_the_victim_has_itself_need_not_be_copied() -> None:
    prefixes = world((NOBODY, A[:380] + C), (REQUEST, A))
    assert seat(prefixes, A + B) == Seat(slot=0, reuse=380)


def test_the_victim_is_empty_or_a_standby_or_the_idle_one_used_longest_ago_or_an_urgent_standby() -> None:
    holders = [(URGENT, A), (NOBODY, B), (NOBODY, B[:100]), (STANDBY, C), EMPTY]
    order = []
    prefixes = world(*holders)
    while (taken := seat(prefixes, [1, 2, 3])) is not None:
        order.append(taken.slot)
        prefixes.take(taken.slot, REQUEST)
    assert order == [4, 3, 1, 2, 0]


def test_a_conversation_that_was_used_lately_is_kept_longer() -> None:
    prefixes = world((NOBODY, A), (NOBODY, B))
    prefixes.take(0, REQUEST)
    prefixes.leave(0)
    assert seat(prefixes, C) == Seat(slot=1, reuse=0)


def test_a_takeover_of_a_standby_that_was_ended_sits_in_its_place_though_others_are_free() -> None:
    prefixes = world(EMPTY, (STANDBY, A), (NOBODY, B))
    prefixes.leave(1)
    assert seat(prefixes, A + C) == Seat(slot=1, reuse=400)


def test_a_running_standby_is_copied_from_unless_it_must_go() -> None:
    assert seat(world((STANDBY, A), EMPTY), A + C) == Seat(slot=1, reuse=400, copy_from=0)
    assert seat(world((STANDBY, A), (NOBODY, B)), A + C) == Seat(slot=0, reuse=400)


def test_of_two_that_begin_alike_the_free_one_is_taken() -> None:
    assert seat(world((REQUEST, A), (NOBODY, A), EMPTY), A + C) == Seat(slot=1, reuse=400)


def test_with_every_sequence_busy_there_is_no_seat() -> None:
    assert seat(world((REQUEST, A), (REQUEST, B)), A) is None


@pytest.mark.parametrize(
    ("asks", "holder", "taken"),
    [
        (STANDBY, NOBODY, True),
        (STANDBY, STANDBY, False),
        (STANDBY, URGENT, False),
        (URGENT, STANDBY, True),
        (URGENT, URGENT, False),
        (REQUEST, URGENT, True),
        (STANDBY, REQUEST, False),
        (URGENT, REQUEST, False),
    ],
)
def test_only_the_more_important_push_out(asks: Holder, holder: Holder, taken: bool) -> None:
    assert (seat(world((holder, A)), B, asks) is not None) == taken


def test_an_empty_sequence_next_to_busy_ones_is_preferred_by_requests_and_the_last_by_standbys() -> None:
    prefixes = world(EMPTY, EMPTY, EMPTY, (REQUEST, A), EMPTY)
    assert seat(prefixes, B) == Seat(slot=2, reuse=0)
    assert seat(prefixes, B, STANDBY) == Seat(slot=4, reuse=0)
    assert seat(world(EMPTY, EMPTY), B) == Seat(slot=0, reuse=0)


def test_what_a_standby_left_is_kept_from_other_standbys_for_a_while_but_not_from_requests() -> None:
    prefixes = world((NOBODY, A))
    assert seat(prefixes, B, URGENT, reserved=[0]) is None
    assert seat(prefixes, A + B, STANDBY, reserved=[0]) == Seat(slot=0, reuse=400), "nothing is lost"
    assert seat(prefixes, B, REQUEST, reserved=[0]) == Seat(slot=0, reuse=0)


def test_a_probe_harms_the_empty_one_first_and_never_a_request() -> None:
    assert world((REQUEST, A), (NOBODY, B), EMPTY).victim() == 2
    assert world((REQUEST, A)).victim() is None


# ----------------------------------------------------------------------------- models that cannot go back anywhere


def test_a_model_that_does_not_rewind_goes_on_only_from_all_it_holds_or_from_a_mark() -> None:
    prefixes = Prefixes(slots=1, context=2000, rewinds=False)
    prefixes.computed(0, A[:100])
    prefixes.mark(0)
    prefixes.computed(0, A[100:])
    assert prefixes.reach(0, A + B) == 400
    assert prefixes.reach(0, A[:399] + B) == 100
    assert prefixes.reach(0, A[:99] + B) == 0
    assert prefixes.best(A[:200]) == 100


def test_going_back_forgets_the_marks_behind_and_a_copy_has_them_too() -> None:
    prefixes = Prefixes(slots=2, context=2000, rewinds=False)
    for part in (A[:100], A[100:200], A[200:300]):
        prefixes.computed(0, part)
        prefixes.mark(0)
    prefixes.cut(0, 200)
    prefixes.copied(0, 1)
    prefixes.computed(1, B)
    assert [prefixes.reach(slot, A) for slot in (0, 1)] == [200, 200]
    assert prefixes.reach(1, A[:150]) == 100
    assert prefixes.reach(1, A[:200] + B[:150]) == 200, "at 300 there was another state"


def test_only_so_many_marks_are_kept() -> None:
    prefixes = Prefixes(slots=1, context=2000, rewinds=False)
    for at in range(MOST_MARKS + 1):
        prefixes.computed(0, A[at * 10 : at * 10 + 10])
        prefixes.mark(0)
    assert prefixes.reach(0, A[:15]) == 0
    assert prefixes.reach(0, A[:25]) == 20


# ------------------------------------------------------------------------------------------------------ any day

some_tokens = st.lists(st.integers(0, 2), max_size=150)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(Holder), some_tokens), min_size=1, max_size=4),
    st.lists(st.integers(0, 2), min_size=1, max_size=200),
    st.sampled_from([STANDBY, URGENT, REQUEST]),
    st.booleans(),
)
def test_a_seat_is_free_and_gives_only_what_is_there(
    sequences: list[tuple[Holder, list[int]]], wanted: list[int], holder: Holder, rewinds: bool
) -> None:
    prefixes = world(*sequences, rewinds=rewinds)
    taken = seat(prefixes, wanted, holder)
    if taken is None:
        assert all(other >= holder for other, _ in sequences)
        return
    assert sequences[taken.slot][0] < holder
    source = sequences[taken.slot if taken.copy_from is None else taken.copy_from][1]
    assert taken.copy_from != taken.slot
    assert source[: taken.reuse] == wanted[: taken.reuse]
    assert taken.reuse < len(wanted)
    assert rewinds or taken.reuse in (0, len(source))


def test_to_look_through_eight_long_sequences_takes_no_time() -> None:
    long = list(range(16_000))
    prefixes = world(*[(NOBODY, [*long[:-slot], *[7] * slot]) for slot in range(1, 9)], context=16_384)
    best = min(_timed(prefixes, long) for _ in range(5))
    assert best < 0.005, "a decode step is longer"


def _timed(prefixes: Prefixes, wanted: list[int]) -> float:
    began = time.perf_counter()
    seat(prefixes, wanted)
    return time.perf_counter() - began
