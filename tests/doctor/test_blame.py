"""From findings to whose it is."""

from __future__ import annotations

from appliance.doctor.blame import well, whose
from appliance.doctor.body import BOX
from appliance.doctor.finding import Finding, Section, climb, ok, skipped, warn, wrong


def section(of: str, *findings: Finding) -> Section:
    return Section(of=of, about="", findings=findings)


FINE = section("claude", ok("link", "a route"))
OVERLOADED = wrong("HTTP", "it answers 529 (overloaded)", who="them", fix="Wait.")
ILL = warn("status page", "Partial Outage: Errors (https://status.example)", who="them")
NO_ROUTE = wrong("link", "no network interface is up", who="you", fix="Plug it in.")


def test_where_all_is_well_nobody_is_blamed() -> None:
    assert (well([FINE]), whose([FINE])) == (True, ("Nothing is wrong.",))


def test_warnings_are_counted_and_blame_nobody() -> None:
    once, twice = section("a", ILL), section("b", ILL, ILL)
    assert well([once])
    assert whose([once]) == ("Nothing is wrong; one thing could be better.",)
    assert whose([once, twice]) == ("Nothing is wrong; 3 things could be better.",)


def test_it_is_them_and_their_own_page_says_so() -> None:
    found = whose([section("claude", OVERLOADED, ILL)])
    assert found == ('It is them: claude answers 529 (overloaded), and its status page says "Partial Outage: Errors".',)


def test_a_page_on_which_something_is_wrong_does_not_excuse_us() -> None:
    assert whose([section("claude", NO_ROUTE, ILL)]) == ("It is you: link of claude: no network interface is up.",)


def test_what_broke_for_all_in_the_same_place_is_said_once() -> None:
    found = whose([section("a", NO_ROUTE), section("b", NO_ROUTE), section("c", NO_ROUTE)])
    assert found == ("It is you: link of a: no network interface is up (b and c likewise).",)


def test_troubles_of_two_clouds_are_two() -> None:
    found = whose([section("a", OVERLOADED), section("b", OVERLOADED)])
    assert found == ("It is them: a answers 529 (overloaded).", "It is them: b answers 529 (overloaded).")


def test_everybody_has_a_line_and_one_is_you_before_it_is_them() -> None:
    full = wrong("disk", "full: 1 MB are free", who="box", fix="Free some.")
    refused = wrong("key", "the key from env:KEY is refused (401)", who="key", fix="Another.")
    found = whose([section(BOX, full), section("a", OVERLOADED), section("b", refused), section("c", NO_ROUTE)])
    assert found == (
        "It is you: link of c: no network interface is up.",
        "It is this box: disk: full: 1 MB are free.",
        "It is your key: b: the key from env:KEY is refused (401).",
        "It is them: a answers 529 (overloaded).",
    )


def test_the_box_is_not_named_twice() -> None:
    found = whose([section(BOX, wrong("model", "the model x is truncated", who="box", fix="Get it again."))])
    assert found == ("It is this box: the model x is truncated.",)


def test_above_a_broken_layer_nothing_is_judged() -> None:
    def never() -> Finding:
        raise AssertionError

    steps = [("link", lambda: ok("link", "a")), ("DNS", lambda: wrong("DNS", "b", who="you", fix="c")), ("TCP", never)]
    assert [*climb(steps)] == [
        ok("link", "a"),
        wrong("DNS", "b", who="you", fix="c"),
        skipped("TCP", "not looked at, because DNS is broken"),
    ]


def test_a_warning_breaks_nothing() -> None:
    steps = [("link", lambda: warn("link", "a", who="you")), ("DNS", lambda: ok("DNS", "b"))]
    assert [one.state for one in climb(steps)] == ["warn", "ok"]
