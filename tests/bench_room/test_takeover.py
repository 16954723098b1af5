"""What an answer tells of its takeover."""

from __future__ import annotations

import json

import pytest

from appliance.bench.asking import Failed
from appliance.bench.takeover import Heard, Silence, silence


def told(*pieces: tuple[float, str], announced: float | None = None) -> Heard:
    heard = Heard(status=200)
    for at, words in pieces:
        if announced is not None and announced <= at and heard.announced is None:
            heard.take(b": appliance takeover failing->local after=3 reason=broken\n\n", announced)
        heard.take(b"data: " + json.dumps({"choices": [{"delta": {"content": words}}]}).encode() + b"\n\n", at)
    heard.take(b"data: [DONE]\n\n", 99.0)
    return heard


def test_silence_is_from_the_death_of_the_cloud_to_the_first_word_of_the_box() -> None:
    heard = told((1.0, "abc"), (2.5, "d"), (2.6, "e"), (2.7, "f"), (2.8, "g"), (3.0, "h"), announced=2.1)
    assert silence(heard, said="abc", died=2.0) == Silence(
        seconds=0.5, noticed=pytest.approx(0.1), step=pytest.approx(0.2)
    )


def test_a_piece_that_is_half_the_clouds_is_the_first_of_the_box() -> None:
    # The end of the cloud's words and the beginning of the box's may arrive together.
    one = silence(told((1.0, "ab"), (2.5, "cd"), announced=2.5), said="abc", died=2.0)
    assert (one.seconds, one.step) == (0.5, None)


@pytest.mark.parametrize(
    ("heard", "sentence"),
    [
        (told((1.0, "abc")), "not gone on with"),
        (told((1.0, "abX"), (2.0, "d"), announced=1.5), "not gone on with"),
        (told((1.0, "abc"), (2.0, ""), announced=1.5), "ended the answer at once"),
        (Heard(status=503), "status 503"),
    ],
)
def test_an_answer_that_was_not_taken_over_is_no_measurement(heard: Heard, sentence: str) -> None:
    with pytest.raises(Failed, match=sentence):
        silence(heard, said="abc", died=1.2)


def test_an_error_in_the_stream_is_no_measurement() -> None:
    heard = Heard(status=200)
    heard.take(b'data: {"error": {"message": "sorry"}}\n\n', 1.0)
    with pytest.raises(Failed, match="ended with an error"):
        silence(heard, said="", died=0.5)
