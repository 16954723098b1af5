"""When was who down? Asked of made-up records."""

from __future__ import annotations

import random

from appliance.core.fault import Fault
from appliance.incidents import Incident, incidents
from tests.records import asked, record


def incident(begin: float, end: float | None, **changes: object) -> Incident:
    made: dict[str, object] = {"faults": {"server": 1}, "requests": 1, "passed_over": 0, "answered_by": {"local": 1}}
    return Incident(upstream="openai", begin=begin, end=end, **{**made, **changes})  # type: ignore[arg-type]


def failed(at: float, fault: str = "server", *, by: str = "local", **changes: object) -> object:
    """openai failed at `at`, and `by` answered a second later."""
    legs = [asked("openai", fault, at=at), asked(by, at=at + 1)]
    return record(*legs, outcome="fell back", **{"request_id": f"r{at}", **changes})  # type: ignore[arg-type]


def well(at: float, *, seconds: float = 1.0) -> object:
    return record(asked("openai", at=at, seconds=seconds), request_id=f"r{at}")


def told(*records: object) -> list[Incident]:
    return list(incidents(records))  # type: ignore[arg-type]


def test_without_failures_there_are_no_incidents() -> None:
    assert told() == told(well(1), well(2)) == []


def test_it_lasts_from_the_first_failure_to_the_first_answer_after_it() -> None:
    assert told(well(1), failed(10), failed(20, "silent"), failed(30), well(40), well(50)) == [
        incident(10, 40, faults={"server": 2, "silent": 1}, requests=3, answered_by={"local": 3})
    ]


def test_it_is_open_as_long_as_nothing_was_answered() -> None:
    assert told(failed(10)) == [incident(10, None)]


def test_every_time_it_goes_down_is_an_incident_of_its_own() -> None:
    assert told(failed(10), well(20), failed(30), well(40)) == [incident(10, 20), incident(30, 40)]


def test_an_answer_that_was_under_way_before_does_not_end_it() -> None:
    assert told(failed(10), well(12, seconds=5), well(20, seconds=5)) == [incident(10, 20)]
    assert told(failed(10), well(15, seconds=5)) == [incident(10, 15)]


def test_what_counts_is_when_a_leg_ended_not_when_its_request_did() -> None:
    late = record(asked("openai", "server", at=10), asked("local", at=100), request_id="late")
    assert told(well(20), well(30), late) == [incident(10, 20)]


def test_a_caller_who_errs_or_leaves_is_neither_a_failure_nor_an_answer() -> None:
    blameless = [Fault.REQUEST, Fault.TOO_LONG, Fault.GONE, Fault.STOPPED]
    for fault in Fault:
        one = record(asked("openai", fault.value, at=20), outcome="refused", request_id="x", served_by="openai")
        alone, within = told(one), told(failed(10), one, well(30))
        if fault in blameless:
            assert alone == []
            assert within == [incident(10, 30)]
        else:
            assert [each.faults for each in alone] == [{fault.value: 1}]
            assert within[0].requests == 2


def test_a_fault_that_proves_nothing_against_the_leg_is_neither_a_failure_nor_an_answer() -> None:
    other = record(asked("openai", "broken", at=20, blameless=True), outcome="failed", request_id="x")
    assert told(other) == []
    assert told(failed(10), other, well(30)) == [incident(10, 30)]


def test_requests_that_were_not_even_asked_are_affected_as_long_as_it_lasts() -> None:
    def passed(at: float, **changes: object) -> object:
        return record(
            asked("local", at=at + 1),
            at=at,
            request_id=f"r{at}",
            passed_over=("openai",),
            **changes,  # type: ignore[arg-type]
        )

    assert told(passed(5), failed(10), passed(11), passed(12, outcome="failed"), well(20), passed(25)) == [
        incident(10, 20, requests=3, passed_over=2, answered_by={"local": 2, "nobody": 1})
    ]


def test_a_request_that_tried_twice_is_one_request() -> None:
    twice = record(asked("openai", "server", at=10), asked("openai", "unreachable", at=11), asked("local", at=12))
    assert told(twice) == [incident(10, None, faults={"server": 1, "unreachable": 1})]


def test_a_second_try_that_ends_well_ends_it() -> None:
    healed = record(asked("openai", "server", at=10), asked("openai", at=11.5), request_id="x")
    assert told(healed) == [incident(10, 11.5, answered_by={"openai": 1})]


def test_who_answered_is_whoever_was_last_and_nobody_where_it_failed_or_was_left() -> None:
    found = told(
        failed(10, by="n1n"),
        failed(11, by="n1n"),
        failed(12),
        record(asked("openai", "server", at=13), outcome="failed", request_id="f"),
        record(asked("openai", "server", at=14), asked("local", "gone", at=15), outcome="left", request_id="l"),
    )
    assert [(one.requests, one.answered_by) for one in found] == [(5, {"n1n": 2, "local": 1, "nobody": 1})]
    assert list(found[0].answered_by) == ["n1n", "local", "nobody"]


def test_each_upstream_has_its_own_and_the_box_too() -> None:
    both = record(asked("openai", "server", at=10), asked("n1n", "silent", at=12), asked("local", "crashed", at=13))
    assert [(one.upstream, one.begin, one.faults) for one in told(both)] == [
        ("openai", 10, {"server": 1}),
        ("n1n", 12, {"silent": 1}),
        ("local", 13, {"crashed": 1}),
    ]


def test_the_order_of_the_records_does_not_matter() -> None:
    records = [well(1), failed(10), failed(11), well(20), failed(30), well(40), failed(50)]
    expected = told(*records)
    assert len(expected) == 3
    for seed in range(20):
        random.Random(seed).shuffle(records)
        assert told(*records) == expected


# -------------------------------------------------------------------------------------------------- slow ones


def began(
    at: float, first: float, *, name: str = "openai", stream: bool = True, patient: bool = False, **changes: object
) -> object:
    """An answer that was over at `at`, and whose first word had come after `first` seconds."""
    leg = asked(name, at=at, seconds=first + 1, first_content=first, patient=patient)
    return record(leg, request_id=f"s{at}", stream=stream, **changes)  # type: ignore[arg-type]


def slow(begin: float, end: float | None, requests: int, worst: float, **changes: object) -> Incident:
    by = changes.pop("answered_by", {"openai": requests})
    nothing = {"kind": "slow", "faults": {}, "first_content_s": worst}
    return incident(begin, end, requests=requests, answered_by=by, **nothing, **changes)


def row(start: int, count: int, first: float, **changes: object) -> list[object]:
    return [began(start + n, first, **changes) for n in range(count)]  # type: ignore[arg-type]


def test_who_is_slow_to_begin_has_an_entry_of_its_own_kind() -> None:
    quick, again = row(0, 20, 1.0), row(100, 20, 1.0)
    # The median of twenty is over 5 s with the eleventh slow one, and at most 4 s with the eleventh quick one then.
    assert told(*quick, *row(50, 20, 8.0), *again) == [slow(60, 110, 20, 8.0)]


def test_it_is_open_until_a_quick_answer_or_until_it_is_long_ago() -> None:
    answers = row(1000, 8, 8.0)
    assert told(*answers) == [slow(1004, None, 4, 8.0)]
    assert list(incidents(answers, now=1603.0)) == [slow(1004, None, 4, 8.0)]  # type: ignore[arg-type]
    assert list(incidents(answers, now=1603.1)) == [slow(1004, 1603, 4, 8.0)]  # type: ignore[arg-type]
    assert told(*answers, *row(5000, 5, 9.0)) == [slow(1004, 1603, 4, 8.0), slow(5004, None, 1, 9.0)]


def test_the_worst_median_is_kept_and_who_answered_in_the_end() -> None:
    rescued = record(
        asked("openai", "broken", at=1005, first_content=7.0),
        asked("n1n", at=1006),
        request_id="x",
        outcome="fell back",
    )
    found = [one for one in told(*row(1000, 5, 6.0), rescued, *row(1010, 20, 9.0)) if one.kind == "slow"]
    assert found == [slow(1004, None, 22, 9.0, answered_by={"openai": 21, "n1n": 1})]


def test_what_takes_long_by_its_nature_makes_nobody_slow() -> None:
    assert told(*row(1000, 20, 30.0, patient=True)) == []
    assert told(*row(1000, 8, 8.0), *row(1100, 20, 1.0, patient=True)) == [slow(1004, None, 4, 8.0)]


def test_being_slow_is_not_being_down_and_both_may_be_so() -> None:
    found = told(*row(1000, 6, 8.0), failed(1010), well(1020))
    assert [(one.kind, one.begin, one.end) for one in found] == [("slow", 1004, None), ("down", 1010, 1020)]


def test_what_the_box_takes_and_whole_answers_take_is_not_judged() -> None:
    assert told(*row(1000, 20, 30.0, name="local"), *row(2000, 20, 30.0, stream=False)) == []
