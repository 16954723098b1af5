"""JSON that keeps to a schema, byte by byte, whoever wrote its beginning.

`grammar` reads a schema, `start` is the state before the first byte of a document, `shortest` ends one.
"""

from appliance.core.structure.acceptor import State, start
from appliance.core.structure.closing import shortest
from appliance.core.structure.rules import Grammar
from appliance.core.structure.schema import SchemaError, grammar, grammar_of

__all__ = ["Grammar", "SchemaError", "State", "grammar", "grammar_of", "shortest", "start"]
