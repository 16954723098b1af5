"""Who has a place, told as conversations: who comes, who asks, who is answered, and who has to leave for whom."""

from __future__ import annotations

import pytest

from appliance.server.crowd import PATIENCE, Crowd

SOON = PATIENCE / 2


def told(crowd: Crowd[str], story: str) -> list[str | None]:
    """What became of everybody who came: "a" comes, "a?" asks, "a." was answered, "a-" is gone; a number is a time."""
    now, found = 0.0, []
    for word in story.split():
        match word[0], word[1:]:
            case who, "":
                goes = crowd.comes(who, now)
                if goes is not None:
                    assert crowd.leaves(goes) is None
                found.append(goes)
            case who, "?":
                crowd.begins(who, now)
                crowd.asks(who)
            case who, "<":
                crowd.begins(who, now)
            case who, ".":
                crowd.rests(who)
            case who, "-":
                crowd.is_gone(who)
            case "@", when:
                now = float(when) * PATIENCE
    return found


@pytest.mark.parametrize(
    ("story", "goes"),
    [
        ("a b c", [None, None, "c"]),
        ("a b c d e", [None, None, "c", "d", "e"]),
        ("a? b? c", [None, None, "c"]),
        ("a b a? b? @9 c", [None, None, "c"]),
        ("a b a? b? a. c", [None, None, "a"]),
        ("a b a? b? b. a. c d e", [None, None, "b", "a", "e"]),
        ("a b a? b? b. a. b? c d", [None, None, "a", "d"]),
        ("a b @0.9 c", [None, None, "c"]),
        ("a b @1 c d e", [None, None, "a", "b", "e"]),
        ("a @0.5 b @1 c d", [None, None, "a", "d"]),
        ("a b b? b. @9 c d", [None, None, "b", "a"]),
        ("a b a? a. a< b? @0.9 c", [None, None, "c"]),
        ("a b a? a. @1 a< b? @1.9 c @2 d", [None, None, "c", "a"]),
        ("a b @0.5 a< @1 c @1.5 d", [None, None, "b", "a"]),
        ("a b a- c d", [None, None, None, "d"]),
        ("a b a? b? a- c", [None, None, None]),
        ("a b c c- d", [None, None, "c", "d"]),
        ("a b a? b? a. c c? c. a. a? d", [None, None, "a", "c"]),
    ],
    ids=[
        "newcomers stay", "a burst", "all busy", "busy for long", "idle", "longest idle first", "asked again",
        "not yet silent for long", "silent for long", "longest silent first", "idle before silent",
        "a second head is time of its own", "a second head takes too long", "a first byte is a new beginning",
        "gone", "gone busy", "gone refused", "who gave way stays away",
    ],
)  # fmt: skip
def test_who_leaves_for_whom(story: str, goes: list[str | None]) -> None:
    words = story.split()
    for index, word in enumerate(words):  # "a?" without "a" before: it comes and asks
        if word[0] != "@" and word[1:] and word[0] not in words[:index]:
            words[index] = f"{word[0]} {word}"
    assert told(Crowd(2), " ".join(words)) == goes


def test_the_places_are_never_more_than_there_are() -> None:
    crowd: Crowd[int] = Crowd(8)
    for who in range(100):
        goes = crowd.comes(who, now=who * PATIENCE / 3)
        if goes is not None:
            crowd.leaves(goes)
        if who % 2:
            crowd.begins(who, who * PATIENCE / 3)
        assert len(crowd.busy) + crowd.waiting == min(who + 1, 8)


def test_those_who_were_refused_stay_until_their_room_is_full() -> None:
    crowd: Crowd[int] = Crowd(8)
    assert [crowd.leaves(who) for who in range(crowd.room)] == [None] * crowd.room
    assert [crowd.leaves(who) for who in (64, 65)] == [0, 1]
    assert len(crowd.leaving) == crowd.room
    crowd.is_gone(2)
    assert crowd.leaves(66) is None


def test_who_is_told_stays_a_while_longer_than_who_waits_to_be() -> None:
    crowd: Crowd[str] = Crowd(1)
    crowd.room = 2
    assert [crowd.leaves(who) for who in "abac"] == [None, None, None, "b"]
    assert list(crowd.leaving) == ["a", "c"]


@pytest.mark.parametrize("story", ["a b b? b. b<", "a a? b b? b. b<", "a a? a. b a? a. a< b?"])
def test_a_request_of_one_that_was_sent_away_takes_no_place(story: str) -> None:
    crowd: Crowd[str] = Crowd(1)
    [_, away] = told(crowd, story)
    assert list(crowd.leaving) == [away]
    assert len(crowd.busy) + crowd.waiting == 1
    assert away not in {*crowd.busy, *crowd.idle, *crowd.new}
