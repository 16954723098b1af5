"""What keys does `appliance.toml` have, and what are they for? One table: docs/configuration.md is made of it
(scripts/configuration.py), and every sentence about a wrong value.

Rules of this file:

1. A row says what the key takes, what it means, a value that somebody could want, and the default in words where it is
   not simply the one in `config`.
2. A key of a later version is a row too, with the values that describe what this version does anyway.
3. A variable of the environment that we read has a row as well.
"""

from __future__ import annotations

from collections.abc import Mapping

from appliance import accept
from appliance.accept import (
    RESERVED_NAMES,
    Key,
    Later,
    Unexpected,
    UnexpectedPart,
    UnknownName,
    fits_header,
    one_of,
    seconds,
    whole,
)

__all__ = [
    "QUIRKS",
    "SECTIONS",
    "VARIABLES",
    "Key",
    "Later",
    "Unexpected",
    "UnexpectedPart",
    "UnknownName",
    "fits_header",
]

_PATTERNS = Key("a list of model names or patterns", accept.patterns)
_SWITCH = Key("true or false", accept.flag)
_ADDRESS = Key("an http:// or https:// address with a host and without credentials", accept.base_url, address=True)
_PATH = Key("the path of a folder", accept.text)

QUIRKS: Mapping[str, Key] = {
    "new_limit": _PATTERNS.means("models that take `max_completion_tokens` and refuse `max_tokens`", ["thinker-*"]),
    "effort": _PATTERNS.means(
        "models that can be told how much to think; the others are not told, because they would refuse", ["thinker-*"]
    ),
    "unthinking_tools": _PATTERNS.means(
        'models that take function tools on this wire only when told not to think (`reasoning_effort: "none"`)',
        ["thinker-4"],
    ),
    "reasoning_back": _PATTERNS.means(
        "models that refuse a turn with tool calls which comes back without what they thought before them (DeepSeek's"
        " and Moonshot's with thinking on)",
        ["deepseek-*"],
    ),
    "short_ids": _SWITCH.means("ids of tool calls must be nine letters or digits, as Mistral has it", True),
    "stream_usage": _SWITCH.means("token counts may be asked for in a stream (`stream_options`)", False),
    "user_after_tool": _SWITCH.means(
        "the user may speak right behind a tool's result. If not, as Mistral has it, what the user says there becomes"
        " part of the result",
        False,
    ),
    "signed_thinking": _SWITCH.means(
        'only with `api = "anthropic"`, and between the same wires too: while `thinking` is enabled, a tool call that'
        " is being answered must stand behind thinking which this cloud has signed, as Anthropic has it. If somebody"
        " else made the call while this cloud was out, `thinking` is left out until that turn is over",
        True,
    ),
}

SECTIONS: Mapping[str, Mapping[str, Key | Later]] = {
    "server": {
        "host": Key('"127.0.0.1", "::1" or "localhost"', accept.host).means(
            'where to listen. Loopback only (`"127.0.0.1"`, `"::1"`, `"localhost"`): without client keys, which are not'
            " in this version yet, anybody on the network could use it",
            "::1",
        ),
        "port": whole(0, 65535).means("0 takes any free port", 9000),
        "log": one_of("text", "json").means(
            '`"json"`: one JSON object per line, for machines. Neither ever holds text of a prompt or an answer', "json"
        ),
        "origins": Key(
            'a list of web origins like "https://example.org", without path and without "*"', accept.origins
        ).means("web pages that may call. A page that is not listed is refused", ["https://app.example"]),
        "tls_cert": Later(),
        "tls_key": Later(),
        "socket": Later(),
    },
    "local": {
        "model": Key("the name of a model or the path of a .gguf file", accept.text).means(
            "a name out of `appliance models list`, `hf:OWNER/REPO/FILE.gguf` once it is pulled, or the path of a"
            " `.gguf`, relative to this file",
            "models/mine.gguf",
        ),
        "context": whole(256, auto_later=True).means(
            "tokens guaranteed to each slot, for the conversation and the answer together", 8192
        ),
        "slots": whole(1, 256).means(
            "answers generated at the same time. Memory for the cache grows with `slots` times `context`", 2
        ),
        "gpu_layers": whole(0, or_auto=True).means(
            'how many layers go to the GPU; `"auto"` is as many as there are, if llama.cpp was built for a GPU', 20
        ),
        "threads": whole(1, or_auto=True).means('`"auto"` is one for each physical core this process may use', 4),
        "kv_type": one_of("f16", "q8_0", "q4_0").means(
            'how the cache is stored: `"f16"`, `"q8_0"` (half the memory), `"q4_0"` (a quarter; long answers suffer)',
            "q8_0",
        ),
        "mlock": _SWITCH.means(
            "keep the model in memory by force, so that it is never swapped out; needs a sufficient memlock limit, and"
            " says so if there is none",
            True,
        ),
        "queue": whole(0).means("requests that may wait for a slot; the next one gets a 503 with Retry-After", 16),
        "overflow": one_of("trim", "refuse").means(
            'when a cloud\'s conversation does not fit the box: `"trim"` drops the oldest turns (system prompt and'
            ' latest turns stay) and says so in `x-appliance-degraded`; `"refuse"` gives the client an error with both'
            " numbers. A request made to the box itself is never trimmed",
            "refuse",
        ),
        "standby": one_of("cold", "auto", "hot").means(
            "does the box compute a conversation while a cloud still answers it, so that it can go on at once?"
            ' `"cold"` never; `"hot"` always; `"auto"` when it is cheap (20 s of prefill on an idle box, 1 s on a busy'
            " one) or when the cloud has become suspicious. It gives way to every real request."
            ' `"auto"` looks at answers that have lasted a quarter of a second',
            "hot",
        ),
        "unload_after": Key("a number of seconds, 0 or more (0: never)", accept.seconds_or_never).means(
            "idle seconds after which the engine gives its memory back; the next request for the box loads the model"
            " again. 0: never",
            900,
        ),
        "embedding_model": Later(),
    },
    "upstream": {
        "preset": Key("the name of a preset", accept.text).means(
            'a known provider: `"anthropic"`, `"openai"`, `"gemini"`, `"deepseek"`, `"openrouter"`, `"n1n"`,'
            ' `"mistral"`, `"groq"`, `"azure"`, `"vllm"`, `"llama-server"`, `"lmstudio"`, `"ollama"`. It fills in every'
            " key that is not written, `name` and `key` included",
            "openai",
            default="none",
        ),
        "name": Key("letters, digits, dots and dashes, and none of " + ", ".join(RESERVED_NAMES), accept.name).means(
            "what you call it: letters, digits, dots and dashes; not `local`, `auto` or `cloud`",
            "work",
            default="needed",
        ),
        "api": one_of("openai", "anthropic", later=("responses", "ollama")).means(
            'the wire it speaks: `"openai"` (chat completions) or `"anthropic"` (messages)', "anthropic"
        ),
        "base_url": _ADDRESS.means(
            'with `"openai"` the address that `/chat/completions` is added to, usually ending in `/v1`; with'
            ' `"anthropic"` the one that `/v1/messages` is added to, so without `/v1` (one that is written there is'
            " dropped)",
            "https://llm.example/v1",
            default="needed",
        ),
        "key": Key("env:NAME, file:PATH, client or the key itself", accept.text, secret=True).means(
            '`"env:NAME"`, `"file:PATH"`, or the key itself, which draws a warning. `"client"`: there is none here, and'
            " the caller's own credential goes up. Never shown anywhere",
            "env:WORK_API_KEY",
            default="none",
        ),
        "key_header": Key("the name of a header", accept.header_name).means(
            "the header the key goes in; none that describes the body or the connection, such as `host`. In"
            ' `"authorization"` it is a bearer token, which is how `"openai"` has it; `"anthropic"` has `"x-api-key"`,'
            ' Azure `"api-key"`. An OAuth token of Anthropic (`sk-ant-oat...`) is put into `"authorization"` by itself',
            "api-key",
            default="the wire's own",
        ),
        "models": _PATTERNS.means(
            "requests for these models are offered to it; `*` stands for anything. `[]` where it stands in for others"
            " only, by `aliases`",
            ["gpt-*", "o3"],
        ),
        "aliases": Key("a table of model names or patterns to model names", accept.aliases).means(
            "offered under another name: what asks for the one on the left is asked for as the one on the right."
            " This is how one cloud stands in for another",
            {"gpt-*": "deepseek-chat"},
            default="`{}`",
        ),
        "prefill": _SWITCH.means(
            "it goes on from a half-written assistant turn, so that it may take over in mid-sentence. Many clouds do"
            " not; say `true` only of one that does",
            True,
        ),
        "context": whole(256).means(
            "tokens it can hold. Accepted, and not yet acted on in this version", 128000, default="none"
        ),
        "headers": Key("a table of header names to single-line ASCII values", accept.http_headers, secret=True).means(
            "sent with every request, in place of the caller's of the same name; none that describes the body or the"
            " connection, such as `content-length`",
            {"x-team": "edge"},
            default="`{}`",
        ),
        "quirks": Key(
            "a table of new_limit, effort, unthinking_tools, reasoning_back (lists), "
            "short_ids, stream_usage, user_after_tool, signed_thinking (switches)",
            accept.table(QUIRKS),
        ).means(
            "in what it differs from the pure form of its wire; see [below](#quirks)",
            {"stream_usage": False},
            default="the preset's",
        ),
        "proxy": Key('an http:// or https:// address with a host, or "none"', accept.proxy, address=True).means(
            '`"http://user:password@host:port"` (or `https`; SOCKS is not supported), or `"none"`; see'
            " [below](#proxies-and-certificates)",
            "http://proxy.example:3128",
            default="the environment's",
        ),
        "ca": Key("the path of a PEM file", accept.text).means(
            "a PEM file with the certificates to trust, instead of the public ones; see"
            " [below](#proxies-and-certificates)",
            "company.pem",
            default="the environment's",
        ),
        "status_page": _ADDRESS.means(
            "where the provider says how it is, for `appliance doctor`: a page that speaks like Statuspage",
            "https://status.llm.example",
            default="the preset's",
        ),
        "watch_whole": _SWITCH.means(
            "a whole answer is asked as a stream, so that silence and a broken connection are noticed while it is"
            " written; the answer is put together from the stream, so it is not the cloud's own bytes",
            True,
        ),
        "hedge": _SWITCH.means(
            "when this cloud is late with its first word, the next one in line that takes the request is asked beside"
            " it, once, within the retry budget; whoever speaks first answers. Streamed answers only; never to a cloud"
            " whose breaker is not closed, and the box never races",
            True,
        ),
        "canary": Key("the name of a model", accept.text).means(
            "a model of this cloud that is asked something easy every `canary_interval`, such as a sum, while"
            " applications use the cloud. An answer that is wrong, empty or garbled, and none within 20 s, count"
            " against that model as an application's would. It is asked for like an application's (`models` and"
            " `aliases` hold, and a name that they do not offer is refused), and it costs a few tokens of yours each"
            ' time, up to 1,024 if the model thinks. Not with `key = "client"`',
            "gpt-5-mini",
            default="none",
        ),
    },
    "timeouts": {
        "connect": seconds().means("until a connection to a cloud stands; TLS has 5 s more of its own", 5),
        "first_content": seconds(or_auto=True).means(
            'until the first piece of a streamed answer; `"auto"` is 12, and after 20 answers twice what one in twenty'
            " exceeds, within 12 and 20; 60 where it thinks or reads 50,000 tokens",
            30,
        ),
        "stall": seconds(or_auto=True).means(
            'between two pieces; `"auto"` is 20 for text and 60 for thinking and tool arguments', 45
        ),
        "total": seconds().means(
            "for one leg of an answer. A whole (not streamed) answer gets 60 at most, or this if it is less", 300
        ),
    },
    "breaker": {
        "failures": whole(1).means(
            "failed answers in a row that open it. Half of the last twenty, when five fell within a minute, open it"
            " too",
            5,
        ),
        "cooldown": seconds().means("seconds until the first trial; each trial that fails doubles it, up to 300", 20),
        "probe_interval": seconds().means(
            "seconds between free probes of an open cloud. One that finds somebody there keeps the wait for the next"
            " trial short; it never closes a breaker: requests of users do",
            60,
        ),
        "canary_interval": seconds().means(
            "seconds at least between two questions to the `canary` of an upstream, up to a fifth more; none once"
            " nobody has used the upstream for an hour. Trials of a breaker are left to users; where none came for a"
            " whole interval, the canary is the trial",
            600,
        ),
    },
    "privacy": {"redact": Later(("off",)), "store_text": Later((False,))},
    "paths": {
        "state": _PATH.means(
            "what the service remembers", "/srv/appliance/state", default="`~/.local/state/appliance`"
        ),
        "cache": _PATH.means("what may be deleted at any time", "/srv/appliance/cache", default="`~/.cache/appliance`"),
        "models": _PATH.means("the model store", "/srv/models", default="`~/.local/share/appliance/models`"),
    },
}

VARIABLES: Mapping[str, str] = {
    "APPLIANCE_CONFIG": "the file, if there is no `--config`",
    "APPLIANCE_HOME": "one folder for everything: the file, `state`, `cache` and `models`",
    "APPLIANCE_DEBUG": "`1`: Python's tracebacks instead of one sentence",
    "XDG_CONFIG_HOME": "instead of `~/.config`",
    "XDG_STATE_HOME": "instead of `~/.local/state`",
    "XDG_CACHE_HOME": "instead of `~/.cache`",
    "XDG_DATA_HOME": "instead of `~/.local/share`",
    "HTTPS_PROXY": "the proxy for `https://` clouds; also in lower case, which wins",
    "HTTP_PROXY": "the proxy for `http://` clouds; also in lower case, which wins",
    "ALL_PROXY": "the proxy where neither of the two is set; also in lower case, which wins",
    "NO_PROXY": "what is reached without a proxy; also in lower case, which wins",
    "SSL_CERT_FILE": "a PEM file with the certificates to trust",
    "REQUESTS_CA_BUNDLE": "the same, if `SSL_CERT_FILE` is not set",
    "HF_ENDPOINT": "the model hub to download from",
    "HF_TOKEN": "your token there, for models that ask for one",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "`1`: the token is not sent where it is not asked for",
    "HF_HUB_OFFLINE": "`1`: nothing is downloaded from a hub; `TRANSFORMERS_OFFLINE` means the same",
    "OLLAMA_MODELS": "where Ollama keeps its models, for `appliance models import`",
    "NOTIFY_SOCKET": "set by systemd, with `WATCHDOG_USEC` and `WATCHDOG_PID`: where to say how we are",
    "JOURNAL_STREAM": "set by systemd: log lines need no time of their own",
}
"""What we read of the environment, besides the keys of clouds."""
