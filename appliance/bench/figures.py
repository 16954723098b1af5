"""From arrival times to the numbers that a benchmark prints. Pure arithmetic; seconds, and tokens per second."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
"""How many standard errors hold 95 %, with 1, 2, ... degrees of freedom."""
MANY = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Mean and sample deviation of `count` values; one value deviates by nothing, and says nothing about it."""

    mean: float
    deviation: float
    count: int

    @property
    def error(self) -> float:
        """Half of the 95 % interval of the mean; NaN where one value says nothing about it."""
        if self.count < 2:
            return math.nan
        times = STUDENT[self.count - 2] if self.count - 2 < len(STUDENT) else MANY
        return times * self.deviation / math.sqrt(self.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lived:
    """One answer as it was lived through: when it was asked, when each piece of text came, when it was over.

    `computed` tokens of its prompt were computed and `cached` were there already. `writing` is the time from its first
    token to its last.
    """

    asked: float
    pieces: tuple[float, ...]
    ended: float
    computed: int
    cached: int
    generated: int
    writing: float

    @property
    def first(self) -> float:
        """Seconds until the first piece of text, or until the end of an answer that has none."""
        return (self.pieces[0] if self.pieces else self.ended) - self.asked

    @property
    def speed(self) -> float | None:
        """Tokens per second after the first; nothing to say about an answer of one token."""
        return (self.generated - 1) / self.writing if self.generated > 1 and self.writing > 0 else None

    @property
    def gaps(self) -> tuple[float, ...]:
        return tuple(later - earlier for earlier, later in zip(self.pieces, self.pieces[1:], strict=False))

    @property
    def per_token(self) -> float | None:
        """Seconds of each token after the first (TPOT)."""
        return None if self.speed is None else 1 / self.speed


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One test, in llama-bench's terms: `n_prompt` tokens read and `n_gen` written, behind `n_depth` others.

    `speeds` are tokens per second, one for each round; with `n_parallel` answers at a time, those of all together,
    prompts included. Then `written` counts only what was written, and `each` is what one of them got.
    """

    n_prompt: int
    n_gen: int
    n_depth: int = 0
    n_parallel: int = 1
    speeds: tuple[float, ...]
    firsts: tuple[float, ...] = ()
    gaps: tuple[float, ...] = ()
    per_token: tuple[float, ...] = ()
    written: tuple[float, ...] = ()
    each: tuple[float, ...] = ()

    @property
    def test(self) -> str:
        """Its name, as llama-bench writes it."""
        parts = [f"pp{self.n_prompt}"] if self.n_prompt else []
        parts += [f"tg{self.n_gen}"] if self.n_gen else []
        depth = f" @ d{self.n_depth}" if self.n_depth else ""
        many = f" x {self.n_parallel}" if self.n_prompt and self.n_gen else ""
        return "+".join(parts) + depth + many

    @property
    def tokens(self) -> int:
        """Of one round."""
        return (self.n_prompt + self.n_gen) * self.n_parallel


def spread(values: Sequence[float]) -> Spread:
    if not values:
        return Spread(mean=math.nan, deviation=math.nan, count=0)
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return Spread(mean=math.fsum(values) / len(values), deviation=deviation, count=len(values))


def median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else math.nan


def lower_bound(values: Sequence[float]) -> float:
    """The lower end of a 95 % bootstrap interval of the median."""
    if not values:
        return math.nan
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(2000))
    return medians[50]


# ------------------------------------------------------------------------------------------------------- the rows


def reading(answers: Sequence[Lived], *, n_prompt: int, n_depth: int) -> Row:
    """How fast is a prompt read? Each answer is one token: over when the prompt was."""
    return Row(
        n_prompt=n_prompt,
        n_gen=0,
        n_depth=n_depth,
        speeds=tuple(answer.computed / (answer.ended - answer.asked) for answer in answers),
        firsts=tuple(answer.first for answer in answers),
    )


def writing(answers: Sequence[Lived], *, n_gen: int, n_depth: int) -> Row:
    """How fast is an answer written, once it has begun?"""
    return Row(
        n_prompt=0,
        n_gen=n_gen,
        n_depth=n_depth,
        speeds=_known(answer.speed for answer in answers),
        gaps=tuple(gap for answer in answers for gap in answer.gaps),
        per_token=_known(answer.per_token for answer in answers),
    )


def together(rounds: Sequence[Sequence[Lived]], *, n_prompt: int, n_gen: int) -> Row:
    """What do several get that ask at the same moment?"""
    everything, written = [], []
    for answers in rounds:
        lasted = max(answer.ended for answer in answers) - min(answer.asked for answer in answers)
        generated = sum(answer.generated for answer in answers)
        everything.append((sum(answer.computed for answer in answers) + generated) / lasted)
        written.append(generated / lasted)
    everybody = [answer for answers in rounds for answer in answers]
    return Row(
        n_prompt=n_prompt,
        n_gen=n_gen,
        n_parallel=len(rounds[0]),
        speeds=tuple(everything),
        firsts=tuple(answer.first for answer in everybody),
        gaps=tuple(gap for answer in everybody for gap in answer.gaps),
        per_token=_known(answer.per_token for answer in everybody),
        written=tuple(written),
        each=_known(answer.speed for answer in everybody),
    )


def _known(values: Iterable[float | None]) -> tuple[float, ...]:
    return tuple(value for value in values if value is not None)
