"""`appliance doctor`: what it prints, and how it ends."""

from __future__ import annotations

import json

import pytest

from appliance.__main__ import main
from appliance.cli import doctor
from appliance.cli.doctor import as_json, lines
from appliance.doctor import examine
from appliance.doctor.examine import Examination
from appliance.doctor.finding import Section, ok, skipped, warn, wrong

WELL = Examination(sections=(Section(of="this box", about="edge-7", findings=(ok("disk", "all free"),)),))
ILL = Examination(
    sections=(
        *WELL.sections,
        Section(
            of="claude",
            about="https://api.anthropic.com",
            findings=(
                ok("link", "a route by eth0"),
                wrong("HTTP", "it answers 529 (overloaded)", who="them", fix="Wait."),
                skipped("key", "not looked at, because HTTP is broken"),
                warn("status page", "Outage (https://status.example)", who="them"),
            ),
        ),
    )
)
WORDS = """\
this box  edge-7
  ok     disk         all free

claude  https://api.anthropic.com
  ok     link         a route by eth0
  WRONG  HTTP         it answers 529 (overloaded)
                      -> Wait.
  -      key          not looked at, because HTTP is broken
  warn   status page  Outage (https://status.example)

It is them: claude answers 529 (overloaded), and its status page says "Outage"."""


def test_people_get_a_block_for_each_thing_and_whose_it_is_last() -> None:
    assert "\n".join(lines(ILL.sections, ILL.whose)) == WORDS


def test_programs_get_the_same() -> None:
    said = as_json(ILL)
    assert (said["well"], said["whose"]) == (False, list(ILL.whose))
    assert said["sections"][1]["findings"][1] == {
        "layer": "HTTP",
        "state": "wrong",
        "who": "them",
        "said": "it answers 529 (overloaded)",
        "fix": "Wait.",
    }


@pytest.mark.parametrize(("found", "code"), [(WELL, 0), (ILL, 1)])
def test_it_ends_with_1_if_something_is_wrong(
    found: Examination, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def looked(*args: object, **more: object) -> Examination:
        assert (more["deep"] is not None) == (code == 1)
        return found

    monkeypatch.setattr(examine, "examine", looked)
    assert main(["doctor", "--json", *(["--deep"] if code else [])]) == code
    assert json.loads(capsys.readouterr().out) == as_json(found)
    assert main(["doctor", *(["--deep"] if code else [])]) == code
    assert capsys.readouterr().out == "\n".join(doctor.lines(found.sections, found.whose)) + "\n"
