"""Dependencies go one way. This file holds the table, and reads every import of the project against it."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "appliance").rglob("*.py"))
EVERYBODY = frozenset(
    "accept answer appliance availability backends bench cli config core counting dialects doctor document drills drive"
    " engine guard incidents journal ledger logs metrics presets proxies server settings spec store unit"
    " upstreams".split()
)

# A room is a package under appliance/ or a module beside them; it may import itself and the rooms in its row.
ALLOWED = {
    "core": "",
    "accept": "",
    "settings": "accept",
    "unit": "",
    "document": "settings",  # the configuration file as text
    "proxies": "",
    "presets": "core",
    "upstreams": "core document presets proxies settings",
    "config": "core document settings upstreams",
    "dialects": "core",
    "engine": "core",
    "backends": "core dialects",
    "drive": "core",
    "counting": "backends core",
    "answer": "core journal metrics",
    "journal": "core",
    "ledger": "journal",
    "incidents": "core journal",
    "availability": "core journal",
    "logs": "",
    "metrics": "core journal",
    "guard": "core",
    "store": "core",
    "spec": "backends config store",  # what of the configuration an engine is told
    "doctor": "backends config core dialects presets proxies spec store",
    "server": "answer core counting dialects guard appliance config journal logs metrics",
    "drills": " ".join(EVERYBODY - {"engine", "cli"}),
    "bench": " ".join(EVERYBODY - {"engine", "cli"}),  # measures the whole of it, from outside
    "cli": " ".join(EVERYBODY - {"engine"}),
    "appliance": " ".join(EVERYBODY - {"engine", "cli", "server", "drills", "bench"}),  # knows all it has to build
    "__main__": "cli config store",
    "__init__": "",
}

# Which packages that are not Python's own a room may use. A room without a row: none.
THIRD_PARTIES = {
    "engine": "numpy jinja2 llama_cpp psutil",
    "backends": "aiohttp certifi multidict yarl",  # the last two are aiohttp's own headers and addresses
    "metrics": "prometheus_client",
    "store": "httpx huggingface_hub numpy psutil packaging",
    "server": "fastapi starlette uvicorn uvloop",
    "drills": "httpx uvicorn",  # a listener of its own
    "bench": "httpx psutil uvloop",  # a client of the service, and a cloud as fast as the service itself
    "doctor": "dns h11 psutil",  # asks name servers one by one, and speaks HTTP on a connection that it made itself
    "cli": "httpx psutil tomlkit tqdm uvloop",
}

# Rows for one file or two, with the reason.
ONLY_IN = {
    # opening it, computing, what there is to compute on, what is in a file; a changed API: four places to look
    "llama_cpp": ("engine/load.py", "engine/model.py", "engine/devices.py", "engine/tables.py"),
    "huggingface_hub": ("store/hub.py",),  # it knows addresses: nothing else may ask one without being told to
    "tomlkit": ("cli/models_change.py",),
    "jinja2": ("engine/templates.py",),  # templates are programs of strangers; they run in one sandbox
}
ALSO = {
    "server/run.py": "ledger store",  # is handed the model file that was found, to serve it
}
STARTS_TASKS = ("backends/", "server/", "drive.py", "drills/")  # in drills: the failing cloud, a server of its own
IMPURE = frozenset(
    "asyncio datetime http io logging multiprocessing os pathlib random secrets selectors shutil signal socket "
    "sqlite3 ssl subprocess tempfile threading time urllib uuid".split()
)
PURE_PARTS = ("urllib.parse",)
MOST_LINES = 420


class Import(NamedTuple):
    file: str  # relative to appliance/
    line: int
    module: str

    @property
    def room(self) -> str:
        return room_of(self.file.removesuffix(".py").split("/"))


def room_of(parts: list[str]) -> str:
    return parts[0] if parts else "__init__"


def imports_of(source: str, file: str) -> Iterator[Import]:
    """Every import of a file, also inside functions, with relative names made absolute."""
    package = ["appliance", *file.split("/")[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "appliance":  # "from appliance import x": x is a room, or a value of the root
                rooms = [alias.name for alias in node.names if alias.name in EVERYBODY]
                yield from (Import(file, node.lineno, f"appliance.{room}") for room in rooms)
            else:
                yield Import(file, node.lineno, module)


def all_imports() -> list[Import]:
    return [one for path in SOURCES for one in imports_of(path.read_text("utf-8"), name(path))]


def name(path: Path) -> str:
    return path.relative_to(ROOT / "appliance").as_posix()


def wrong(imports: list[Import]) -> list[str]:
    """What the table does not allow, a line each."""
    complaints = []
    for one in imports:
        top, *rest = one.module.split(".")
        if top == "appliance":
            target = room_of(rest)
            rows = f"{ALLOWED[one.room]} {ALSO.get(one.file, '')}".split()
            if target not in (one.room, "__init__", *rows):
                complaints.append(f"{one.file}:{one.line}: {one.room} must not import {one.module}")
        elif top not in sys.stdlib_module_names:
            if top not in THIRD_PARTIES.get(one.room, "").split():
                complaints.append(f"{one.file}:{one.line}: {one.room} must not use {top}")
            elif one.file not in ONLY_IN.get(top, (one.file,)):
                complaints.append(f"{one.file}:{one.line}: {top} belongs in {' and '.join(ONLY_IN[top])} only")
        elif one.room in ("core", "dialects") and top in IMPURE and one.module not in PURE_PARTS:
            complaints.append(f"{one.file}:{one.line}: {one.room} is pure and must not use {one.module}")
    return complaints


def test_every_room_has_a_row_in_the_table() -> None:
    rooms = {room_of(name(path).removesuffix(".py").split("/")) for path in SOURCES}
    assert rooms <= set(ALLOWED)


def test_imports_go_the_way_the_table_says() -> None:
    assert wrong(all_imports()) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("core/relay.py", "from appliance.drive import drive"),
        ("core/relay.py", "import asyncio"),
        ("core/relay.py", "def now():\n    import time"),
        ("core/relay.py", "import numpy"),
        ("dialects/openai_chat.py", "from ..backends import cloud"),
        ("dialects/openai_chat.py", "from appliance import journal"),
        ("engine/loop.py", "from appliance.config import Config"),
        ("engine/loop.py", "import llama_cpp.llama_cpp"),
        ("engine/loop.py", "from jinja2.sandbox import SandboxedEnvironment"),
        ("backends/cloud.py", "import llama_cpp"),
        ("server/routes.py", "from appliance.backends.cloud import CloudBackend"),
        ("server/routes.py", "from appliance.store import store"),
        ("cli/serve.py", "import appliance.engine.model"),
        ("config.py", "import tomli"),
    ],
)
def test_an_import_against_the_table_is_found(file: str, source: str) -> None:
    assert len(wrong(list(imports_of(source, file)))) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("core/relay.py", "from appliance.core.chat import Event\nimport dataclasses"),
        ("engine/load.py", "import llama_cpp"),
        ("engine/model.py", "import llama_cpp"),
        ("backends/local.py", "from ..core.chat import Event\nfrom . import process"),
        ("server/routes.py", "from appliance import __version__"),
        ("cli/serve.py", "def serve():\n    from appliance.server.run import run"),
    ],
)
def test_an_import_along_the_table_is_left_alone(file: str, source: str) -> None:
    assert wrong(list(imports_of(source, file))) == []


def starts_of_tasks(source: str) -> list[int]:
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if (isinstance(node, ast.Attribute) and node.attr in ("create_task", "ensure_future"))
        or (isinstance(node, ast.ImportFrom) and {a.name for a in node.names} & {"create_task", "ensure_future"})
    ]


def test_tasks_are_started_only_by_those_who_own_them() -> None:
    found = [
        f"{name(path)}:{line}"
        for path in SOURCES
        if not name(path).startswith(STARTS_TASKS)
        for line in starts_of_tasks(path.read_text("utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "source", ["asyncio.create_task(x())", "group.create_task(x())", "from asyncio import ensure_future"]
)
def test_a_start_of_a_task_is_found(source: str) -> None:
    assert starts_of_tasks(source) == [1]


def test_every_file_is_still_one_room() -> None:
    long = {name(path): lines for path in SOURCES if (lines := len(path.read_text("utf-8").splitlines())) > MOST_LINES}
    assert long == {}
