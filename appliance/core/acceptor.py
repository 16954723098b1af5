"""Its old address: see `appliance.core.structure`."""

from appliance.core.structure import State, start

__all__ = ["State", "start"]
