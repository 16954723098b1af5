"""What a monitoring system may know: counters, gauges and histograms in Prometheus' words, one set per appliance.

Rules:

1. No label comes from a client. Upstreams, faults, states and outcomes are ours; a model's name is not.
2. A counter never goes down. The engine counts from nothing after each restart, so its totals are added up here.
3. What is told for every piece of an answer costs less than a microsecond: plain numbers, turned into families only
   when somebody asks.
4. llama-server's names where we mean the same; ``appliance_`` for the rest. `FAMILIES` is the list, and docs/metrics.md
   its page.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.utils import floatToGoString

from appliance.journal import Attempt

Outcome = Literal["answered", "failed", "refused", "left"]

OUTCOMES: tuple[Outcome, ...] = ("answered", "failed", "refused", "left")
BREAKER_STATES = ("closed", "open", "half-open", "offline")
ENGINE_STATES = ("starting", "loading", "ready", "careful", "restarting", "failing", "failed", "asleep", "stopped")
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0)
_LIMITS = (*map(floatToGoString, BOUNDS), "+Inf")


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name as it is queried, its kind, what it says, and its labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    says: str
    labels: tuple[str, ...] = ()

    def empty(self) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
        match self.kind:
            case "counter":
                return CounterMetricFamily(self.name, self.says, labels=self.labels)
            case "gauge":
                return GaugeMetricFamily(self.name, self.says, labels=self.labels)
            case "histogram":
                return HistogramMetricFamily(self.name, self.says, labels=self.labels)


# Totals the engine counts itself, by the field of its stats frame. Ours are zero again after each of its restarts.
ENGINE_TOTALS = {
    "prompt_tokens": Family(
        "llamacpp:prompt_tokens_total", "counter", "Prompt tokens computed, without those taken from the KV cache."
    ),
    "reused_tokens": Family(
        "llamacpp:prompt_tokens_cached_total", "counter", "Prompt tokens taken from the KV cache instead of computed."
    ),
    "prompt_s": Family("llamacpp:prompt_seconds_total", "counter", "Seconds spent computing prompts."),
    "decoded": Family("llamacpp:tokens_predicted_total", "counter", "Tokens generated."),
    "predicted_s": Family("llamacpp:tokens_predicted_seconds_total", "counter", "Seconds spent generating tokens."),
    "steps": Family("llamacpp:n_decode_total", "counter", "Calls of llama_decode()."),
    "busy_s": Family("appliance_engine_busy_seconds_total", "counter", "Seconds in which the engine computed."),
    "standby_tokens": Family("appliance_standby_tokens_total", "counter", "Tokens computed to stand by for a cloud."),
    "standby_s": Family("appliance_standby_seconds_total", "counter", "Seconds of computing spent on standing by."),
}
REUSED = Family("appliance_reused_tokens_total", "counter", "The same as llamacpp:prompt_tokens_cached_total.")
# What is so now, by the field of the stats frame.
ENGINE_NOW = {
    "llamacpp:requests_processing": "busy",
    "llamacpp:requests_deferred": "waiting",
    "appliance_slots_busy": "busy",
    "appliance_queue_waiting": "waiting",
    "appliance_standby_conversations": "standbys",
    "appliance_standby_ready": "standby_ready",
    "appliance_kept_prefixes": "kept",
}
SLOT_STEPS = "slot_steps"  # of the stats frame: the busy slots of every step, added up

_GAUGES = (
    Family("llamacpp:prompt_tokens_seconds", "gauge", "Prompt tokens per second since the last scrape."),
    Family("llamacpp:predicted_tokens_seconds", "gauge", "Generated tokens per second since the last scrape."),
    Family("llamacpp:requests_processing", "gauge", "Requests the engine is answering."),
    Family("llamacpp:requests_deferred", "gauge", "Requests that wait for a slot."),
    Family("llamacpp:n_busy_slots_per_decode", "gauge", "Busy slots per call of llama_decode(), on average."),
    Family("appliance_breaker_state", "gauge", "1 for the state an upstream's breaker is in.", ("upstream", "state")),
    Family("appliance_suspicion", "gauge", "How odd the silence of an upstream is (phi); 0 is fine.", ("upstream",)),
    Family(
        "appliance_first_content_median_seconds",
        "gauge",
        "Median of an upstream's last streamed answers until their first content, if there are enough.",
        ("upstream",),
    ),
    Family("appliance_requests_running", "gauge", "Requests that are being answered, by whomever."),
    Family("appliance_slots", "gauge", "Answers the box can write at the same time."),
    Family("appliance_slots_busy", "gauge", "Slots that are writing an answer."),
    Family("appliance_queue_waiting", "gauge", "Requests that wait for a slot."),
    Family("appliance_standby_conversations", "gauge", "Conversations of a cloud the engine follows."),
    Family("appliance_standby_ready", "gauge", "Those of them that could be taken over at once."),
    Family("appliance_kept_prefixes", "gauge", "Idle slots that still hold a conversation."),
    Family("appliance_engine_up", "gauge", "1 if the engine is ready."),
    Family("appliance_engine_state", "gauge", "1 for the state the engine is in.", ("state",)),
    Family("appliance_build_info", "gauge", "Always 1; the version is its label.", ("version",)),
)
_COUNTERS = (
    Family("appliance_attempts_total", "counter", "Ended parts of answers, by leg.", ("upstream", "fault")),
    Family("appliance_requests_total", "counter", "Requests by how they ended.", ("outcome",)),
    Family("appliance_takeovers_total", "counter", "Answers gone on with by another leg.", ("from", "to", "reason")),
    Family("appliance_engine_restarts_total", "counter", "Deaths of the engine that were followed by a new start."),
)
_HISTOGRAMS = (
    Family("appliance_takeover_silence_seconds", "histogram", "Time without content where one leg took over."),
    Family("appliance_first_content_seconds", "histogram", "From a leg's call to its first content.", ("leg",)),
    Family("appliance_between_events_seconds", "histogram", "Between a leg's pieces of content.", ("leg",)),
)
FAMILIES = {one.name: one for one in (*ENGINE_TOTALS.values(), REUSED, *_COUNTERS, *_GAUGES, *_HISTOGRAMS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is so at the moment of a scrape, as only the appliance knows it."""

    version: str
    engine_state: str
    engine_restarts: int
    slots: int
    running: int = 0
    breakers: Mapping[str, str] = field(default_factory=dict)
    suspicions: Mapping[str, float] = field(default_factory=dict)
    first_contents: Mapping[str, float] = field(default_factory=dict)


class Metrics:
    """Told what happened and asked by `exposition`; one event loop, one owner."""

    def __init__(self) -> None:
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._outcomes: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self._takeovers: Counter[tuple[str, str, str]] = Counter()
        self._silence = _Buckets()
        self._first: dict[str, _Buckets] = {}
        self._between: dict[str, _Buckets] = {}
        self._engine = _Engine()
        self._reading = Reading(version="", engine_state="stopped", engine_restarts=0, slots=0)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    # -------------------------------------------------------------------------------------------- what happened

    def attempted(self, attempt: Attempt) -> None:
        """One leg's part in one answer is over."""
        self._attempts[attempt.leg, attempt.fault.value if attempt.fault else "none"] += 1
        if attempt.takeover and attempt.silence_s is not None:
            self._silence.add(attempt.silence_s)

    def took_over(self, source: str, target: str, reason: str) -> None:
        """`target` goes on in the middle of what `source` began. `reason` is a fault's word or another of ours."""
        self._takeovers[source, target, reason] += 1

    def finished(self, outcome: Outcome) -> None:
        """A request is over."""
        self._outcomes[outcome] += 1

    def first_content(self, leg: str, seconds: float) -> None:
        if (buckets := self._first.get(leg)) is None:
            buckets = self._first[leg] = _Buckets()
        buckets.add(seconds)

    def between(self, leg: str, seconds: float) -> None:
        if (buckets := self._between.get(leg)) is None:
            buckets = self._between[leg] = _Buckets()
        buckets.add(seconds)

    def heard(self, leg: str, kind: str, seconds: float) -> None:
        """`first_content` or `between`, in the words of `core.pulse`."""
        (self.first_content if kind == "first" else self.between)(leg, seconds)

    def engine_said(self, stats: Mapping[str, object], *, life: int) -> None:
        """The engine's stats frame, from its `life`-th process: another number, another count from nothing."""
        self._engine.told(stats, life)

    # --------------------------------------------------------------------------------------------------- asked

    def exposition(self, reading: Reading, *, accept: str = "") -> tuple[bytes, str]:
        """Everything as a page and its content type: OpenMetrics for whoever accepts it, else the plain text format."""
        self._reading = reading
        if reading.engine_state not in ("ready", "careful"):
            self._engine.now = {}
        # By hand: the library's own choice puts versions it was sent into our header, and raises on odd ones.
        if "application/openmetrics-text" in accept.lower():
            # "allow-utf-8" leaves names alone; the library's "underscores" turns the colon of llama-server's into one.
            page: bytes = openmetrics.generate_latest(self._registry, "allow-utf-8")  # type: ignore[no-untyped-call]
            return page, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4

    def collect(self) -> Iterator[Metric]:
        """For the registry: every family there is, also those that have nothing to say yet."""
        numbers = {**self._counted(), **self._engine.totals(), **self._now()}
        for family in FAMILIES.values():
            made = family.empty()
            if isinstance(made, HistogramMetricFamily):
                for labels, buckets in self._waits(family.name):
                    made.add_metric(labels, buckets.cumulative(), buckets.sum)
            else:
                for labels, value in numbers.get(family.name, ()):
                    made.add_metric(labels, value)
            yield made

    def _waits(self, name: str) -> Iterable[tuple[tuple[str, ...], _Buckets]]:
        if name == "appliance_takeover_silence_seconds":
            return [((), self._silence)]
        legs = self._first if name == "appliance_first_content_seconds" else self._between
        return [((leg,), buckets) for leg, buckets in legs.items()]

    def _counted(self) -> _Numbers:
        return {
            "appliance_attempts_total": list(self._attempts.items()),
            "appliance_requests_total": [((outcome,), count) for outcome, count in self._outcomes.items()],
            "appliance_takeovers_total": list(self._takeovers.items()),
            "appliance_engine_restarts_total": [((), self._reading.engine_restarts)],
        }

    def _now(self) -> _Numbers:
        reading, engine = self._reading, self._engine
        states = dict.fromkeys((*ENGINE_STATES, reading.engine_state))
        found: _Numbers = {
            "appliance_breaker_state": [
                ((upstream, state), state == now)
                for upstream, now in reading.breakers.items()
                for state in BREAKER_STATES
            ],
            "appliance_suspicion": [((upstream,), phi) for upstream, phi in reading.suspicions.items()],
            "appliance_first_content_median_seconds": [
                ((name,), wait) for name, wait in reading.first_contents.items()
            ],
            "appliance_requests_running": [((), reading.running)],
            "appliance_slots": [((), reading.slots)],
            "appliance_engine_up": [((), reading.engine_state in ("ready", "careful"))],
            "appliance_engine_state": [((state,), state == reading.engine_state) for state in states],
            "appliance_build_info": [((reading.version,), 1)],
            "llamacpp:prompt_tokens_seconds": [((), engine.rate("prompt_tokens", "prompt_s"))],
            "llamacpp:predicted_tokens_seconds": [((), engine.rate("decoded", "predicted_s"))],
        }
        if (steps := engine.total("steps")) and SLOT_STEPS in engine.last:
            found["llamacpp:n_busy_slots_per_decode"] = [((), engine.total(SLOT_STEPS) / steps)]
        return found | {name: [((), engine.now.get(key, 0.0))] for name, key in ENGINE_NOW.items()}


_Numbers = dict[str, list[tuple[tuple[str, ...], float]]]


class _Buckets:
    """How often which wait; like Prometheus' own histogram, but five times as quick, because one thread owns it."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * len(_LIMITS)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    def cumulative(self) -> list[tuple[str, int]]:
        below, found = 0, []
        for limit, count in zip(_LIMITS, self.counts, strict=True):
            below += count
            found.append((limit, below))
        return found


class _Engine:
    """The engine's totals over all its lives, and what it said last."""

    def __init__(self) -> None:
        self.now: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self._life = 0
        self._before: dict[str, float] = {}  # of the lives that are over
        self._scraped: dict[str, tuple[float, float]] = {}

    def told(self, stats: Mapping[str, object], life: int) -> None:
        said = {name: float(value) for name, value in stats.items() if isinstance(value, int | float)}
        fresh = life != self._life
        for name in (*ENGINE_TOTALS, SLOT_STEPS):
            # A number that went down is a new life as well, whatever we were told.
            if name in self.last and (fresh or said.get(name, self.last[name]) < self.last[name]):
                self._before[name] = self._before.get(name, 0.0) + self.last.pop(name)
            if name in said:
                self.last[name] = said[name]
        self._life, self.now = life, said

    def total(self, name: str) -> float:
        return self._before.get(name, 0.0) + self.last.get(name, 0.0)

    def totals(self) -> _Numbers:
        found: _Numbers = {family.name: [((), self.total(name))] for name, family in ENGINE_TOTALS.items()}
        return found | {REUSED.name: [((), self.total("reused_tokens"))]}

    def rate(self, tokens: str, seconds: str) -> float:
        """Tokens per second of work since this was last asked; 0 if there was no work. llama-server's meaning."""
        before = self._scraped.get(tokens, (0.0, 0.0))
        after = self._scraped[tokens] = self.total(tokens), self.total(seconds)
        worked = after[1] - before[1]
        return (after[0] - before[0]) / worked if worked > 0 else 0.0
