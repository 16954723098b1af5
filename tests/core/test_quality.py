"""What is bad about an answer, and what only looks so: texts told to the judge of them."""

# ruff: noqa: RUF001

import base64
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.quality import KEPT, STEP, Complaint, Taste

ROOT = Path(__file__).parents[2]
OWN = [path for kind in ("*.py", "*.md", "*.toml") for path in ROOT.rglob(kind) if ".venv" not in path.parts]


def complaints(text, size=5):
    """All that is wrong with the text, told in pieces of this size, and after how many characters it was said."""
    taste, found, told = Taste(), [], 0
    for start in range(0, len(text), size):
        piece = text[start : start + size]
        told += len(piece)
        if complaint := taste.tell(piece):
            found.append((told, complaint))
    while complaint := taste.finish():
        found.append((told, complaint))
    return found


def flaws(text, size=5):
    return [complaint.flaw for _, complaint in complaints(text, size)]


def varied(rng, count):
    """Words without a pattern."""
    words = "so it was that the sea went out and nobody had seen where its water had gone by noon".split()
    return " ".join(rng.choice(words) for _ in range(count))


BEFORE = varied(random.Random(7), 300)


# ------------------------------------------------------------------------------------------------- endless repetition

ENDLESS = {
    "a sentence": "I am sorry, I cannot find the answer in the text. ",
    "a short one": "I'm sorry. ",
    "a list": "- Check the configuration of the server.\n- Restart the server and try again.\n",
    "a paragraph": "The quick brown fox jumps over the lazy dog and then it sleeps until the morning comes.\n\n",
    "a word": "the ",
    "a sign": "!",
    "a digit": "0",
    "blank lines": "\n",
    "white space in JSON": " \n\t",
    "Chinese": "我很抱歉，我无法回答这个问题。",
    "an emoji": "🌊",
    "a call that is never made": '{"name": "search", "arguments": {"query": "weather"}}\n',
    "the longest": varied(random.Random(3), 100)[:199] + "\n",
}


@pytest.mark.parametrize("unit", ENDLESS.values(), ids=ENDLESS)
@pytest.mark.parametrize("before", ["", BEFORE], ids=["from the start", "in the end"])
def test_what_repeats_without_end_is_said_once(before, unit):
    text = before + unit * (9000 // len(unit))
    assert flaws(text) == (["repetition", "empty"] if text.isspace() else ["repetition"])


@pytest.mark.parametrize(
    ("unit", "most"), [(ENDLESS["a sentence"], 800), (ENDLESS["Chinese"], 800), ("\n", 1000), ("!", 4000)]
)
def test_how_late_it_is_noticed(unit, most):
    after, complaint = complaints(BEFORE + unit * (9000 // len(unit)))[0]
    assert complaint.flaw == "repetition"
    assert most <= after - len(BEFORE) < most + STEP + 5


def test_it_says_how_much_of_what_and_none_of_the_text():
    (_, complaint), *_ = complaints("Over and over and over it goes. " * 100)
    assert complaint == Complaint(flaw="repetition", says="repeated a passage of 32 characters 32 times in a row")


@pytest.mark.parametrize("times", [11, 13])
def test_a_dozen_times_is_the_difference(times):
    """A long passage: a page made of the same placeholder again is sane."""
    unit = ENDLESS["the longest"]
    assert flaws(unit * times) == (["repetition"] if times > 12 else [])


def test_a_passage_too_long_to_be_remembered_is_not_noticed():
    assert flaws((varied(random.Random(4), 100)[:201] + "\n") * 50) == []


def test_what_repeats_is_the_shortest_passage_it_consists_of():
    unit = "aab" * 20 + "aac" * 10  # has a shorter rhythm within
    (_, complaint), *_ = complaints(unit * 100)
    assert "a passage of 90 characters" in complaint.says


def test_a_run_that_ended_is_forgotten():
    rows = "".join("0" * 3900 + varied(random.Random(number), 100) for number in range(5))
    assert flaws(rows) == []


def test_what_is_behind_the_repetition_changes_nothing():
    assert flaws("Over and over and over it goes. " * 100 + BEFORE * 10) == ["repetition"]


def board(cell, rows, columns):
    return "[\n" + ",\n".join("    [" + ", ".join([cell] * columns) + "]" for _ in range(rows)) + "\n]\n"


SANE = {
    "a board": board("null", 8, 8),
    "a bigger board": board("None", 19, 19),
    "a chequered board": board("True, False", 20, 10),
    "zeros": board("0.0", 25, 25),
    "a grid of cells": '<div class="cell" data-value="0"></div>\n' * 81,
    "a grid of inputs": ("<tr>" + "<td><input></td>" * 9 + "</tr>\n") * 9,
    "a table": "| name | value |\n" + "| --- | --- |\n" + "| | |\n" * 30,
    "rules": ("-" * 120 + "\n" + "=" * 120 + "\n") * 3,
    "a long rule": "#" * 1000,
    "a picture": "".join(" " * (40 - n) + "*" * (2 * n + 1) + " " * (40 - n) + "\n" for n in range(40)),
    "an empty picture": ("#" + " " * 78 + "#\n") * 30,
    "zeros in base64": base64.b64encode(b"\x89PNG" + bytes(2000) + b"IEND").decode(),
    "placeholders": "<p>Lorem ipsum dolor sit amet, consectetur adipiscing elit.</p>\n" * 11,
    "a refrain": "Row, row, row your boat,\nGently down the stream.\nMerrily, merrily, merrily, merrily,\n" * 8,
    "a chorus": "na na na na-na-na na, " * 30,
    "laughter": "ha" * 300,
    "lines to write": "I will not talk in class.\n" * 20,
    "rows of data": json.dumps([{"id": n, "ok": True, "tags": [], "note": None} for n in range(300)], indent=2),
    "the same rows of data": json.dumps([{"ok": True, "tags": [], "note": None}] * 25, indent=2),
    "numbers": ",".join(str(n * n) for n in range(2000)),
    "a CSV": "\n".join(f"2026-11-{day:02},0,0,0,0,0,0,0,0" for _ in range(20) for day in range(1, 31)),
    "a log": "".join(f"12:00:{n % 60:02} GET /healthz 200 OK\n" for n in range(300)),
    "deep code": "".join(" " * 120 + f"x{n} = {n}\n" for n in range(200)),
    "code that resembles itself": "".join(f"    assert square({n}) == {n * n}\n" for n in range(300)),
}


@pytest.mark.parametrize("text", SANE.values(), ids=SANE)
def test_what_people_write_and_ask_for_is_not_repetition(text):
    assert flaws(BEFORE + text + BEFORE) == []


def test_our_own_texts_are_fine():
    bad = {str(path): found for path in OWN if (found := flaws(path.read_text(), 50)) not in ([], ["empty"])}
    assert bad == {}
    assert len(OWN) > 200


# ------------------------------------------------------------------------------------------------------------ mangled

FRENCH = "L’été dernier, « j’étais à l’île d’Oléron… », dit-elle : né près du fleuve, ça crée des liens ; voilà. "
GERMAN = "„Spaß“ heißt der Gruß – „groß“, „süß“ und „weiß“ … Über „Ä“ und „Ö“ später. "
CHINESE = "床前明月光，疑是地上霜。举头望明月，低头思故乡。"
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему. "
SPANISH = "¿Cómo está usted? ¡Mañana será otro día! "
SCANDINAVIAN = "Å være på øya – «ÆØÅ» – er fint. "
VIETNAMESE = "Trời hôm nay đẹp quá, chúng tôi đi dạo dọc bờ sông Hương. "
PORTUGUESE = "NÃO É POSSÍVEL — A SITUAÇÃO ESTÁ PIOR DO QUE SE PENSAVA. "
EMOJI = "Well done! 🎉🌊👩‍👩‍👧 Go on… 🚀 "
LANGUAGES = [FRENCH, GERMAN, CHINESE, RUSSIAN, SPANISH, SCANDINAVIAN, VIETNAMESE, PORTUGUESE, EMOJI]


def shuffled(text, count=60):
    rng, words = random.Random(5), text.split(" ") if " " in text else list(text)
    return (" " if " " in text else "").join(rng.choice(words) for _ in range(count * 10))


def as_windows(text):
    """UTF-8, read byte for byte as Windows-1252, or as Latin-1 where that has no letter."""
    return "".join(
        bytes([byte]).decode("cp1252") if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else chr(byte)
        for byte in text.encode()
    )


@pytest.mark.parametrize("text", LANGUAGES)
def test_languages_are_fine(text):
    assert flaws(shuffled(text)) == []
    assert flaws(text * 3) == []


@pytest.mark.parametrize("text", LANGUAGES)
@pytest.mark.parametrize("read", [as_windows, lambda text: text.encode().decode("latin-1")], ids=["windows", "latin"])
def test_text_that_was_read_in_a_wrong_encoding_is_mangled(text, read):
    assert flaws(read(shuffled(text))) == ["mangled"]


def test_who_explains_a_wrong_encoding_writes_rightly_besides():
    rows = [f"| `{as_windows(letter)}` | {letter} |\n" for letter in "éèüß’“—…€"]
    assert flaws("| shown | meant |\n" + "".join(rows) + BEFORE) == []
    assert flaws("".join(row.split("|")[1] for row in rows) * 3) == ["mangled"]


@pytest.mark.parametrize("lost", ["\ufffd", "\ud83c", "\x00", "\x08", "\x7f"], ids=ascii)
def test_characters_that_are_none_are_mangled_if_there_are_many(lost):
    assert flaws(BEFORE + f"some words{lost} and " * 20 + BEFORE) == ["mangled"]
    assert flaws(BEFORE + f"some words{lost} and " * 9 + BEFORE * 10 + f"some words{lost} and " * 9) == []


def test_it_says_how_many():
    (_, complaint), *_ = complaints("x" * STEP + "\ufffd!?-" * (STEP // 4))
    assert complaint == Complaint(flaw="mangled", says="sent 64 characters among 2,048 that are none")


def test_terminals_may_be_coloured_and_pages_fed():
    assert flaws("\x1b[31mred\x1b[0m\tand\r\n\f" * 30 + BEFORE) == []


# -------------------------------------------------------------------------------------------------------------- empty


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\t \r\n" * 100, "\u200b", "\ufeff\n"], ids=ascii)
def test_white_space_only_is_empty(text):
    assert flaws(text) == ["empty"]


@pytest.mark.parametrize("text", [".", "\n" * 600 + "x", "x" + " " * 600, "🌊"], ids=ascii)
def test_one_character_is_an_answer(text):
    assert flaws(text) == []


def test_it_is_empty_only_at_the_end():
    taste = Taste()
    assert [taste.tell(" " * 100) for _ in range(9)] == [None] * 9
    assert taste.tell("x") is None
    assert taste.finish() is None


# --------------------------------------------------------------------------------------------------- however it came


def test_an_answer_may_have_every_flaw():
    assert sorted(flaws("\u200b" + " " * 5000)) == ["empty", "repetition"]
    assert sorted(flaws("Over \ufffd and over it goes. " * 100)) == ["mangled", "repetition"]


def test_a_whole_answer_may_come_in_one_piece():
    text = BEFORE + "Over and over and over it goes. " * 40 + BEFORE
    assert flaws(text, len(text)) == ["repetition"]


PARTS = st.sampled_from(["Over and over it goes. ", "0", "\n", "\ufffd", as_windows(FRENCH), BEFORE, "| - ", "x", "é"])
TEXTS = st.lists(st.tuples(PARTS, st.integers(1, 300)), max_size=4).map(
    lambda parts: "".join((part * count)[:5000] for part, count in parts)
)


@given(TEXTS, st.integers(1, 3000), st.integers(1, 40))
def test_the_same_text_gives_the_same_complaints_however_it_is_cut(text, one, other):
    assert sorted(flaws(text, one)) == sorted(flaws(text, other))


@given(TEXTS)
def test_each_kind_is_said_once(text):
    found = flaws(text)
    assert len(found) == len(set(found))


def test_what_is_kept_is_bounded():
    taste, rng = Taste(), random.Random(1)
    for _ in range(3000):
        taste.tell(varied(rng, 3))
        taste.tell("")
    kept = sum(map(len, taste._pieces)) + len(taste._tail)
    assert kept <= KEPT + STEP
    assert len(taste._pieces) <= STEP
