"""What does a body of OpenAI's chat completions ask for?

Rules of this file:

1. Reading is strict about the types of what we act on and blind to the rest: an unknown field travels on in `raw` and
   `fields`. A value we cannot use is a doubt, and a cloud of this dialect gets to judge it.
2. An explicit null is an absent field.
3. What clouds of other dialects cannot be told is noted on the way: `foreign` is no mistake here, only there.
"""

from __future__ import annotations

from appliance.core import gbnf
from appliance.core.chat import ChatRequest, Headers, JsonFormat, Sampling
from appliance.dialects import (
    fields,
    openai_chat_fields,
    openai_chat_functions,
    openai_chat_messages,
    openai_chat_tools,
)
from appliance.dialects.fields import Seen, at, refusal, wrong
from appliance.dialects.openai_errors import NAME

SEEDS = 2**63
CHOICES_AT_MOST = 128
OTHERS_AT_MOST = 20


def parse(body: bytes, headers: Headers = ()) -> ChatRequest:
    """The request in `body`. Raises `BackendError` (REQUEST) with one sentence and the path of the field at fault."""
    found = fields.document(body)
    model = fields.string(found, "model")
    if not model:
        raise refusal("model", "model is missing; name the model that should answer.")
    seen = Seen()
    messages = openai_chat_messages.messages(found, seen)
    choices = _choices(found, seen)
    old = openai_chat_functions.old(found)
    tools = openai_chat_functions.tools(found, seen) if old else openai_chat_tools.tools(found, seen)
    choice = openai_chat_functions.choice(found, seen) if old else openai_chat_tools.choice(found, seen)
    form = _format(found, seen)
    logprobs = _logprobs(found, seen)
    grammar = _grammar(found, seen)
    user = found.get("safety_identifier") or found.get("user")
    stream_options = fields.mapping(found, "stream_options") or {}
    longest = _limit(found, "max_tokens", seen)
    newer = _limit(found, "max_completion_tokens", seen)
    sampling = _sampling(found, seen)
    stop = _stop(found, seen)
    return ChatRequest(
        dialect=NAME,
        model=model,
        messages=messages,
        stream=fields.flag(found, "stream") or False,
        include_usage=fields.flag(stream_options, "include_usage", "stream_options") or False,
        max_tokens=newer or longest,
        stop=stop,
        sampling=sampling,
        n=choices,
        tools=openai_chat_tools.among(found, tools),
        tool_choice=choice,
        parallel_tools=False if old else fields.flag(found, "parallel_tool_calls"),
        format=form,
        grammar=grammar,
        logprobs=logprobs,
        effort=openai_chat_fields.effort(found),
        user=user if isinstance(user, str) and user else None,
        needs=frozenset(seen.needs),
        foreign=(*seen.foreign, *openai_chat_fields.foreign(found)),
        unsaid=openai_chat_fields.unsaid(found, seen.lost),
        doubts=tuple(seen.doubts),
        raw=body,
        fields=found,
        headers=headers,
    )


def _choices(found: fields.Object, seen: Seen) -> int:
    """How many answers; of more than there can be, as many as there can be."""
    given = fields.integer(found, "n", seen, low=1, high=CHOICES_AT_MOST, matters=True)
    if given is None:
        given = CHOICES_AT_MOST if (found.get("n") or 0) > CHOICES_AT_MOST else 1
    if given > 1:
        seen.needs.add("n")
    return given


def _limit(found: fields.Object, key: str, seen: Seen) -> int | None:
    """How long the answer may be. LM Studio, llama.cpp and others write "without limit" as -1."""
    value = found.get(key)
    if not isinstance(value, bool) and value == -1:
        return None
    return fields.integer(found, key, seen, low=1, matters=True)


def _stop(found: fields.Object, seen: Seen) -> tuple[str, ...]:
    given = found.get("stop")
    if given is None:
        return ()
    listed = given if isinstance(given, list) else [given]
    for index, text in enumerate(listed):
        path = at("stop", index) if isinstance(given, list) else "stop"
        if not isinstance(text, str):
            raise wrong(path, "a string" if isinstance(given, list) else "a string or a list of strings", text)
        if not text:  # nothing to stop at: nothing is lost
            seen.doubt(path, "is an empty string; leave it out or give the text to stop at")
    return tuple(text for text in listed if text)


def _sampling(found: fields.Object, seen: Seen) -> Sampling:
    repeat = fields.number(found, "repeat_penalty", seen, low=0)
    # OpenRouter and vLLM write it out.
    written_out = fields.number(found, "repetition_penalty", seen, low=0)
    return Sampling(
        temperature=fields.number(found, "temperature", seen, low=0, high=2),
        top_k=fields.integer(found, "top_k", seen, low=-1),
        top_p=fields.number(found, "top_p", seen, low=0, high=1),
        min_p=fields.number(found, "min_p", seen, low=0, high=1),
        frequency_penalty=fields.number(found, "frequency_penalty", seen, low=-2, high=2),
        presence_penalty=fields.number(found, "presence_penalty", seen, low=-2, high=2),
        repeat_penalty=written_out if repeat is None else repeat,
        seed=fields.integer(found, "seed", seen, low=-SEEDS, high=SEEDS - 1),
        logit_bias=_biases(found, seen),
    )


def _biases(found: fields.Object, seen: Seen) -> tuple[tuple[int, float], ...]:
    if isinstance(found.get("logit_bias"), list):  # llama.cpp takes a list of pairs too, and words for ids
        seen.unusable("logit_bias", "must be an object, not a list", matters=True)
        return ()
    given = fields.mapping(found, "logit_bias") or {}
    biases = []
    for token in given:
        if not (token.isascii() and token.isdigit() and len(token) < 10):
            flaw = 'has a key that is not a token id; keys are ids such as "1234"'
            seen.unusable("logit_bias", flaw, matters=True)
            return ()
        bias = fields.number(given, token, seen, "logit_bias", low=-100, high=100, matters=True)
        if bias is not None:
            biases.append((int(token), bias))
    return tuple(biases)


def _format(found: fields.Object, seen: Seen) -> JsonFormat | None:
    wanted = fields.mapping(found, "response_format") or {}
    named = fields.string(wanted, "type", "response_format")
    if named in (None, "text"):
        return None
    seen.needs.add("json")
    path = "response_format"
    if named not in ("json_schema", "json_object"):
        seen.unusable(at(path, "type"), "is unknown; it must be one of text, json_object, json_schema", matters=True)
        return None
    described: object = wanted  # llama.cpp takes a schema with "json_object" too
    if named == "json_schema":
        path = at(path, named)
        described = wanted.get(named)
    if not isinstance(described, dict):
        seen.unusable(path, f"must be an object with a schema, not {fields.kind(described)}", matters=True)
        return None
    name, strict = described.get("name"), described.get("strict")
    schema = fields.schema(described, "schema", seen, path, anything={})
    if schema is None and described.get("schema") is not None:
        return None
    return JsonFormat(
        schema=schema,
        name=name if isinstance(name, str) else "",
        strict=strict if isinstance(strict, bool) else None,
    )


def _grammar(found: fields.Object, seen: Seen) -> str | None:
    """llama.cpp's own field, which no cloud knows; an empty one is none."""
    given = found.get("grammar")
    if given is None or given == "":
        return None
    if not isinstance(given, str):
        seen.doubt("grammar", "must be a grammar in GBNF, as text")
        return None
    try:
        gbnf.read(given)
    except gbnf.GrammarError as error:
        seen.doubt("grammar", str(error))
        return None
    if found.get("tools") or found.get("response_format"):
        seen.doubt("grammar", "cannot be kept to together with tools or response_format")
        return None
    return given


def _logprobs(found: fields.Object, seen: Seen) -> int | None:
    """How many other tokens are to be told of beside each."""
    logprobs = found.get("logprobs")
    if isinstance(logprobs, int) and not isinstance(logprobs, bool):  # Together counts them here
        seen.doubt("logprobs", "must be true or false, not a number")
    elif logprobs is not None and not isinstance(logprobs, bool):
        raise wrong("logprobs", "true or false", logprobs)
    others = fields.integer(found, "top_logprobs", seen, low=0, high=OTHERS_AT_MOST, matters=True)
    if "audio" in (fields.sequence(found, "modalities") or []):
        seen.needs.add("audio")
    if not logprobs and not others:
        return None
    seen.needs.add("logprobs")
    return others or 0
