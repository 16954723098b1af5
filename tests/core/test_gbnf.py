"""A text keeps to its grammar character by character, and no grammar can make the reader of it run away."""

from __future__ import annotations

import json
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.gbnf import GrammarError, Place, read

JSON = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# a space, if it likes
ws ::= | " " | "\n" [ \t]{0,20}
"""


def after(grammar: str, text: str | bytes) -> Place | None:
    return read(grammar).start.feed(text if isinstance(text, bytes) else text.encode())


def takes(grammar: str, text: str) -> bool:
    place = after(grammar, text)
    return place is not None and place.complete


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        ('root ::= "yes" | "no"', ["yes", "no"], ["", "ye", "yess", "maybe"]),
        ('root ::= "ab"*', ["", "ab", "abab"], ["a", "aba", "b"]),
        ('root ::= "a"+ "b"?', ["a", "aab"], ["", "b", "abb"]),
        ('root ::= [a-c]{2,3}', ["ab", "cab"], ["a", "abca", "ad"]),
        ('root ::= "a"{2}', ["aa"], ["a", "aaa"]),
        ('root ::= "a"{2,}', ["aa", "aaaa"], ["a"]),
        ('root ::= "x"{0}', [""], ["x"]),
        ('root ::= [^a-c\\n]', ["d", "ü", "🎉"], ["a", "\n", ""]),
        ('root ::= . "."', ["a.", "\n.", "🎉."], ["a", "ab"]),
        ('root ::= ["\\\\\\]\\-^-]', ['"', "\\", "]", "-", "^"], ["a"]),
        ('root ::= "\\x41\\u00fc\\U0001F389\\t\\r\\n\\""', ['Aü🎉\t\r\n"'], ["A"]),
        ('root ::= a b # and so on\na ::= "a"\r\nb ::= "b" |\n  "c"', ["ab", "ac"], ["a", "b"]),
        ('root ::= (\n "a" # one\n | "b"\n)+', ["a", "ba"], ["", "c"]),
        ('root ::= ("a"?)* "b"', ["b", "ab", "aab"], ["a", ""]),
        ('root ::= "(" root ")" | ""', ["", "()", "(())"], ["(", "())"]),
        ('root ::= "a" root | "a"', ["a", "aaa"], ["", "b"]),
        ('root ::= x x\nx ::= "a"? "b"?', ["", "ab", "abab", "ba"], ["bba", "ababa"]),
        ('root ::= x x x "c"\nx ::= "a"?', ["c", "ac", "aaac"], ["aaaac", ""]),
        ('root ::= "1"\nroot ::= "2"', ["2"], ["1"]),
    ],
)  # fmt: skip
def test_a_grammar_takes_what_it_says_and_nothing_else(grammar: str, good: list[str], bad: list[str]) -> None:
    assert [text for text in good if not takes(grammar, text)] == []
    assert [text for text in bad if takes(grammar, text)] == []


@pytest.mark.parametrize(
    ("grammar", "sentence"),
    [
        ("", "has no rule 'root'"),
        ('a ::= "b"', "has no rule 'root'"),
        ("root ::= x", "is wrong in line 1: there is no rule 'x'"),
        ('root = "x"', "is wrong in line 1: '::=' was expected"),
        ('root ::= "x"\n"y"', "is wrong in line 2: the name of a rule was expected"),
        ('root ::= "x', "is wrong in line 1: it ends in the middle of a string or of characters"),
        ("root ::= [x", "is wrong in line 1: it ends in the middle of a string or of characters"),
        ("root ::= []", "is wrong in line 1: '[]' is no character at all"),
        ("root ::= [b-a]", "is wrong in line 1: a range of characters ends before it begins"),
        ('root ::= "\\q"', "is wrong in line 1: there is no such escape"),
        ('root ::= "\\u12g4"', "is wrong in line 1: there is no such escape"),
        ('root ::= "\\ud800"', "is wrong in line 1: an escape is no character"),
        ('root ::= "\\U00110000"', "is wrong in line 1: an escape is no character"),
        ('root ::= ("x"', "is wrong in line 1: ')' was expected"),
        ('root ::= "x")', "is wrong in line 1: the end of the line was expected"),
        ("root ::= *", "is wrong in line 1: a repetition has nothing before it"),
        ('root ::= "x"{a}', "is wrong in line 1: a repetition in braces is not like {3}, {3,} or {3,5}"),
        ('root ::= "x"{3,2}', "is wrong in line 1: a repetition has less at most than at least"),
        ('root ::= "x"{2001}', "is wrong in line 1: a repetition may be of 2000 times at most"),
        ("root ::= <think>", "is wrong in line 1: tokens in '<>' are not taken here; write their letters"),
        ("root ::= ~", "is wrong in line 1: a rule, a string, characters or a group was expected"),
        ("root ::= " + "(" * 60 + ".", "is wrong in line 1: there are more than 50 parentheses in one another"),
        ('root ::= "x"\n' + " " * 70_000, "is longer than 65536 characters"),
        ('root ::= (("a"{2000}){2000}){2000}', "is too large: its repetitions, written out, are too many"),
        ('root ::= root "a" | "b"', "has a rule that calls itself before anything is read: 'root'"),
        ('root ::= c\na ::= b "x"\nb ::= a\nc ::= . | b', "has a rule that calls itself before anything is read: 'a'"),
        ('root ::= a root "x" | "y"\na ::= "b"?', "has a rule that calls itself before anything is read: 'root'"),
        ("root ::= root", "has a rule that calls itself before anything is read: 'root'"),
    ],
)  # fmt: skip
def test_a_grammar_that_cannot_be_used_is_refused_in_a_sentence(grammar: str, sentence: str) -> None:
    with pytest.raises(GrammarError) as caught:
        read(grammar)
    assert str(caught.value) == sentence


@pytest.mark.long
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(st.characters(exclude_characters="\x7f")),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("aü🎉"), inner, max_size=3),
        max_leaves=8,
    ).map(lambda value: {"": value}),
    st.booleans(),
    st.randoms(),
)
def test_json_may_be_cut_anywhere(value: object, escaped: bool, random: random.Random) -> None:
    data = json.dumps(value, ensure_ascii=escaped).encode()
    place: Place | None = read(JSON).start
    at = 0
    while at < len(data):
        assert place is not None
        assert not place.complete
        end = at + random.randint(1, 5)
        place, at = place.feed(data[at:end]), end
    assert place is not None
    assert place.complete


def test_half_a_character_may_come_if_a_whole_one_may() -> None:
    party = "🎉".encode()
    for cut in (1, 2, 3):
        assert after("root ::= [ü🎉]", party[:cut]) is not None
        half = after("root ::= .", party[:cut])
        assert half is not None
        assert (half.complete, half.over) == (False, False)
        whole = half.feed(party[cut:])
        assert whole is not None
        assert (whole.complete, whole.over) == (True, True)
    assert after("root ::= [a-z]", party[:1]) is None
    assert after("root ::= [\U0001f600-\U0001f64f]", party[:3]) is None
    assert after("root ::= .", b"\xff") is None
    assert after("root ::= .", b"\xc3a") is None


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= "a" root "b" | "a" root "c" | ""',  # llama.cpp's stacks double with each letter
        'root ::= x*\nx ::= "a" | "aa" | "a" x',
        "root ::= (a* a* a*)*\na ::= [a-z]",
    ],
)
def test_a_grammar_that_can_be_read_in_many_ways_takes_no_longer_for_it(grammar: str) -> None:
    began = time.process_time()
    assert takes(grammar, "") or takes(grammar, "a")
    place = read(grammar).start
    for _ in range(300):
        following = place.feed(b"a")
        assert following is not None
        place = following
    assert time.process_time() - began < 2


@pytest.mark.long
def test_where_it_takes_too_long_all_the_same_the_text_ends_in_a_sentence() -> None:
    place = read('root ::= "a" root "a" | "a" root | ""').start
    began = time.process_time()
    with pytest.raises(GrammarError, match="can be read in too many ways at once here"):
        place.feed(b"a" * 10_000)
    assert time.process_time() - began < 5
