"""Which token comes next? Drawn from the model's logits as one request asked for.

Rules:

1. Biases are added first, then the penalties, over the tokens of the answer only; then top-k, top-p, min-p and
   the temperature, in the order of llama.cpp's server, whose own samplers do this part.
2. Only what can matter is shown to those samplers: with top-k that is the k best tokens, found with numpy, which is
   several times cheaper than handing over a whole vocabulary for every token.
3. At temperature 0 the best token is taken and nothing is drawn.
4. Under a rule a token is drawn freely first, which is cheap; if it may not come, another is drawn among those that
   may. That gives each of them the same chance as if only they had been there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from appliance.engine.job import Refusal, Settings
from appliance.engine.vocabulary import Ids

Logits = NDArray[np.float32]


class Chain(Protocol):
    """llama.cpp's samplers with one request's settings and its own random numbers."""

    def draw(self, ids: Ids, logits: Logits) -> int: ...


class Rule(Protocol):
    """What an answer has to keep to, where it is too costly to say beforehand which tokens may come. The first letters
    of a token, `owed` of them, may be there already."""

    def allows(self, token: int, owed: int) -> bool: ...

    def among(self, logits: Logits, ids: Ids | None, owed: int, enough: int | None) -> Ids: ...


class Sampler:
    """One request's way of drawing tokens. It remembers the answer so far, for the penalties."""

    def __init__(self, settings: Settings, chain: Callable[[Settings], Chain], answered: Iterable[int] = ()) -> None:
        self._settings = settings
        self._chain = None if settings.greedy else chain(settings)
        self._bias_ids: Ids = np.array([token for token, _ in settings.logit_bias], dtype=np.int32)
        self._biases = np.array([bias for _, bias in settings.logit_bias], dtype=np.float32)
        self._penal = (
            settings.repeat_penalty != 1.0 or settings.frequency_penalty != 0.0 or settings.presence_penalty != 0.0
        )
        self._counts: Counter[int] = Counter(answered) if self._penal else Counter()
        self._top = settings.top_k if settings.top_k > 0 else None

    def draw(self, logits: Logits, allowed: Ids | None = None, rule: Rule | None = None, owed: int = 0) -> int:
        """The next token, out of `allowed` if that is given. The answer so far now ends with it.

        Raises `Refusal` if there is none, under this rule."""
        if len(self._biases) or self._counts:
            logits = self._adjusted(logits)
        some = logits if allowed is None else logits[allowed]
        token = self._drawn(some, allowed)
        if rule is not None and not rule.allows(token, owed):
            allowed = rule.among(some, allowed, owed, 1 if self._chain is None else self._top)
            if not len(allowed):
                raise Refusal("request", "The grammar can go on, but with no token of the model's.", param="grammar")
            token = self._drawn(logits[allowed], allowed)
        if self._penal:
            self._counts[token] += 1
        return token

    def _drawn(self, logits: Logits, allowed: Ids | None) -> int:
        best = int(logits.argmax())
        highest = logits[best]
        if not np.isfinite(highest):
            raise Refusal("server", "The local model computed numbers that are none; the answer cannot go on.")
        if self._chain is None:
            return best if allowed is None else int(allowed[best])
        chosen = self._candidates(logits, highest)
        if chosen is None:
            return self._chain.draw(np.arange(len(logits), dtype=np.int32) if allowed is None else allowed, logits)
        return self._chain.draw(chosen.astype(np.int32) if allowed is None else allowed[chosen], logits[chosen])

    def _candidates(self, logits: Logits, highest: np.float32) -> NDArray[np.intp] | None:
        """Places of the best tokens, at least as many as top-k wants; None: all of them."""
        if self._top is None or len(logits) <= 4 * self._top:
            return None
        for reach in (6.0, 12.0):
            near = np.flatnonzero(logits >= highest - reach)
            if len(near) >= self._top:
                return near
        return np.argpartition(logits, -self._top)[-self._top :]

    def _adjusted(self, logits: Logits) -> Logits:
        logits = logits.copy()
        if len(self._biases):
            np.add.at(logits, self._bias_ids, self._biases)
        if self._counts:
            settings = self._settings
            ids = np.fromiter(self._counts.keys(), dtype=np.int32, count=len(self._counts))
            counts = np.fromiter(self._counts.values(), dtype=np.float32, count=len(self._counts))
            some = logits[ids]
            some = np.where(some <= 0, some * settings.repeat_penalty, some / settings.repeat_penalty)
            logits[ids] = some - counts * settings.frequency_penalty - settings.presence_penalty
        return logits
