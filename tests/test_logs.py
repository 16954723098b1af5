"""One line each, never anybody's words, never a flood."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import logs
from appliance.core.fault import BackendError, Fault
from appliance.logs import FIELDS, MOST, Flood, JsonLine, Lines, TextLine

MARKER = "MARKER-c0ffee"
OURS = logging.getLogger("appliance.test")


@pytest.fixture
def untouched() -> Iterator[None]:
    """Logging and hooks as they were, afterwards."""
    loggers = [logging.getLogger(), logging.getLogger("appliance")]
    before = [(one, one.level, one.handlers[:]) for one in loggers]
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    root = loggers[0]
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    yield
    logging.captureWarnings(False)
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
    for one, level, handlers in before:
        one.setLevel(level)
        one.handlers[:] = handlers


@pytest.fixture(params=["text", "json"])
def out(request: pytest.FixtureRequest, untouched: None) -> io.StringIO:
    stream = io.StringIO()
    logs.set_up(request.param, stream=stream, environ={})
    return stream


@pytest.fixture
def lines(untouched: None) -> io.StringIO:
    stream = io.StringIO()
    logs.set_up("json", stream=stream, environ={})
    return stream


def parsed(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def record(message: object, *args: object, name: str = "appliance.test", level: int = logging.WARNING, **extra: object):
    made = logging.makeLogRecord({"name": name, "levelno": level, "levelname": logging.getLevelName(level), **extra})
    made.msg, made.args, made.created = message, args, 1795241220.1234
    return made


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


# ------------------------------------------------------------------------------------------------------- a line


def test_a_line_for_people() -> None:
    line = TextLine().format(record("engine (pid %s) is ready after %.1f s", 7, 1.25))
    assert line == "2026-11-21T06:07:00.123Z WARNING appliance.test engine (pid 7) is ready after 1.2 s"


def test_a_line_for_the_journal_has_a_priority_and_no_time() -> None:
    lines = TextLine(journal=True)
    assert lines.format(record("Something")) == "<4>appliance.test: Something"
    assert lines.format(record("Something", level=logging.ERROR)) == "<3>appliance.test: Something"


def test_a_line_for_machines() -> None:
    assert json.loads(JsonLine().format(record("%d things", 3, upstream="cloud", seconds=1.5, secret=MARKER))) == {
        "time": "2026-11-21T06:07:00.123Z",
        "level": "warning",
        "logger": "appliance.test",
        "message": "3 things",
        "upstream": "cloud",
        "seconds": 1.5,
    }


@given(st.text(), st.sampled_from([TextLine(), TextLine(journal=True), JsonLine()]))
def test_a_line_is_one_line_whatever_it_says(text: str, formatter: logging.Formatter) -> None:
    line = formatter.format(record("%s said", text, model=text))
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    line.encode("utf-8")


def test_lines_below_each_other_are_put_beside_each_other() -> None:
    said = "died with signal 6\n  one line\n  \x1b[31manother"
    assert TextLine(journal=True).format(record(said)).endswith(r": died with signal 6 | one line | \x1b[31manother")


def test_a_message_is_not_longer_than_anybody_wants_to_read() -> None:
    line = json.loads(JsonLine().format(record("%s", "x" * 100_000, model="y" * 100_000)))
    assert (len(line["message"]), len(line["model"])) == (4000, 200)


def test_the_request_is_named_if_it_is_known() -> None:
    token = logs.request_id.set("r1")
    try:
        assert json.loads(JsonLine().format(record("Hm")))["request_id"] == "r1"
        assert json.loads(JsonLine().format(record("Hm", request_id="r2")))["request_id"] == "r2"
        assert TextLine().format(record("Hm")).endswith(" Hm [r1]")
        assert TextLine().format(record("r1 cloud failed")).endswith(" r1 cloud failed")
    finally:
        logs.request_id.reset(token)
    assert "request_id" not in json.loads(JsonLine().format(record("Hm")))


def test_requests_side_by_side_keep_their_own_names(lines: io.StringIO) -> None:
    async def one(id: str) -> None:
        logs.request_id.set(id)
        await asyncio.sleep(0)
        OURS.info("here is %s", id)

    async def both() -> None:
        await asyncio.gather(one("r1"), one("r2"))
        OURS.info("here is nobody")

    asyncio.run(both())
    assert [(line["message"], line.get("request_id")) for line in parsed(lines)] == [
        ("here is r1", "r1"),
        ("here is r2", "r2"),
        ("here is nobody", None),
    ]


# ------------------------------------------------------------------------------------------------ nobody's words


def test_an_exception_is_its_type_and_its_way(lines: io.StringIO) -> None:
    def inner() -> None:
        raise KeyError(MARKER)

    try:
        try:
            inner()
        except KeyError as error:
            raise RuntimeError(MARKER) from error
    except RuntimeError:
        OURS.exception("It failed inside")
    [line] = parsed(lines)
    outer, cause = line["exception"]  # type: ignore[misc]
    assert (outer["type"], cause["type"]) == ("RuntimeError", "KeyError")
    assert [place.split(" ")[1] for place in cause["at"]] == [
        "test_an_exception_is_its_type_and_its_way",
        "inner",
    ]
    assert cause["at"][-1].startswith("tests/test_logs.py:")


def test_our_own_exceptions_are_sentences_to_be_read_and_others_are_not() -> None:
    own, foreign = BackendError(Fault.SERVER, "The cloud said 500."), ValueError(MARKER)
    assert logs.message(record("It failed: %s", own)) == "It failed: The cloud said 500."
    assert logs.message(record("It failed: %s", foreign)) == "It failed: ValueError"
    assert logs.message(record(foreign)) == "ValueError"


VALUES = [
    ValueError(MARKER),
    [MARKER],
    {"prompt": [MARKER]},
    MARKER.encode(),
    raised(ExceptionGroup(MARKER, [ValueError(MARKER)])),
    UnicodeDecodeError("utf-8", MARKER.encode() + b"\xff", 13, 14, MARKER),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("template", ["%s", "%r", "%d", "%s %s", "no place for it", "%(prompt)s", "%(other)s"])
@pytest.mark.parametrize("formatter", [TextLine(), JsonLine()])
def test_a_value_is_not_a_word_of_ours(value: object, template: str, formatter: logging.Formatter) -> None:

    error = value if isinstance(value, BaseException) else None
    made = [
        logging.LogRecord("appliance.test", logging.ERROR, __file__, 1, template, (value,), None),
        logging.LogRecord("appliance.test", logging.ERROR, __file__, 1, "In a word", None, (type(error), error, None)),
        record("Hm", fault=value, upstream=value, request_id=value),
        record(value, fault=value),
        record(template, value, name="uvicorn.error"),
    ]
    said = [formatter.format(one) for one in made]
    assert {logs.kind(one) for one in made}  # hashable, whatever it holds
    assert [line for line in said if MARKER in line or "\n" in line] == []


async def a_task_that_nobody_asked() -> None:
    async def fail() -> None:
        raise RuntimeError(MARKER)

    task = asyncio.create_task(fail(), name=MARKER)
    await asyncio.wait([task])
    del task
    gc.collect()


async def a_callback_that_fails() -> None:
    def fail(text: str) -> None:
        raise RuntimeError(text)

    asyncio.get_running_loop().call_soon(fail, MARKER)
    await asyncio.sleep(0)


def a_thread_that_fails() -> None:
    def fail() -> None:
        raise RuntimeError(MARKER)

    thread = threading.Thread(target=fail, name=MARKER)
    thread.start()
    thread.join()


def a_finalizer_that_fails() -> None:
    class Odd:
        def __del__(self) -> None:
            raise RuntimeError(MARKER)

    Odd()
    gc.collect()


def a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn(MARKER, UserWarning, stacklevel=1)


def a_library_that_sends_its_traceback() -> None:
    logging.getLogger("uvicorn.error").error(f"Traceback (most recent call last):\n  x\nRuntimeError: {MARKER}")


def a_library_that_is_chatty() -> None:
    logging.getLogger("httpx").info("HTTP Request: %s", f"https://example.org/?key={MARKER}")
    logging.getLogger("httpx").warning("HTTP Request: %s", f"https://example.org/?key={MARKER}")


def the_end() -> None:
    sys.excepthook(RuntimeError, raised(RuntimeError(MARKER)), None)


STRAYS = {
    a_task_that_nobody_asked: "RuntimeError",
    a_callback_that_fails: "Exception in callback",
    a_thread_that_fails: "A thread ended by an exception",
    a_finalizer_that_fails: "An exception nobody could catch",
    a_warning: "UserWarning",
    a_library_that_sends_its_traceback: "Traceback",
    a_library_that_is_chatty: "HTTP Request",
    the_end: "The appliance ended by a mistake of its own",
}


@pytest.mark.long
@pytest.mark.parametrize("stray", STRAYS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_goes_astray_is_one_line_without_words(stray, loop: str, out: io.StringIO, capfd) -> None:
    if asyncio.iscoroutinefunction(stray):
        uvloop = pytest.importorskip("uvloop")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
            runner.run(stray())
    else:
        stray()
    [line] = out.getvalue().splitlines()
    assert STRAYS[stray] in line
    assert MARKER not in line
    said = capfd.readouterr()
    assert MARKER not in said.out + said.err


def test_a_line_that_cannot_be_written_is_lost_and_says_nothing(capfd) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(MARKER)

    Lines(Full()).handle(record(MARKER))
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_the_fields_are_those_of_the_journal_and_no_text() -> None:
    assert {"request_id", "upstream", "fault", "seconds", "model", "takeover", "silence_s"} <= set(FIELDS)
    assert set(FIELDS) & {"text", "prompt", "messages", "message", "key", "reason", "body"} == set()


# ------------------------------------------------------------------------------------------------------ set up


def test_setting_up_twice_writes_every_line_once(untouched: None) -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.set_up("text", stream=first)
    logs.set_up("text", stream=second)
    OURS.info("here")
    assert (first.getvalue(), second.getvalue().count("here")) == ("", 1)


def test_the_stream_is_the_journals_only_if_it_is_the_very_one(tmp_path) -> None:
    with open(tmp_path / "journal", "w") as stream:
        status = os.fstat(stream.fileno())
        assert logs.is_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        assert not logs.is_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"})
        assert not logs.is_journal(stream, {})
    assert not logs.is_journal(io.StringIO(), {"JOURNAL_STREAM": "1:2"})


# ------------------------------------------------------------------------------------------------------ a flood


def test_the_same_warning_is_said_a_few_times_a_minute_and_then_counted(untouched: None) -> None:
    stream = io.StringIO()
    handler = Lines(stream)
    handler.setFormatter(TextLine(journal=True))
    for number in range(MOST + 532):
        handler.handle(at(100.0 + number / 100, "%d is too many", number))
    assert stream.getvalue().splitlines() == [f"<4>appliance.test: {number} is too many" for number in range(MOST)]
    handler.handle(at(161.0, "another", level=logging.INFO))
    assert stream.getvalue().splitlines()[MOST:] == [
        f"<4>appliance.test: and 532 more like this: {MOST + 531} is too many",
        "<6>appliance.test: another",
    ]


def test_what_was_not_said_is_said_at_the_end(untouched: None) -> None:
    stream = io.StringIO()
    handler = Lines(stream)
    handler.setFormatter(JsonLine())
    for _ in range(MOST + 3):
        handler.handle(at(100.0, "again"))
    handler.close()
    assert [line.get("more") for line in parsed(stream)] == [*[None] * MOST, 3]


def test_ordinary_lines_are_not_held_back(untouched: None) -> None:
    stream = io.StringIO()
    handler = Lines(stream)
    for _ in range(MOST * 3):
        handler.handle(at(100.0, "answered", level=logging.INFO))
    assert len(stream.getvalue().splitlines()) == MOST * 3


def test_failures_of_two_clouds_are_not_the_same_warning() -> None:
    one = record("%s failed", "r1", upstream="a", fault="silent")
    assert logs.kind(one) == logs.kind(record("%s failed", "r2", upstream="a", fault="silent"))
    assert logs.kind(one) != logs.kind(record("%s failed", "r1", upstream="b", fault="silent"))
    assert logs.kind(one) != logs.kind(record("%s failed", "r1", upstream="a", fault="broken"))


def test_a_minute_begins_with_its_first_warning_and_nothing_is_lost() -> None:
    flood = Flood(most=2, window=60.0)
    assert [flood.admits(("a",), now) for now in (0.0, 1.0, 2.0, 59.0)] == [True, True, False, False]
    assert flood.over(59.9) == []
    assert flood.over(60.0) == [(("a",), 2)]
    assert flood.over(60.0) == []
    assert flood.admits(("a",), 60.0)


def test_a_clock_that_is_set_back_does_not_silence_anything() -> None:
    flood = Flood(most=1, window=60.0)
    assert [flood.admits(("a",), 1000.0), flood.admits(("a",), 1000.0)] == [True, False]
    assert flood.over(500.0) == [(("a",), 1)]


def test_too_many_kinds_count_as_one_so_that_memory_is_bounded(untouched: None) -> None:
    stream = io.StringIO()
    handler = Lines(stream, flood=Flood(most=2, kinds=10))
    for number in range(1000):
        handler.handle(at(100.0, f"kind {number}"))
    assert len(stream.getvalue().splitlines()) == 10 + 2
    handler.handle(at(161.0, "kind 0"))
    assert len(stream.getvalue().splitlines()) == 10 + 2 + 2
    assert len(handler._flood._seen) == 1
    assert handler._unsaid == {}


def at(created: float, message: str, *args: object, level: int = logging.WARNING) -> logging.LogRecord:
    made = record(message, *args, level=level)
    made.created = created
    return made
