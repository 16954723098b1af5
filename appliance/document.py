"""The configuration file as its owner wrote it: checked tables, and one sentence with a line for each mistake.

`tomllib` gives values without positions, so a key's line is found by parsing ever longer beginnings of the file. Which
keys there are, `settings` knows; what they mean, `config` and `upstreams`.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from appliance.settings import SECTIONS, Key, Later, Unexpected, UnexpectedPart, UnknownName

FILE_NAME = "appliance.toml"
_LONGEST_SHOWN = 60
_KINDS = {str: "a string", bool: "a switch", dict: "a table", list: "a list", int: "a number", float: "a number"}

Where = Sequence[str | int]
"""The way to a key: the names and indices of the tables it is in, then its own name."""


class ConfigError(ValueError):
    """The configuration is wrong; `str()` is one sentence that says where and what to write instead."""


@dataclass(frozen=True, slots=True)
class Document:
    path: Path
    text: str

    def wrong(self, where: Where, sentence: str) -> ConfigError:
        """The mistake at this key, to be raised."""
        line = find_line(self.text, where)
        return ConfigError(f"{self.path}, line {line}: {sentence}" if line else f"{self.path}: {sentence}")

    def read(self, section: str, table: Any, index: int | None = None) -> dict[str, Any]:
        """The accepted values of one table of the file, by key."""
        at: tuple[str | int, ...] = (section,) if index is None else (section, index)
        if not isinstance(table, dict):
            brackets = f"[{section}]" if index is None else f"[[{section}]]"
            raise self.wrong(at, f"{section} is {shown(table)}, but it must be a table that begins with {brackets}.")
        keys, values = SECTIONS[section], {}
        for key, value in table.items():
            if key not in keys:
                raise self.wrong((*at, key), f'[{section}] has no key "{key}"; {suggestion(key, keys)}')
            rule = keys[key]
            if isinstance(rule, Later):
                if not any(value == today and type(value) is type(today) for today in rule.today):
                    raise self.wrong((*at, key), f"{section}.{key} is not in this version yet; remove it.")
                continue
            try:
                values[key] = rule.accept(value)
            except UnknownName as unknown:
                sentence = f'{section}.{key} has no key "{unknown.name}"; {suggestion(unknown.name, unknown.known)}'
                raise self.wrong((*at, key, unknown.name), sentence) from None
            except UnexpectedPart as part:
                sentence = refused(part.value, replace(rule, expected=part.expected), part)
                raise self.wrong((*at, key, *part.at), f"{section}.{key}{_way(part.at)} is {sentence}") from None
            except Unexpected as reason:
                raise self.wrong((*at, key), f"{section}.{key} is {refused(value, rule, reason)}") from None
        return values

    def beside(self, path: str, home: Path) -> Path:
        """A path as the file means it: `~` is home, and relative is relative to the file."""
        if path == "~" or path.startswith("~/"):
            return home / path[2:]
        return Path(os.path.abspath(self.path.parent / path))


def open_document(path: Path) -> tuple[Document, dict[str, Any]]:
    """The file and its tables. Raises `ConfigError` if there is no such file, or if it is no TOML."""
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist; give the path of an {FILE_NAME}, or none for the defaults."
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        return Document(path, text), tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", str(error), re.DOTALL)
        reason, line = (found[1], found[2] or text.count("\n") + 1) if found else (str(error), "?")
        column = f", column {found[3]}" if found and found[3] else ""
        raise ConfigError(f"{path}, line {line}{column}: this is not TOML: {reason}.") from None


# -------------------------------------------------------------------------------------------------- positions


def find_line(text: str, where: Where) -> int | None:
    """In which line of this TOML text does the key at `where` begin?

    Statements end where a beginning of the file parses; the one that made the key appear is the one that holds it.
    """
    lines = text.split("\n")
    parsed = 0
    for end in range(1, len(lines) + 1):
        try:
            table = tomllib.loads("\n".join(lines[:end]) + "\n")
        except tomllib.TOMLDecodeError:
            continue
        if _holds(table, where):
            return parsed + 1
        parsed = end
    return None


def _holds(table: Any, where: Where) -> bool:
    for step in where:
        try:
            table = table[step]
        except (KeyError, IndexError, TypeError):
            return False
    return True


# ---------------------------------------------------------------------------------------------------- sentences


def refused(value: Any, rule: Key, reason: Unexpected) -> str:
    """The end of a sentence: what was found, why it will not do, and what would."""
    because = f"which {reason};" if str(reason) else "but"
    found = masked(value) if rule.address else shown(value, secret=rule.secret)
    return f"{found}, {because} it must be {rule.expected}."


def _way(at: Where) -> str:
    """The way from a key to a part of its value, as TOML would write it."""
    steps = (f"[{step}]" if isinstance(step, int) else "." + _quoted(step) for step in at)
    return "".join(steps)


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else shown(name)


def shown(value: Any, *, secret: bool = False) -> str:
    """The value as its owner wrote it, cut to a sentence's size; of a secret only its kind."""
    if not secret and value in ([], {}):
        return "an empty " + ("list" if value == [] else "table")
    if secret or isinstance(value, dict | list):
        return _KINDS.get(type(value), "a date")
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else str(value)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."


def masked(value: Any) -> str:
    """An address without what may be secret in it: user and password, the query, and what is no number after the
    host. A word with nothing of an address is only called a string: it may be a key in the wrong place."""
    if not isinstance(value, str) or not re.search(r"[./:]", value):
        return shown(value, secret=isinstance(value, str))
    text = re.sub(r"[?#].*", "?***", value, count=1, flags=re.DOTALL)
    scheme, slashes, rest = text.partition("://") if "://" in text else ("", "", text)
    if "@" in rest:  # up to the last one: a password may hold any sign
        rest = "***@" + rest.rpartition("@")[2]
    authority, slash, path = rest.partition("/")
    authority = re.sub(r":(?![\d.:\]]*(?:\]|$))[^\]]*$", ":***", authority)
    return shown(scheme + slashes + authority + slash + path)


def suggestion(word: str, known: Mapping[str, object]) -> str:
    """What was probably meant, or else all there is."""
    close = difflib.get_close_matches(word, known, n=1)
    return f'did you mean "{close[0]}"?' if close else f"it knows {', '.join(sorted(known))}."
