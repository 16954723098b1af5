"""A manifest says what a box must have, and takes no path that leads out of its folder."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from appliance.store.catalog import StoreError
from appliance.store.manifest import (
    BASELINES,
    Host,
    Manifest,
    Piece,
    baseline_named,
    cpu_flags,
    objection,
    parse,
    render,
    seal,
)

WHEEL = Piece(path="wheels/a-1-py3-none-any.whl", bytes=3, sha256="0" * 64)
MANIFEST = Manifest(
    version="1.2.3",
    created="2026-01-02T03:04:05+00:00",
    baseline="x86-64-v3",
    machine="x86_64",
    cpu=("avx2", "fma"),
    instruction_sets=("AVX2", "FMA"),
    glibc="2.34",
    pythons=("3.11", "3.12"),
    unpacked=1000,
    models={"tiny": ("tiny.gguf",)},
    files=(WHEEL, Piece(path="models/hf/o/r/tiny.gguf", bytes=4, sha256="1" * 64)),
    built_with={"python": "3.11.7"},
)
BOX = Host(machine="x86_64", cpu=frozenset({"avx2", "fma", "sse"}), glibc="2.36", python="3.12")


def test_what_was_written_is_read() -> None:
    assert parse(render(MANIFEST)) == MANIFEST
    assert MANIFEST.bytes == 7
    assert MANIFEST.within("models") == MANIFEST.files[1:]


def test_the_seal_is_what_sha256sum_reads() -> None:
    assert seal("ab") == b"ab  manifest.json\n"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 1}', b"\xff", render(MANIFEST)[:-20]])
def test_what_is_no_manifest_is_damaged(content: bytes) -> None:
    with pytest.raises(StoreError, match=r"^the manifest of this bundle is damaged; get the bundle again\.$"):
        parse(content)


def test_a_manifest_of_another_format_installs_itself() -> None:
    other = json.loads(render(MANIFEST)) | {"format": 2}
    with pytest.raises(StoreError, match=r"made by another version of the appliance; use the install\.sh inside it"):
        parse(json.dumps(other).encode())


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../x",
        "wheels/../../x",
        ".",
        "",
        "a//b",
        "a/./b",
        "a/",
        "a\\b",
        "a\nb",
        "manifest.json",
        WHEEL.path,
    ],
)
def test_a_path_that_leads_elsewhere_damages_the_whole(path: str) -> None:
    with pytest.raises(StoreError, match="damaged"):
        parse(render(replace(MANIFEST, files=(WHEEL, replace(WHEEL, path=path)))))


def test_a_bundle_without_wheels_is_none() -> None:
    with pytest.raises(StoreError, match="damaged"):
        parse(render(replace(MANIFEST, files=MANIFEST.files[1:])))


@pytest.mark.parametrize(
    ("box", "words"),
    [
        (BOX, None),
        (replace(BOX, glibc="2.34"), None),
        (replace(BOX, machine="aarch64"), "is for x86_64 and this machine is aarch64"),
        (replace(BOX, cpu=frozenset({"fma"})), "the one here has no avx2; make one on a machine with this processor"),
        (replace(BOX, cpu=frozenset()), "/proc/cpuinfo does not say what the processor here can do; mount /proc"),
        (replace(BOX, glibc="2.9"), "needs glibc 2.34 or newer, and this system has 2.9; "),
        (replace(BOX, glibc=None), "this system has none (musl is not supported)"),
        (replace(BOX, python="3.14"), "is for Python 3.11 or 3.12 and this is 3.14; "),
    ],
)
def test_a_box_that_cannot_run_it_is_told_before_anything_is_installed(box: Host, words: str | None) -> None:
    found = objection(MANIFEST, box)
    if words is None:
        assert found is None
    else:
        assert found is not None
        assert words in found


def test_the_processor_is_read_as_linux_writes_it() -> None:
    assert cpu_flags("processor\t: 0\nflags\t\t: fpu avx2 fma\n\nprocessor\t: 1\nflags\t\t: fpu\n") == {
        "fpu",
        "avx2",
        "fma",
    }
    assert cpu_flags("processor : 0\nFeatures\t: fp asimd\n") == {"fp", "asimd"}
    assert cpu_flags("") == frozenset()


def test_a_baseline_is_for_its_own_kind_of_machine() -> None:
    assert baseline_named("x86-64-v3", "x86_64", ()) is BASELINES[0]
    with pytest.raises(StoreError, match="x86-64-v3 is for x86_64 and this machine is aarch64"):
        baseline_named("x86-64-v3", "aarch64", ())
    with pytest.raises(StoreError, match='no baseline "sse9"; take one of x86-64-v3, armv8-a, native'):
        baseline_named("sse9", "x86_64", ())


def test_native_asks_for_every_extension_of_this_processor_and_nothing_else() -> None:
    found = baseline_named(
        "native", "x86_64", ("fpu", "avx2", "avx512f", "amx_tile", "hypervisor", "constant_tsc", "bmi2")
    )
    assert found.cpu == ("amx_tile", "avx2", "avx512f", "bmi2")
    assert found.cmake == ("-DGGML_NATIVE=ON",)
