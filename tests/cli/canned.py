"""Made-up answers of an appliance."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Canned:
    """What to answer at each path (status, headers, body), and what was asked."""

    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    url: str = ""

    def json(self, path: str, body: Any, status: int = 200) -> None:
        self.answers[path] = (status, {"content-type": "application/json"}, json.dumps(body).encode())
