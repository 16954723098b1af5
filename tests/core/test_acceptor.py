"""Documents somebody else began, byte by byte."""

import json
import os
import random
import subprocess
import sys

import pytest

from appliance.core.structure import SchemaError, grammar, shortest, start
from tests.core import schemas

ANYTHING = grammar(True)
TOOL = grammar(
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 20},
            "days": {"type": "integer", "minimum": 1, "maximum": 14},
            "unit": {"enum": ["celsius", "fahrenheit"]},
        },
        "required": ["city", "unit"],
        "additionalProperties": False,
    }
)


def obj(*names):
    return {"type": "object", "properties": {name: {} for name in names}}


def read(text, made=TOOL):
    return start(made).feed(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    ("committed", "may", "may_not"),
    [
        ("", [" \n", "{", '{"un'], ["[", '"', "}"]),
        ('{"', ["city", "d", "\\u0063ity"], ['"', "x", "\\u0078", "cities", "\\n"]),
        ('{"ci', ['ty"', "\\u0074y"], ['"', "vil"]),
        ('{"city"', [":", "\r\n :"], [",", '"']),
        ('{"city": "x\\', ["n", 'u00e9"', "ud83d\\ude00"], ["x", "ud83d\\u0041", "ude00", "ud83d "]),
        ('{"city": "x\\ud8', ['3d\\ude00"'], ['3d"', "x"]),
        ('{"city": "x\\ud83d\\ud', ["e", "Dff"], ["7", "8"]),
        ('{"unit": "cel\\u00', ["73"], ["74", "53"]),
        ('{"unit": "fahrenheit"', [',"', "\t,"], ["}", ',"unit":']),
        ('{"days": 1', ["0", "4,", " ,", ".0,"], ["5", "}", "e2", "00"]),
        ('{"days": ', ["7,", "1"], ["0", "-1", "15", '"']),
        ('{"unit":"celsius","city":""', ["}", ',"days":3}'], [',"x', ',"city'],),
        ('{"unit":"celsius","city":"","days":2', ["}", ".0 }"], [",", "0"]),
        ('{"unit":"celsius","city":""}', [" \n "], ["x", "}", ","]),
    ],
)  # fmt: skip
def test_it_goes_on_from_where_somebody_stopped(committed, may, may_not):
    here = read(committed)
    assert [text for text in may if here.feed(text.encode()) is None] == []
    assert [text for text in may_not if here.ours().feed(text.encode()) is not None] == []


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        (b'"\xc3\xa9 \xe4\xb8\xad \xf0\x9f\x98\x80"', True),
        (b'"\xc3"', False),
        (b'"\x80"', False),
        (b'"\xc0\xaf"', False),
        (b'"\xe0\x80\xaf"', False),
        (b'"\xed\xa0\x80"', False),
        (b'"\xf4\x90\x80\x80"', False),
        (b'"\xff"', False),
        (b'"\n"', False),
        (b'"\x7f"', True),
        (b'"\\q"', False),
        (b'"\\u12g4"', False),
        (b'\xef\xbb\xbf""', False),
        (b"[1 2]", False),
        (b'{"a":1,"\\u0061":2}', False),
        (b'{"a":1,}', False),
        (b"[tru]", False),
        (b"1e309", False),
        (b"-", False),
    ],
)
def test_what_is_no_json_is_not_accepted(text, whole):
    state = read(text, ANYTHING)
    assert bool(state and state.complete) is whole


def test_a_number_at_the_top_may_end_or_go_on_and_a_string_is_over():
    number, string = read("12", ANYTHING), read('"x" ', ANYTHING)
    assert (number.complete, number.over) == (True, False)
    assert (string.complete, string.over) == (True, True)
    assert (read("-", ANYTHING).complete, read("[", ANYTHING).complete) == (False, False)


def test_states_are_values():
    one, other = read('{"city": "Oslo", "days"'), read('{ "\\u0063ity":"Rome" ,\n"d').feed(b'ays"')
    assert one == other and hash(one) == hash(other) and len({one, other}) == 1
    assert one != read('{"city": "Oslo"') and one != one.ours()


def test_white_space_of_any_amount_is_accepted():
    assert read(" " * 100_000 + "{" + "\n" * 100_000) == read("{")


def test_endless_nesting_ends():
    assert read("[" * 400, ANYTHING) is not None
    assert read("[" * 100_000, ANYTHING) is None


def test_what_we_write_ourselves_is_plain():
    whole = grammar({"type": "integer"})
    assert read("3", whole).feed(b".") is not None
    assert read("3", whole).ours().feed(b".") is None
    assert read("3.", whole).ours().feed(b"0") is not None  # what was begun can be ended
    assert start(ANYTHING).ours().feed(b"0." + b"3" * 17) is not None
    assert start(ANYTHING).ours().feed(b"0." + b"3" * 18) is None


def ours(made, committed, text):
    state = start(grammar(made)).feed(committed.encode())
    return state is not None and state.ours().feed(text.encode()) is not None


NAMED = {"type": "object", "properties": {"city": {}, "unit": {}}, "required": ["city"]}
BY_PATTERN = NAMED | {"patternProperties": {"^n": {}}}


@pytest.mark.parametrize(
    ("made", "committed", "may", "may_not"),
    [
        (NAMED, "", ['{"city":1}', '{"unit":1,"city":2}'], ['{"t', '{"city_', '{""', '{"unit":1,"t']),
        (NAMED, '{"unit":1,"city":2', ["}"], [","]),
        (NAMED, '{"ci', ['ty"'], ["v"]),
        (NAMED, '{"c\\u00', ['69ty"'], ["70"]),
        (NAMED, '{"', ["city"], ["x", '"']),
        (NAMED | {"additionalProperties": True}, "", ['{"type"'], []),
        (NAMED | {"additionalProperties": {"type": "null"}}, "", ['{"type":null'], ['{"type":1']),
        (NAMED | {"additionalProperties": False}, "", ['{"unit"'], ['{"t']),
        (NAMED | {"unevaluatedProperties": {}}, "", ['{"type"'], []),
        ({"allOf": [NAMED, {"additionalProperties": {}}]}, "", ['{"type"'], []),
        ({"allOf": [NAMED, {"type": "object"}]}, "", ['{"city"'], ['{"t']),
        (BY_PATTERN, "", ['{"n1"', '{"city"'], ['{"t']),
        (BY_PATTERN, '{"n', ["x"], []),
        (NAMED | {"patternProperties": {"^n.*m$": {}}}, '{"n', ['m":1'], ['x"']),
        (BY_PATTERN, '{"u', ["nit"], ["x"]),
        (BY_PATTERN | {"additionalProperties": {}}, "", ['{"type"'], []),
        ({"type": "object", "properties": {}}, "", ["{}"], ['{"']),
        ({"type": "object"}, "", ['{"type"'], []),
        ({"type": "object", "required": ["a"]}, "", ['{"type"'], []),
        (NAMED | {"minProperties": 3}, "", ['{"type"'], []),
        (NAMED | {"minProperties": 2}, '{"city":1', [',"unit"'], ["}", ',"t']),
    ],
)  # fmt: skip
def test_we_write_the_keys_that_a_schema_names_or_asks_for(made, committed, may, may_not):
    assert [text for text in may if not ours(made, committed, text)] == []
    assert [text for text in may_not if ours(made, committed, text)] == []


def test_a_key_of_somebody_elses_is_ended_and_the_next_is_one_of_the_schemas():
    assert ours(NAMED, '{"ty', 'pe":1,"city":2}')
    assert not ours(NAMED, '{"ty', 'pe":1,"x')
    assert read('{"ty', grammar(NAMED)).feed(b'pe":1,"x":2,"city":3}').complete
    assert ours(NAMED, '{"city":1,"unit":2,', '"more":3}')  # the comma stands there
    assert not ours(NAMED, '{"city":1,"unit":2,', '"more":3,')


@pytest.mark.parametrize(
    ("made", "committed", "may", "may_not"),
    [
        (obj("city"), '{"', ['city"'], ["c\\u0069", "\\"]),
        (obj('q"t', "b/c", "é", "a\n"), '{"', ['q\\"t"', 'b/c"', 'é"', 'a\\n"', "a\\u000A"], ["q\\u", "b\\", "\\"]),
        (True, '{"', ["\\n", '\\"', "\\\\", "\\u001f", "\\t"], ["\\/", "\\u0041", "\\u002", "\\ud83d", "\\u007f"]),
        (obj("city"), '{"c\\', ["u0069"], []),
        (True, '{"c\\u00', ["69", "e9"], []),
        (True, '{"c\\ud83d', ["\\ude00"], []),
        (obj("city"), '{"city":"', ["\\u0041", "\\/"], []),
        ({"enum": ["celsius", "/", 'q"t']}, '"', ["celsius", "/", 'q\\"'], ["\\", "c\\u0065", "q\\u"]),
        ({"const": "xé"}, '"x', ["é"], ["\\u00e9"]),
        ({"type": "string", "format": "date"}, '"20', ["26"], ["\\u0032"]),
        ({"type": "string", "pattern": '^["a\n]+$'}, '"a', ['\\"', "\\n", "\\u000a"], ["\\u0061", "\\u0022"]),
        ({"const": "cel"}, '"c\\u00', ["65l"], []),
    ],
)  # fmt: skip
def test_in_keys_and_bounded_strings_we_escape_what_has_to_be(made, committed, may, may_not):
    assert [text for text in may if not ours(made, committed, text)] == []
    assert [text for text in may_not if ours(made, committed, text)] == []


@pytest.mark.parametrize(
    ("may", "may_not"),
    [
        ('{"a": 1, "b": [1, 2]}', '{"a" '),
        ('{"a":1,"b":[1,2]}', '{"a":  '),
        ('{\n  "a": 1,\n\t"b": [\n    1\n  ]\n}', '{"a":\n'),
        ('{ "a": [ ] }', '{"a":\t'),
        ('[{}, {\n}]', '{"a":1, "b":1 ,'),
        ('[1 ]', "[1 ,"),
        ('[1\n]', "[1\n,"),
        ("[\"x\"\n]", '["x"  '),
        ("[1,\n1]", "[1,  "),
        ("[1, 1]", "[1, \n"),
        ("\n\n{}", "\n\n\n"),
        (" {}", "  "),
        ("\n[]", "[\n\n"),
        ("1", "1 "),
        ("{}", "{} "),
        ('{"a": 1}', "[\r"),
        ('{"a": 1}', "[\t"),
    ],
)  # fmt: skip
def test_our_white_space_is_that_of_everybody(may, may_not):
    assert ours(True, "", may) and not ours(True, "", may_not)


def test_behind_our_white_space_what_must_come_can_come():
    assert not ours(NAMED, "", '{"unit": 1\n')
    assert not ours({"type": "array", "minItems": 2}, "", "[1 ")
    assert ours(NAMED, '{"unit" \n', ': 1, "city"') and not ours(NAMED, '{"unit" \n', " ")
    assert ours(NAMED, '{"city": 1 ', ', "unit"')


@pytest.mark.long
def test_a_document_is_ours_in_each_of_the_usual_layouts_or_in_none():
    layouts = ({}, {"separators": (",", ":")}, {"indent": 2}, {"indent": 4}, {"indent": "\t"})
    seen = {True: 0, False: 0}
    for made, rules, _, documents in cases(4_000, 200):
        for value in documents:
            here = {
                start(rules).ours().feed(json.dumps(value, ensure_ascii=False, **layout).encode()) is not None
                for layout in layouts
            }
            assert len(here) == 1, (made, value)
            seen[here.pop()] += 1
    assert seen[True] > 2 * seen[False] > 20  # strange keys, and numbers of many digits


def test_a_bounded_number_begun_oddly_can_still_be_ended():
    bounded = grammar({"type": "number", "minimum": 1.25, "maximum": 2})
    assert read("150", bounded) is None  # nobody writes 150e-2
    for committed in ("1.", "1.99999999999999999999999", "1.3e", "1.5e-"):
        state = read(committed, bounded)
        end = shortest(state.ours())
        assert 1.25 <= json.loads(committed + end.decode()) <= 2


def test_a_number_says_how_much_work_its_digits_are():
    weights = [
        grammar({"type": "number", **bounds}).nodes[0][0].number.weight
        for bounds in ({}, {"minimum": 1}, {"minimum": 1e300}, {"multipleOf": 1e-30})
    ]
    assert weights[:2] == [0, 1] and weights[2] > 9 and weights[3] >= 1


def cases(first, count):
    """Schemas by chance, each with a few documents that a validator likes."""
    for number in range(first, first + count):
        chance = random.Random(number)
        made = schemas.schema(chance)
        try:
            rules = grammar(made)
        except SchemaError:
            continue
        documents = (schemas.document(made, chance) for _ in range(4))
        yield made, rules, chance, [value for value in documents if schemas.fits(made, value)]


@pytest.mark.long
def test_documents_are_accepted_at_every_byte_however_they_are_spelled():
    seen = 0
    for made, rules, chance, documents in cases(0, 200):
        for value in documents:
            data = schemas.spelled(value, chance).encode()
            state = start(rules)
            for place, byte in enumerate(data):
                state = state.feed(bytes([byte]))
                assert state is not None, (made, data[: place + 1])
            assert state.complete, (made, data)
            seen += 1
    assert seen > 300


@pytest.mark.long
def test_damaged_documents_are_accepted_only_if_a_validator_likes_them():
    found = {True: 0, False: 0}
    for made, rules, chance, documents in cases(1_000, 200):
        for value in documents:
            for _ in range(4):
                value = schemas.damaged(value, chance)
                state = read(schemas.spelled(value, chance), rules)
                fits = schemas.fits(made, value)
                assert bool(state and state.complete) is fits, (made, value)
                found[fits] += 1
    assert min(found.values()) > 100


@pytest.mark.long
def test_from_wherever_a_document_was_cut_it_can_be_ended():
    for made, rules, chance, documents in cases(2_000, 200):
        for value in documents:
            data = schemas.spelled(value, chance).encode()
            for _ in range(4):
                cut = chance.randrange(len(data) + 1)
                state = start(rules).feed(data[:cut])
                end = shortest(state.ours())
                closed = state.ours().feed(end)
                assert closed is not None and closed.complete, (made, data[:cut], end)
                assert schemas.fits(made, json.loads(data[:cut] + end)), (made, data[:cut], end)


ENDS = """
import random
from appliance.core.structure import SchemaError, shortest, start
from appliance.core.structure.schema import grammar
from tests.core import schemas

for number in range(60):
    chance = random.Random(number)
    made = schemas.schema(chance)
    try:
        rules = grammar(made)
    except SchemaError as refused:
        print(number, refused)
        continue
    for data in (b"", b"{", b"[", b'"', b'{"', b'{"a'):
        for state in (start(rules), start(rules).ours()):
            here = state.feed(data)
            print(number, data, here and shortest(here))
for listed in ([True, None], ["red", "tan", "sky"], [{"b": 1, "a": 2}, {"c": 3, "d": 4}]):
    rules = grammar({"type": "array", "items": {"enum": listed}, "minItems": 1})
    print(shortest(start(rules)), shortest(start(rules).feed(b"[")))
"""


@pytest.mark.live
def test_how_a_document_ends_does_not_depend_on_how_python_hashes():
    ends = [
        subprocess.Popen(
            [sys.executable, "-c", ENDS],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.getcwd()},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for seed in ("1", "2", "3")
    ]
    said = [one.communicate(timeout=60) for one in ends]
    assert said[0][0].count(b"\n") > 300, said[0][1].decode()
    assert said[1:] == said[:1] * 2
