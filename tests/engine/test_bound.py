"""An answer keeps to its grammar, and tells how likely its tokens were, wherever it is taken over."""

from __future__ import annotations

import math
from typing import Any

import pytest

from appliance.core.frames import Frame
from tests.engine.fakes import Bench, Paper

TEXT = "The weather in Paris is fine."


def said(bench: Bench, id: int) -> list[Frame]:
    return [frame for frame in bench.of(id) if frame["op"] == "text"]


def answered(text: str = TEXT, **more: Any) -> Bench:
    bench = Bench(Paper(text))
    bench.ask(1, **more)
    bench.run()
    return bench


def kept(grammar: str, text: str = TEXT, **more: Any) -> tuple[str, str]:
    bench = answered(text, format={"grammar": grammar}, **more)
    last = bench.last(1)
    return bench.text(1), last.get("reason") or last["message"]


@pytest.mark.parametrize("temperature", [0, 1])
def test_an_answer_keeps_to_its_grammar(temperature: float) -> None:
    sampling = {"temperature": temperature}
    assert kept("root ::= [A-Za-z .]+", sampling=sampling) == (TEXT, "stop")
    assert kept('root ::= "The" " wea" | "no"', sampling=sampling) == ("The wea", "stop")
    assert kept('root ::= "The" " wea" "ther"? "!"', sampling=sampling) == ("The weather!", "stop")
    assert kept('root ::= "yes"', sampling=sampling) == ("yes", "stop")


def test_where_its_grammar_ends_nothing_more_is_computed() -> None:
    bench = answered(format={"grammar": 'root ::= "The"'})
    assert (bench.text(1), len(bench.model.steps)) == ("The", 1)
    bench = answered(format={"grammar": 'root ::= "The weather"'}, committed="The weather")
    assert (bench.text(1), bench.last(1)["reason"]) == ("", "stop")


def test_it_may_not_end_before_its_grammar_does() -> None:
    text, reason = kept("root ::= [A-Za-z .#]{40,50}", max_tokens=60)
    assert text.startswith(TEXT)
    assert (40 <= len(text) <= 50, reason) == (True, "stop")


def test_a_character_may_come_in_pieces() -> None:
    assert kept("root ::= [\u0100-\u0101]") in [("\u0100", "stop"), ("\u0101", "stop")]
    assert kept("root ::= [🎉🎊]{2}") in [(one + other, "stop") for one in "🎉🎊" for other in "🎉🎊"]


@pytest.mark.parametrize("cut", range(1, len("The weather!") + 1))
def test_what_somebody_else_wrote_is_gone_on_with(cut: int) -> None:
    begun = "The weather!"[:cut]
    text, reason = kept('root ::= "The" " wea" "ther" "!"', committed=begun)
    assert (begun + text, reason) == ("The weather!", "stop")


def test_where_somebody_else_did_not_keep_to_it_nobody_has_to_and_it_is_said() -> None:
    bench = answered(format={"grammar": 'root ::= "yes"'}, committed="The weather in")
    assert (bench.text(1), bench.of(1)[0]["strayed"]) == (" Paris is fine.", True)
    assert answered(format={"grammar": "root ::= .*"}, committed="The").of(1)[0]["strayed"] is False


def test_the_clients_own_beginning_is_no_part_of_it() -> None:
    bench = answered(format={"grammar": 'root ::= " wea"'}, committed="The", prefill=3)
    assert (bench.text(1), bench.of(1)[0]["strayed"]) == (" wea", False)


@pytest.mark.parametrize(
    ("grammar", "sentence"),
    [
        ("root ::= x", "The grammar is wrong in line 1: there is no rule 'x'."),
        ('root ::= root "x" | "y"', "The grammar has a rule that calls itself before anything is read: 'root'."),
    ],
)
def test_a_bad_grammar_is_the_callers_mistake_and_nobody_elses(grammar: str, sentence: str) -> None:
    bench = Bench(Paper(TEXT))
    bench.ask(1, format={"grammar": grammar})
    bench.ask(2)
    bench.run()
    error = bench.last(1)
    assert (error["op"], error["fault"], error["message"], error["param"]) == ("error", "request", sentence, "grammar")
    assert bench.text(2) == TEXT


@pytest.mark.long
def test_a_grammar_that_can_be_read_in_too_many_ways_ends_only_its_own_answer() -> None:
    bench = Bench(Paper(TEXT, context=1024))
    hard = 'root ::= [A-Za-z .#] root [A-Za-z .#] | [A-Za-z .#] root | ""'
    bench.ask(1, format={"grammar": hard}, max_tokens=900, sampling={"temperature": 0, "logit_bias": [[0, -1000]]})
    bench.ask(2)
    bench.run()
    assert bench.last(1)["message"] == "The grammar can be read in too many ways at once here."
    assert bench.text(1).startswith(TEXT)
    assert bench.text(2) == TEXT


# ---------------------------------------------------------------------------------------------------------- odds


def test_each_token_of_the_text_has_its_odds_with_its_letters() -> None:
    bench = answered(logprobs=2)
    frames = said(bench, 1)
    whole = math.log(math.exp(9) + len(bench.model.vocabulary) - 1)
    for frame in frames:
        [[token, logprob, others]] = frame["odds"]
        assert token == frame["text"]
        assert logprob == pytest.approx(9 - whole)
        assert others[0] == [token, logprob]
        assert others[1][1] == pytest.approx(-whole)
        assert len(others) == 2
    assert "".join(frame["text"] for frame in frames) == TEXT


def test_who_did_not_ask_for_odds_is_not_told_any() -> None:
    assert not any("odds" in frame for frame in answered().said)


@pytest.mark.parametrize("cut", range(1, len(TEXT)))
def test_after_a_takeover_the_new_letters_have_theirs(cut: int) -> None:
    bench = answered(logprobs=0, committed=TEXT[:cut])
    tokens = [token for frame in said(bench, 1) for token, _, _ in frame["odds"]]
    assert "".join(tokens) == TEXT[cut:] == bench.text(1)


def test_what_a_stop_string_cut_off_is_not_told_of() -> None:
    bench = answered(logprobs=0, stop=["Paris"])
    tokens = [token for frame in said(bench, 1) for token, _, _ in frame["odds"]]
    assert tokens == ["The", " weather", " in", " Paris"]  # of the last one the space went out
    assert bench.text(1) == "The weather in "


def test_half_a_character_at_the_end_is_told_of() -> None:
    bench = answered("\u00e4", logprobs=0, max_tokens=1)
    assert [(frame["text"], frame["odds"][0][0]) for frame in said(bench, 1)] == [("", "\xc3")]


def test_so_many_others_can_be_told_of_and_no_more() -> None:
    assert len(said(answered(logprobs=20), 1)[0]["odds"][0][2]) == 20
    for wrong in (21, -1, True, "3"):
        assert answered(logprobs=wrong).last(1)["message"] == "'logprobs' must be a whole number from 0 to 20."


def test_json_has_its_odds_too() -> None:
    bench = answered('{"a": 12}', logprobs=0, format={"schema": None})
    tokens = [token for frame in said(bench, 1) for token, _, _ in frame["odds"]]
    assert "".join(tokens) == bench.text(1) == '{"a": 12}'
