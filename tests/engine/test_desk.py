"""In order, coalesced, and silent about standbys that cannot be written."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.core.frames import Frame
from appliance.engine.desk import PAUSE, Desk
from appliance.engine.forms import Forms
from appliance.engine.job import Job
from appliance.engine.loop import Command, Ready
from appliance.engine.prompt import Prompt, Writer
from appliance.engine.standing import Followed
from appliance.engine.vocabulary import Index

from .fakes import Paper, user, vocabulary

FORMS = Forms(vocabulary(), Index(vocabulary()), Paper("").tokenize)


class Here:
    """A desk, and what it put on."""

    def __init__(self, *, context: int = 256, effort: float = 0.0) -> None:
        self.put: list[Command] = []
        self.time = 0.0
        self.effort = effort
        self.writer = Writer(vocabulary(), Paper(""), template=None, own=None, context=context)
        self.posted: list[Frame] = []
        self.desk = Desk(self.writer, FORMS, self.put.append, self.clock, self.posted.extend)

    def clock(self) -> float:
        self.time += self.effort
        return self.time

    def take(self, op: str, id: int, **more: Any) -> None:
        self.desk.take({"op": op, "id": id, **more})

    def follow(self, id: int, **more: Any) -> None:
        self.take("follow", id, **{"messages": user("Hello"), "committed": "", "mode": "hot"} | more)

    def whole(self, committed: str) -> Prompt:
        return self.writer.write(Job(id=0, messages=tuple(user("Hello")), committed=committed))


def test_a_standby_begins_with_its_mode_and_suspicion() -> None:
    here = Here()
    here.follow(1, committed="The", suspicion=0.5)
    assert here.put == [Followed(id=1, prompt=here.whole("The"), mode="hot", suspicion=0.5)]


def test_many_pieces_are_written_once_and_as_if_they_had_come_whole() -> None:
    here = Here()
    here.follow(1)
    for piece in ("The wea", "ther in", " Paris"):
        here.take("fed", 1, text=piece)
        here.desk.catch_up()
    assert len(here.put) == 1, "not yet due"
    assert here.desk.patience == PAUSE
    here.time += PAUSE
    here.desk.catch_up()
    assert here.put[1:] == [Followed(id=1, prompt=here.whole("The weather in Paris"))]
    assert here.desk.patience is None


def test_a_request_does_not_wait_for_the_words_of_standbys() -> None:
    here = Here()
    here.follow(1)
    here.take("fed", 1, text="The weather")
    here.time += 10
    here.take("generate", 2, messages=user("Hi"))
    assert isinstance(here.put[-1], Ready)
    assert len(here.put) == 2


def test_a_suspicion_brings_all_words_with_it() -> None:
    here = Here()
    here.follow(1)
    here.take("fed", 1, text="The weather")
    here.take("suspect", 1, level=1.0)
    assert here.put[1:] == [
        Followed(id=1, prompt=here.whole("The weather")),
        {"op": "suspect", "id": 1, "level": 1.0},
    ]


def test_what_is_cancelled_is_not_written_any_more() -> None:
    here = Here()
    here.follow(1)
    here.take("fed", 1, text="The weather")
    here.take("cancel", 1)
    here.take("fed", 1, text=" in")
    assert here.desk.patience is None
    here.desk.catch_up()
    assert here.put[1:] == [{"op": "cancel", "id": 1}]


def test_what_takes_long_to_write_is_written_seldom() -> None:
    here = Here(effort=0.5)
    here.follow(1)
    here.take("fed", 1, text="The")
    here.time += PAUSE
    here.desk.catch_up()
    here.take("fed", 1, text=" weather")
    assert (here.desk.patience or 0) > 5


@pytest.mark.parametrize("more", [{"messages": user("word " * 400)}, {"messages": "none"}])
def test_a_standby_that_cannot_be_written_is_none(more: dict[str, Any]) -> None:
    here = Here()
    here.follow(1, **more)
    here.take("fed", 1, text="The")
    assert here.put == []
    assert here.desk.patience is None


def test_an_answer_that_outgrows_the_context_ends_its_standby() -> None:
    here = Here()
    here.follow(1)
    here.take("fed", 1, text="# " * 400)
    here.time += 1
    here.desk.catch_up()
    assert here.put[1:] == [Followed(id=1, prompt=None)]
    here.take("fed", 1, text="#")
    assert here.desk.patience is None


def test_an_answer_that_grows_pushes_old_turns_out_if_it_may() -> None:
    here = Here()
    turns = [*user("old " * 30), {"role": "assistant", "content": "Yes."}, *user("Hello")]
    here.follow(1, messages=turns, trim=True)
    here.take("fed", 1, text="# " * 60)
    here.time += 1
    here.desk.catch_up()
    first, second = here.put
    assert isinstance(first, Followed)
    assert isinstance(second, Followed)
    assert first.prompt is not None
    assert second.prompt is not None
    assert (first.prompt.trimmed, second.prompt.trimmed) == (0, 2)


def test_a_count_goes_past_everything_and_has_no_limit() -> None:
    here = Here(context=64)
    here.take("count", 7, messages=user("x" * 1000), committed="The weather")
    here.take("count", 8, messages=user("x" * 1000))
    assert here.put == []
    frame = len(here.whole("").tokens) - len("Hello")
    assert here.posted == [
        {"op": "counted", "id": 7, "tokens": frame + 1000 + 2},
        {"op": "counted", "id": 8, "tokens": frame + 1000},
    ]


def test_tools_are_counted_as_the_model_is_told_of_them() -> None:
    here = Here(context=4096)
    tools = [{"name": "look", "parameters": {"type": "object"}}]
    here.take("count", 7, messages=user("Hello"), tools=tools)
    here.take("generate", 8, messages=user("Hello"), tools=tools)
    [ready] = here.put
    assert isinstance(ready, Ready)
    assert ready.prompt is not None
    assert here.posted == [{"op": "counted", "id": 7, "tokens": len(ready.prompt.tokens)}]


def test_what_cannot_be_counted_is_an_error_and_its_text_is_not_logged(capfd: pytest.CaptureFixture[str]) -> None:
    here = Here()
    here.take("count", 1, messages="secret")
    here.take("count", 2, messages=user("secret"), tools=3)
    assert [(frame["op"], frame["id"], frame["fault"]) for frame in here.posted] == [
        ("error", 1, "request"),
        ("error", 2, "request"),
    ]
    assert here.posted[0]["param"] == "messages"
    assert "secret" not in capfd.readouterr().err


def test_a_request_that_breaks_the_desk_is_refused_and_its_text_is_not_logged(
    capfd: pytest.CaptureFixture[str],
) -> None:
    here = Here()
    here.take("generate", 1, messages=user("secret"), stop=[{"no": "text"}])
    here.take("generate", 2, messages=[{"role": "user", "content": "Hi"}], sampling={"temperature": "secret"})
    here.writer._pieces = None  # type: ignore[assignment]
    here.take("generate", 3, messages=user("secret"))
    here.follow(4, messages=user("secret"))
    faults = [one.refusal.fault for one in here.put if isinstance(one, Ready) and one.refusal is not None]
    assert faults == ["request", "request", "server"]
    assert len(here.put) == 3
    assert "secret" not in capfd.readouterr().err
