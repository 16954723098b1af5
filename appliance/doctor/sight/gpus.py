"""Which GPUs does the kernel see, and is there a driver?

All of it is read from files, so that any box can be laid out in a folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from appliance.doctor.checks.gpu import Card

Vendor = Literal["NVIDIA", "AMD", "Intel"]
VENDORS: Mapping[str, Vendor] = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}
DISPLAY, ACCELERATOR = "0x03", "0x12"  # PCI classes; what a board's management chip shows is of another vendor


def cards(root: Path) -> tuple[Card, ...]:
    """All of them. Where the bus is not shown, as in some containers, the driver's own folder tells."""
    found = tuple(_on_the_bus(root))
    if any(card.vendor == "NVIDIA" for card in found):
        return found
    return (*found, *(_nvidia(root, name) for name in _nvidia_names(root)))


def _on_the_bus(root: Path) -> Iterator[Card]:
    names = iter(_nvidia_names(root))
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        vendor = VENDORS.get(_read(device / "vendor"))
        if vendor is None or not _read(device / "class").startswith((DISPLAY, ACCELERATOR)):
            continue
        if vendor == "NVIDIA":
            yield _nvidia(root, next(names, ""))
        else:
            nodes = (root / ("dev/kfd" if vendor == "AMD" else "dev/dri")).exists()
            yield Card(vendor=vendor, driver=(device / "driver").exists(), nodes=nodes)


def _nvidia(root: Path, name: str) -> Card:
    driver = (root / "proc/driver/nvidia/version").is_file()
    nodes = (root / "dev/nvidiactl").exists() and any((root / "dev").glob("nvidia[0-9]*"))
    return Card(vendor="NVIDIA", name=name, driver=driver, nodes=nodes)


def _nvidia_names(root: Path) -> list[str]:
    """The models of the cards, as the driver calls them."""
    return [_model(_read(told)) for told in sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))]


def _model(information: str) -> str:
    for line in information.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "Model":
            return value.strip()
    return ""


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
