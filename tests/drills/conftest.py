"""A flood is rehearsed in full by its own tests; where it only comes along, some dozens at once tell as much."""

from __future__ import annotations

import pytest

from appliance.drills import flood


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flood, "REQUESTS", 64)
