"""Documentation fails the build when it lies: every key, every command, every link."""

import argparse
import dataclasses
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from appliance import __version__, config
from appliance.__main__ import parser
from appliance.core.fault import Fault
from appliance.core.seams import Quirks
from appliance.presets import PRESETS
from appliance.settings import SECTIONS, Later

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in (*ROOT.glob("docs/*.md"), *ROOT.glob("*.md"))
}
README = PAGES["README.md"]
CONFIGURATION = PAGES["docs/configuration.md"]
TABLES = {
    "server": config.ServerConfig,
    "local": config.LocalConfig,
    "upstream": config.UpstreamConfig,
    "timeouts": config.TimeoutConfig,
    "breaker": config.BreakerConfig,
    "paths": config.PathsConfig,
}


NOT_WRITTEN = {"client_key", "key_from"}
"""Fields that are no keys of their own: it is written as key = "client"."""


def chapter(page: str, title: str) -> str:
    """The text under a heading, up to the next one of its kind."""
    [text] = [part for part in re.split(r"^## ", page, flags=re.MULTILINE) if part.startswith(title)]
    return text


def rows(text: str) -> dict[str, str]:
    """First column, without its backticks, to the second."""
    found = re.findall(r"^\| `([^`]+)` \| (.*?) \|", text, flags=re.MULTILINE)
    return dict(found)


def heading(section: str) -> str:
    return f"`[[{section}]]`" if section == "upstream" else f"`[{section}]`"


def shown(value: object) -> str:
    """A default as the page writes it."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{value}"'
        case int() | float():
            return f"{value:g}"
        case ():
            return "[]"
        case _:
            return str(value)


@pytest.mark.parametrize("section", TABLES)
def test_every_key_has_its_row(section: str) -> None:
    fields = {field.name for field in dataclasses.fields(TABLES[section])} - NOT_WRITTEN
    text = chapter(CONFIGURATION, heading(section)).partition("\n### ")[0]
    assert set(rows(text)) == fields


@pytest.mark.parametrize("section", ["server", "local", "timeouts", "breaker"])
def test_every_default_is_the_real_one(section: str) -> None:
    defaults = {field.name: f"`{shown(field.default)}`" for field in dataclasses.fields(TABLES[section])}
    assert rows(chapter(CONFIGURATION, heading(section))) == defaults


def test_every_key_that_is_accepted_is_a_field() -> None:
    for section, table in TABLES.items():
        accepted = {key for key, rule in SECTIONS[section].items() if not isinstance(rule, Later)}
        assert accepted == {field.name for field in dataclasses.fields(table)} - NOT_WRITTEN


def test_every_quirk_has_its_row_with_its_real_default() -> None:
    text = chapter(CONFIGURATION, heading("upstream")).partition("\n### Quirks")[2].partition("\n### ")[0]
    assert rows(text) == {field.name: f"`{shown(field.default)}`" for field in dataclasses.fields(Quirks)}


def test_every_harmless_key_of_a_later_version_is_named() -> None:
    later = {
        key: rule.today
        for section in SECTIONS.values()
        for key, rule in section.items()
        if isinstance(rule, Later) and rule.today
    }
    assert [
        key for key, (today,) in later.items() if f"`{key} = {shown(today)}`" not in CONFIGURATION.replace("\n", " ")
    ] == []


def test_every_cloud_of_the_environment_has_its_row() -> None:
    found = rows(chapter(CONFIGURATION, "No file"))
    assert list(found) == [cloud.variable for cloud in config.PUBLIC_CLOUDS]
    for cloud in config.PUBLIC_CLOUDS:
        assert f"`{cloud.name}`" in found[cloud.variable]
        for pattern in cloud.models:
            assert f"`{pattern}`" in chapter(CONFIGURATION, "No file")


def test_every_reason_for_a_fallback_is_named() -> None:
    [line] = [line for line in CONFIGURATION.splitlines() if line.startswith("| `x-appliance-fallback`")]
    # A bad answer is kept by who has it, and nobody else answers.
    others = {Fault.REQUEST, Fault.CRASHED, Fault.QUALITY, Fault.GONE, Fault.STOPPED}
    reasons = {fault.value for fault in Fault if fault not in others}
    assert {reason for reason in reasons if f"`{reason}`" not in line} == set()


def examples(page: str) -> list[str]:
    return re.findall(r"```toml\n(.*?)```", PAGES[page], flags=re.DOTALL)


@pytest.mark.parametrize(
    ("page", "example"),
    [pytest.param(page, text, id=f"{page}-{n}") for page in sorted(PAGES) for n, text in enumerate(examples(page))],
)
def test_every_example_is_a_configuration(page: str, example: str, tmp_path: Path) -> None:
    file = tmp_path / "appliance.toml"
    file.write_text(example)
    keys = {variable: "sk-made-up" for variable in re.findall(r"\w+_API_KEY", example)}
    keys |= {preset.variable: "sk-made-up" for preset in PRESETS if preset.variable}
    loaded = config.load_config(file, {"HOME": str(tmp_path), **keys})
    assert [upstream.name for upstream in loaded.upstreams] == [
        one.get("name", one.get("preset")) for one in tomllib.loads(example)["upstream"]
    ]
    assert loaded.warnings == ()


def test_every_preset_has_an_example_and_its_name_in_the_table() -> None:
    found = re.findall(r'^preset = "(.*)"', PAGES["docs/providers.md"], flags=re.MULTILINE)
    assert list(dict.fromkeys(found)) == [preset.name for preset in PRESETS]
    [row] = [line for line in CONFIGURATION.splitlines() if line.startswith("| `preset` |")]
    assert re.findall(r'`"(.*?)"`', row) == [preset.name for preset in PRESETS]


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands right below this one, by name."""
    found = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0]) if found else {}


def all_below(parser: argparse.ArgumentParser, above: str = "") -> dict[str, argparse.ArgumentParser]:
    """Every command and every verb of one, by what one types."""
    found = {}
    for name, each in subcommands(parser).items():
        found |= {above + name: each, **all_below(each, f"{above}{name} ")}
    return found


COMMANDS = subcommands(parser())
TYPED = all_below(parser())


def test_every_command_is_in_the_readme_and_nothing_else_is() -> None:
    table = "\n".join(line for line in chapter(README, "Commands").splitlines() if line.startswith("|"))
    assert set(re.findall(r"`appliance (\w+)", table)) == set(COMMANDS)
    named = {typed for typed in re.findall(r"`(\w+ \w+)", table) if not typed.startswith("appliance ")}
    assert named == {typed for typed in TYPED if " " in typed}


@pytest.mark.parametrize("typed", TYPED)
def test_every_command_has_help_with_an_example(typed: str) -> None:
    assert f"appliance {typed}" in TYPED[typed].format_help().partition("example:")[2]


def test_the_readme_begins_with_the_two_commands() -> None:
    first = [line.split()[0] for line in README.splitlines() if line.startswith("    ")][:2]
    assert first == ["./scripts/run", "./scripts/test"]
    assert [script for script in first if not (ROOT / script).exists()] == []


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_link_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", PAGES[page])
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def anchors(page: str) -> set[str]:
    """What the headings of a page are called in links, as GitHub makes it of them."""
    headings = re.findall(r"^#+ (.*)", PAGES[page], flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_link_into_a_page_leads_to_a_heading(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", PAGES[page])
    missing = []
    for target, anchor in links:
        there = (ROOT / page).parent.joinpath(target).resolve().relative_to(ROOT).as_posix() if target else page
        if there in PAGES and anchor not in anchors(there):
            missing.append(f"{target}#{anchor}")
    assert missing == []


def test_every_page_can_be_found_from_the_readme() -> None:
    assert [page for page in PAGES if page.startswith("docs/") and f"({page})" not in README] == []


def test_the_changelog_knows_this_version() -> None:
    assert f"## [{__version__}]" in PAGES["CHANGELOG.md"]


def shell(page: str) -> list[str]:
    """What a page tells one to type: lines that stand apart, and those in fences."""
    fenced = "".join(re.findall(r"^```sh\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE))
    return [*re.findall(r"^    (?:\$ )?(.*)", page, flags=re.MULTILINE), *fenced.splitlines()]


def arguments(line: str) -> list[str] | None:
    """What the appliance is given in this line; None if it is another program's."""
    found = re.match(r"(?:sudo )?(?:env )?(?:\w+=\S+ )*(?:[\w./-]*/)?(?:python -m )?appliance (.*?)&?$", line)
    return shlex.split(found[1], comments=True) if found else None


TOLD = [(page, line) for page, text in PAGES.items() for line in shell(text) if arguments(line) is not None]


def test_commands_are_found_however_they_are_written() -> None:
    assert arguments("appliance models use a  # comment") == ["models", "use", "a"]
    assert arguments("sudo env APPLIANCE_HOME=/x /opt/appliance/bin/python -m appliance report") == ["report"]
    assert arguments("llama-bench -m appliance ") is None
    assert {page for page, _ in TOLD} >= {"README.md", "docs/models.md", "docs/service.md", "docs/benchmarking.md"}


@pytest.mark.parametrize(("page", "line"), TOLD)
def test_shell_lines_use_only_commands_there_are(page: str, line: str) -> None:
    asked = parser().parse_args(arguments(line))
    assert asked.command in COMMANDS


def test_what_is_installed_anew_by_hand_is_what_the_project_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    [engine] = [one for one in project["dependencies"] if one.startswith("llama-cpp-python")]
    installs = [line for page in PAGES.values() for line in shell(page) if "--force-reinstall" in line]
    assert installs and all(f'"{engine}"' in line for line in installs)
