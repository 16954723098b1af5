"""What every test stands on: an environment of its own, and the starter model, fetched once."""

from __future__ import annotations

import itertools
import os
from collections.abc import Generator, Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from appliance.config import PUBLIC_CLOUDS, PathsConfig, default_paths
from appliance.store.catalog import find
from appliance.store.pull import pull
from appliance.store.store import path_of

NUMBERS = itertools.count()
OUTSIDE = dict(os.environ)
"""The environment that the tests were started in."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What was logged may hold half a character, which does not get through to the process that reports."""
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(autouse=True)
def apart(homes: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the keys, the configuration or the models of whoever runs it. Gives the appliance's home, which is
    not there: most tests need none, and to make and delete thousands of folders takes half a minute."""
    home = homes / str(next(NUMBERS))
    for variable in [name for name in os.environ if name.startswith("APPLIANCE_")]:
        monkeypatch.delenv(variable)
    for variable in ["ANTHROPIC_API_KEY", *(cloud.variable for cloud in PUBLIC_CLOUDS)]:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("APPLIANCE_HOME", str(home))
    return home


@pytest.fixture
def isolated(apart: Path) -> Path:
    """The appliance's home, which is there and empty."""
    apart.mkdir()
    return apart


@pytest.fixture(scope="session", autouse=True)
def certificates_are_read_once() -> Iterator[None]:
    """Each new client of httpx reads all authorities of the world: 27 ms, ten times as long as its request."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("httpx", "httpx2"):  # the official SDKs have the one or the other
            with suppress(ImportError):
                module = import_module(f"{name}._transports.default")
                patch.setattr(module, "create_ssl_context", cache(module.create_ssl_context))
        yield


@pytest.fixture(scope="session")
def starter_gguf() -> Path:
    """The verified starter model, in a store that survives between runs: the user's own, or `APPLIANCE_TEST_MODELS`."""
    own = default_paths(OUTSIDE)
    models = Path(OUTSIDE.get("APPLIANCE_TEST_MODELS") or own.models).absolute()
    starter = find("starter")
    pull(starter, PathsConfig(state=own.state, cache=own.cache, models=models), say=print)
    return path_of(starter, models)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
