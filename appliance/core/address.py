"""How is a place in the network written?"""

from __future__ import annotations


def authority(host: str, port: int | None = None) -> str:
    """As a URL has it: an IPv6 address in brackets, which tell its colons from the port's."""
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"
