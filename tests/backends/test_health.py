"""Who is probed and when, what an answer to a probe means, and whose canary is asked."""

import asyncio
import random
from itertools import pairwise

import pytest

from appliance.backends import health
from appliance.backends.health import Canaries, Health, Patient, Plan, lives, probe
from appliance.core.canary import QUESTIONS
from appliance.core.events import Finish, TextDelta
from appliance.core.fault import BackendError, Fault
from appliance.core.scopes import Breakers

# ------------------------------------------------------------------------------------------ what it means


@pytest.mark.parametrize(
    ("status", "kind", "well"),
    [
        (200, "application/json", True),
        (200, "application/json; charset=utf-8", True),
        (200, "", True),
        (401, "application/json", True),  # it refuses us, and so it lives
        (403, "application/json", True),
        (404, "text/plain", True),
        (405, "", True),
        (429, "application/json", True),
        (200, "text/html; charset=utf-8", False),  # somebody's login page
        (403, "Text/HTML", False),
        (302, "", False),
        (307, "application/json", False),
        (400, "application/json", False),
        (407, "", False),
        (500, "application/json", False),
        (502, "text/html", False),
        (503, "application/json", False),
        (511, "", False),
        (529, "application/json", False),
    ],
)
def test_an_answer_to_a_probe_shows_that_the_cloud_lives(status, kind, well):
    assert lives(status, kind) is well


# -------------------------------------------------------------------------------------------- whose turn it is


def turns(plan, times, *, aside=("claude",), interval=30.0, jitter=0.0):
    """When somebody was due, of these times."""
    return [now for now in times if plan.due(aside, now, interval=interval, jitter=lambda: jitter)]


def test_the_first_probe_comes_soon_and_each_further_one_after_the_interval():
    assert turns(Plan(), range(100)) == [0, 30, 60, 90]


@pytest.mark.parametrize(("jitter", "expected"), [(0.5, [3, 30, 57, 84]), (0.99, [6, 31, 56, 81])])
def test_jitter_moves_it_by_up_to_a_fifth_and_never_beyond_the_interval(jitter, expected):
    assert turns(Plan(), range(100), jitter=jitter) == expected


def test_two_are_probed_each_in_its_own_time():
    plan, dice = Plan(), random.Random(7)
    seen = [(now, plan.due(("a", "b"), now, interval=30.0, jitter=dice.random)) for now in range(300)]
    of_a, of_b = ([now for now, due in seen if name in due] for name in "ab")
    assert of_a != of_b
    for times in (of_a, of_b):
        assert times[0] <= 6
        assert all(24 <= later - sooner <= 31 for sooner, later in pairwise(times))


def test_who_is_well_again_and_set_aside_anew_waits_for_its_turn():
    plan = Plan()
    assert turns(plan, [0.0]) == [0.0]
    assert turns(plan, [1.0], aside=()) == []
    assert turns(plan, [2.0]) == []  # another outage, and one probe in an interval
    assert turns(plan, [40.0]) == [40.0]


def test_nobody_aside_nobody_due():
    assert Plan().due((), 0.0, interval=30.0, jitter=lambda: 0.0) == []


# ------------------------------------------------------------------------------------------------- probing


class Cloud:
    """Lives, does not, raises, or says nothing at all."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0

    async def alive(self):
        self.asked += 1
        answer = self.answers.pop(0)
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Ear(Breakers):
    """Breakers that keep what probes told them."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.heard = []

    def probed(self, well, now):
        self.heard.append(well)
        super().probed(well, now)


def patient(cloud, *, now=0.0, fault=Fault.UNREACHABLE, name="claude"):
    """Set aside since `now`, for a long time."""
    breakers = Ear(failures=1, cooldown=1e6)
    if fault is not None:
        breakers.fail(breakers.begin(now), now, BackendError(fault, "no"), jitter=0.5)
    return Patient(name=name, place=None, breakers=breakers, cloud=cloud)


class Zero(random.Random):
    def random(self):
        return 0.0


def probed(*patients, times=(0.0,), interval=30.0):
    """What the first one's breakers heard, after rounds of probes at these times."""

    async def run():
        plan = Plan()
        for now in times:
            await probe(patients, plan, now, interval=interval, dice=Zero())

    asyncio.run(run())
    return patients[0].breakers.heard


def test_who_is_set_aside_is_asked_and_its_breakers_are_told():
    assert probed(patient(Cloud(True))) == [True]
    assert probed(patient(Cloud(False))) == [False]


def test_who_is_well_is_not_asked():
    cloud = Cloud()
    assert probed(patient(cloud, fault=None), times=range(100)) == []
    assert cloud.asked == 0


def test_who_said_when_to_come_back_is_not_asked():
    one = patient(Cloud(), fault=None)
    leave = one.breakers.begin(0.0)
    one.breakers.fail(leave, 0.0, BackendError(Fault.CONFIG, "key", status=401), jitter=0.5)
    assert probed(one, times=range(100)) == []


def test_who_is_offline_is_not_asked():
    one = patient(Cloud())
    one.breakers.lose("route", 0.0)
    assert probed(one, times=range(100)) == []


def test_in_an_outage_of_two_minutes_it_is_asked_five_times():
    cloud = Cloud(*[False] * 9)
    probed(patient(cloud), times=range(121))
    assert cloud.asked == 5


def test_a_probe_that_goes_wrong_in_a_way_nobody_thought_of_is_a_failure(caplog):
    assert probed(patient(Cloud(RuntimeError("boom"))), patient(Cloud(True), name="b")) == [False]
    assert "boom" in caplog.text


def test_a_probe_without_an_answer_is_a_failure_after_a_while(monkeypatch):
    monkeypatch.setattr(health, "PROBE_SECONDS", 0.01)
    assert probed(patient(Cloud(None))) == [False]


def test_all_watches_start_once_and_end_cleanly_in_the_middle_of_a_probe():
    cloud = Cloud(None)
    one = patient(cloud)

    async def play():
        one.breakers.reset()
        now = asyncio.get_running_loop().time()
        one.breakers.fail(one.breakers.begin(now), now, BackendError(Fault.UNREACHABLE, "no"), jitter=0.5)
        keeper = Health(lambda: [one], interval=lambda: 0.0, canary_interval=lambda: 300.0)
        keeper.start()
        keeper.start()
        async with asyncio.timeout(5):
            while not cloud.asked:  # noqa: ASYNC110
                await asyncio.sleep(0)
        names = [task.get_name() for task in asyncio.all_tasks()]
        running = (names.count("probes"), names.count("network"), names.count("canaries"))
        await keeper.aclose()
        await keeper.aclose()
        return running, len(asyncio.all_tasks()), cloud.asked

    assert asyncio.run(play()) == ((1, 1, 1), 1, 1)


WATCHES = {
    "probes": lambda patients: health.watch(patients, interval=lambda: 30.0),
    "canaries": lambda patients: Canaries().watch(patients, interval=lambda: 30.0),
}


@pytest.mark.parametrize("which", WATCHES)
def test_watching_goes_on_whatever_happens(monkeypatch, caplog, which):
    monkeypatch.setattr(health, "LOOK_SECONDS", 0.001)

    async def play():
        looks, enough = [], asyncio.Event()

        def patients():
            looks.append(None)
            if len(looks) == 3:
                enough.set()
            raise ValueError("boom")

        task = asyncio.create_task(WATCHES[which](patients))
        await enough.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return task.cancelled()

    assert asyncio.run(play())
    assert "boom" in caplog.text


# ----------------------------------------------------------------------------------------------- canaries


class Knowing:
    """A cloud that knows every answer, or gives another one; it remembers what it was asked, and of which model."""

    def __init__(self, name="claude", *, wrong=False):
        self.name = name
        self.wrong = wrong
        self.asked = []

    async def stream(self, request, model):
        self.asked.append((request.dialect, model, request.messages[0].text))
        [answers] = [one.answers for one in QUESTIONS if one.text == request.messages[0].text]
        yield [TextDelta(text="quokka" if self.wrong else answers[0]), Finish(reason="stop")]


def keeping(cloud, *, canary="haiku", dialect="anthropic", asked=True):
    """An upstream with a canary, in use for the next hour or never."""
    breakers = Breakers(failures=1)
    if asked:
        breakers.asked_at = 0.0
    return Patient(name=cloud.name, place=None, breakers=breakers, cloud=cloud, canary=canary, dialect=dialect)


def looked(canaries, *rounds, interval=300.0):
    """The reports after looks at these times, of whoever there was: without the time of day."""

    async def run():
        for now, patients in rounds:
            await canaries.look(patients, now, interval=interval, dice=Zero())

    asyncio.run(run())
    return {name: (said.model, said.last, said.asked, said.well) for name, said in canaries.reports.items()}


def test_a_canary_is_asked_in_its_turn_and_reported():
    cloud = Knowing()
    one = keeping(cloud)
    assert looked(Canaries(), *((now, [one]) for now in range(700))) == {"claude": ("haiku", "ok", 3, 3)}
    assert {asked[:2] for asked in cloud.asked} == {("anthropic", "haiku")}


def test_a_bad_answer_is_reported_and_counted():
    one = keeping(Knowing(wrong=True))
    assert looked(Canaries(), (0.0, [one])) == {"claude": ("haiku", "quality", 1, 0)}
    assert one.breakers.last.fault is Fault.QUALITY


def test_nobody_without_a_canary_and_nobody_out_of_use_is_asked():
    idle, without = Knowing("idle"), Knowing("without")
    patients = [keeping(idle, asked=False), keeping(without, canary=None)]
    assert looked(Canaries(), (0.0, patients), (400.0, patients)) == {}
    assert idle.asked == without.asked == []


def test_several_are_asked_at_once_each_a_question():
    patients = [keeping(Knowing("a")), keeping(Knowing("b", wrong=True), dialect="openai")]
    assert looked(Canaries(), (0.0, patients)) == {"a": ("haiku", "ok", 1, 1), "b": ("haiku", "quality", 1, 0)}


def test_a_reload_comes_true_at_the_next_look():
    canaries, cloud = Canaries(), Knowing()
    assert looked(canaries, (0.0, [keeping(cloud)])) == {"claude": ("haiku", "ok", 1, 1)}
    assert looked(canaries, (1.0, [keeping(cloud, canary="opus")])) == {"claude": ("opus", "ok", 1, 1)}
    assert looked(canaries, (2.0, [keeping(cloud, canary=None)])) == {}
    assert [model for _, model, _ in cloud.asked] == ["haiku", "opus"]


def test_without_leave_there_is_nothing_to_report():
    one = keeping(Knowing())
    one.breakers.state = lambda now, model=None: "closed"  # it changed its mind in between
    one.breakers.lose("route", 0.0)
    assert looked(Canaries(), (0.0, [one])) == {}


def test_the_reports_are_seen_from_outside_and_tell_the_time_of_day(monkeypatch):
    monkeypatch.setattr(health.time, "time", lambda: 1_763_000_000.0)
    monkeypatch.setattr(health, "LOOK_SECONDS", 0.001)
    cloud = Knowing()
    one = keeping(cloud)

    async def play():
        one.breakers.asked_at = asyncio.get_running_loop().time()
        keeper = Health(lambda: [one], interval=lambda: 30.0, canary_interval=lambda: 0.001)
        before = dict(keeper.canaries)
        keeper.start()
        async with asyncio.timeout(5):
            while not keeper.canaries:  # noqa: ASYNC110
                await asyncio.sleep(0)
        await keeper.aclose()
        return before, keeper.canaries["claude"]

    before, report = asyncio.run(play())
    assert before == {}
    assert (report.model, report.last, report.at) == ("haiku", "ok", 1_763_000_000.0)


# --------------------------------------------------------------------------------------------- an outage


def outage(seed, *, down_for, every=1.0, last=900.0):
    """A cloud that refuses connections from 0 to `down_for`, asked every so many seconds by somebody, and probed: when
    it was back in use, how many callers it was tried on meanwhile, and how many probes it cost."""
    dice, plan, breakers, now = random.Random(seed), Plan(), Breakers(), 0.0
    tried = probes = 0
    while now < last:
        up = now >= down_for
        aside = ["claude"] if breakers.wants_probe(now) else []
        for _ in plan.due(aside, now, interval=30.0, jitter=dice.random):
            probes += not up
            breakers.probed(up, now)
        if now % every == 0 and (leave := breakers.begin(now, "sonnet")) is not None:
            if up:
                return now - down_for, tried, probes
            tried += 1
            breakers.fail(leave, now, BackendError(Fault.UNREACHABLE, "no"), jitter=dice.random())
        now += 0.25
    raise AssertionError("it never came back")


@pytest.mark.parametrize("down_for", [5.0, 60.0, 600.0])
def test_a_cloud_that_is_back_is_in_use_within_the_interval_and_was_not_hammered(down_for):
    for seed in range(20):
        back, tried, probes = outage(seed, down_for=down_for)
        assert back <= 31.0
        assert tried <= 3 + 5 + down_for / 240  # three to open it, and then the doubling waits
        assert probes <= 2 + down_for / 24


def test_a_cloud_whose_list_of_models_answers_is_tried_often_and_back_at_once():
    """Its list is well, its answers are not: trials cost nobody anything, so the wait stays short."""
    for seed in range(20):
        dice, breakers, now, tried = random.Random(seed), Breakers(failures=1), 0.0, []
        while now < 300.0:
            breakers.probed(True, now)
            leave = breakers.begin(now, "sonnet")
            if leave is not None:
                tried.append(now)
                breakers.fail(leave, now, BackendError(Fault.SERVER, "500"), jitter=dice.random())
            now += 0.25
        assert all(8.0 <= later - sooner <= 12.25 for sooner, later in pairwise(tried))
