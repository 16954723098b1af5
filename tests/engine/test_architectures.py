"""Every kind of memory llama.cpp keeps: whatever was rewound, copied or saved, the next words are those of a sequence
that was computed from scratch. The same on a level above, with requests: test_reuse.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from appliance.engine.load import Load, measure
from appliance.engine.memory import SPARE, Room, Rung
from appliance.engine.model import Model, Row
from appliance.engine.sampling import Logits

from . import tiny

pytestmark = pytest.mark.live

CONTEXT = 2048
SLOTS = 3
ROUNDING = 0.04
"""The cache has 16 bits, and a sum comes out a little different in steps of another size: 0.012 at most, on the machine
this was written on. A sequence that is wrong is off by much more."""
KINDS = (*tiny.KINDS, "window")  # the last is "sliding" again, on a machine where only the window fits the memory

random = np.random.default_rng(11)
LONG = [int(letter) for letter in random.integers(97, 123, 1300)]
OTHER = [int(letter) for letter in random.integers(65, 91, 400)]
MORE = (66, 102, 33)


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    window = request.param == "window"
    path = tmp_path_factory.mktemp("tiny") / "model.gguf"
    load = Load(
        path=str(tiny.KINDS["sliding" if window else request.param](path)), context=CONTEXT, slots=SLOTS, threads=1
    )
    return _in_little_memory(load) if window else Model(load)


def _in_little_memory(load: Load) -> Model:
    sizes = measure(load)
    kept = Rung(context=load.context, kv_type="f16", gpu_layers=0, whole_window=False)
    room = Room(ram=sizes.host(kept) + sizes.model + SPARE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("appliance.engine.load.free_room", lambda: room)
        model = Model(load)
    assert model.context == CONTEXT
    assert any("sliding window" in step for step in model.steps)
    return model


@pytest.fixture(autouse=True)
def _empty(model: Model) -> Iterator[None]:
    for slot in range(SLOTS):
        model.forget(slot)
    yield


class Page:
    """A sequence, and the tokens it holds."""

    def __init__(self, model: Model, slot: int, held: Sequence[int] = ()) -> None:
        self.model, self.slot, self.held = model, slot, list(held)

    def reads(self, tokens: Sequence[int], *, step: int = 300) -> Logits:
        """Let the sequence hold `tokens` and nothing else. The last is always computed; what comes behind it."""
        common = next((at for at, pair in enumerate(zip(self.held, tokens, strict=False)) if pair[0] != pair[1]), None)
        common = min(len(self.held), len(tokens)) if common is None else common
        self.start = self.model.rewind(self.slot, min(common, len(tokens) - 1))
        assert self.start <= common
        for at in range(self.start, len(tokens), step):
            piece = tokens[at : at + step]
            logits = self.model.decode([Row(self.slot, at, piece, at + len(piece) - 1)])
        self.held = list(tokens)
        return logits[-1].copy()

    def expects(self, tokens: Sequence[int]) -> Logits:
        """What the model thinks of every token behind `tokens`, and behind each of a few more."""
        rows = [self.reads(tokens)]
        start = self.start
        rows += [self.reads([*self.held, token]) for token in MORE]
        self.start = start
        return np.stack(rows)


def cold(model: Model, tokens: Sequence[int]) -> Logits:
    """What a sequence expects that was computed from scratch."""
    model.forget(SLOTS - 1)
    return Page(model, SLOTS - 1).expects(tokens)


def off(one: Logits, other: Logits) -> float:
    """How far apart two expectations are, against their own length."""
    return float(np.linalg.norm(one - other, axis=-1).max() / np.linalg.norm(other, axis=-1).max())


def test_a_longer_text_goes_on_where_the_shorter_one_ended(model: Model) -> None:
    page = Page(model, 0)
    page.reads(LONG[:1000])
    assert off(page.expects(LONG[:1040]), cold(model, LONG[:1040])) < ROUNDING
    page.reads(page.held)
    turn = [*page.held, *OTHER[:50]]
    assert off(page.expects(turn), cold(model, turn)) < ROUNDING


@pytest.mark.parametrize("back", [1, 2, 8, 31, 33, 100, 600, 1100])
@pytest.mark.parametrize("busy", [False, True])
def test_another_end_is_written_as_if_the_first_had_never_been(model: Model, back: int, busy: bool) -> None:
    page, neighbour = Page(model, 0), Page(model, 1)
    if busy:
        neighbour.reads(OTHER)
    page.reads(LONG[:1180])
    for token in LONG[1180:1200]:  # one at a time, as an answer is written
        page.reads([*page.held, token])
    changed = [*LONG[: 1200 - back], *OTHER[:2]]
    assert off(page.expects(changed), cold(model, changed)) < ROUNDING
    assert page.start == (1200 - back if model.rewinds else 0)
    if busy:
        assert off(neighbour.expects(OTHER), cold(model, OTHER)) < ROUNDING


def test_going_back_twice_is_as_good_as_once(model: Model) -> None:
    page = Page(model, 0)
    page.reads(LONG[:900])
    for end in (OTHER[:30], OTHER[40:60], OTHER[100:102]):
        text = [*LONG[:890], *end]
        assert off(page.expects(text), cold(model, text)) < ROUNDING


def test_a_copy_and_its_original_go_their_own_ways(model: Model) -> None:
    page, copy = Page(model, 0), Page(model, 1)
    copy.reads(OTHER[:100])  # what the copy held before is gone
    page.reads(LONG[:1000])
    model.copy(0, 1)
    copy.held = list(page.held)
    one, other = [*LONG[:1000], *OTHER[:3]], [*LONG[:1000], *OTHER[200:202]]
    assert off(copy.expects(other), cold(model, other)) < ROUNDING
    assert copy.start == 1000
    assert off(page.expects(one), cold(model, one)) < ROUNDING
    assert page.start == 1000


def test_a_copy_outlives_its_original(model: Model) -> None:
    page, copy = Page(model, 0), Page(model, 1)
    page.reads(LONG[:700])
    model.copy(0, 1)
    copy.held = list(page.held)
    model.forget(0)
    page.held = []
    assert off(page.expects(OTHER), cold(model, OTHER)) < ROUNDING
    text = [*LONG[:700], 65]
    assert off(copy.expects(text), cold(model, text)) < ROUNDING


def test_a_copy_that_goes_back_leaves_the_original_where_it_is(model: Model) -> None:
    page, copy = Page(model, 0), Page(model, 1)
    page.reads(LONG[:1000])
    model.copy(0, 1)
    copy.held = list(page.held)
    text = [*LONG[:990], *OTHER[:3]]
    assert off(copy.expects(text), cold(model, text)) < ROUNDING
    other = [*LONG[:1000], *OTHER[:3]]
    assert off(page.expects(other), cold(model, other)) < ROUNDING
    assert page.start == 1000


def test_what_was_saved_can_be_gone_back_to_again_and_again(model: Model) -> None:
    page = Page(model, 0)
    page.reads(LONG[:900])
    model.save(0)
    for end in (OTHER[:80], OTHER[80:82], OTHER[90:300], OTHER[:1]):
        text = [*LONG[:900], *end]
        assert off(page.expects(text), cold(model, text)) < ROUNDING
        assert page.start == 900


def test_a_saved_place_goes_along_with_a_copy_or_is_forgotten_by_it(model: Model) -> None:
    page, copy = Page(model, 0), Page(model, 1)
    page.reads(LONG[:900])
    model.save(0)
    page.reads(LONG[:1050])
    model.copy(0, 1)
    copy.held = list(page.held)
    text = [*LONG[:900], *OTHER[:2]]
    assert off(copy.expects(text), cold(model, text)) < ROUNDING
    assert off(page.expects(text), cold(model, text)) < ROUNDING
    assert page.start == 900
