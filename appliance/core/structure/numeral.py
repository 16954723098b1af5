"""Which digits may follow in this number?

A number is read from the left, so what must be known at every digit is whether some further digits still lead to a
number that is allowed. That is decided exactly, in whole numbers and fractions; nothing is rounded.

Rules:

1. What somebody else wrote may look like any JSON number: `1.50`, `-0`, `15e-1`; for an integer also `3.0`.
2. What we write is plainer: an integer has no point, a bounded number no exponent, and digits come to an end
   (`MOST_WHOLE` before the point, `MOST_BEHIND` behind it, or as many as the bounds need). A model that has lost its
   way would write threes behind `0.` until its answer is cut off.
3. Exponents beyond those of floating-point numbers are refused: clients would read infinity.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

MOST_WHOLE = 20
MOST_BEHIND = 17
MOST_EXPONENT = 308  # of a floating-point number
LEAST_EXPONENT = -330
MOST_READ = 10**320  # of all digits as a whole number: what somebody else wrote may be long, but not endless
NEAR = 4

WHOLE, POINT, BEHIND, MARK, SIGN, EXPONENT = range(6)
"""What was read last: digits (or only a minus), a point, digits behind it, an `e`, its sign, its digits."""

DIGITS = b"0123456789"


class Digits(NamedTuple):
    """A number so far. `digits` is -1 before the first; if the rule has no bounds `digits` counts them instead, with
    0 for a leading zero."""

    part: int
    minus: bool
    digits: int
    behind: int = 0  # how many of them stand behind the point
    down: bool = False  # the exponent's sign
    power: int = 0


class Listed:
    """Numbers that were listed one by one, found by how they begin."""

    __slots__ = ("_digits", "_plain", "_powers", "values")

    def __init__(self, values: Iterable[Fraction]) -> None:
        self.values = frozenset(values)
        self._plain = sorted(map(_plainly, self.values))
        self._powers: dict[str, list[int]] = {}  # of ten, behind the digits that matter; a minus stands before those
        for value in self.values:
            digits, power = _normal(value)
            self._powers.setdefault("-" * (value < 0) + digits, []).append(power)
        self._digits = sorted(self._powers)

    def begins_plainly(self, at: Digits) -> bool:
        """Does one of them begin so, if it is written without an exponent and without zeros at its end?"""
        digits = str(at.digits).zfill(at.behind + 1)
        said = (
            digits if at.part == WHOLE else f"{digits[: len(digits) - at.behind]}.{digits[len(digits) - at.behind :]}"
        )
        return _some_begins(self._plain, "-" * at.minus + said)

    def begins(self, at: Digits) -> bool:
        """Does one of them begin so, if it may have an exponent?"""
        if at.digits == 0:
            fits = (value for value in self.values if not value or (value < 0) == at.minus)
            return any(abs(value) < 1 or at.part != WHOLE for value in fits)
        said = "-" * at.minus + str(at.digits)
        return said.rstrip("0") in self._powers or _some_begins(self._digits, said)

    def powers(self, at: Digits) -> list[int]:
        """The exponents that make one of them of these digits, which are not all zero."""
        said = str(at.digits)
        bare = said.rstrip("0")
        moved = at.behind - (len(said) - len(bare))
        return [power + moved for power in self._powers.get("-" * at.minus + bare, [])]


def _plainly(value: Fraction) -> str:
    behind = _behind(value)
    digits = str(abs(value.numerator) * (10**behind // value.denominator)).zfill(behind + 1)
    said = f"{digits[:-behind]}.{digits[-behind:]}" if behind else digits
    return "-" * (value < 0) + said


def _normal(value: Fraction) -> tuple[str, int]:
    """Its digits without zeros around them, and the power of ten they stand before."""
    behind = _behind(value)
    digits = str(abs(value.numerator) * (10**behind // value.denominator))
    bare = digits.rstrip("0")
    return bare, len(digits) - len(bare) - behind


def _some_begins(texts: list[str], said: str) -> bool:
    """Does one of these sorted texts begin so?"""
    place = bisect_left(texts, said)
    return place < len(texts) and texts[place].startswith(said)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Numeral:
    """Numbers from `low` to `high` (without them where it is `open`), multiples of `step`/10**`scale`; without a
    `scale` any number. Or one of `choices`."""

    low: Fraction | None = None
    high: Fraction | None = None
    low_open: bool = False
    high_open: bool = False
    scale: int | None = None
    step: int = 1
    choices: Listed | None = None
    plain: Numeral = field(init=False, repr=False)
    """The numbers of this rule that we would write: with an end to their digits."""
    weight: int = field(init=False, repr=False)
    """How much work a digit is, beside one of ordinary numbers; 0 if it is none."""

    def __post_init__(self) -> None:
        plain = self
        if self.scale is None and self.choices is None:
            needed = max((_behind(bound) for bound in (self.low, self.high) if bound is not None), default=0)
            plain = replace(self, scale=needed + MOST_BEHIND)
        object.__setattr__(self, "plain", plain)
        said = [part for bound in (self.low, self.high) if bound is not None for part in bound.as_integer_ratio()]
        bits = max((part.bit_length() for part in (self.step, *said)), default=0)
        object.__setattr__(self, "weight", 0 if self.free else 1 + bits // 100)

    @property
    def integer(self) -> bool:
        return self.scale == 0

    @property
    def free(self) -> bool:
        """Nothing has to be computed: any number, or any integer."""
        return self.choices is None and self.low is None and self.high is None and self.step == 1 and not self.scale

    def holds(self, value: Fraction) -> bool:
        if self.choices is not None:
            return value in self.choices.values
        if self.scale is not None and (value * 10**self.scale) % self.step:
            return False
        low, high = self.low, self.high
        above = low is None or value > low or (value == low and not self.low_open)
        return above and (high is None or value < high or (value == high and not self.high_open))


def _behind(value: Fraction) -> int:
    """How many digits behind the point say this value? At most so many as a floating-point number has."""
    twos = (value.denominator & -value.denominator).bit_length() - 1
    fives, rest = 0, value.denominator >> twos
    while rest % 5 == 0:
        rest //= 5
        fives += 1
    return min(max(twos, fives), -LEAST_EXPONENT) if rest == 1 else -LEAST_EXPONENT


def begin(rule: Numeral, byte: int, *, ours: bool) -> Digits | None:
    """The first byte of a number."""
    if byte == 0x2D:
        digits = Digits(WHOLE, True, -1)
        return digits if rule.free or _leads(rule.plain if ours else rule, digits, plainly=ours) else None
    return more(rule, Digits(WHOLE, False, -1), byte, ours=ours)


def more(rule: Numeral, at: Digits, byte: int, *, ours: bool) -> Digits | None:
    """The number with this byte behind it; None if that leads nowhere. `ours`: see rule 2, which gives way where what
    somebody else began can be ended in no plain way."""
    if rule.free:
        return _read(rule, at, byte, ours)
    if ours and (whole(rule, at) or at.digits < 0 or _leads(rule.plain, at, plainly=True)):
        following = _read(rule, at, byte, ours)
        return following if following is not None and _leads(rule.plain, following, plainly=True) else None
    following = _read(rule, at, byte, False)
    return following if following is not None and _leads(rule, following) else None


def _read(rule: Numeral, at: Digits, byte: int, ours: bool) -> Digits | None:
    if byte in DIGITS:
        return _digit(rule, at, byte - 48, ours)
    if byte == 0x2E:
        fits = at.part == WHOLE and at.digits >= 0 and not (ours and rule.integer)
        return at._replace(part=POINT) if fits else None
    if byte in b"eE":
        fits = at.part in (WHOLE, BEHIND) and at.digits >= 0 and not (ours and (rule.integer or not rule.free))
        return at._replace(part=MARK) if fits else None
    if byte in b"+-":
        down = byte == 0x2D
        fits = at.part == MARK and not (down and rule.free and rule.integer)
        return at._replace(part=SIGN, down=down) if fits else None
    return None


def _digit(rule: Numeral, at: Digits, digit: int, ours: bool) -> Digits | None:
    if at.part >= MARK:
        power = at.power * 10 + digit
        return (
            at._replace(part=EXPONENT, power=power)
            if power <= (-LEAST_EXPONENT if at.down else MOST_EXPONENT)
            else None
        )
    if at.part == WHOLE:
        if at.digits == 0:
            return None  # nothing follows a leading zero
        if rule.free:
            count = max(at.digits, 0) + 1 if ours and (at.digits > 0 or digit) else int(digit > 0 or at.digits > 0)
            return at._replace(digits=count) if count <= MOST_WHOLE else None
        return at._replace(digits=max(at.digits, 0) * 10 + digit) if at.digits < MOST_READ else None
    if rule.free:
        if rule.integer and digit:
            return None
        behind = at.behind + 1 if ours else 1
        return at._replace(part=BEHIND, behind=behind) if behind <= MOST_BEHIND else None
    if at.digits >= MOST_READ or at.behind >= -LEAST_EXPONENT:
        return None
    return at._replace(part=BEHIND, digits=at.digits * 10 + digit, behind=at.behind + 1)


def whole(rule: Numeral, at: Digits) -> bool:
    """May the number end here?"""
    if at.digits < 0 or at.part not in (WHOLE, BEHIND, EXPONENT):
        return False
    return rule.free or rule.holds(_value(at))


def _value(at: Digits) -> Fraction:
    value = Fraction(-at.digits if at.minus else at.digits, 10**at.behind)
    return value * Fraction(10) ** (-at.power if at.down else at.power)


# ------------------------------------------------------------------------------------------- does it lead anywhere?


@lru_cache(maxsize=4_096)
def _leads(rule: Numeral, at: Digits, *, plainly: bool = False) -> bool:
    """Is there an allowed number that begins so? `plainly`: without an exponent that is not there yet."""
    if at.part >= MARK:
        return _leads_by_power(rule, at)
    if at.digits < 0:
        zero = Digits(WHOLE, at.minus, 0)
        return any(_leads(rule, zero._replace(digits=digit), plainly=plainly) for digit in range(10))
    if rule.choices is not None:
        return rule.choices.begins_plainly(at) if plainly else rule.choices.begins(at)
    if plainly and rule.scale is not None and at.part != WHOLE and at.behind > rule.scale - (at.part == POINT):
        return False
    if _leads_by_digits(rule, at, plainly):
        return True
    scientific = not plainly and rule.scale is None and at.digits < 10 * 10**at.behind  # one digit before the point
    return scientific and _leads_by_power(rule, at._replace(part=MARK))


def _leads_by_digits(rule: Numeral, at: Digits, plainly: bool) -> bool:
    """Is there an allowed number among those that begin with these digits?"""
    low, high, low_open, high_open = rule.low, rule.high, rule.low_open, rule.high_open
    if at.minus:
        low, high = (None if high is None else -high), (None if low is None else -low)
        low_open, high_open = high_open, low_open
    if low is None or low < 0:
        low, low_open = Fraction(0), False
    if plainly and high is None:
        high = max(Fraction(10**MOST_WHOLE), 10 * low + 10 * rule.step)
    unit = Fraction(1, 10**at.behind)
    first, last = at.digits * unit, (at.digits + 1) * unit
    # With more digits before the point, the first number of them is ten times that, and so is the last. What some of
    # them hold between the bounds, ten times as many do: it is enough to look at both ends.
    most = MOST_EXPONENT if at.part == WHOLE and at.digits else 0
    least = min(max(_size(low / last), 0), most) if low else 0
    while least < most and last * 10**least <= low:
        least += 1
    if high is not None and most:
        most = min(max(_size(high / first), least) + 2 if high else least, most)
        while most > least and first * 10**most > high:
            most -= 1
    return any(
        _holds_some(rule, first * 10**power, last * 10**power, (low, low_open), (high, high_open))
        for power in {least, max(most - 1, least), most}
    )


def _holds_some(
    rule: Numeral, first: Fraction, last: Fraction, low: tuple[Fraction, bool], high: tuple[Fraction | None, bool]
) -> bool:
    """Is there an allowed number from `first` to just before `last`?"""
    if last <= low[0] or (high[0] is not None and (first > high[0] or (first == high[0] and high[1]))):
        return False
    if rule.scale is None:
        return high[0] is None or high[0] > low[0] or not (low[1] or high[1])
    grid = 10**rule.scale
    least, most = first * grid, last * grid
    begin = -(-least.numerator // least.denominator)
    end = -(-most.numerator // most.denominator) - 1
    edge = low[0] * grid
    begin = max(begin, edge.numerator // edge.denominator + 1 if low[1] else -(-edge.numerator // edge.denominator))
    if high[0] is not None:
        edge = high[0] * grid
        end = min(end, -(-edge.numerator // edge.denominator) - 1 if high[1] else edge.numerator // edge.denominator)
    return bool((end // rule.step) * rule.step >= begin)


def _leads_by_power(rule: Numeral, at: Digits) -> bool:
    """Is there an exponent, beginning with what is there of it, that makes the number an allowed one?"""
    if at.digits == 0:
        return rule.holds(Fraction(0))
    if rule.choices is not None:
        found = rule.choices.powers(at)
        return any(LEAST_EXPONENT <= power <= MOST_EXPONENT and _may_be(at, power) for power in found)
    value = Fraction(at.digits, 10**at.behind)
    low, high = (rule.low, rule.high) if not at.minus else (_minus(rule.high), _minus(rule.low))
    if high is not None and high <= 0:
        return False
    first = LEAST_EXPONENT if low is None or low <= 0 else _size(low / value)
    last = MOST_EXPONENT if high is None else _size(high / value) + 2
    powers = [power for power in range(max(first, LEAST_EXPONENT), min(last, MOST_EXPONENT) + 1) if _may_be(at, power)]
    if len(powers) > 2 * NEAR:  # between the ends one is as good as the other
        powers = powers[:NEAR] + powers[-NEAR:]
    return any(rule.holds(_value(at._replace(power=abs(power), down=power < 0))) for power in powers)


def _size(value: Fraction) -> int:
    """The power of ten that is next below it, or up to two less."""
    return math.floor((value.numerator.bit_length() - 1 - value.denominator.bit_length()) * math.log10(2))


def _minus(value: Fraction | None) -> Fraction | None:
    return None if value is None else -value


def _may_be(at: Digits, power: int) -> bool:
    """Could the exponent still become this one?"""
    if at.part != MARK and power and (power < 0) != at.down:
        return False
    return at.part != EXPONENT or at.power == 0 or str(abs(power)).startswith(str(at.power))
