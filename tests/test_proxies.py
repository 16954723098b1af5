"""The proxy of the environment, as users of curl and Python expect it."""

import pytest

from appliance.proxies import Found, of_environment

P, Q = "http://p.example:1", "http://q.example:2"


@pytest.mark.parametrize(
    ("base_url", "environ", "variable"),
    [
        ("https://c.example/v1", {"HTTPS_PROXY": P}, "HTTPS_PROXY"),
        ("https://c.example/v1", {"https_proxy": P, "HTTPS_PROXY": Q}, "https_proxy"),
        ("https://c.example/v1", {"HTTPS_PROXY": P, "ALL_PROXY": Q}, "HTTPS_PROXY"),
        ("https://c.example/v1", {"all_proxy": P, "HTTP_PROXY": Q}, "all_proxy"),
        ("http://c.example/v1", {"HTTP_PROXY": P, "HTTPS_PROXY": Q}, "HTTP_PROXY"),
        ("https://c.example/v1", {"HTTPS_PROXY": "p.example:1"}, "HTTPS_PROXY"),
        ("https://c.example/v1", {"HTTPS_PROXY": f" {P} "}, "HTTPS_PROXY"),
        ("https://c.example/v1", {"HTTPS_PROXY": "", "ALL_PROXY": P}, "ALL_PROXY"),
    ],
)
def test_the_variable_for_the_scheme_speaks_first_and_in_lower_case(
    base_url: str, environ: dict[str, str], variable: str
) -> None:
    assert of_environment(base_url, environ) == Found(variable, P)


@pytest.mark.parametrize(
    "environ", [{}, {"HTTP_PROXY": P}, {"https_proxy": "", "HTTPS_PROXY": P, "ALL_PROXY": P}, {"HTTPS_PROXY": " "}]
)
def test_without_a_variable_for_the_scheme_there_is_none(environ: dict[str, str]) -> None:
    assert of_environment("https://c.example", environ) is None


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]"])
def test_this_box_is_never_reached_through_a_proxy(host: str) -> None:
    assert of_environment(f"http://{host}:8000/v1", {"HTTP_PROXY": P, "ALL_PROXY": P}) is None


def test_another_box_of_the_same_network_is_reached_through_it() -> None:
    assert of_environment("http://192.168.0.7:8000/v1", {"HTTP_PROXY": P}) == Found("HTTP_PROXY", P)


@pytest.mark.parametrize(
    "no_proxy",
    [
        "*",
        "a.c.example",
        "c.example",
        ".c.example",
        "*.c.example",
        "other.example, C.Example",
        "other.example c.example",
        "c.example:443",
        "c.example.",
    ],
)
def test_no_proxy_excepts_a_host_and_all_below_a_domain(no_proxy: str) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        assert of_environment("https://a.c.example/v1", {"HTTPS_PROXY": P, name: no_proxy}) is None


@pytest.mark.parametrize(
    "no_proxy",
    [
        "",
        ",",
        ".",
        "b.a.c.example",
        "xc.example",
        "xample",
        ".xample",
        "a.c",
        "c.example:80",
        "10.0.0.0/8",
        "example.c",
    ],
)
def test_no_proxy_excepts_nobody_else(no_proxy: str) -> None:
    assert of_environment("https://a.c.example/v1", {"HTTPS_PROXY": P, "NO_PROXY": no_proxy}) is not None


@pytest.mark.parametrize(
    ("host", "no_proxy", "through"),
    [
        ("10.1.2.3", "10.1.2.3", False),
        ("10.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "10.1.2.3:443", False),
        ("10.1.2.3", "11.0.0.0/8,10.1.2.30", True),
        ("[fd00::7]", "fd00::7", False),
        ("[fd00::7]", "[fd00::7]:443", False),
        ("[fd00::7]", "[fd00::7]:444", True),
        ("[fd00::7]", "fd00::/8", False),
        ("[fd00::7]", "10.0.0.0/8", True),
    ],
)
def test_addresses_are_excepted_one_by_one_or_by_network(host: str, no_proxy: str, through: bool) -> None:
    found = of_environment(f"https://{host}/v1", {"HTTPS_PROXY": P, "NO_PROXY": no_proxy})
    assert (found is not None) == through


def test_the_lower_case_no_proxy_speaks_alone() -> None:
    environ = {"HTTPS_PROXY": P, "no_proxy": "", "NO_PROXY": "c.example"}
    assert of_environment("https://c.example", environ) == Found("HTTPS_PROXY", P)
