"""A box gets the versions that run here, compiled for no more than was promised."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata as metadata
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from appliance import __version__
from appliance.store import packing
from appliance.store.catalog import StoreError
from appliance.store.manifest import BASELINES

V3 = BASELINES[0]
HERE = {
    "fallback-appliance": ("1.0", ["web[fast]>=1", 'old; python_version < "3.12"', 'mypy; extra == "test"']),
    "web": ("2.0", ['loop>=1; extra == "fast"', 'never; extra == "slow"', "Name_With.Dots"]),
    "loop": ("3.0", ['gone; sys_platform == "win32"', "web"]),
    "name-with-dots": ("4.0", []),
    "old": ("5.0", []),
}


def requires(name: str) -> tuple[str, Sequence[str]]:
    if name not in HERE:
        raise metadata.PackageNotFoundError(name)
    return HERE[name]


def test_everything_that_is_needed_goes_along_in_the_version_that_is_here() -> None:
    there = {"fallback-appliance": "1.0", "web": "2.0", "loop": "3.0", "name-with-dots": "4.0"}
    assert packing.closure("3.12", requires=requires) == there
    assert packing.closure("3.11", requires=requires) == there | {"old": "5.0"}


def test_what_only_another_python_needs_and_is_not_here_is_said() -> None:
    def lacking(name: str) -> tuple[str, Sequence[str]]:
        if name == "old":
            raise metadata.PackageNotFoundError(name)
        return requires(name)

    assert packing.closure("3.12", requires=lacking)
    with pytest.raises(
        StoreError, match=r"Python 3\.11 needs old, which is not installed here; leave 3\.11 out with --python"
    ):
        packing.closure("3.11", requires=lacking)


def test_this_installation_can_be_carried_away() -> None:
    found = packing.closure("3.13")
    assert found[packing.ENGINE] == metadata.version(packing.ENGINE)
    assert {"fallback-appliance", "aiohttp", "pip", "numpy"} <= set(found)
    assert not {"pytest", "mypy", "ruff"} & set(found)


def test_an_engine_that_asks_for_more_than_was_promised_does_not_travel() -> None:
    packing.check_sets(("SSE3", "AVX2", "FMA"), V3, "x.whl")
    with pytest.raises(
        StoreError, match=r"x\.whl was compiled with AVX512, AVX512_VNNI, which x86-64-v3 does not have"
    ):
        packing.check_sets(("AVX2", "AVX512_VNNI", "AVX512"), V3, "x.whl")


def test_the_newest_glibc_that_is_named_is_the_one_that_is_needed() -> None:
    contents = [b"\0GLIBC_2.4\0GLIBC_2.17\0", b"\0GLIBC_2.9\0GLIBC_2.3.4\0GLIBC_PRIVATE\0", b"xGLIBC_2.99\0"]
    assert packing.glibc_needed(iter(contents)) == "2.17"
    assert packing.glibc_needed(iter(())) == "2.17"


def test_a_wheel_that_was_brought_is_taken_before_one_that_was_kept(tmp_path: Path) -> None:
    brought, cache, said = tmp_path / "brought", tmp_path / "cache", []
    name = f"llama_cpp_python-{metadata.version(packing.ENGINE)}-py3-none-linux_x86_64.whl"
    brought.mkdir()
    (brought / name).write_bytes(b"")
    (brought / "llama_cpp_python-0.0.1-py3-none-linux_x86_64.whl").write_bytes(b"")  # not the version that runs here
    assert packing.engine_wheel(V3, cache, wheels=brought, beside=tmp_path, say=said.append) == brought / name
    assert said == [f"Taking {name} from {brought}."]


def test_an_edit_of_the_requirements_is_not_left_behind() -> None:
    project = '[project]\ndependencies = ["b>=2,<3", "c ; sys_platform != \'win32\'"]\n'
    assert packing.unknown(project, ["b<3,>=2", 'c; sys_platform != "win32"']) == []
    assert packing.unknown(project, ["b<3,>=2"]) == ['c; sys_platform != "win32"']


def test_our_own_wheel_is_written_from_what_runs(tmp_path: Path) -> None:
    wheel = packing.write_own_wheel(tmp_path)
    assert wheel.name == f"fallback_appliance-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    about = f"fallback_appliance-{__version__}.dist-info"
    assert {"appliance/__main__.py", "appliance/store/install.sh", "appliance/store/models/catalog.toml"} <= set(
        content
    )
    assert {f"{about}/METADATA", f"{about}/WHEEL", f"{about}/licenses/LICENSE"} <= set(content)
    assert b"appliance = appliance.__main__:main" in content[f"{about}/entry_points.txt"]
    assert [name for name in content if "__pycache__" in name or name.endswith(("direct_url.json", ".pth"))] == []
    rows = [line.rsplit(",", 2) for line in content[f"{about}/RECORD"].decode().splitlines()]
    assert [row[0] for row in rows] == list(content)
    for name, digest, size in rows[:-1]:
        right = base64.urlsafe_b64encode(hashlib.sha256(content[name]).digest()).rstrip(b"=").decode()
        assert (digest, size) == (f"sha256={right}", str(len(content[name])))
    again = tmp_path / "again"
    again.mkdir()
    assert packing.write_own_wheel(again).read_bytes() == wheel.read_bytes()
