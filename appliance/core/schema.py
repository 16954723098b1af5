"""Its old address: see `appliance.core.structure`."""

from appliance.core.structure import SchemaError, grammar, grammar_of

__all__ = ["SchemaError", "grammar", "grammar_of"]
