"""How available was it? Asked of made-up records."""

from __future__ import annotations

import pytest

from appliance.availability import Leg, Report, Share, Silence, percentile, report
from appliance.core.fault import Fault
from appliance.journal import BLAMELESS, Record
from tests.records import asked, record


def told(*records: Record) -> Report:
    return report(records, day=lambda at: f"day {at // 100:.0f}")


def cloud(*records: Record) -> Leg:
    [found] = told(*records).clouds
    return found


def test_of_nothing_there_is_nothing_to_say() -> None:
    assert told() == Report(
        requests=0,
        first=None,
        last=None,
        seen=Share(0, 0),
        clouds=(),
        box=Leg(name="local", share=Share(0, 0), faults={}, passed_over=0),
        outcomes={"answered": 0, "taken over": 0, "fell back": 0, "refused": 0, "failed": 0, "left": 0},
        answered_by={},
        silence=Silence(seams=0, p50=None, p95=None, p99=None),
        days=(),
    )
    assert told().seen.value is None


def test_a_cloud_is_measured_by_itself_and_the_applications_by_what_they_got() -> None:
    found = told(
        record(asked()),
        record(asked("openai", "server"), asked("local"), outcome="fell back"),
        record(asked("openai", "broken"), asked("local", silence=0.5), outcome="taken over"),
        record(asked("openai", "server"), asked("local", "crashed"), outcome="failed"),
    )
    assert (found.seen, found.seen.value) == (Share(3, 4), 0.75)
    assert found.clouds == (Leg(name="openai", share=Share(1, 4), faults={"server": 2, "broken": 1}, passed_over=0),)
    assert found.box == Leg(name="local", share=Share(2, 3), faults={"crashed": 1}, passed_over=0)
    assert found.answered_by == {"local": 2, "openai": 1}
    assert [*found.outcomes.items()] == [
        ("answered", 1),
        ("taken over", 1),
        ("fell back", 1),
        ("refused", 0),
        ("failed", 1),
        ("left", 0),
    ]


def test_down_and_therefore_not_asked_is_down() -> None:
    passed = record(asked("local"), outcome="fell back", passed_over=("openai",))
    assert cloud(record(asked()), passed, passed) == Leg(name="openai", share=Share(1, 3), faults={}, passed_over=2)


def test_a_second_try_does_not_make_the_first_one_well() -> None:
    assert cloud(record(asked("openai", "server"), asked())) == Leg(
        name="openai", share=Share(0, 1), faults={"server": 1}, passed_over=0
    )
    both = record(asked("openai", "server"), asked("openai", "unreachable"), asked("local"))
    assert cloud(both).share == Share(0, 1)
    assert cloud(both).faults == {"server": 1, "unreachable": 1}


@pytest.mark.parametrize("fault", Fault)
def test_only_what_is_its_own_fault_counts_against_a_cloud(fault: Fault) -> None:
    found = cloud(record(asked()), record(asked("openai", fault.value), asked("local")))
    mine = fault.value not in BLAMELESS
    assert found.share == Share(1, 2 if mine else 1)
    assert found.faults == ({fault.value: 1} if mine else {})
    assert sorted(BLAMELESS) == ["gone", "request", "stopped", "too_long"]


def test_a_fault_that_proves_nothing_against_a_cloud_does_not_count_against_it() -> None:
    """Asked to repeat the half that another cloud had said, it said something else."""
    repeated = record(asked("openai", "broken"), asked("second", "broken", blameless=True), outcome="failed")
    found = {leg.name: (leg.share, leg.faults) for leg in told(repeated, record(asked("second"))).clouds}
    assert found == {"openai": (Share(0, 1), {"broken": 1}), "second": (Share(1, 1), {})}


@pytest.mark.parametrize("outcome", ["refused", "left"])
def test_a_caller_who_errs_or_leaves_counts_on_neither_side(outcome: str) -> None:
    found = told(record(asked("openai", "gone"), outcome=outcome), record(asked()))
    assert found.seen == Share(1, 1)
    assert found.outcomes[outcome] == 1
    assert found.requests == 2
    assert found.answered_by == {"openai": 1}


def test_clouds_come_by_name_and_the_box_for_itself() -> None:
    found = told(record(asked("zeta"), asked("alpha"), asked("local")))
    assert [leg.name for leg in found.clouds] == ["alpha", "zeta"]


def test_each_day_has_its_own_numbers_in_order() -> None:
    found = told(
        record(asked("openai", "server"), asked("local"), at=250.0, outcome="failed"),
        record(asked(), at=110.0),
        record(asked("n1n"), asked("local"), at=199.0),
    )
    assert [(day.name, day.requests, day.seen, day.clouds) for day in found.days] == [
        ("day 1", 2, Share(2, 2), {"n1n": Share(1, 1), "openai": Share(1, 1)}),
        ("day 2", 1, Share(0, 1), {"openai": Share(0, 1)}),
    ]
    assert (found.first, found.last) == (110.0, 250.0)


def test_the_silence_is_of_every_seam_by_nearest_rank() -> None:
    seams = [asked("local", silence=n / 100) for n in range(100, 0, -1)]
    found = told(record(*seams[:50]), record(asked(), *seams[50:]))
    assert found.silence == Silence(seams=100, p50=0.5, p95=0.95, p99=0.99)


@pytest.mark.parametrize(
    ("values", "share", "found"),
    [([], 0.5, None), ([7.0], 0.01, 7.0), ([7.0], 0.99, 7.0), ([1.0, 2.0], 0.5, 1.0), ([3.0, 1.0, 2.0], 0.5, 2.0)],
)
def test_a_percentile_is_one_that_was_measured(values: list[float], share: float, found: float | None) -> None:
    assert percentile(values, share) == found
