"""What is known of the way to an upstream, and whether that is offline."""

import ipaddress
import sys

import pytest

from appliance.core.offline import (
    Facts,
    Place,
    Route,
    address_of,
    judge,
    matching,
    missing,
    near,
    place,
    read_ipv4,
    read_ipv6,
    wired,
)


def net(text):
    return ipaddress.ip_network(text)


def address(text):
    return ipaddress.ip_address(text)


ROUTES = [
    Route(net("0.0.0.0/0"), True, "eth0"),
    Route(net("192.168.1.0/24"), False, "eth0"),
    Route(net("10.0.0.0/8"), True, "eth0"),
    Route(net("0.0.0.0/1"), False, "tun0"),
    Route(net("fd00::/64"), False, "eth0"),
    Route(net("::/0"), True, "eth0"),
]


# ---------------------------------------------------------------------------------------------- the judgement


@pytest.mark.parametrize(
    ("what", "facts"),
    [
        (None, Facts(addresses=True)),
        ("route", Facts(addresses=True, routed=False)),
        (None, Facts(addresses=True, routed=False, near=True)),
        (None, Facts(addresses=True, unresolved=5, near=True)),
        # The name: one unanswered question proves nothing, two do, unless there is no route to anywhere either.
        (None, Facts(addresses=True, unresolved=1)),
        ("name", Facts(addresses=True, unresolved=2)),
        ("name", Facts(addresses=False, unresolved=2)),
        (None, Facts(addresses=False, unresolved=1)),
        ("route", Facts(addresses=False, unresolved=1, routed=False)),
        ("route", Facts(addresses=True, unresolved=2, routed=False)),
        # Nothing known yet, and nowhere to go: its name may be one of a network without a way out.
        (None, Facts(addresses=False)),
        (None, Facts(addresses=False, routed=False)),
    ],
)
def test_what_is_missing(what, facts):
    assert missing(facts) == what
    assert judge(facts) == (what is not None)


def test_an_answer_that_came_all_the_same_shows_that_it_is_not_needed():
    assert not judge(Facts(addresses=True, routed=False, disproved=True))
    assert not judge(Facts(addresses=True, unresolved=2, disproved=True))


# ------------------------------------------------------------------------------------------------- the place


@pytest.mark.parametrize(
    ("base_url", "proxy", "found"),
    [
        ("https://api.example.com/v1", None, Place("api.example.com", 443)),
        ("http://api.example.com.:8080", None, Place("api.example.com", 8080)),
        ("https://192.0.2.7", None, Place("192.0.2.7", 443)),
        ("http://[2001:db8::7]:99/v1", None, Place("2001:db8::7", 99)),
        # Behind a proxy only the proxy needs a name and a route.
        ("https://api.example.com", "http://user:secret@proxy.example:3128", Place("proxy.example", 3128)),
        ("https://api.example.com", "http://127.0.0.1:3128", None),
        # On this very box there is no network to miss.
        ("http://localhost:11434", None, None),
        ("http://ollama.localhost:11434", None, None),
        ("http://127.0.0.9:1234", None, None),
        ("http://[::1]:1234", None, None),
        ("http://[half", None, None),
        ("nonsense", None, None),
        ("http://host:port", None, None),
    ],
)
def test_where_connections_go_first(base_url, proxy, found):
    assert place(base_url, proxy) == found


def test_a_zone_is_no_part_of_an_address():
    assert address_of("fe80::1%eth0") == address("fe80::1")
    assert address_of("api.example.com") is None


# --------------------------------------------------------------------------------------------------- routes


@pytest.mark.parametrize(
    ("where", "is_near"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("169.254.9.9", True),
        ("fe80::1", True),
        ("192.168.1.77", True),
        ("fd00::9", True),
        ("192.168.2.77", False),  # behind the default gateway, private or not
        ("10.1.2.3", False),
        ("198.51.100.1", False),
        ("100.64.0.1", False),  # a tunnel's half of the default route
        ("2001:db8::1", False),
    ],
)
def test_near_is_what_needs_no_gateway(where, is_near):
    assert near(address(where), ROUTES) == is_near


def test_where_the_table_says_nothing_only_the_box_itself_is_near():
    assert not near(address("192.168.1.77"), [])
    assert near(address("127.0.0.1"), [])


def test_the_smallest_network_decides():
    assert [row.interface for row in matching(address("192.168.1.77"), ROUTES)] == ["eth0"]
    assert [row.interface for row in matching(address("100.64.0.1"), ROUTES)] == ["tun0"]
    assert matching(address("192.168.1.77"), ROUTES[-1:]) == []


def test_a_route_through_an_interface_without_a_carrier_is_none():
    assert not wired(address("198.51.100.1"), ROUTES, {"eth0"})
    assert wired(address("198.51.100.1"), ROUTES, {"wlan0"})


def test_one_of_several_ways_is_enough():
    two = [Route(net("0.0.0.0/0"), True, "eth0"), Route(net("0.0.0.0/0"), True, "wlan0")]
    assert wired(address("198.51.100.1"), two, {"eth0"})
    assert not wired(address("198.51.100.1"), two, {"eth0", "wlan0"})


def test_where_the_table_says_nothing_there_is_a_carrier():
    assert wired(address("198.51.100.1"), [], {"eth0"})


IPV4 = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
*\t0000000A\t00000000\t0201\t0\t0\t0\t000000FF\t0\t0\t0
half a line
"""
IPV6 = """fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000000000000000000000000000001 00000400 00000003 00000000 00000003     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
fd000000000000000000000000000002 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000004 00000000 80200001     eth0
half a line
"""  # noqa: E501


@pytest.mark.skipif(sys.byteorder == "big", reason="the table is one of a little-endian machine")
def test_the_kernels_table_is_read():
    assert read_ipv4(IPV4) == [
        Route(net("0.0.0.0/0"), True, "eth0"),
        Route(net("192.0.2.0/24"), False, "eth0"),
    ]
    assert read_ipv4("") == []


def test_the_kernels_other_table_is_read():
    assert read_ipv6(IPV6) == [Route(net("fd00::/64"), False, "eth0"), Route(net("::/0"), True, "eth0")]
    assert read_ipv6("") == []
