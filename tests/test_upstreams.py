"""The clouds: what a preset fills in, whose key is shown to them, and how they are reached."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import certifi
import pytest

from appliance.config import ConfigError, UpstreamConfig, load_config
from appliance.core.seams import PLAIN
from appliance.presets import BY_NAME
from tests.test_config import CLOUD, load, refusal

ANTHROPIC = '[[upstream]]\nname = "a"\napi = "anthropic"\nbase_url = '


def one(tmp_path: Path, text: str, **environ: str) -> UpstreamConfig:
    [upstream] = load(tmp_path, text, **environ).upstreams
    return upstream


def test_whoever_asks_no_cloud_needs_no_key(tmp_path: Path) -> None:
    file = tmp_path / "appliance.toml"
    file.write_text('[[upstream]]\npreset = "groq"\n[[upstream]]\nname = "b"\nbase_url = "http://b"\nkey = "client"')
    environ = {"APPLIANCE_HOME": str(tmp_path)}
    assert [(one.key, one.client_key) for one in load_config(file, environ, keys=False).upstreams] == [
        (None, False), (None, True)
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="GROQ_API_KEY is not set"):
        load_config(file, environ)


# ------------------------------------------------------------------------------------------------- presets


def test_a_preset_fills_in_every_key_that_is_not_written(tmp_path: Path) -> None:
    groq = BY_NAME["groq"]
    assert one(tmp_path, '[[upstream]]\npreset = "groq"', GROQ_API_KEY="gsk") == UpstreamConfig(
        name="groq",
        preset="groq",
        base_url="https://api.groq.com/openai/v1",
        key="gsk",
        models=groq.models,
        quirks=groq.quirks,
        status_page="https://groqstatus.com",
    )


def test_what_is_written_holds_against_the_preset(tmp_path: Path) -> None:
    text = """
        [[upstream]]
        preset = "azure"
        name = "work"
        base_url = "https://mine.openai.azure.com/openai/v1"
        key = "env:MINE"
        key_header = "authorization"
        models = ["gpt-5-mini"]
        quirks = { effort = [] }
        status_page = "https://status.example"
    """
    assert one(tmp_path, text, MINE="token") == UpstreamConfig(
        name="work",
        preset="azure",
        base_url="https://mine.openai.azure.com/openai/v1",
        key="token",
        key_header="authorization",
        models=("gpt-5-mini",),
        quirks=replace(BY_NAME["openai"].quirks, effort=()),
        status_page="https://status.example",
    )


def test_one_that_only_stands_in_for_others_has_no_models_of_its_own(tmp_path: Path) -> None:
    stands_in = '[[upstream]]\npreset = "ollama"\nmodels = []\naliases = { "gpt-*" = "llama" }'
    upstream = one(tmp_path, stands_in)
    assert (upstream.models, upstream.aliases) == ((), (("gpt-*", "llama"),))


def test_a_preset_for_a_server_of_ones_own_needs_no_key(tmp_path: Path) -> None:
    ollama = one(tmp_path, '[[upstream]]\npreset = "ollama"')
    assert (ollama.base_url, ollama.key, ollama.models) == ("http://127.0.0.1:11434/v1", None, ("*",))


def test_a_preset_asked_in_its_other_dialect_is_asked_where_it_speaks_that(tmp_path: Path) -> None:
    deepseek = one(tmp_path, '[[upstream]]\npreset = "deepseek"\napi = "anthropic"', DEEPSEEK_API_KEY="k")
    assert (deepseek.api, deepseek.base_url, deepseek.key, deepseek.quirks) == (
        "anthropic",
        "https://api.deepseek.com/anthropic",
        "k",
        PLAIN,
    )


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        ("https://api.mistral.ai/v1", "mistral"),
        ("https://API.OPENAI.COM/v1", "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://mine.openai.azure.com/openai/v1", "azure"),
    ],
)
def test_an_upstream_at_the_address_of_a_preset_gets_what_is_known_of_it(
    tmp_path: Path, base_url: str, name: str
) -> None:
    found, preset = one(tmp_path, f'[[upstream]]\nname = "x"\nbase_url = "{base_url}"'), BY_NAME[name]
    assert (found.quirks, found.key_header, found.status_page) == (
        preset.quirks,
        preset.key_header,
        preset.status_page,
    )
    assert (found.preset, found.models, found.key) == (None, ("*",), None)


@pytest.mark.parametrize(
    "base_url", ["https://notapi.mistral.ai", "https://api.mistral.ai.example", "http://127.0.0.1:11434/v1"]
)
def test_an_address_that_only_looks_like_a_presets_is_nobodys(tmp_path: Path, base_url: str) -> None:
    assert one(tmp_path, f'[[upstream]]\nname = "x"\nbase_url = "{base_url}"').quirks == PLAIN


def test_what_is_known_of_an_address_holds_for_its_own_dialect_only(tmp_path: Path) -> None:
    text = '[[upstream]]\nname = "x"\nbase_url = "https://api.anthropic.com/v1"'
    assert one(tmp_path, text).quirks == PLAIN
    assert one(tmp_path, text + '\napi = "anthropic"').quirks == BY_NAME["anthropic"].quirks


@pytest.mark.parametrize(
    "written", ["https://a.example", "https://a.example/", "https://a.example/v1", "https://a.example/v1/"]
)
def test_an_anthropic_address_is_without_v1_however_it_is_written(tmp_path: Path, written: str) -> None:
    assert one(tmp_path, f'{ANTHROPIC}"{written}"').base_url == "https://a.example"


def test_an_openai_address_keeps_its_v1(tmp_path: Path) -> None:
    assert one(tmp_path, CLOUD).base_url == "https://a.example/v1"


# ------------------------------------------------------------------------------------------------ canaries


@pytest.mark.parametrize(
    ("keys", "canary"),
    [
        ("", "anything"),
        ('models = ["gpt-*"]', "gpt-5-nano"),
        ('models = ["gpt-*"]\naliases = { "claude-*" = "gpt-5" }', "claude-x"),
    ],
)
def test_a_canary_is_a_model_that_is_offered(tmp_path: Path, keys: str, canary: str) -> None:
    assert one(tmp_path, f'{CLOUD}canary = "{canary}"\n{keys}').canary == canary


def test_without_a_canary_there_is_none(tmp_path: Path) -> None:
    assert one(tmp_path, CLOUD).canary is None


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (
            'canary = "claude-x"\nmodels = ["gpt-*", "o1"]\naliases = { big = "gpt-5" }',
            'line 4: upstream.canary is "claude-x", which is not offered here; the models are: gpt-*, o1, big.',
        ),
        (
            'canary = "gpt-*"\nmodels = ["gpt-*"]',
            'line 4: upstream.canary is "gpt-*", which is a pattern; give the name of one model.',
        ),
        (
            'key = "client"\ncanary = "gpt-5"',
            'line 5: upstream.canary cannot be asked where key = "client": there is no key to show.',
        ),
    ],
)
def test_a_canary_that_cannot_be_asked_is_refused(tmp_path: Path, keys: str, sentence: str) -> None:
    assert sentence in refusal(tmp_path, CLOUD + keys)


def test_the_models_of_a_preset_hold_for_its_canary(tmp_path: Path) -> None:
    said = refusal(tmp_path, '[[upstream]]\npreset = "deepseek"\ncanary = "gpt-5"', DEEPSEEK_API_KEY="k")
    assert 'upstream.canary is "gpt-5", which is not offered here; the models are: deepseek-*.' in said


# ------------------------------------------------------------------------------------------------- secrets


def test_a_key_comes_from_the_environment_or_a_file_or_as_it_stands(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("sk-file\n")
    secret.chmod(0o600)
    assert load(tmp_path, CLOUD + 'key = "env:K"', K=" sk-env ").upstreams[0].key == "sk-env"
    from_file = load(tmp_path, CLOUD + 'key = "file:secret"')
    assert (from_file.upstreams[0].key, from_file.warnings) == ("sk-file", ())
    plain = load(tmp_path, CLOUD + 'key = "sk-plain"')
    assert plain.upstreams[0].key == "sk-plain"
    assert plain.warnings == (
        f"{tmp_path}/appliance.toml holds a key as plain text; use env:NAME or file:PATH instead.",
    )


def test_a_key_file_that_others_can_read_is_warned_about(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("sk-file")
    (tmp_path / "secret").chmod(0o644)
    (warning,) = load(tmp_path, CLOUD + 'key = "file:secret"').warnings
    assert warning == f"{tmp_path}/secret holds a key and others can read it; run chmod 600 {tmp_path}/secret."


def test_a_key_over_plain_http_is_warned_about_unless_it_stays_here(tmp_path: Path) -> None:
    table = '[[upstream]]\nname = "a"\nkey = "env:K"\nbase_url = '
    (warning,) = load(tmp_path, table + '"http://a.example"', K="k").warnings
    assert warning == 'the key of "a" travels unencrypted over http; use https.'
    assert load(tmp_path, table + '"http://127.0.0.1:1"', K="k").warnings == ()


@pytest.mark.parametrize(
    "text",
    [
        'key = "sk-hush hush"',
        "key = [1]",
        'key = ""',
        'base_url = "https://u:hush@b"',
        'base_url = "https://b/v1?key=hush"',
        'base_url = "sk-hush"',
        'proxy = "socks5://u:hush@p:1080"',
        'proxy = "u:hush@p:3128"',
        'proxy = "http://u:hush"',
        'headers = { authorization = "hush\\n" }',
    ],
)
def test_no_refusal_shows_a_secret(tmp_path: Path, text: str) -> None:
    table = '[[upstream]]\nname = "a"\n' + ("" if text.startswith("base_url") else 'base_url = "https://b"\n')
    assert "hush" not in refusal(tmp_path, table + text)


def test_no_repr_shows_a_secret(tmp_path: Path) -> None:
    text = CLOUD + 'key = "hush1"\nheaders = { a = "hush2" }\nproxy = "http://u:hush3@p"'
    assert "hush" not in repr(load(tmp_path, text))


def test_a_key_that_cannot_be_in_a_header_is_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path, CLOUD + 'key = "env:K"', K="sk-\u00e4")
    assert said.endswith("upstream.key (env:K) is no key: it must be one word of ASCII letters and signs.")


def test_a_client_may_show_its_own_key(tmp_path: Path) -> None:
    config = load(tmp_path, '[[upstream]]\npreset = "anthropic"\nkey = "client"', ANTHROPIC_API_KEY="sk-ours")
    assert [(cloud.key, cloud.client_key, cloud.key_header) for cloud in config.upstreams] == [(None, True, None)]
    assert config.warnings == ()


def test_a_clients_key_over_plain_http_is_warned_about_too(tmp_path: Path) -> None:
    (warning,) = load(tmp_path, ANTHROPIC + '"http://a.example"\nkey = "client"').warnings
    assert warning == 'the key of "a" travels unencrypted over http; use https.'


@pytest.mark.parametrize(
    ("key", "header"),
    [("sk-ant-api03-x", None), ("sk-ant-oat01-x", "authorization")],
)
def test_an_oauth_token_of_anthropic_is_a_bearer_token(tmp_path: Path, key: str, header: str | None) -> None:
    assert one(tmp_path, ANTHROPIC + '"https://a.example"\nkey = "env:K"', K=key).key_header == header
    [cloud] = load_config(None, {"APPLIANCE_HOME": str(tmp_path / "home"), "ANTHROPIC_API_KEY": key}).upstreams
    assert (cloud.key, cloud.key_header) == (key, header)


def test_a_key_header_that_is_written_holds_for_an_oauth_token_too(tmp_path: Path) -> None:
    text = ANTHROPIC + '"https://a.example"\nkey = "env:K"\nkey_header = "x-api-key"'
    assert one(tmp_path, text, K="sk-ant-oat01-x").key_header == "x-api-key"


# ---------------------------------------------------------------------------------------- the environment


def test_without_a_file_each_key_in_the_environment_is_a_cloud_in_a_fixed_order(tmp_path: Path) -> None:
    names = ("N1N", "OPENROUTER", "DEEPSEEK", "GEMINI", "OPENAI", "ANTHROPIC")
    config = load_config(
        None, {"APPLIANCE_HOME": str(tmp_path / "home"), **{f"{name}_API_KEY": f"sk-{name}" for name in names}}
    )
    assert [(cloud.name, cloud.api, cloud.key) for cloud in config.upstreams] == [
        ("anthropic", "anthropic", "sk-ANTHROPIC"),
        ("openai", "openai", "sk-OPENAI"),
        ("gemini", "openai", "sk-GEMINI"),
        ("deepseek", "openai", "sk-DEEPSEEK"),
        ("openrouter", "openai", "sk-OPENROUTER"),
        ("n1n", "openai", "sk-N1N"),
    ]
    assert (config.source, config.warnings) == (None, ())


def test_an_empty_variable_is_no_key(tmp_path: Path) -> None:
    assert load_config(None, {"APPLIANCE_HOME": str(tmp_path / "home"), "OPENAI_API_KEY": " "}).upstreams == ()


def test_a_cloud_of_the_environment_is_its_preset(tmp_path: Path) -> None:
    [cloud] = load_config(None, {"APPLIANCE_HOME": str(tmp_path / "home"), "ANTHROPIC_API_KEY": "sk"}).upstreams
    assert cloud == UpstreamConfig(
        name="anthropic",
        preset="anthropic",
        api="anthropic",
        base_url="https://api.anthropic.com",
        key="sk",
        models=("claude-*",),
        quirks=BY_NAME["anthropic"].quirks,
        status_page="https://status.claude.com",
    )


def test_a_variable_that_holds_no_key_is_refused_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, {"APPLIANCE_HOME": str(tmp_path / "home"), "GEMINI_API_KEY": "hush hush"})
    assert str(caught.value) == "GEMINI_API_KEY in the environment is no key: it must be one word of ASCII signs."


def test_where_clients_are_pointed_is_not_where_we_go(tmp_path: Path) -> None:
    here = "http://127.0.0.1:8484"
    pointed = {"ANTHROPIC_BASE_URL": here, "OPENAI_BASE_URL": here, "OPENAI_API_BASE": here}
    keys = {"ANTHROPIC_API_KEY": "a", "OPENAI_API_KEY": "o"}
    config = load_config(None, {"APPLIANCE_HOME": str(tmp_path / "home"), **keys, **pointed})
    assert [cloud.base_url for cloud in config.upstreams] == ["https://api.anthropic.com", "https://api.openai.com/v1"]


# ------------------------------------------------------------------------------------- proxies, certificates


def test_the_proxy_of_the_environment_holds_where_the_file_says_nothing(tmp_path: Path) -> None:
    environ = {"HTTPS_PROXY": "http://u:hush@env.example:3128"}
    assert one(tmp_path, CLOUD, **environ).proxy == "http://u:hush@env.example:3128"
    assert one(tmp_path, CLOUD + 'proxy = "http://file.example:1"', **environ).proxy == "http://file.example:1"
    assert one(tmp_path, CLOUD + 'proxy = "none"', **environ).proxy is None
    assert one(tmp_path, CLOUD, NO_PROXY=".example", **environ).proxy is None
    [cloud] = load_config(None, {"APPLIANCE_HOME": str(tmp_path / "home"), "OPENAI_API_KEY": "k", **environ}).upstreams
    assert cloud.proxy == "http://u:hush@env.example:3128"
    assert "hush" not in repr(cloud)


def test_a_socks_proxy_of_the_environment_is_refused_where_it_would_be_used(tmp_path: Path) -> None:
    environ = {"ALL_PROXY": "socks5://u:hush@p.example:1080"}
    assert refusal(tmp_path, CLOUD, **environ) == (
        'ALL_PROXY in the environment is "socks5://***@p.example:1080", which is SOCKS, and that is not supported; it '
        'must be an http:// or https:// address with a host, unless each upstream has proxy = "none".'
    )
    assert load(tmp_path, "", **environ).upstreams == ()
    assert one(tmp_path, CLOUD + 'proxy = "none"', **environ).proxy is None


def test_certificates_of_the_environment_hold_where_the_file_says_nothing(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine.pem", tmp_path / "theirs.pem"
    for path in (mine, theirs):
        path.write_bytes(Path(certifi.where()).read_bytes())
    both = {"SSL_CERT_FILE": str(mine), "REQUESTS_CA_BUNDLE": str(theirs)}
    assert one(tmp_path, CLOUD, **both).ca == mine
    assert one(tmp_path, CLOUD, REQUESTS_CA_BUNDLE=str(theirs)).ca == theirs
    assert one(tmp_path, CLOUD + 'ca = "theirs.pem"', **both).ca == theirs
    assert one(tmp_path, '[[upstream]]\npreset = "vllm"', **both).ca is None
    [cloud] = load_config(None, {"APPLIANCE_HOME": str(tmp_path / "home"), "OPENAI_API_KEY": "k", **both}).upstreams
    assert cloud.ca == mine


def test_certificates_of_the_environment_that_are_none_are_warned_about_and_passed_over(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("-")
    for name in ("x.pem", "missing.pem"):
        path = os.fspath(tmp_path / name)
        config = load(tmp_path, CLOUD, SSL_CERT_FILE=path)
        assert config.upstreams[0].ca is None
        assert config.warnings == (f"SSL_CERT_FILE is {path}, which is no file with certificates; it is not used.",)
    assert load(tmp_path, "", SSL_CERT_FILE=path).warnings == ()


def test_a_ca_file_without_certificates_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("-")
    with pytest.raises(ConfigError, match=r"line 4: upstream.ca is .*ca.pem, which holds no certificates"):
        load(tmp_path, '[[upstream]]\nname = "a"\nbase_url = "https://a.example"\nca = "ca.pem"\n')
