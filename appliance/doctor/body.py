"""What do the facts of the box itself mean?"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from datetime import timedelta

from appliance.doctor.checks import (
    clock,
    cpu,
    disk,
    engine,
    gpu,
    limits,
    memory,
    model,
    port,
    secrets,
    service,
    settings,
)
from appliance.doctor.checks.engine import Trial
from appliance.doctor.checks.settings import Written
from appliance.doctor.finding import Finding, Section
from appliance.doctor.sight.box import Box

BOX = "this box"


def judge(box: Box, written: Written, answer: Trial | None, *, off: timedelta | None) -> Section:
    """`off`: how far its clock is ahead. `answer`: what the model said, if it was asked."""
    findings = tuple(_findings(box, written, answer, off))
    return Section(of=BOX, about=f"{platform.node()}, {platform.system()} {platform.release()}", findings=findings)


def _findings(box: Box, written: Written, answer: Trial | None, off: timedelta | None) -> Iterator[Finding]:
    """These do not stand on each other: each is looked at, whatever the others say."""
    yield from settings.verdicts(written)
    yield cpu.verdict(box.processor, box.build)
    yield gpu.verdict(box.cards, box.build)
    yield disk.verdict(box.folders)
    yield model.verdict(box.file)
    yield memory.verdict(box.need, box.build.machine)
    if answer is not None:
        yield engine.verdict(answer)
    yield limits.verdict(box.limits)
    yield clock.verdict(off)
    yield secrets.verdict(box.key_files)
    yield port.verdict(box.port)
    if box.service:
        yield service.verdict(box.service)
