"""Whose is it? The last lines: one for each thing that is wrong, first what is nearest to whoever reads them.

What broke at the same place for several upstreams is one thing, and is said once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from appliance.doctor.body import BOX
from appliance.doctor.checks import page
from appliance.doctor.finding import Finding, Section, Who
from appliance.doctor.words import listed

ORDER: Sequence[Who] = ("you", "box", "key", "them")
IT_IS = {"you": "It is you", "box": "It is this box", "key": "It is your key", "them": "It is them"}


def well(sections: Sequence[Section]) -> bool:
    """Is nothing wrong?"""
    return not any(finding.state == "wrong" for section in sections for finding in section.findings)


def whose(sections: Sequence[Section]) -> tuple[str, ...]:
    """One line for each thing and who is to blame for it; one line that says so if nobody is."""
    wrong = _merged(sections)
    if not wrong:
        odd = sum(finding.state == "warn" for section in sections for finding in section.findings)
        things = "one thing could" if odd == 1 else f"{odd} things could"
        return (f"Nothing is wrong; {things} be better." if odd else "Nothing is wrong.",)
    return tuple(
        f"{IT_IS[who]}: {_clause(names, finding)}." for who in ORDER for names, finding in wrong if finding.who == who
    )


def _merged(sections: Sequence[Section]) -> list[tuple[list[str], Finding]]:
    """What is wrong, each once, with the names of those it is wrong for: what has the same remedy is the same."""
    found: dict[tuple[str, Who | None, str | None], tuple[list[str], Finding]] = {}
    for section in sections:
        page_said = next((one for one in section.findings if one.layer == page.LAYER and one.state == "warn"), None)
        for finding in section.findings:
            if finding.state != "wrong":
                continue
            what = (finding.layer, finding.who, finding.fix)
            if finding.who == "them":
                what = (section.of, *what[1:])  # each of them has troubles of its own
                if page_said is not None:
                    words = page_said.said.rpartition(" (")[0]
                    finding = replace(finding, said=f'{finding.said}, and its status page says "{words}"')
            names, _ = found.setdefault(what, ([], finding))
            names.append(section.of)
    return list(found.values())


def _clause(names: Sequence[str], finding: Finding) -> str:
    if finding.said.startswith("it "):
        return f"{names[0]} {finding.said.removeprefix('it ')}"
    others = f" ({listed(names[1:])} likewise)" if len(names) > 1 else ""
    if names[0] == BOX:
        named = finding.who == "key" or finding.said.startswith(f"the {finding.layer}")
        return finding.said if named else f"{finding.layer}: {finding.said}"
    where = names[0] if finding.who == "key" else f"{finding.layer} of {names[0]}"
    return f"{where}: {finding.said}{others}"
