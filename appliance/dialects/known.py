"""Which wires do we speak?"""

from __future__ import annotations

from collections.abc import Mapping

from appliance.core.seams import Dialect
from appliance.dialects.anthropic import ANTHROPIC
from appliance.dialects.openai_chat import OPENAI

DIALECTS: Mapping[str, Dialect] = {dialect.name: dialect for dialect in (OPENAI, ANTHROPIC)}
