"""Was llama.cpp built for this very processor? For a better one it dies, for a lesser one it is slow."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from appliance.core.machine import Machine
from appliance.doctor.finding import Finding, ok, skipped, warn, wrong
from appliance.doctor.words import listed

LAYER = "processor"
PACKAGE = "llama-cpp-python"

FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "SSE3": "pni", "SSSE3": "ssse3", "AVX": "avx", "AVX2": "avx2", "F16C": "f16c", "FMA": "fma", "BMI2": "bmi2",
        "AVX_VNNI": "avx_vnni", "AVX512": "avx512f", "AVX512_VBMI": "avx512vbmi", "AVX512_VNNI": "avx512_vnni",
        "AVX512_BF16": "avx512_bf16", "AMX_INT8": "amx_int8",
        "NEON": "asimd", "FP16_VA": "asimdhp", "DOTPROD": "asimddp", "MATMUL_INT8": "i8mm", "SVE": "sve", "SME": "sme",
    }
)  # fmt: skip
"""What llama.cpp calls an instruction set, and what the kernel does."""
MATTERS = ("AVX2", "FMA", "DOTPROD")
"""Without these, where the processor has them, it is several times slower."""
ILLEGAL = "signal 4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """``flags`` are the kernel's words for what it can; none if the kernel does not tell."""

    flags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """llama.cpp as it is installed: what it says of itself and of the box, or its ``trouble``; neither, if it did not
    say so in time. ``clone``: it lies in a clone of the project, whose scripts compile it; elsewhere ``python`` does,
    and this ``version`` of the package."""

    machine: Machine | None = None
    trouble: str = ""
    clone: bool = False
    python: str = "python"
    version: str = ""

    def again(self, flags: str = "") -> str:
        """The command that compiles it anew, for this box."""
        given = f'CMAKE_ARGS="{flags}" ' if flags else ""
        if self.clone:
            return f"{given}./scripts/run" if flags else "rm -r .venv; pip cache remove llama_cpp_python; ./scripts/run"
        package = f"{PACKAGE}=={self.version}" if self.version else PACKAGE
        pip = f"{shlex.quote(self.python)} -m pip install --no-cache-dir --force-reinstall --no-deps"
        return f"{given}{pip} --no-binary {PACKAGE} {package}"


def verdict(processor: Processor, build: Build) -> Finding:
    machine = build.machine
    if machine is None and ILLEGAL in build.trouble:
        said = "llama.cpp dies of an illegal instruction: it was built for another processor"
        return wrong(LAYER, said, who="box", fix=f"Build it here: {build.again()}")
    if machine is None and not build.trouble:
        return skipped(LAYER, "llama.cpp did not say in time what it was built for; this box is busy")
    if machine is None:
        said = f"llama.cpp cannot be used: {build.trouble.rstrip('.')}"
        return wrong(LAYER, said, who="box", fix=f"Install it again: {build.again()}")
    lacking = [name for name in machine.instruction_sets if name in FLAGS and not _can(processor.flags, name)]
    if lacking:
        said = f"llama.cpp was built with {listed(lacking)}, which this processor has not: it will die of it"
        return wrong(LAYER, said, who="box", fix=f"Build it here: {build.again()}")
    unused = [name for name in MATTERS if name not in machine.instruction_sets and FLAGS[name] in processor.flags]
    if unused:
        said = f"llama.cpp was built without {listed(unused)}, which this processor has: it is several times too slow"
        return wrong(LAYER, said, who="box", fix=f"Build it here: {build.again()}")
    used = [name for name in machine.instruction_sets if name in FLAGS]
    said = (
        f"{machine.cpu}, {machine.threads} threads; llama.cpp {machine.build} uses {listed(used[3:] or used, most=9)}"
    )
    if machine.threads == 1:
        return warn(LAYER, f"{said}; one thread is little", who="box", fix="Give this machine or container more cores.")
    return ok(LAYER, said)


def _can(flags: Collection[str], name: str) -> bool:
    return not flags or FLAGS[name] in flags
