"""What becomes of each field of a body of OpenAI's chat completions when a cloud of another dialect answers it?

Every field has its place: it is said in the vocabulary (`SAID`), or the answer would be another one without it
(`FOREIGN`), or the answer can do without it (`UNSAID`, and every field we never heard of). docs/translation.md says the
same to the user, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from appliance.dialects.fields import told

SAID = frozenset(
    """model messages stream stream_options max_tokens max_completion_tokens stop temperature top_p top_k n tools
    tool_choice parallel_tool_calls response_format user safety_identifier logprobs top_logprobs
    logit_bias functions function_call""".split()
)
"""What the vocabulary says. What of it another dialect cannot say is that dialect's objection."""

EFFORT_FIELDS = frozenset(("reasoning_effort", "reasoning"))
"""Said as far as they name an effort that we know; "reasoning" is OpenRouter's."""

FOREIGN = {
    "modalities": "the answer is to be spoken",
    "audio": "how it is to be spoken",
    "web_search_options": "the answer is to rest on a search",
    "search_parameters": "the same in xAI's words",
    "moderation": "a policy that may block the answer",
    "grammar": "the answer is to keep to a grammar (llama.cpp)",
    "json_schema": "the answer is to keep to a schema (llama.cpp)",
    "guided_json": "the answer is to keep to a schema (vLLM)",
    "guided_regex": "the answer is to keep to an expression (vLLM)",
    "guided_choice": "the answer is to be one of these (vLLM)",
    "guided_grammar": "the answer is to keep to a grammar (vLLM)",
    "structured_outputs": "all of these (vLLM)",
}
"""Without these the answer would be another one, and why."""

UNSAID = {
    "seed": "the same seed draws other tokens from another model anyway",
    "frequency_penalty": "a matter of style",
    "presence_penalty": "a matter of style",
    "repeat_penalty": "a matter of style (llama.cpp)",
    "repetition_penalty": "a matter of style (vLLM, OpenRouter)",
    "min_p": "a matter of style (llama.cpp, vLLM)",
    "store": "where the provider keeps the answer",
    "metadata": "labels of what is stored",
    "service_tier": "what the provider charges, and how soon it answers",
    "prompt_cache_key": "which cache to look in; other providers find it by the prompt",
    "prompt_cache_options": "how long a cache is kept",
    "prompt_cache_retention": "how long a cache is kept",
    "prediction": "words that make the answer faster, not another one",
    "verbosity": "a wish for longer or shorter, which the prompt can say too",
    "provider": "whom OpenRouter should ask",
    "models": "whom OpenRouter should ask instead",
    "route": "whom OpenRouter should ask instead",
    "transforms": "what OpenRouter may leave out of a long prompt",
    "chat_template_kwargs": "settings of another model's template (vLLM, llama.cpp)",
    "safe_prompt": "a system prompt of Mistral's",
}
"""What an answer can do without, and why."""

DEFAULTS: dict[str, Any] = {
    "modalities": ["text"],
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "repeat_penalty": 1,
    "repetition_penalty": 1,
    "min_p": 0,
    "store": False,
    "metadata": {},
    "service_tier": "auto",
    "verbosity": "medium",
}
"""Values with which a field says nothing."""

EFFORTS = frozenset("none minimal low medium high xhigh max".split())


def foreign(found: Mapping[str, Any]) -> list[str]:
    """The fields that matter and that only this dialect knows, in the order written."""
    return [key for key in found if key in FOREIGN and _says(found, key)]


def unsaid(found: Mapping[str, Any], lost: Collection[str] = ()) -> tuple[str, ...]:
    """The fields that get lost without harm, in the order written. `lost`: those that could be said, but not with these
    values."""
    return told(
        key
        for key in found
        if (key not in SAID or key in lost)
        and key not in FOREIGN
        and _says(found, key)
        and not (key in EFFORT_FIELDS and _names_an_effort(key, found[key]))
    )


def effort(found: Mapping[str, Any]) -> str | None:
    """How much to think, if the body says so in a word that we know."""
    wanted = found.get("reasoning_effort")
    if wanted is None and isinstance(nested := found.get("reasoning"), dict):
        wanted = nested.get("effort")
    return wanted if isinstance(wanted, str) and wanted in EFFORTS else None


def _says(found: Mapping[str, Any], key: str) -> bool:
    value = found[key]
    return value is not None and value != DEFAULTS.get(key)


def _names_an_effort(key: str, value: Any) -> bool:
    """Is an effort that we know all it says?"""
    if key == "reasoning" and isinstance(value, dict):
        if any(also is not None for name, also in value.items() if name != "effort"):
            return False
        value = value.get("effort")
    return isinstance(value, str) and value in EFFORTS
