"""Only the bytes of the model's value change."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dialects.rewrite import with_model

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
