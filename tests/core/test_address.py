"""How is a place in the network written?"""

import pytest

from appliance.core.address import authority


@pytest.mark.parametrize(
    ("host", "port", "written"),
    [
        ("127.0.0.1", 8484, "127.0.0.1:8484"),
        ("::1", 8484, "[::1]:8484"),
        ("api.example", None, "api.example"),
        ("2001:db8::2", None, "[2001:db8::2]"),
    ],
)
def test_an_address_with_colons_stands_in_brackets(host: str, port: int | None, written: str) -> None:
    assert authority(host, port) == written
