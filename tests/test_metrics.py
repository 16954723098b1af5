"""What is counted, that it never goes down, and that the page is one Prometheus can read."""

from __future__ import annotations

import re
import timeit
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from appliance.core.fault import Fault
from appliance.journal import Attempt, Journal
from appliance.metrics import BOUNDS, BREAKER_STATES, ENGINE_STATES, FAMILIES, OUTCOMES, Metrics, Reading

PAGE = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text("utf-8")
OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4"
STATS = {
    "op": "stats",
    "busy": 2,
    "waiting": 3,
    "decoded": 100,
    "steps": 50,
    "slot_steps": 75,
    "prompt_tokens": 400,
    "prompt_s": 2.0,
    "predicted_s": 4.0,
    "reused_tokens": 30,
    "standby_tokens": 7,
    "standby_s": 0.5,
    "standbys": 1,
    "standby_ready": 1,
    "kept": 2,
    "busy_s": 6.5,
}


def reading(**changes: Any) -> Reading:
    return Reading(**{"version": "1.2.3", "engine_state": "ready", "engine_restarts": 0, "slots": 4, **changes})


def attempt(fault: Fault | None = None, **changes: Any) -> Attempt:
    given = {"at": 0.0, "request_id": "r1", "leg": "cloud", "fault": fault, "reason": "", "characters": 1}
    return Attempt(**{**given, "seconds": 1.0, "continued": False, **changes})


def samples(metrics: Metrics, **changes: Any) -> dict[str, float]:
    """Every sample of a scrape; labels as Prometheus writes them, in order of name."""
    page, _ = metrics.exposition(reading(**changes))
    found = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_a_new_appliance_has_counted_nothing_and_says_so() -> None:
    found = samples(Metrics())
    assert [found[f"appliance_requests_total{{outcome={outcome}}}"] for outcome in OUTCOMES] == [0, 0, 0, 0]
    assert found["llamacpp:prompt_tokens_total"] == 0
    assert found["appliance_build_info{version=1.2.3}"] == 1


def test_attempts_count_by_who_and_how_they_ended() -> None:
    metrics = Metrics()
    journal = Journal(metrics.attempted)
    for fault in (None, None, Fault.SILENT):
        journal.record(attempt(fault))
    journal.record(attempt(leg="local"))
    found = samples(metrics)
    assert found["appliance_attempts_total{fault=none,upstream=cloud}"] == 2
    assert found["appliance_attempts_total{fault=silent,upstream=cloud}"] == 1
    assert found["appliance_attempts_total{fault=none,upstream=local}"] == 1


def test_only_a_takeover_has_a_silence() -> None:
    metrics = Metrics()
    metrics.attempted(attempt(silence_s=9.0))
    metrics.attempted(attempt(takeover=True))
    metrics.attempted(attempt(takeover=True, silence_s=0.06))
    metrics.took_over("cloud", "local", "broken")
    found = samples(metrics)
    assert found["appliance_takeover_silence_seconds_count"] == 1
    assert found["appliance_takeover_silence_seconds_sum"] == 0.06
    assert found["appliance_takeovers_total{from=cloud,reason=broken,to=local}"] == 1


def test_a_wait_is_counted_in_the_bucket_it_fits() -> None:
    metrics = Metrics()
    for seconds in (0.0005, 0.001, 0.0011, 7.0, 61.0):
        metrics.first_content("cloud", seconds)
    found = samples(metrics)
    counts = {le: found[f"appliance_first_content_seconds_bucket{{le={le},leg=cloud}}"] for le in
              ("0.001", "0.0025", "5.0", "10.0", "60.0", "+Inf")}  # fmt: skip
    assert counts == {"0.001": 2, "0.0025": 3, "5.0": 3, "10.0": 4, "60.0": 4, "+Inf": 5}
    assert (BOUNDS[0], BOUNDS[-1], sorted(BOUNDS)) == (0.001, 60.0, list(BOUNDS))


def test_what_the_pulse_heard_is_a_first_content_or_a_time_between() -> None:
    metrics = Metrics()
    metrics.heard("cloud", "first", 0.2)
    metrics.heard("cloud", "text", 0.01)
    metrics.heard("cloud", "tool", 0.01)
    found = samples(metrics)
    assert found["appliance_first_content_seconds_count{leg=cloud}"] == 1
    assert found["appliance_between_events_seconds_count{leg=cloud}"] == 2


def test_the_engines_numbers_have_llama_servers_names() -> None:
    metrics = Metrics()
    metrics.engine_said(STATS, life=0)
    found = samples(metrics)
    assert {name.partition(":")[2]: value for name, value in found.items() if name.startswith("llamacpp:")} == {
        "prompt_tokens_total": 400,
        "prompt_tokens_cached_total": 30,
        "prompt_seconds_total": 2,
        "tokens_predicted_total": 100,
        "tokens_predicted_seconds_total": 4,
        "n_decode_total": 50,
        "prompt_tokens_seconds": 200,
        "predicted_tokens_seconds": 25,
        "requests_processing": 2,
        "requests_deferred": 3,
        "n_busy_slots_per_decode": 1.5,
    }
    ours = {
        "appliance_slots_busy": 2,
        "appliance_queue_waiting": 3,
        "appliance_standby_conversations": 1,
        "appliance_standby_ready": 1,
        "appliance_standby_tokens_total": 7,
        "appliance_standby_seconds_total": 0.5,
        "appliance_reused_tokens_total": 30,
        "appliance_kept_prefixes": 2,
        "appliance_engine_busy_seconds_total": 6.5,
        "appliance_slots": 4,
    }
    assert {name: found[name] for name in ours} == ours


def test_the_rates_are_of_the_time_since_the_last_scrape() -> None:
    metrics = Metrics()
    metrics.engine_said(STATS, life=0)
    samples(metrics)
    assert samples(metrics)["llamacpp:predicted_tokens_seconds"] == 0
    metrics.engine_said({**STATS, "decoded": 130, "predicted_s": 4.5}, life=0)
    assert samples(metrics)["llamacpp:predicted_tokens_seconds"] == 60


@pytest.mark.parametrize("decoded", [5, 100, 1000], ids=["fewer", "the same", "more"])
def test_a_new_life_of_the_engine_goes_on_counting_where_the_last_one_ended(decoded: int) -> None:
    metrics = Metrics()
    metrics.engine_said(STATS, life=0)
    metrics.engine_said({**STATS, "decoded": decoded}, life=1)
    assert samples(metrics)["llamacpp:tokens_predicted_total"] == 100 + decoded
    metrics.engine_said({**STATS, "decoded": decoded + 1}, life=1)
    assert samples(metrics)["llamacpp:tokens_predicted_total"] == 101 + decoded


def test_a_number_that_went_down_is_a_new_life_even_if_nobody_said_so() -> None:
    metrics = Metrics()
    metrics.engine_said(STATS, life=0)
    metrics.engine_said({**STATS, "decoded": 2}, life=0)
    assert samples(metrics)["llamacpp:tokens_predicted_total"] == 102


def test_counters_never_go_down_whatever_an_engine_says() -> None:
    metrics, last = Metrics(), 0.0
    for life, decoded in [(0, 5), (0, 9), (1, 3), (1, None), (1, 4), (3, 4), (3, 1)]:
        metrics.engine_said({"op": "stats", **({} if decoded is None else {"decoded": decoded})}, life=life)
        total = samples(metrics)["llamacpp:tokens_predicted_total"]
        assert total >= last
        last = total
    assert last == 9 + 4 + 4 + 1


def test_an_engine_that_does_not_answer_keeps_its_totals_and_one_that_is_gone_has_nobody_busy() -> None:
    metrics = Metrics()
    metrics.engine_said(STATS, life=0)
    silent = samples(metrics)
    assert (silent["llamacpp:tokens_predicted_total"], silent["appliance_slots_busy"]) == (100, 2)
    gone = samples(metrics, engine_state="restarting", engine_restarts=1)
    assert (gone["llamacpp:tokens_predicted_total"], gone["appliance_slots_busy"]) == (100, 0)
    assert (gone["appliance_engine_up"], gone["appliance_engine_restarts_total"]) == (0, 1)


def test_exactly_one_state_is_the_one() -> None:
    found = samples(
        Metrics(), breakers={"a": "half-open", "b": "closed"}, engine_state="loading", suspicions={"a": 2.5}
    )
    on = {name for name, value in found.items() if "_state{" in name and value == 1}
    assert on == {
        "appliance_breaker_state{state=half-open,upstream=a}",
        "appliance_breaker_state{state=closed,upstream=b}",
        "appliance_engine_state{state=loading}",
    }
    assert sum("_state{" in name for name in found) == 2 * len(BREAKER_STATES) + len(ENGINE_STATES)
    assert found["appliance_suspicion{upstream=a}"] == 2.5


def test_the_median_first_content_is_there_for_the_clouds_it_is_known_of() -> None:
    name = "appliance_first_content_median_seconds"
    assert samples(Metrics(), first_contents={"cloud": 6.25})[f"{name}{{upstream=cloud}}"] == 6.25
    assert not any(name in sample for sample in samples(Metrics(), breakers={"cloud": "closed"}))


def test_the_process_tells_of_itself() -> None:
    found = samples(Metrics())
    assert found["process_resident_memory_bytes"] > 1e6
    assert found["process_open_fds"] > 0


def test_two_appliances_do_not_share_their_numbers() -> None:
    one, other = Metrics(), Metrics()
    one.finished("answered")
    assert samples(one)["appliance_requests_total{outcome=answered}"] == 1
    assert samples(other)["appliance_requests_total{outcome=answered}"] == 0


def told() -> Metrics:
    """Metrics with something in every family."""
    metrics = Metrics()
    metrics.engine_said(STATS, life=0)
    metrics.attempted(attempt(Fault.BROKEN, takeover=True, silence_s=0.1))
    metrics.took_over('we"ird\nname\\', "local", "broken")
    metrics.finished("left")
    metrics.first_content("cloud", 0.1)
    metrics.between("cloud", 0.1)
    return metrics


FULL = {
    "breakers": {"cloud": "open"},
    "suspicions": {"cloud": float("inf")},
    "first_contents": {"cloud": 6.25},
    "running": 1,
}


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain;version=0.0.4", "text/plain;version=nonsense", "\x00;=;,"])
def test_the_page_is_plain_text_unless_something_better_is_asked_for(accept: str) -> None:
    page, content_type = told().exposition(reading(**FULL), accept=accept)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    names = {family.name for family in text_string_to_metric_families(page.decode()) if family.samples}
    assert {re.sub("_total$", "", name) for name in FAMILIES} <= names
    assert b'from="we\\"ird\\nname\\\\"' in page


@pytest.mark.parametrize("accept", [OPENMETRICS, "application/openmetrics-text; version=9.nonsense; evil=\r\n"])
def test_the_page_is_openmetrics_for_whoever_accepts_it(accept: str) -> None:
    page, content_type = told().exposition(reading(**FULL), accept=accept)
    assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    families = {family.name: family for family in openmetrics_families(page.decode())}
    assert {re.sub("_total$", "", name) for name in FAMILIES} <= {n for n, family in families.items() if family.samples}
    assert families["llamacpp:tokens_predicted"].type == "counter"


def rows() -> Iterator[tuple[str, str, str]]:
    """The page's tables: name, kind, labels."""
    yield from re.findall(r"^\| `((?:appliance_|llamacpp:)\w+)` \| (\w+) \| (.*?) \|", PAGE, flags=re.MULTILINE)


def test_the_page_of_the_docs_lists_what_there_is_and_nothing_else() -> None:
    said = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows()}
    assert said == {name: (family.kind, family.labels) for name, family in FAMILIES.items()}
    assert len(list(rows())) == len(FAMILIES)


def test_no_label_is_a_clients_word() -> None:
    labels = {label for family in FAMILIES.values() for label in family.labels}
    assert labels == {"upstream", "fault", "outcome", "from", "to", "reason", "state", "leg", "version"}


def test_a_piece_of_an_answer_costs_microseconds_at_most() -> None:
    metrics = Metrics()
    best = min(timeit.repeat(lambda: metrics.heard("cloud", "text", 0.03), number=2_000, repeat=5)) / 2_000
    assert best < 20e-6  # 0.3 on an idle machine; ten times over the limit even on a busy one means a lock or a loop
