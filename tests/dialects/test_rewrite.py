"""Only the bytes of the values that are meant change."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dialects import rewrite
from appliance.dialects.rewrite import with_members, with_model

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.just("model"), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("body", "after"),
    [
        (b'{"model":"a","n":1}', b'{"model":"new","n":1}'),
        (b'  { "n" : 1e0 ,\r\n\t"model" : "a" }\n', b'  { "n" : 1e0 ,\r\n\t"model" : "new" }\n'),
        (b'{"x":{"model":"a"},"y":["model","a"],"model":"a"}', b'{"x":{"model":"a"},"y":["model","a"],"model":"new"}'),
        (b'{"model":"a","model":"b"}', b'{"model":"new","model":"new"}'),
        (b'{"m\\u006fdel":"a"}', b'{"m\\u006fdel":"new"}'),
        (b'{"z":"\\"model\\":\\"a\\"","model":null}', b'{"z":"\\"model\\":\\"a\\"","model":"new"}'),
        (b'{"x":{"model":"a"},"mode\\u006C":"a"}', b'{"x":{"model":"a"},"mode\\u006C":"new"}'),
        (b'{"x \\"model":"a","model":"a"}', b'{"x \\"model":"a","model":"new"}'),
        (b'{"model":"a\\"b\\\\","n":"c"}', b'{"model":"new","n":"c"}'),
        (
            b'{"tools":[{"model":{"enum":["model"]}}],"model":"a"}',
            b'{"tools":[{"model":{"enum":["model"]}}],"model":"new"}',
        ),
        (b'{"n":1}', b'{"n":1}'),
        (b"{ }", b"{ }"),
    ],
)
def test_the_value_changes_and_nothing_else(body: bytes, after: bytes) -> None:
    assert with_model(body, "new") == after


def test_a_name_of_any_letters_is_written_as_json() -> None:
    assert json.loads(with_model(b'{"model":"a"}', 'q"\\\u00e9')) == {"model": 'q"\\\u00e9'}


@given(
    st.dictionaries(st.text().filter(lambda key: key != "model"), JSON, max_size=5),
    st.dictionaries(st.text().filter(lambda key: key != "model"), JSON, max_size=5),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
)
def test_whatever_stands_around_it_stays_as_it_was(
    before: dict[str, object], behind: dict[str, object], indent: str | int | None, ascii_only: bool
) -> None:
    whole = {**before, "model": "OLD MODEL", **behind}
    text = json.dumps(whole, indent=indent, ensure_ascii=ascii_only)
    try:
        body = text.encode()
    except UnicodeEncodeError:
        body = json.dumps(whole, indent=indent).encode()
    head, _, tail = body.partition(b'"OLD MODEL"')
    assert with_model(body, "x") == head + b'"x"' + tail


KEYS = st.sampled_from(
    ['"model"', '"m\\u006fdel"', '"MODEL"', '"\\"model"', '"mode\\u006C"', '"model\\\\"', '"x"', '"\\u006dodel"']
)
VALUES = st.recursive(
    st.sampled_from(['"a"', "null", "1", '"model"', '"\\"model\\":"', '"\\\\"', '"é"', '", \\"model"']),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(KEYS, inner), max_size=3).map(lambda pairs: written(pairs, " "))
    ),
    max_leaves=6,
)


def written(pairs: list[tuple[str, str]], space: str) -> str:
    return "{" + f",{space}".join(f"{key}{space}:{space}{value}" for key, value in pairs) + "}"


@given(
    st.lists(st.tuples(KEYS, VALUES), max_size=4),
    st.sampled_from(['"model"', '"m\\u006fdel"']),
    st.lists(st.tuples(KEYS, VALUES), max_size=4),
    st.sampled_from(["", " ", "\n\t"]),
)
def test_whatever_looks_like_the_key_only_the_key_has_another_value(
    before: list[tuple[str, str]], key: str, behind: list[tuple[str, str]], space: str
) -> None:
    pairs = [*before, (key, '"old\\""'), *behind]
    after = [(key, '"new"' if json.loads(key) == "model" else value) for key, value in pairs]
    assert with_model(written(pairs, space).encode(), "new") == written(after, space).encode()


def test_a_long_conversation_is_not_read_again_for_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(rewrite, "_values")
    said = {"role": "user", "content": 'say "model": or model'}
    body = {"messages": [said] * 9, "tools": [{"required": ["model"]}], "model": "old", "n": 1}
    assert json.loads(with_model(json.dumps(body).encode(), "new")) == {**body, "model": "new"}


@pytest.mark.parametrize(
    ("body", "after"),
    [
        (b'{"stream":false,"n":1}', b'{"stream":true,"n":1}'),
        (b' { "n" : 1e0 ,\n"stream" : null }\n', b' { "n" : 1e0 ,\n"stream" : true }\n'),
        (b'{"stream":1,"stream":2}', b'{"stream":true,"stream":true}'),
        (b'{"s\\u0074ream":0}', b'{"s\\u0074ream":true}'),
        (b' {"x":{"stream":false}}', b' {"stream":true,"x":{"stream":false}}'),
        (b'{"x":"\\"stream\\":false"}', b'{"stream":true,"x":"\\"stream\\":false"}'),
        (b"{ }", b'{"stream":true }'),
    ],
)
def test_a_member_gets_another_value_or_stands_at_the_beginning(body: bytes, after: bytes) -> None:
    assert with_members(body, {"stream": True}) == after


@given(st.dictionaries(st.text() | st.sampled_from(["a", "b"]), JSON, max_size=4), JSON, JSON, st.booleans())
def test_members_are_set_and_the_others_left(body: Any, one: Any, other: Any, escaped: bool) -> None:
    members = {"a": one, "b": other}
    changed = with_members(json.dumps(body, ensure_ascii=escaped, indent=1).encode(), members)
    assert json.loads(changed) == {**body, **members}
