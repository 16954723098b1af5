"""What does this JSON object hold, and if it is not what it should be, how do we say so in one sentence?

Every reader takes an object, a key and the path of the object, gives `None` for what is absent or null, and raises
`BackendError` (REQUEST, 400, param) for what has the wrong type. A value of the right type that we cannot use is no
mistake yet: it is noted in `Seen`, and the cloud that gets the client's bytes judges for itself. No sentence repeats
what the client wrote.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from appliance.core.fault import BackendError, Fault

Object = Mapping[str, Any]
LARGEST = sys.float_info.max

UNNAMED = "unknown"
"""Stands for a name that could not be told in a header."""
_NAME = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")


def tellable(name: str) -> str:
    """`name` as the client wrote it, if it can be repeated anywhere."""
    return name if _NAME.fullmatch(name) else UNNAMED


def told(names: Iterable[str]) -> tuple[str, ...]:
    """Names from a client, each once, in their order."""
    return tuple(dict.fromkeys(map(tellable, names)))


@dataclass(slots=True)
class Seen:
    """What was met on the way through a body: what the answer needs, what others cannot be told, what we doubt."""

    needs: set[str] = field(default_factory=set)
    foreign: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    """Top-level fields that the vocabulary has words for, but not for what is in them here."""
    doubts: list[tuple[str, str]] = field(default_factory=list)

    def doubt(self, path: str, flaw: str) -> None:
        """What stands at `path` would be a mistake if only the box could answer."""
        self.doubts.append((path, f"{path} {flaw}."))

    def unusable(self, path: str, flaw: str, *, matters: bool) -> None:
        """`doubt`, and the vocabulary goes without it. `matters`: the answer would be another one."""
        self.doubt(path, flaw)
        if matters:
            self.foreign.append(path)
        else:
            self.lost.add(path.partition(".")[0])


def refusal(path: str, sentence: str, *, status: int = 400, code: str | None = None) -> BackendError:
    """The caller's mistake, with the path of the field at fault."""
    return BackendError(Fault.REQUEST, sentence, status=status, param=path or None, code=code)


def required(owner: Object, key: str, path: str, why: str) -> str:
    """The text that has to stand there; `why` says what for."""
    value = string(owner, key, path)
    if value is None:
        raise refusal(at(path, key), f"{at(path, key)} is missing; {why}.")
    return value


def kind(value: object) -> str:
    """The JSON type of a value, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, list | tuple):
        return "a list"
    return "an object"


def wrong(path: str, expected: str, value: object) -> BackendError:
    """`path` holds something of another type than `expected` says."""
    return refusal(path, f"{path} must be {expected}, not {kind(value)}.")


def at(path: str, key: str | int) -> str:
    """The path of a member of `path`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def document(body: bytes) -> dict[str, Any]:
    """A request body as its JSON object. Of a repeated key the last one counts."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise refusal("", f"The request body is not UTF-8 text: byte {error.start} does not fit.") from None
    if not text.strip():
        raise refusal("", "The request body is empty; send a JSON object.")
    try:
        found = json.loads(text, parse_constant=_constant)
    except json.JSONDecodeError as error:
        # Only the position: the words of the parser can repeat the body.
        where = f"line {error.lineno}, column {error.colno} (character {error.pos})"
        raise refusal("", f"The request body is not valid JSON; it goes wrong at {where}.") from None
    except RecursionError:
        raise refusal("", "The request body is nested too deeply; use fewer levels of lists and objects.") from None
    except ValueError:
        raise refusal("", "The request body holds a number with too many digits.") from None
    if not isinstance(found, dict):
        raise refusal("", f"The request body must be a JSON object, not {kind(found)}.")
    return found


def _constant(name: str) -> float:
    raise refusal("", f"The request body holds {name}, which is not a JSON number.")


def string(owner: Object, key: str, path: str = "") -> str | None:
    value = owner.get(key)
    if value is None or isinstance(value, str):
        return value
    raise wrong(at(path, key), "a string", value)


def flag(owner: Object, key: str, path: str = "") -> bool | None:
    value = owner.get(key)
    if value is None or isinstance(value, bool):
        return value
    raise wrong(at(path, key), "true or false", value)


def mapping(owner: Object, key: str, path: str = "") -> dict[str, Any] | None:
    value = owner.get(key)
    if value is None or isinstance(value, dict):
        return value
    raise wrong(at(path, key), "an object", value)


def schema(owner: Object, key: str, seen: Seen, path: str, *, anything: Object) -> Object | None:
    """A JSON schema; `true` is one too, and means `anything`. What is none is doubted, and absent for us."""
    value = owner.get(key)
    if value is None or isinstance(value, dict):
        return value
    if value is True:
        return anything
    said = "false, which nothing fits" if value is False else kind(value)
    seen.unusable(at(path, key), f"must be a JSON schema, such as {{}}, not {said}", matters=True)
    return None


def sequence(owner: Object, key: str, path: str = "") -> list[Any] | None:
    value = owner.get(key)
    if value is None or isinstance(value, list):
        return value
    raise wrong(at(path, key), "a list", value)


def objects(owner: Object, key: str, path: str = "") -> list[dict[str, Any]]:
    """A list of objects, empty if absent."""
    found = sequence(owner, key, path) or []
    for index, item in enumerate(found):
        if not isinstance(item, dict):
            raise wrong(at(at(path, key), index), "an object", item)
    return found


def number(
    owner: Object,
    key: str,
    seen: Seen,
    path: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    matters: bool = False,
) -> float | None:
    """A number; one that we cannot use is doubted, and absent for us."""
    value = owner.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(at(path, key), "a number", value)
    if (flaw := _flaw(value, low, high)) is not None:
        seen.unusable(at(path, key), flaw, matters=matters)
        return None
    return float(value)


def integer(
    owner: Object,
    key: str,
    seen: Seen,
    path: str = "",
    *,
    low: int | None = None,
    high: int | None = None,
    matters: bool = False,
) -> int | None:
    """A whole number, likewise; 100.0 counts as one, since some languages know only one kind of number."""
    value = owner.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(at(path, key), "a whole number", value)
    flaw = _flaw(value, low, high)
    if flaw is None and isinstance(value, float) and not value.is_integer():
        flaw = "must be a whole number, not a fraction"
    if flaw is not None:
        seen.unusable(at(path, key), flaw, matters=matters)
        return None
    return int(value)


def _flaw(value: int | float, low: float | None, high: float | None) -> str | None:
    """Why we cannot use this number, if we cannot."""
    if not -LARGEST <= value <= LARGEST:
        return "is too large a number"
    under, over = low is not None and value < low, high is not None and value > high
    if not under and not over:
        return None
    if low is None:
        return f"must be at most {high:g}"
    return f"must be at least {low:g}" if high is None else f"must be {low:g} to {high:g}"


# What JSON makes of an object again need not be searched for circles.
_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)


def text_of(value: object) -> str:
    """A value as JSON without white space, readable; half a surrogate pair stays an escape."""
    text = _COMPACT.encode(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text


def compact(value: object) -> bytes:
    """A value as JSON without white space, as UTF-8."""
    return text_of(value).encode()
