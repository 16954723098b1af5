"""What judges neither looks nor asks: facts come in, a finding goes out."""

from __future__ import annotations

import pytest

from appliance.doctor import checks
from tests.test_layers import IMPURE, SOURCES, imports_of, name

JUDGES = [path for path in SOURCES if name(path).startswith(tuple(f"doctor/{one}" for one in (
    "checks/", "finding.py", "blame.py", "words.py", "certificate.py")))]  # fmt: skip
VALUES = ("pathlib", "urllib.parse")  # a path is a value, as long as nobody opens it


@pytest.mark.parametrize("path", JUDGES, ids=name)
def test_what_judges_does_no_input_and_no_output(path) -> None:
    impure = [
        one.module
        for one in imports_of(path.read_text("utf-8"), name(path))
        if one.module.partition(".")[0] in IMPURE - {"datetime"} and one.module not in VALUES
    ]
    looks = [one for one in imports_of(path.read_text("utf-8"), name(path)) if "sight" in one.module]
    assert (impure, looks) == ([], [] if name(path) != "doctor/blame.py" else looks)


def test_none_is_forgotten() -> None:
    assert checks.__file__ is not None and len(JUDGES) > 20
