"""What one upstream usually does, and so what is odd.

Rules:

1. One per upstream. Silences are judged for the whole upstream, speeds and lengths for each of its models; of models
   that were not asked for lately only so many are remembered.
2. A whole answer shows nothing before its end, so all there is to go by is how long others took that might be as long:
   those of its model and its class of `max_tokens`. Up to 256 tokens are one class, each four times as many the next,
   and no limit is one of its own.
3. "Yes" and an essay fall into one class. So nobody is held to less time than the longest answer of his class takes at
   `PACE`, as far as that is within `START`; and one long answer that ended gives more time at once, while it takes
   `ENOUGH` quick ones to give less than `START`.
4. An upstream that is slower than it is given time for would never be heard out, and nothing learned. So after an
   answer was given up the next one may take twice as long. If that is not enough either, it is not slow but silent,
   and there is no more of it until one has ended.
5. Told times (seconds, monotonic) and durations, it answers durations; it has no clock.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from appliance.core.drip import Usual
from appliance.core.first_words import FirstWords
from appliance.core.scopes import LONGEST_NAME, MODELS
from appliance.core.suspicion import ENOUGH, Suspicion

START = 60.0
LEAST = 20.0
PACE = 35.0  # tokens per second; the makers of slow models reckon with it when they forbid long answers unstreamed
USUAL_FACTOR = 3.0  # of what one in twenty exceeds,
LONGEST_FACTOR = 1.5  # and of the longest of the last
WINDOW = 100

SMALLEST, LARGEST = 256, 65_536  # classes of `max_tokens`


class Habits:
    """What one upstream usually does, and so what is odd."""

    __slots__ = ("_first_words", "_models", "suspicion")

    def __init__(self) -> None:
        self.suspicion = Suspicion()
        self._models: OrderedDict[str, _Model] = OrderedDict()  # the one used last stands last
        self._first_words = FirstWords()

    # ------------------------------------------------------------------------------------------- of one model

    def pace(self, model: str) -> Usual:
        """How fast this model usually writes."""
        return self._model(model).pace

    def whole(self, model: str, max_tokens: int | None) -> float:
        """Seconds that an answer may take which is not seen before its end."""
        size = _class(max_tokens)
        known = self._models.get(model[:LONGEST_NAME])
        lengths = known.lengths.get(size) if known is not None else None
        return lengths.limit(_least(size)) if lengths is not None else START

    def took(self, model: str, max_tokens: int | None, seconds: float) -> None:
        """An answer reached its end after so long."""
        self._lengths(model, max_tokens).ended(seconds)

    def gave_up(self, model: str, max_tokens: int | None, seconds: float) -> None:
        """An answer that was not seen before its end was not waited for any longer than this."""
        self._lengths(model, max_tokens).given_up(seconds)

    # ------------------------------------------------------------------------------------ of the whole upstream

    def began(self, seconds: float, now: float) -> None:
        """The first content of a streamed answer came after so long."""
        self._first_words.began(seconds, now)

    def first_content(self, now: float) -> float | None:
        """The median time until the first content of lately; ``None`` while there is too little to tell."""
        return self._first_words.usual(now)

    def slow(self, now: float) -> float | None:
        """The same, if it is worth a warning."""
        return self._first_words.slow(now)

    # ----------------------------------------------------------------------------------------------- decisions

    def _model(self, name: str) -> _Model:
        """From now on the one used last."""
        name = name[:LONGEST_NAME]
        model = self._models.get(name)
        if model is None:
            if len(self._models) >= MODELS:
                self._models.popitem(last=False)
            model = self._models[name] = _Model()
        self._models.move_to_end(name)
        return model

    def _lengths(self, model: str, max_tokens: int | None) -> _Lengths:
        return self._model(model).lengths.setdefault(_class(max_tokens), _Lengths())


class _Model:
    __slots__ = ("lengths", "pace")

    def __init__(self) -> None:
        self.pace = Usual()
        self.lengths: dict[int | None, _Lengths] = {}


class _Lengths:
    """How long the last answers of one class took."""

    __slots__ = ("_patience", "_seconds", "_tried")

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=WINDOW)
        self._patience = 0.0  # for one that is perhaps only slow
        self._tried = False  # has that been tried, without success?

    def ended(self, seconds: float) -> None:
        self._seconds.append(seconds)
        self._patience, self._tried = 0.0, False

    def given_up(self, seconds: float) -> None:
        if self._tried:
            return
        if self._patience == 0.0:
            self._patience = 2.0 * seconds
        elif seconds >= self._patience:
            self._patience, self._tried = 0.0, True

    def limit(self, least: float) -> float:
        count = len(self._seconds)
        if count == 0:
            return max(START, self._patience)
        ordered = sorted(self._seconds)
        known = max(LONGEST_FACTOR * ordered[-1], self._patience)
        if count < ENOUGH:
            return max(START, known)
        return max(least, USUAL_FACTOR * ordered[(count * 19 + 19) // 20 - 1], known)


def _class(max_tokens: int | None) -> int | None:
    """The most tokens of this class."""
    if max_tokens is None:
        return None
    most = SMALLEST
    while most < max_tokens and most < LARGEST:
        most *= 4
    return most


def _least(size: int | None) -> float:
    return START if size is None else min(max(size / PACE, LEAST), START)
