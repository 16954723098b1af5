"""The file as its owner wrote it: where a key is, and what of a wrong value may be shown."""

from __future__ import annotations

import pytest

from appliance.document import find_line, masked, shown

# ---------------------------------------------------------------------------------------------- positions

POSITIONS = '''# a comment with [server] and port = 1
title.deep = { a = 1 }

[server]
text = """
port = 3
[local]
"""
list = [
  1,
  2,
]
"quoted key" = 1

[[upstream]]
name = "a"
[[upstream]]
name = "b"
[upstream.aliases]
x = "y"
'''


@pytest.mark.parametrize(
    ("where", "line"),
    [
        (("title", "deep", "a"), 2),
        (("server",), 4),
        (("server", "text"), 5),
        (("server", "list"), 9),
        (("server", "quoted key"), 13),
        (("upstream", 0, "name"), 16),
        (("upstream", 1), 17),
        (("upstream", 1, "name"), 18),
        (("upstream", 1, "aliases", "x"), 20),
        (("server", "port"), None),
    ],
)
def test_the_line_of_a_key_is_the_one_where_it_begins(where: tuple[str | int, ...], line: int | None) -> None:
    assert find_line(POSITIONS, where) == line
    assert find_line(POSITIONS.replace("\n", "\r\n"), where) == line


# ---------------------------------------------------------------------------------------------- what is shown

ADDRESSES = {
    "ftp://cloud.example/v1": '"ftp://cloud.example/v1"',
    "cloud.example": '"cloud.example"',
    "http://cloud.example:3128": '"http://cloud.example:3128"',
    "http://[::1]:0/v1": '"http://[::1]:0/v1"',
    "http://[2001:db8::1/v1": '"http://[2001:***/v1"',
    "http://me:hush@proxy.example:0": '"http://***@proxy.example:0"',
    "me:hush@proxy.example": '"***@proxy.example"',
    "http://me:hu/sh@1@proxy.example/": '"http://***@proxy.example/"',
    "http://me:hush": '"http://me:***"',
    "http://me:hu?sh@proxy.example": '"http://me:***"',
    "https://cloud.example/v1?key=hush": '"https://cloud.example/v1?***"',
    "https://cloud.example/v1#hush": '"https://cloud.example/v1?***"',
    "hush-1234567890": "a string",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_shown_without_what_may_be_secret_in_it(address: str) -> None:
    assert masked(address) == ADDRESSES[address]
    assert "hush" not in masked(address)


def test_what_is_no_address_is_shown_as_any_value() -> None:
    assert [masked(value) for value in (5, True, ["hush"], {"a": "hush"})] == ["5", "true", "a list", "a table"]


def test_a_long_value_is_cut_and_a_secret_is_only_named_by_its_kind() -> None:
    assert shown("x" * 100) == '"' + "x" * 59 + "..."
    assert shown("hush", secret=True) == "a string"
