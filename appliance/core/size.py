"""How do people read a number of bytes?"""

from __future__ import annotations


def in_words(size: float) -> str:
    """ "98 MB", "2.7 GB": as disks, networks and the publishers of models count, a thousand to the next."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"
