"""Its old address: see `appliance.core.structure`."""

from appliance.core.structure import Grammar

__all__ = ["Grammar"]
