"""The page about the configuration is made of the settings, and says nothing that they do not."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from appliance import config
from appliance.core.seams import Quirks
from appliance.proxies import PORTS
from appliance.settings import QUIRKS, SECTIONS, VARIABLES, Key
from scripts.configuration import DEFAULTS, MARKED, PAGE, filled, tables, written

ROOT = Path(__file__).parents[1]
TEXT = PAGE.read_text("utf-8")
ROWS = [
    pytest.param(section, name, key, id=f"{section}.{name}")
    for section, keys in {**SECTIONS, "quirks": QUIRKS}.items()
    for name, key in keys.items()
    if isinstance(key, Key)
]


def test_the_page_is_what_is_made_of_the_settings() -> None:
    assert filled(TEXT) == TEXT, "run `python scripts/configuration.py`"


def test_every_table_has_its_place_and_every_place_its_table() -> None:
    assert sorted(found[2] for found in MARKED.finditer(TEXT)) == sorted(tables())


def test_a_table_that_was_changed_by_hand_is_put_right() -> None:
    assert filled(TEXT.replace("| `8484` |", "| `8485` |")) == TEXT


@pytest.mark.parametrize(("section", "name", "key"), ROWS)
def test_every_key_says_what_it_means_with_an_example_that_is_accepted(section: str, name: str, key: Key) -> None:
    assert key.meaning and key.meaning == key.meaning.strip() and "|" not in key.meaning
    [(read, value)] = tomllib.loads(f"{name} = {written(key.example)}").items()
    assert (read, value) == (name, key.example)
    key.accept(value)
    if not key.default:
        [default] = [field.default for field in dataclasses.fields(DEFAULTS[section]) if field.name == name]
        assert value != default, "an example shows something else than what holds anyway"


def test_every_quirk_there_is_can_be_written() -> None:
    assert list(QUIRKS) == [field.name for field in dataclasses.fields(Quirks)]


def test_every_variable_that_is_read_is_on_the_page() -> None:
    read = set()
    for path in (ROOT / "appliance").rglob("*.py"):
        if path.name not in ("unit.py", "service.py"):  # they write a service's environment
            read |= set(re.findall(r'environ(?:\.get\(|\[)"(\w+)"', path.read_text("utf-8")))
    # HOME is everybody's; a proxy's variables and those of certificates are read by loops over their names.
    read |= {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "ALL_PROXY", "NO_PROXY"} | {
        f"{scheme}_PROXY".upper() for scheme in PORTS
    }
    assert {name for name in read - {"HOME"} if f"`{name}`" not in TEXT} == set()
    assert set(VARIABLES) - read <= {"XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"}  # by name, in `default_paths`


def test_the_file_is_looked_for_where_the_page_says_in_that_order() -> None:
    steps = re.findall(r"^\d\. (.*)", TEXT, flags=re.MULTILINE)
    assert steps[:2] == ["`--config FILE`", "`$APPLIANCE_CONFIG`"]
    home, etc = {"HOME": "/home/me"}, "/etc/appliance/appliance.toml"
    assert list(map(str, config.places(home))) == ["appliance.toml", "/home/me/.config/appliance/appliance.toml", etc]
    assert config.places({**home, "APPLIANCE_HOME": "/box"})[1] == Path("/box/appliance.toml")
    assert "`./appliance.toml`" in steps[2]
    assert "`$APPLIANCE_HOME/appliance.toml`" in steps[3] and "`~/.config/appliance/appliance.toml`" in steps[3]
    assert f"`{etc}`" in steps[4]
