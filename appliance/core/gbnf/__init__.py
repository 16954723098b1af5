"""Text that keeps to a grammar in GBNF, llama.cpp's notation, character by character.

`read` reads a grammar, and its `start` is the place before the first character. Nothing here can be made to run away:
grammars that are too large, that call themselves before they have read anything, or that could be read in too many ways
at once are refused in a sentence.
"""

from appliance.core.gbnf.network import Network, Place, network
from appliance.core.gbnf.reading import GrammarError, rules


def read(text: str) -> Network:
    """The grammar. Raises `GrammarError` with a sentence about it."""
    return network(rules(text))


__all__ = ["GrammarError", "Network", "Place", "read"]
