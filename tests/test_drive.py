"""The relay's driver with scripted backends, in a loop whose clock only moves when everybody waits."""

import asyncio
import gc
import logging
import selectors
from contextlib import aclosing

import pytest
import uvloop

from appliance.core.chat import ChatRequest, Message, Text
from appliance.core.events import Finish, Started, Takeover, TextDelta
from appliance.core.fault import BackendError, Fault
from appliance.core.pulse import Timeouts
from appliance.core.relay import Relay
from appliance.core.route import Leg
from appliance.core.scopes import Breakers
from appliance.drive import Overdue, Patience, drive

pytestmark = pytest.mark.long

CLAUDE = Leg(name="claude", model="sonnet", continues=False)
BOX = Leg(name="local", model="starter", continues=True, offers=frozenset())
A, B = TextDelta(text="a"), TextDelta(text="b")
ENDED = Finish(reason="stop")


class StillSelector(selectors.DefaultSelector):
    """Instead of waiting it moves the clock."""

    now = 1000.0

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits for ever"
            self.now += max(0.0, timeout)
        return ready


class StillLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        self._still = StillSelector()
        super().__init__(self._still)

    def time(self):
        return self._still.now


def at_once(coroutine):
    """Run it in virtual time; no task, no generator and no timer may be left behind."""
    with asyncio.Runner(loop_factory=StillLoop) as runner:
        found = runner.run(coroutine)
        gc.collect()
        assert asyncio.all_tasks(runner.get_loop()) == set()
        assert [timer for timer in runner.get_loop()._scheduled if not timer.cancelled()] == []
        return found


class Script:
    """A backend that plays its lines: a number is a wait, a list is a batch, an exception is raised."""

    def __init__(self, name, *lines, book=None):
        self.name = name
        self._lines = list(lines)
        self.book = book if book is not None else []
        self.asked = []

    async def stream(self, request, model):
        self.asked.append((model, request.committed.text if request.committed else None))
        self.book.append(f"{self.name} opens")
        try:
            for line in self._lines:
                match line:
                    case int() | float():
                        await asyncio.sleep(line)
                    case BaseException():
                        raise line
                    case _:
                        yield line
        finally:
            self.book.append(f"{self.name} closes")


def ask(stream=True):
    question = Message(role="user", parts=(Text("Why?"),))
    return ChatRequest(dialect="openai", model="m", messages=(question,), stream=stream)


def conduct(*scripts, request=None, breakers=None, limits=None):
    """A driven relay over `scripts`, and what it records."""
    legs = {"claude": CLAUDE, "local": BOX}
    relay = Relay(request or ask(), [legs[s.name] for s in scripts], breakers or {}, limits=limits or Timeouts())
    recorded = []
    return drive(relay, {script.name: script for script in scripts}, recorded.append), recorded


async def read(batches):
    """All batches, and the error they ended with."""
    found = []
    try:
        async with aclosing(batches):
            async for batch in batches:
                found.append(batch)
    except BackendError as error:
        return found, error
    return found, None


def faults(recorded):
    return [(tried.leg, tried.error.fault if tried.error else None) for tried in recorded]


def test_the_batches_come_as_they_came_and_the_leg_is_recorded():
    cloud = Script("claude", 1, [A], 2, [B, ENDED])

    async def scene():
        batches, recorded = conduct(cloud)
        return await read(batches), recorded

    (found, error), recorded = at_once(scene())
    assert (found, error) == ([(A,), (B, ENDED)], None)
    assert [(tried.leg, tried.error, tried.characters, tried.seconds) for tried in recorded] == [
        ("claude", None, 2, 3.0)
    ]
    assert (cloud.asked, cloud.book) == ([("sonnet", None)], ["claude opens", "claude closes"])


def test_nothing_runs_before_the_first_batch_is_asked_for():
    cloud = Script("claude", [A, ENDED])
    breaker = Breakers(failures=1)

    async def scene():
        batches, recorded = conduct(cloud, breakers={"claude": breaker})
        await batches.aclose()
        return recorded

    assert (at_once(scene()), cloud.book) == ([], [])


def test_a_backends_error_surfaces_when_nobody_is_left():
    error = BackendError(Fault.SERVER, "claude said 500.")
    cloud = Script("claude", 1, error)

    async def scene():
        batches, recorded = conduct(cloud)
        return await read(batches), recorded

    (found, heard), recorded = at_once(scene())
    assert (found, faults(recorded), cloud.book[-1]) == ([], [("claude", Fault.SERVER)], "claude closes")
    assert heard is error


def test_a_call_closes_the_earlier_stream_first():
    book = []
    cloud = Script("claude", [Started(id="c", model="m", created=1), ENDED], 5, [A], book=book)
    box = Script("local", [B, ENDED], book=book)

    async def scene():
        batches, recorded = conduct(cloud, box)
        return await read(batches), recorded

    (found, error), recorded = at_once(scene())
    assert (found, error) == ([(B, ENDED)], None)
    assert faults(recorded) == [("claude", Fault.BROKEN), ("local", None)]
    assert book == ["claude opens", "claude closes", "local opens", "local closes"]


def test_a_leg_that_breaks_in_mid_answer_is_gone_on_with():
    cloud, box = Script("claude", [A], BackendError(Fault.BROKEN, "cut")), Script("local", [B, ENDED])

    async def scene():
        batches, recorded = conduct(cloud, box)
        return await read(batches), recorded

    (found, error), recorded = at_once(scene())
    takeover = Takeover(source="claude", target="local", after=1, reason="broken")
    assert (found, error) == ([(A,), (takeover,), (B, ENDED)], None)
    assert (faults(recorded), box.asked) == ([("claude", Fault.BROKEN), ("local", None)], [("starter", "a")])


def test_a_stream_that_ends_without_an_end_is_gone_on_with():
    async def scene():
        batches, recorded = conduct(Script("claude", [A]), Script("local", [ENDED]))
        await read(batches)
        return recorded

    assert faults(at_once(scene())) == [("claude", Fault.BROKEN), ("local", None)]


def test_the_deadline_is_kept_to_the_second_and_closes_the_silent_stream():
    book = []
    cloud, box = Script("claude", 12.5, [A], book=book), Script("local", [B, ENDED], book=book)

    async def scene():
        batches, recorded = conduct(cloud, box, limits=Timeouts(first_content=12.0))
        return await read(batches), recorded

    (found, error), recorded = at_once(scene())
    assert (found, error, faults(recorded)) == ([(B, ENDED)], None, [("claude", Fault.SILENT), ("local", None)])
    assert (recorded[0].seconds, recorded[0].error.message) == (12.0, "claude said nothing for 12 s.")
    assert book == ["claude opens", "claude closes", "local opens", "local closes"]


def test_content_just_in_time_is_in_time():
    async def scene():
        batches, recorded = conduct(
            Script("claude", 11.9, [A], 19.9, [B], 19.9, [ENDED], 1.9), limits=Timeouts(first_content=12.0, stall=20.0)
        )
        await read(batches)
        return recorded

    assert faults(at_once(scene())) == [("claude", None)]


def test_a_deadline_that_comes_nearer_is_kept_too():
    async def scene():
        batches, recorded = conduct(
            Script("claude", 1, [A], 60, [B]), Script("local", [ENDED]), limits=Timeouts(first_content=100.0, stall=5.0)
        )
        await read(batches)
        return recorded

    [silent, _] = at_once(scene())
    assert (silent.error.fault, silent.seconds) == (Fault.SILENT, 6.0)


def test_a_word_moves_no_timer():
    timers = []

    class Counting(StillLoop):
        def call_at(self, when, callback, *args, **more):
            timers.append(getattr(callback, "__name__", ""))
            return super().call_at(when, callback, *args, **more)

    async def scene():
        batches, _ = conduct(Script("claude", [A], *[one for _ in range(500) for one in (0.01, [B])], [ENDED]))
        return await read(batches)

    with asyncio.Runner(loop_factory=Counting) as runner:
        found, error = runner.run(scene())
    assert (len(found), error) == (502, None)
    assert timers.count("_ring") <= 8  # and not 500


@pytest.mark.parametrize("first", ["the deadline", "the client"])
def test_a_client_that_leaves_as_the_deadline_passes_has_left(first):
    async def scene():
        loop = asyncio.get_running_loop()
        batches, recorded = conduct(Script("claude", 60), Script("local", [ENDED]), limits=Timeouts(first_content=12.0))
        reader = asyncio.ensure_future(read(batches))
        if first == "the deadline":
            await asyncio.sleep(0)
        loop.call_at(1012.0, reader.cancel)
        with pytest.raises(asyncio.CancelledError):
            await reader
        return recorded

    assert faults(at_once(scene())) == [("claude", Fault.GONE)]


def test_a_client_may_leave_after_a_deadline_has_passed():
    async def scene():
        batches, recorded = conduct(Script("claude", 60), Script("local", 60), limits=Timeouts(first_content=12.0))
        reader = asyncio.ensure_future(read(batches))
        asyncio.get_running_loop().call_at(1020.0, reader.cancel)
        with pytest.raises(asyncio.CancelledError):
            await reader
        return recorded

    assert faults(at_once(scene())) == [("claude", Fault.SILENT), ("local", Fault.GONE)]


def test_a_line_that_stays_open_after_the_finish_is_left():
    async def scene():
        batches, recorded = conduct(Script("claude", [A, ENDED], 500, [B]))
        return await read(batches), recorded

    (found, error), recorded = at_once(scene())
    assert (found, error, faults(recorded)) == ([(A, ENDED)], None, [("claude", None)])
    assert recorded[0].seconds == 2.0


def test_closing_the_batches_closes_the_backend_and_blames_nobody():
    breaker = Breakers(failures=1)
    cloud = Script("claude", [A], 1, [B])

    async def scene():
        batches, recorded = conduct(cloud, breakers={"claude": breaker})
        first = await anext(batches)
        await batches.aclose()
        return first, recorded

    first, recorded = at_once(scene())
    assert (first, faults(recorded)) == ((A,), [("claude", Fault.GONE)])
    assert (cloud.book, breaker.failures) == (["claude opens", "claude closes"], 0)


@pytest.mark.parametrize("lines", [(60, [A]), ([A], 60, [B])])
def test_cancelling_whoever_reads_closes_the_backend_and_blames_nobody(lines):
    breaker = Breakers(failures=1)
    breaker.fail(breaker.begin(0.0), 0.0, BackendError(Fault.SERVER, "x"), jitter=0.5)
    cloud = Script("claude", *lines)

    async def scene():
        batches, recorded = conduct(cloud, breakers={"claude": breaker})
        reader = asyncio.ensure_future(read(batches))
        await asyncio.sleep(5)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        return recorded

    assert faults(at_once(scene())) == [("claude", Fault.GONE)]
    assert (cloud.book[-1], breaker.admits(2000.0)) == ("claude closes", True)  # the trial was given back


def test_a_client_that_leaves_during_a_takeover_stops_the_leg_that_took_over():
    book = []
    cloud, box = Script("claude", [A], book=book), Script("local", 30, [B], book=book)

    async def scene():
        batches, recorded = conduct(cloud, box)
        reader = asyncio.ensure_future(read(batches))
        await asyncio.sleep(5)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        return recorded

    assert faults(at_once(scene())) == [("claude", Fault.BROKEN), ("local", Fault.GONE)]
    assert book == ["claude opens", "claude closes", "local opens", "local closes"]


def test_when_no_leg_may_be_called_the_reason_surfaces():
    breaker = Breakers(failures=1)
    breaker.fail(breaker.begin(999.0), 999.0, BackendError(Fault.SERVER, "claude said 500."), jitter=0.5)
    cloud = Script("claude", [A])

    async def scene():
        batches, recorded = conduct(cloud, breakers={"claude": breaker})
        return await read(batches), recorded

    (found, error), recorded = at_once(scene())
    assert (found, recorded, cloud.book, error.message) == ([], [], [], "claude said 500.")


def test_a_whole_answer_is_one_batch_at_its_end():
    async def scene():
        batches, _ = conduct(Script("local", [A], 1, [B], 1, [ENDED]), request=ask(stream=False))
        return await read(batches)

    assert at_once(scene()) == ([(A, B, ENDED)], None)


# ------------------------------------------------------------------------------------- once found wrong


def test_a_client_that_reads_slowly_is_not_the_clouds_failure():
    async def scene():
        batches, recorded = conduct(Script("claude", [A], 0, [B, ENDED]), limits=Timeouts(stall=20.0))
        async with aclosing(batches):
            async for _ in batches:
                await asyncio.sleep(25)  # a paused terminal
        return recorded

    assert faults(at_once(scene())) == [("claude", None)]


def test_an_unforeseen_exception_is_a_broken_leg_and_its_words_stay_out_of_the_log(caplog):
    async def scene():
        batches, recorded = conduct(Script("claude", [A], ValueError("the prompt")), Script("local", [B, ENDED]))
        return await read(batches), recorded

    caplog.set_level(logging.INFO)
    (found, error), recorded = at_once(scene())
    assert (found[-1], error, faults(recorded)) == ((B, ENDED), None, [("claude", Fault.BROKEN), ("local", None)])
    assert recorded[0].error.message == "It failed inside: ValueError."
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "the prompt" not in caplog.text


def test_every_call_is_recorded_once_though_the_client_leaves_with_the_last_batch():
    async def scene():
        batches, recorded = conduct(Script("local", [A, ENDED]), request=ask(stream=False))
        await anext(batches)
        await batches.aclose()
        return recorded

    assert faults(at_once(scene())) == [("local", None)]


def test_a_deadline_that_has_come_already_is_kept_on_the_loop_we_run_on():
    """uvloop gives another kind of handle for it."""

    class Late:
        deadline = 0.0

    async def scene():
        loop = asyncio.get_running_loop()
        relay = Late()
        patience = Patience(relay)
        relay.deadline = loop.time() - 1
        with pytest.raises(Overdue), patience:
            await asyncio.sleep(10)
        relay.deadline = loop.time() - 1
        with pytest.raises(Overdue):
            with patience:
                pass  # answered at once, with a timer still to ring
            relay.deadline = loop.time() - 2
            with patience:
                await asyncio.sleep(10)
        patience.close()

    uvloop.run(scene())
