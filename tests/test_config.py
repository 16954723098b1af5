"""The configuration: what is accepted, and the one sentence that refuses the rest."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import certifi
import pytest

from appliance.config import (
    BreakerConfig,
    Config,
    ConfigError,
    LocalConfig,
    PathsConfig,
    ServerConfig,
    TimeoutConfig,
    UpstreamConfig,
    default_paths,
    listening_at,
    load_config,
    places,
)
from appliance.core.seams import Quirks
from appliance.settings import SECTIONS, Key, Later

CLOUD = '[[upstream]]\nname = "a"\nbase_url = "https://a.example/v1"\n'


def load(tmp_path: Path, text: str, **environ: str) -> Config:
    path = tmp_path / "appliance.toml"
    path.write_text(text)
    return load_config(path, {"HOME": str(tmp_path), **environ})


def refusal(tmp_path: Path, text: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **environ)
    return str(caught.value).replace(str(tmp_path) + "/", "")


def test_an_empty_file_gives_every_default(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    assert config == Config(
        server=ServerConfig(),
        local=LocalConfig(),
        upstreams=(),
        timeouts=TimeoutConfig(),
        breaker=BreakerConfig(),
        paths=PathsConfig(
            state=tmp_path / ".local/state/appliance",
            cache=tmp_path / ".cache/appliance",
            models=tmp_path / ".local/share/appliance/models",
        ),
        source=tmp_path / "appliance.toml",
    )


def test_every_key_arrives_where_it_belongs(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(Path(certifi.where()).read_bytes())
    config = load(
        tmp_path,
        """
        [server]
        host = "::1"
        port = 9000
        origins = ["https://app.example", "http://localhost:3000"]
        log = "json"
        [local]
        model = "m/tiny.gguf"
        context = 512
        slots = 2
        gpu_layers = 3
        threads = 1
        kv_type = "q8_0"
        mlock = true
        standby = "hot"
        queue = 0
        overflow = "refuse"
        unload_after = 90
        [[upstream]]
        name = "one"
        api = "openai"
        base_url = "https://one.example/v1/"
        key = "env:ONE"
        key_header = "X-Key"
        models = ["gpt-*"]
        aliases = { "claude-*" = "gpt-5", big = "gpt-5-pro" }
        prefill = true
        context = 128000
        headers = { X-Team = "blue" }
        proxy = "http://me:secret@proxy.example:3128"
        ca = "ca.pem"
        status_page = "https://status.one.example/"
        quirks = { new_limit = ["big-*"], effort = [], short_ids = true, stream_usage = false }
        watch_whole = false
        hedge = false
        [[upstream]]
        name = "two"
        api = "anthropic"
        base_url = "http://127.0.0.1:9999"
        key = "client"
        [timeouts]
        connect = 1
        first_content = 2.5
        stall = "auto"
        total = 60
        [breaker]
        failures = 5
        cooldown = 1.5
        probe_interval = 7
        [privacy]
        redact = "off"
        store_text = false
        [paths]
        state = "~/s"
        cache = "c"
        models = "/m"
        """,
        ONE="sk-one",
    )
    assert config.server == ServerConfig(
        host="::1", port=9000, origins=("https://app.example", "http://localhost:3000"), log="json"
    )
    assert config.local == LocalConfig(
        model=str(tmp_path / "m/tiny.gguf"),
        context=512,
        slots=2,
        gpu_layers=3,
        threads=1,
        kv_type="q8_0",
        mlock=True,
        queue=0,
        overflow="refuse",
        standby="hot",
        unload_after=90.0,
    )
    assert config.upstreams == (
        UpstreamConfig(
            name="one",
            base_url="https://one.example/v1",
            key="sk-one",
            models=("gpt-*",),
            aliases=(("claude-*", "gpt-5"), ("big", "gpt-5-pro")),
            prefill=True,
            context=128000,
            headers=(("x-team", "blue"),),
            proxy="http://me:secret@proxy.example:3128",
            ca=tmp_path / "ca.pem",
            key_header="x-key",
            status_page="https://status.one.example",
            quirks=Quirks(new_limit=("big-*",), short_ids=True, stream_usage=False),
        ),
        UpstreamConfig(name="two", api="anthropic", base_url="http://127.0.0.1:9999", client_key=True),
    )
    assert config.timeouts == TimeoutConfig(connect=1.0, first_content=2.5, stall="auto", total=60.0)
    assert config.breaker == BreakerConfig(failures=5, cooldown=1.5, probe_interval=7.0)
    assert config.paths == PathsConfig(state=tmp_path / "s", cache=tmp_path / "c", models=Path("/m"))
    assert config.warnings == ()


def test_keys_beside_a_file_that_never_speaks_of_clouds_are_told_of(tmp_path: Path) -> None:
    keys = {"OPENAI_API_KEY": "sk-1", "DEEPSEEK_API_KEY": " ", "N1N_API_KEY": "n-1"}
    config = load(tmp_path, "[local]\nslots = 2", **keys)
    assert (config.upstreams, config.warnings) == (
        (),
        (
            f"OPENAI_API_KEY and N1N_API_KEY are set, but {tmp_path}/appliance.toml names no cloud, so none is asked; "
            'write [[upstream]] with preset = "openai" into it, or upstream = [] at its top to want none.',
        ),
    )
    assert load(tmp_path, "upstream = []", **keys).warnings == ()
    assert load(tmp_path, CLOUD, **keys).warnings == ()


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("server", ServerConfig),
        ("local", LocalConfig),
        ("upstream", UpstreamConfig),
        ("timeouts", TimeoutConfig),
        ("breaker", BreakerConfig),
        ("paths", PathsConfig),
    ],
)
def test_the_table_of_keys_and_the_values_name_the_same(section: str, values: type) -> None:
    known = {key for key, rule in SECTIONS[section].items() if isinstance(rule, Key)}
    assert known == {field.name for field in fields(values)} - {"client_key", "key_from"}  # both are said by key


# ---------------------------------------------------------------------------------------------- refusals

WRONG = {
    "[server]\nprot = 1": 'appliance.toml, line 2: [server] has no key "prot"; did you mean "port"?',
    "[sever]\nport = 1": 'appliance.toml, line 1: there is no section "sever"; did you mean "server"?',
    "\nxyz = 1": 'appliance.toml, line 2: there is no section "xyz"; it knows '
    "breaker, local, paths, privacy, server, timeouts, upstream.",
    "[server]\n\n# so\nport = '80'": 'appliance.toml, line 4: server.port is "80", but it must be a whole number '
    "from 0 to 65535.",
    "[server]\nport = 70000": "appliance.toml, line 2: server.port is 70000, but it must be a whole number "
    "from 0 to 65535.",
    "[server]\nport = true": "appliance.toml, line 2: server.port is true, but it must be a whole number "
    "from 0 to 65535.",
    "server.port = 1.5": "appliance.toml, line 1: server.port is 1.5, but it must be a whole number from 0 to 65535.",
    "server = 3": "appliance.toml, line 1: server is 3, but it must be a table that begins with [server].",
    '[server]\nhost = "0.0.0.0"': 'appliance.toml, line 2: server.host is "0.0.0.0", which others can reach, and '
    'client keys, which it would need, are not in this version yet; it must be "127.0.0.1", "::1" or "localhost".',
    '[server]\norigins = ["*"]': "appliance.toml, line 2: server.origins is a list, but it must be a list of web "
    'origins like "https://example.org", without path and without "*".',
    '[server]\ntls_cert = "x"': "appliance.toml, line 2: server.tls_cert is not in this version yet; remove it.",
    '[server]\nsocket = "x"': "appliance.toml, line 2: server.socket is not in this version yet; remove it.",
    "[local]\ncontext = 255": "appliance.toml, line 2: local.context is 255, but it must be a whole number of at "
    "least 256.",
    '[local]\ncontext = "auto"': 'appliance.toml, line 2: local.context is "auto", which is not in this version yet; '
    "it must be a whole number of at least 256.",
    "[local]\nthreads = 0": "appliance.toml, line 2: local.threads is 0, but it must be a whole number of at least 1 "
    'or "auto".',
    '[local]\nkv_type = "q5"': 'appliance.toml, line 2: local.kv_type is "q5", but it must be "f16" or "q8_0" or '
    '"q4_0".',
    "[local]\nmlock = 1": "appliance.toml, line 2: local.mlock is 1, but it must be true or false.",
    '[local]\nmodel = ""': 'appliance.toml, line 2: local.model is "", but it must be the name of a model or the '
    "path of a .gguf file.",
    '[local]\nstandby = "warm"': 'appliance.toml, line 2: local.standby is "warm", but it must be "cold" or "auto" or '
    '"hot".',
    "[local]\nunload_after = -1": "appliance.toml, line 2: local.unload_after is -1, but it must be a number of "
    "seconds, 0 or more (0: never).",
    "[local]\nunload_after = false": "appliance.toml, line 2: local.unload_after is false, but it must be a number of "
    "seconds, 0 or more (0: never).",
    '[server]\nlog = "xml"': 'appliance.toml, line 2: server.log is "xml", but it must be "text" or "json".',
    '[local]\nembedding_model = "x"': "appliance.toml, line 2: local.embedding_model is not in this version yet; "
    "remove it.",
    '[privacy]\nredact = "local"': "appliance.toml, line 2: privacy.redact is not in this version yet; remove it.",
    "[privacy]\nstore_text = true": "appliance.toml, line 2: privacy.store_text is not in this version yet; remove it.",
    '[upstream]\nname = "a"': "appliance.toml, line 1: upstream must begin with [[upstream]], in double brackets.",
    '[[upstream]]\nname = "a"': "appliance.toml, line 1: upstream.base_url is missing; it must be an http:// or "
    "https:// address with a host and without credentials.",
    CLOUD + '[[upstream]]\nbase_url = "https://b"': "appliance.toml, line 4: upstream.name is missing; it must be "
    "letters, digits, dots and dashes, and none of local, auto, cloud.",
    CLOUD + CLOUD: 'appliance.toml, line 5: upstream.name is "a" twice; each needs a name of its own.',
    '[[upstream]]\nname = "Local"': 'appliance.toml, line 2: upstream.name is "Local", which means something else to '
    "us; it must be letters, digits, dots and dashes, and none of local, auto, cloud.",
    '[[upstream]]\nname = "a b"': 'appliance.toml, line 2: upstream.name is "a b", but it must be letters, digits, '
    "dots and dashes, and none of local, auto, cloud.",
    CLOUD + 'api = "responses"': 'appliance.toml, line 4: upstream.api is "responses", which is not in this version '
    'yet; it must be "openai" or "anthropic".',
    CLOUD + 'api = "soap"': 'appliance.toml, line 4: upstream.api is "soap", but it must be "openai" or "anthropic".',
    '[[upstream]]\nname = "a"\nbase_url = "ftp://a"': 'appliance.toml, line 3: upstream.base_url is "ftp://a", but it '
    "must be an http:// or https:// address with a host and without credentials.",
    '[[upstream]]\nname = "a"\nbase_url = "api.example/v1"': "appliance.toml, line 3: upstream.base_url is "
    '"api.example/v1", but it must be an http:// or https:// address with a host and without credentials.',
    '[[upstream]]\npreset = "grok"': 'appliance.toml, line 2: upstream.preset is "grok", which is no preset; did you '
    'mean "groq"?',
    '[[upstream]]\npreset = "azure"\nkey = "client"': "appliance.toml, line 1: upstream.base_url is missing; for the "
    'preset "azure" it is https://RESOURCE.openai.azure.com/openai/v1 with your own name in it.',
    '[[upstream]]\npreset = "groq"': "appliance.toml, line 1: upstream.key is env:GROQ_API_KEY, but GROQ_API_KEY is "
    "not set; export it.",
    '[[upstream]]\npreset = "mistral"\napi = "anthropic"': "appliance.toml, line 1: upstream.base_url is missing; it "
    "must be an http:// or https:// address with a host and without credentials.",
    '[[upstream]]\npreset = "vllm"\n[[upstream]]\npreset = "vllm"': 'appliance.toml, line 3: upstream.name is "vllm" '
    "twice; each needs a name of its own.",
    CLOUD + 'proxy = "socks5://p:1080"': 'appliance.toml, line 4: upstream.proxy is "socks5://p:1080", which is SOCKS, '
    'and that is not supported; it must be an http:// or https:// address with a host, or "none".',
    CLOUD + 'proxy = "p:3128"': 'appliance.toml, line 4: upstream.proxy is "p:3128", but it must be an http:// or '
    'https:// address with a host, or "none".',
    CLOUD
    + 'proxy = "http://p:3128/path"': 'appliance.toml, line 4: upstream.proxy is "http://p:3128/path", but it must '
    'be an http:// or https:// address with a host, or "none".',
    CLOUD
    + 'key_header = "api key"': 'appliance.toml, line 4: upstream.key_header is "api key", but it must be the name '
    "of a header.",
    CLOUD
    + 'key_header = "Host"': 'appliance.toml, line 4: upstream.key_header is "Host", which describes the body or the '
    "connection; it must be the name of a header.",
    CLOUD
    + "quirks = { new_limits = [] }": 'appliance.toml, line 4: upstream.quirks has no key "new_limits"; did you mean '
    '"new_limit"?',
    CLOUD
    + "[upstream.quirks]\neffort = []\nefforts = []": 'appliance.toml, line 6: upstream.quirks has no key "efforts"; '
    'did you mean "effort"?',
    CLOUD + "quirks = []": "appliance.toml, line 4: upstream.quirks is an empty list, but it must be a table of "
    "new_limit, effort, unthinking_tools, reasoning_back (lists), short_ids, stream_usage, user_after_tool, "
    "signed_thinking (switches).",
    CLOUD
    + 'quirks = { effort = "x" }': 'appliance.toml, line 4: upstream.quirks.effort is "x", but it must be a list of '
    "model names or patterns.",
    CLOUD
    + 'quirks = { effort = ["x", 1] }': "appliance.toml, line 4: upstream.quirks.effort[1] is 1, but it must be a "
    "string that is not empty.",
    CLOUD
    + "quirks = { short_ids = 1 }": "appliance.toml, line 4: upstream.quirks.short_ids is 1, but it must be true or "
    "false.",
    CLOUD + 'models = "gpt"': 'appliance.toml, line 4: upstream.models is "gpt", but it must be a list of model names '
    "or patterns.",
    CLOUD + "models = []": "appliance.toml, line 4: upstream.models is an empty list, and without aliases it would "
    "never be asked.",
    CLOUD + 'models = ["gpt", [\n""]]': "appliance.toml, line 4: upstream.models[1] is a list, but it must be a string "
    "that is not empty.",
    CLOUD + "aliases = 1": "appliance.toml, line 4: upstream.aliases is 1, but it must be a table of model names or "
    "patterns to model names.",
    CLOUD + "aliases = { a = 1 }": "appliance.toml, line 4: upstream.aliases.a is 1, but it must be the name of a "
    "model.",
    CLOUD
    + '[upstream.aliases]\nx = "y"\n"x-*" = ["y"]': 'appliance.toml, line 6: upstream.aliases."x-*" is a list, but it '
    "must be the name of a model.",
    CLOUD + 'headers = { a = "x\\ny" }': "appliance.toml, line 4: upstream.headers.a is a string, but it must be a "
    "single line of ASCII.",
    CLOUD + 'headers = { "a b" = "x" }': "appliance.toml, line 4: upstream.headers is a table, but it must be a table "
    "of header names to single-line ASCII values.",
    CLOUD + 'headers = { Content-Length = "5" }': "appliance.toml, line 4: upstream.headers is a table, which names "
    "content-length, and that describes the body or the connection; it must be a table of header names to single-line "
    "ASCII values.",
    CLOUD
    + 'status_page = "s"': "appliance.toml, line 4: upstream.status_page is a string, but it must be an http:// or "
    "https:// address with a host and without credentials.",
    CLOUD + 'ca = "none.pem"': "appliance.toml, line 4: upstream.ca is none.pem, which is no file; give a PEM file.",
    CLOUD + 'key = "keyring:a/b"': "appliance.toml, line 4: upstream.key = keyring is not in this version yet; use "
    "env:NAME or file:PATH.",
    CLOUD + 'key = "env:NOPE"': "appliance.toml, line 4: upstream.key is env:NOPE, but NOPE is not set; export it.",
    CLOUD + 'key = "file:none"': "appliance.toml, line 4: upstream.key is file:none, but none cannot be read: "
    "No such file or directory.",
    "[timeouts]\nconnect = 0": "appliance.toml, line 2: timeouts.connect is 0, but it must be a number of seconds "
    "above 0.",
    "[timeouts]\nstall = inf": "appliance.toml, line 2: timeouts.stall is inf, but it must be a number of seconds "
    'above 0 or "auto".',
    "[breaker]\nfailures = 0": "appliance.toml, line 2: breaker.failures is 0, but it must be a whole number of at "
    "least 1.",
    "[paths]\nstate = 1": "appliance.toml, line 2: paths.state is 1, but it must be the path of a folder.",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_mistake_is_one_sentence_with_file_line_key_found_and_expected(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path, text) == WRONG[text]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[server]\nport = \nhost = 1", 2),
        ("[server", 1),
        ("a = 1\na = 2", 2),
        ('x = """\n\n', 3),
        ("[server]\n[server]", 2),
        ("a = 1\n=", 2),
    ],
)
def test_what_is_not_toml_is_refused_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    found = re.match(r"appliance\.toml, line (\d+)(, column \d+)?: this is not TOML: .*\.$", refusal(tmp_path, text))
    assert found is not None
    assert int(found[1]) == line


@pytest.mark.parametrize(
    ("section", "key"),
    [(section, key) for section, keys in SECTIONS.items() for key, rule in keys.items() if isinstance(rule, Later)],
)
def test_no_key_of_a_later_version_is_accepted_in_silence(tmp_path: Path, section: str, key: str) -> None:
    table = CLOUD if section == "upstream" else f"[{section}]\n"
    assert refusal(tmp_path, f'{table}{key} = "surely something"').endswith(
        f"{section}.{key} is not in this version yet; remove it."
    )


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_config(path, {})


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "no.toml", {})
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(None, {"APPLIANCE_CONFIG": str(tmp_path / "no.toml")})


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path, {})


# -------------------------------------------------------------------------------------------- where from


def test_the_file_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, own, named = tmp_path / "work", tmp_path / "config/appliance", tmp_path / "named.toml"
    work.mkdir()
    own.mkdir(parents=True)
    monkeypatch.chdir(work)
    environ = {"HOME": "/nowhere", "XDG_CONFIG_HOME": str(tmp_path / "config")}
    for port, path in enumerate((own / "appliance.toml", work / "appliance.toml", named), 1):
        path.write_text(f"[server]\nport = {port}")
        if path == named:
            environ["APPLIANCE_CONFIG"] = str(named)
        assert load_config(None, environ).server.port == port
    assert load_config(own / "appliance.toml", environ).server.port == 1


def test_without_xdg_it_is_in_the_home_folder_and_then_in_etc() -> None:
    assert places({"HOME": "/h"}) == (
        Path("appliance.toml"),
        Path("/h/.config/appliance/appliance.toml"),
        Path("/etc/appliance/appliance.toml"),
    )


def test_appliance_home_holds_everything() -> None:
    environ = {"APPLIANCE_HOME": "/a", "XDG_STATE_HOME": "/x", "HOME": "/h"}
    assert default_paths(environ) == PathsConfig(
        state=Path("/a/state"), cache=Path("/a/cache"), models=Path("/a/models")
    )
    assert places(environ)[1] == Path("/a/appliance.toml")


def test_the_xdg_folders_are_used_and_relative_ones_ignored() -> None:
    environ = {"XDG_STATE_HOME": "/s", "XDG_CACHE_HOME": "relative", "XDG_DATA_HOME": "/d", "HOME": "/h"}
    assert default_paths(environ) == PathsConfig(
        state=Path("/s/appliance"), cache=Path("/h/.cache/appliance"), models=Path("/d/appliance/models")
    )


# ------------------------------------------------------------------------------------------ command line


def test_the_command_line_may_change_host_and_port_under_the_same_rules(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    assert listening_at(config, host="localhost", port=1).server == ServerConfig(host="localhost", port=1)
    assert listening_at(config, host=None, port=None) == config
    with pytest.raises(ConfigError, match=r'^--host is "10\.0\.0\.1", which others can reach'):
        listening_at(config, host="10.0.0.1", port=None)
    with pytest.raises(ConfigError, match=r"^--port is 70000, but it must be a whole number from 0 to 65535\.$"):
        listening_at(config, host=None, port=70000)


def test_reading_the_configuration_loads_nothing_but_the_standard_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import appliance.config; new = set(sys.modules) - before;"
        "print(sorted({name.partition('.')[0] for name in new} - set(sys.stdlib_module_names) - {'appliance'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
