"""What is known about the clouds that people use? One row each, so that naming one is a configuration.

Rules of this file:

1. A row is a fact about a provider, looked up in its own documentation or seen in its own refusals; no code knows a
   provider's name.
2. A row fills in what the owner of the box did not write, and never overrides what they did.
3. A pattern is in `effort` only if those models take the field with tools as well as without. OpenAI's from gpt-5.2 on
   refuse the two together on this wire, and want their Responses API instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from appliance.core.seams import PLAIN, Quirks

Api = Literal["openai", "anthropic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One provider, or one program that serves models.

    ``base_url`` is ``None`` if everybody has an address of their own; ``address_like`` shows how it looks then.
    ``anthropic_url`` is where it speaks Anthropic's wire, if that is not its first. ``variable`` is where its key
    usually is; ``None`` if it needs none. ``key_header`` is ``None`` for the one usual in its dialect. ``domains`` are
    the hosts it can be told by; one with a leading dot stands for all below it.
    """

    name: str
    api: Api
    base_url: str | None
    variable: str | None = None
    models: tuple[str, ...] = ("*",)
    domains: tuple[str, ...] = ()
    address_like: str = ""
    anthropic_url: str | None = None
    key_header: str | None = None
    quirks: Quirks = PLAIN
    status_page: str | None = None

    def url(self, api: str) -> str | None:
        """Where it speaks `api`, as far as is known."""
        if api == self.api:
            return self.base_url
        return self.anthropic_url if api == "anthropic" else None


# o1 and its successors, and the GPTs from 5 on, take no `max_tokens` any more.
_OPENAI = Quirks(
    new_limit=("o[1-9]*", "gpt-[5-9]*"),
    effort=("o[1-9]*", "gpt-5", "gpt-5-[0-9mn]*", "gpt-5.1", "gpt-5.1-[0-9m]*"),  # not -chat, -codex, -pro
    unthinking_tools=("gpt-5.[6-9]*", "gpt-[6-9]*"),  # on chat completions; thinking with tools is the Responses wire's
)
_OPENAI_MODELS = ("gpt-*", "o1*", "o3*", "o4*", "chatgpt-*")
_GPT_OSS = Quirks(effort=("*gpt-oss*",))
"""What people run themselves: of the models they load, only these are known to take an effort."""

PRESETS: tuple[Preset, ...] = (
    Preset(
        name="anthropic",
        api="anthropic",
        base_url="https://api.anthropic.com",
        variable="ANTHROPIC_API_KEY",
        models=("claude-*",),
        domains=("api.anthropic.com",),
        quirks=Quirks(
            effort=(
                "claude-opus-4-[5-9]*",
                "claude-sonnet-4-[6-9]*",
                "claude-opus-[5-9]*",
                "claude-sonnet-[5-9]*",
                "claude-haiku-[5-9]*",  # 4.5 answers a 400
                "claude-fable-*",
                "claude-mythos-*",
            ),
            signed_thinking=True,  # 400 "Expected `thinking` or `redacted_thinking`, but found `tool_use`"
        ),
        status_page="https://status.claude.com",
    ),
    Preset(
        name="openai",
        api="openai",
        base_url="https://api.openai.com/v1",
        variable="OPENAI_API_KEY",
        models=_OPENAI_MODELS,
        domains=("api.openai.com", ".api.openai.com"),  # eu.api.openai.com and its like keep data in a region
        quirks=_OPENAI,
        status_page="https://status.openai.com",
    ),
    Preset(
        name="gemini",
        api="openai",
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        variable="GEMINI_API_KEY",
        models=("gemini-*",),
        domains=("generativelanguage.googleapis.com",),
        quirks=Quirks(effort=("gemini-2.5*", "gemini-[3-9]*")),
        status_page="https://aistudio.google.com/status",
    ),
    Preset(
        name="deepseek",
        api="openai",
        base_url="https://api.deepseek.com",
        anthropic_url="https://api.deepseek.com/anthropic",
        variable="DEEPSEEK_API_KEY",
        models=("deepseek-*",),
        domains=("api.deepseek.com",),
        # Its guide to the thinking mode: a turn with tool calls needs its reasoning_content in all later requests, else
        # 400 ("must be passed back to the API"). Without thinking it is ignored.
        quirks=Quirks(effort=("deepseek-v[4-9]*",), reasoning_back=("deepseek-reasoner", "deepseek-v[4-9]*")),
        status_page="https://status.deepseek.com",
    ),
    Preset(
        name="openrouter",
        api="openai",
        base_url="https://openrouter.ai/api/v1",
        variable="OPENROUTER_API_KEY",
        models=("*/*",),
        domains=("openrouter.ai",),
        quirks=Quirks(effort=("*",)),  # it leaves the field out itself for models that have no use for it
        status_page="https://status.openrouter.ai",
    ),
    Preset(
        name="n1n",
        api="openai",
        base_url="https://api.n1n.ai/v1",
        variable="N1N_API_KEY",
        models=("*",),
        domains=("api.n1n.ai",),
        quirks=_OPENAI,  # it resells models under the names their makers gave them
    ),
    Preset(
        name="mistral",
        api="openai",
        base_url="https://api.mistral.ai/v1",
        variable="MISTRAL_API_KEY",
        models=(
            *("mistral-*", "ministral-*", "magistral-*", "codestral-*", "devstral-*", "pixtral-*"),
            *("open-mistral-*", "open-mixtral-*", "labs-*"),
        ),
        domains=("api.mistral.ai",),
        # It refuses every field it does not know with a 422. Token counts come in the last chunk, unasked. Its own
        # reasoning_effort knows "high" and "none" only. Behind a tool only the assistant may speak: 400 "Unexpected
        # role 'user' after role 'tool'".
        quirks=Quirks(short_ids=True, stream_usage=False, user_after_tool=False),
        status_page="https://status.mistral.ai",
    ),
    Preset(
        name="groq",
        api="openai",
        base_url="https://api.groq.com/openai/v1",
        variable="GROQ_API_KEY",
        models=("llama-*", "meta-llama/*", "openai/gpt-oss-*", "qwen/*", "moonshotai/*", "groq/*"),
        domains=("api.groq.com",),
        quirks=_GPT_OSS,  # Qwen knows "none" and "default" only; Llama refuses the field
        status_page="https://groqstatus.com",
    ),
    Preset(
        name="azure",
        api="openai",
        base_url=None,
        address_like="https://RESOURCE.openai.azure.com/openai/v1",
        variable="AZURE_OPENAI_API_KEY",
        models=_OPENAI_MODELS,
        domains=(".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com"),
        key_header="api-key",
        quirks=_OPENAI,
        status_page="https://azure.status.microsoft",
    ),
    Preset(
        name="vllm",
        api="openai",
        base_url="http://127.0.0.1:8000/v1",
        anthropic_url="http://127.0.0.1:8000",
        quirks=_GPT_OSS,
    ),
    Preset(
        name="llama-server",
        api="openai",
        base_url="http://127.0.0.1:8080/v1",
        anthropic_url="http://127.0.0.1:8080",
        quirks=_GPT_OSS,
    ),
    Preset(
        name="lmstudio",
        api="openai",
        base_url="http://127.0.0.1:1234/v1",
        anthropic_url="http://127.0.0.1:1234",
        quirks=_GPT_OSS,
    ),
    Preset(
        name="ollama",
        api="openai",
        base_url="http://127.0.0.1:11434/v1",
        anthropic_url="http://127.0.0.1:11434",
        quirks=_GPT_OSS,
    ),
)
BY_NAME = {preset.name: preset for preset in PRESETS}


def at(base_url: str, api: str) -> Preset | None:
    """Whose address is this? ``None`` if nobody's we know, or if they are asked there in another dialect."""
    host = (urlsplit(base_url).hostname or "").rstrip(".")
    for preset in PRESETS:
        if api == preset.api and any(
            host.endswith(domain) if domain.startswith(".") else host == domain for domain in preset.domains
        ):
            return preset
    return None
