"""Looks at the network: with a kernel and a resolver that do as they are told, and in a namespace of their own."""

import asyncio
import gc
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from appliance.backends import network
from appliance.backends.network import BELIEVED, DOUBTED, Lookout, ThisKernel, Watched, look, resolve
from appliance.core.fault import BackendError, Fault
from appliance.core.offline import Place, Route, address_of
from appliance.core.scopes import Breakers

CLOUD = Place("api.example.com", 443)
OTHER = Place("api.example.org", 443)
FAR, NEAR = "198.51.100.1", "192.168.1.77"
DEFAULT = Route(ipaddress.ip_network("0.0.0.0/0"), True, "eth0")
LAN = Route(ipaddress.ip_network("192.168.1.0/24"), False, "eth0")


class Kernel:
    """Has routes to everywhere, until it is told otherwise."""

    def __init__(self):
        self.table = [DEFAULT, LAN]
        self.ours = "192.168.1.2"
        self.without_carrier = set()
        self.asked = 0

    def source(self, address, port):
        self.asked += 1
        return self.ours if any(address in route.network for route in self.table) else None

    def routes(self):
        return self.table

    def dead(self, interfaces):
        return self.without_carrier & set(interfaces)

    def cut(self):
        self.table = []


class Resolver:
    def __init__(self, **names):
        self.names = names or {CLOUD.host: [FAR], OTHER.host: [FAR]}
        self.asked = []
        self.broken = self.stuck = False

    async def __call__(self, host, port):
        self.asked.append(host)
        if self.stuck:
            await asyncio.Event().wait()
        if self.broken:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return self.names[host]


class Scene:
    """A lookout, and the upstreams it looks at."""

    def __init__(self, *places, kernel=None, resolver=None):
        self.kernel, self.resolver = kernel or Kernel(), resolver or Resolver()
        self.lookout = Lookout(self.kernel, self.resolver)
        self.places = places or (CLOUD,)
        self.breakers = [Breakers() for _ in self.places]

    async def looks(self, *times):
        """What is missing for the first upstream, at each of these times."""
        found = []
        for now in times:
            seen = await self.lookout.look(list(zip(self.places, self.breakers, strict=True)), now)
            found.append(seen[0])
        return found


def acted(scene, play):
    """`play(scene)` on a loop of its own; a look waits for the resolver for no time that a test would notice."""

    async def run():
        try:
            return await play(scene)
        finally:
            scene.lookout.close()

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(network, "LOOKUP_WAIT", 0.005)


# --------------------------------------------------------------------------------------------------- routes


def test_with_a_route_and_a_name_nothing_is_missing():
    assert acted(Scene(), lambda scene: scene.looks(0.0, 2.0, 4.0)) == [None, None, None]


def test_without_a_route_it_is_offline_at_the_next_look_and_back_at_the_one_after_its_return():
    async def play(scene):
        before = await scene.looks(0.0)
        scene.kernel.cut()
        cut = await scene.looks(2.0, 4.0)
        scene.kernel.table = [DEFAULT]
        return before, cut, await scene.looks(6.0)

    assert acted(Scene(), play) == ([None], ["route", "route"], [None])


def test_a_cable_without_a_carrier_is_no_route_though_the_kernel_keeps_it():
    async def play(scene):
        await scene.looks(0.0)
        scene.kernel.without_carrier = {"eth0"}
        return await scene.looks(2.0)

    assert acted(Scene(), play) == ["route"]


def test_an_upstream_on_the_boxs_own_network_never_counts_as_offline():
    async def play(scene):
        before = await scene.looks(0.0)
        scene.kernel.cut()
        return before + await scene.looks(2.0, 4.0)

    assert acted(Scene(Place(NEAR, 11434)), play) == [None, None, None]
    named = Resolver(**{CLOUD.host: [NEAR]})
    assert acted(Scene(resolver=named), play) == [None, None, None]


def test_a_literal_address_needs_no_name():
    async def play(scene):
        found = await scene.looks(0.0)
        scene.kernel.cut()
        return found + await scene.looks(2.0), scene.resolver.asked

    assert acted(Scene(Place(FAR, 443)), play) == ([None, "route"], [])


def test_any_of_several_addresses_will_do():
    resolver = Resolver(**{CLOUD.host: ["2001:db8::7", FAR]})  # IPv6 leads nowhere here
    assert acted(Scene(resolver=resolver), lambda scene: scene.looks(0.0)) == [None]


def test_each_upstream_is_judged_by_itself():
    async def play(scene):
        scene.kernel.table = [LAN]
        return await scene.lookout.look(list(zip(scene.places, scene.breakers, strict=True)), 0.0)

    assert acted(Scene(Place(FAR, 443), Place(NEAR, 80)), play) == ["route", None]


# ---------------------------------------------------------------------------------------------------- names


def test_a_name_is_missing_when_two_questions_had_no_answer():
    async def play(scene):
        found = await scene.looks(0.0)
        scene.resolver.broken = True
        lost = await scene.looks(BELIEVED, BELIEVED + 2, BELIEVED + 4)
        scene.resolver.broken = False
        return found, lost, await scene.looks(BELIEVED + 6)

    assert acted(Scene(), play) == ([None], [None, "name", "name"], [None])


def test_a_box_that_starts_without_a_network_knows_it_at_the_first_look():
    async def play(scene):
        scene.kernel.cut()
        scene.resolver.broken = True
        return await scene.looks(0.0)

    assert acted(Scene(), play) == ["route"]


def test_a_resolver_that_does_not_answer_is_asked_once_and_counts_as_unanswered_after_two_seconds():
    async def play(scene):
        scene.resolver.stuck = True
        found = await scene.looks(0.0, 1.9, 2.0, 4.0)
        return found, len(scene.resolver.asked)

    assert acted(Scene(), play) == ([None, None, None, "name"], 1)


def test_a_resolver_that_is_stuck_for_one_name_leaves_room_for_the_clouds_own_questions():
    async def play(scene):
        scene.resolver.stuck = True
        await scene.looks(0.0, 2.0)
        return len(scene.resolver.asked)

    places = [Place(f"{number}.example.com", 443) for number in range(5)]
    assert acted(Scene(*places), play) == network.LOOKUPS


def test_while_all_is_well_a_name_is_asked_for_once_a_minute():
    async def play(scene):
        await scene.looks(*[2.0 * number for number in range(61)])
        return len(scene.resolver.asked)

    assert acted(Scene(), play) == 1 + int(120 / BELIEVED)


def test_while_the_upstream_fails_it_is_asked_for_more_often():
    async def play(scene):
        await scene.looks(0.0)
        [breakers] = scene.breakers
        breakers.fail(breakers.begin(1.0), 1.0, BackendError(Fault.UNREACHABLE, "no"), jitter=0.5)
        await scene.looks(2.0, 4.0, DOUBTED, DOUBTED + 2.0)
        return len(scene.resolver.asked)

    assert acted(Scene(), play) == 2


def test_when_the_route_changes_it_is_asked_for_at_once():
    async def play(scene):
        await scene.looks(0.0)
        scene.kernel.ours = "10.0.0.9"  # from the cable to the air
        await scene.looks(2.0, 4.0)
        return len(scene.resolver.asked)

    assert acted(Scene(), play) == 2


def test_without_a_route_nobody_is_asked():
    async def play(scene):
        await scene.looks(0.0)
        scene.kernel.cut()
        await scene.looks(2.0, 4.0, 200.0)
        return len(scene.resolver.asked)

    assert acted(Scene(), play) == 1


def test_upstreams_of_one_place_share_the_question():
    async def play(scene):
        await scene.looks(0.0)
        return scene.resolver.asked

    assert acted(Scene(CLOUD, CLOUD, OTHER), play) == [CLOUD.host, OTHER.host]


@pytest.mark.parametrize("name", ["..", "\x00", "a" * 300, "xn--\udcff"])
def test_a_name_that_cannot_even_be_asked_for_is_a_missing_name(name):
    async def play(scene):
        return await scene.looks(0.0, 2.0)

    scene = Scene(Place(name, 443), resolver=resolve)
    assert acted(scene, play) == [None, "name"]
    gc.collect()  # a question nobody took the answer of would be told here


# ------------------------------------------------------------------------------------------- shown to be wrong


def test_an_answer_that_comes_without_a_name_shows_that_none_is_needed():
    async def play(scene):
        await scene.looks(0.0)
        [breakers] = scene.breakers
        leave = breakers.begin(59.0)
        scene.resolver.broken = True
        lost = await scene.looks(60.0, 62.0)
        breakers.succeed(leave, 70.0)  # over a connection that was still open
        found = await scene.looks(71.0, 300.0)
        scene.resolver.broken = False
        await scene.looks(302.0)
        scene.resolver.broken = True
        return lost, found, await scene.looks(400.0, 402.0)

    assert acted(Scene(), play) == ([None, "name"], [None, None], [None, "name"])


def test_the_rest_of_an_answer_that_was_there_when_the_cable_was_pulled_shows_nothing():
    async def play(scene):
        await scene.looks(0.0)
        [breakers] = scene.breakers
        leave = breakers.begin(1.0)
        scene.kernel.cut()
        await scene.looks(2.0)
        breakers.succeed(leave, 2.5)
        return await scene.looks(4.0)

    assert acted(Scene(), play) == ["route"]


# ------------------------------------------------------------------------------------------ who is told what


def told(scene, *times):
    """The breakers' state after a look at each of these times, with the cable out from 2.0 to 5.0."""

    async def play(scene):
        states = []
        for now in times:
            scene.kernel.table = [] if 2.0 <= now < 5.0 else [DEFAULT]
            watched = [
                Watched(name=place.host, place=place, breakers=breakers)
                for place, breakers in zip(scene.places, scene.breakers, strict=True)
            ]
            local = Watched(name="ollama", place=None, breakers=Breakers())
            await look([*watched, local], scene.lookout, now)
            states.append(scene.breakers[0].state(now + 1e9))
        return states

    return acted(scene, play)


def test_the_breakers_are_told_and_the_log_says_it_once(caplog):
    scene = Scene()
    scene.breakers[0].begin(0.0)
    assert told(scene, 0.0, 2.0, 4.0, 6.0, 8.0) == ["closed", "offline", "offline", "half-open", "half-open"]
    assert [record.message for record in caplog.records] == [
        f"{CLOUD.host} is offline: no route",
        f"{CLOUD.host} is online again",
    ]


def test_an_upstream_nobody_asks_for_is_left_alone():
    scene = Scene()
    assert told(scene, 0.0, 2.0, 4.0) == ["closed", "closed", "closed"]
    assert (scene.kernel.asked, scene.resolver.asked) == (0, [])


def test_watching_goes_on_whatever_happens_and_ends_cleanly(monkeypatch, caplog):
    monkeypatch.setattr(network, "LOOK_SECONDS", 0.001)

    async def play():
        looks, enough = [], asyncio.Event()

        def watched():
            looks.append(None)
            if len(looks) == 3:
                enough.set()
            raise ValueError("boom")

        task = asyncio.create_task(network.watch(watched))
        await enough.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return task.cancelled()

    assert asyncio.run(play())
    assert "boom" in caplog.text


# ------------------------------------------------------------------------------------------------ really


def test_this_kernel_has_a_route_to_this_very_box():
    assert ThisKernel().source(address_of("127.0.0.1"), 80) == "127.0.0.1"


def test_a_kernel_that_does_not_tell_has_carriers_everywhere(monkeypatch):
    assert ThisKernel().dead(["lo", "no-such-interface", "x" * 99]) <= {"lo"}
    monkeypatch.setattr(network, "TABLE_LIMIT", 4)
    assert ThisKernel().routes() == []


def test_this_box_can_look_up_itself():
    assert "127.0.0.1" in asyncio.run(resolve("localhost", 80))


NAMESPACE = ["unshare", "--net", "--map-root-user", "--user"] if os.getuid() else ["unshare", "--net"]
CHILD = """
import asyncio, sys, time
from appliance.backends import network
from appliance.core.offline import Place
from appliance.core.scopes import Breakers

async def main():
    breakers = Breakers()
    breakers.begin(asyncio.get_running_loop().time())
    watched = [network.Watched(name="cloud", place=Place("198.51.100.1", 443), breakers=breakers)]
    task = asyncio.create_task(network.watch(lambda: watched))
    before = None
    while True:
        state = breakers.state(asyncio.get_running_loop().time())
        if state != before:
            print(state, flush=True)
            before = state
        await asyncio.sleep(0.02)

asyncio.run(main())
"""


def has_namespaces():
    if not (shutil.which("unshare") and shutil.which("ip") and shutil.which("nsenter")):
        return False
    return subprocess.run([*NAMESPACE, "ip", "link", "add", "d0", "type", "veth"], capture_output=True).returncode == 0


class Namespace:
    """A child that watches, in a network of its own, which is the test's to pull apart."""

    def __init__(self):
        self.child = subprocess.Popen(
            [*NAMESPACE, sys.executable, "-c", CHILD],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": "."},
        )

    def ip(self, *words):
        enter = ["nsenter", "--target", str(self.child.pid), "--net", *(["--user"] if os.getuid() else [])]
        subprocess.run([*enter, "ip", *words], check=True, capture_output=True)

    def says(self, state):
        """Seconds until it says so."""
        began = time.monotonic()
        line = self.child.stdout.readline().strip()
        assert line == state
        return time.monotonic() - began


@pytest.fixture
def namespace():
    if not has_namespaces():
        pytest.skip("no network namespaces here (unshare --net, ip, nsenter)")
    found = Namespace()
    yield found
    found.child.send_signal(signal.SIGKILL)
    found.child.wait()
    found.child.stdout.close()


@pytest.mark.live
def test_a_cable_that_is_pulled_is_noticed_within_two_seconds_and_its_return_within_five(namespace):
    namespace.says("closed")
    namespace.says("offline")  # nothing but a loopback that is down
    namespace.ip("link", "add", "eth0", "type", "veth", "peer", "name", "wall")
    namespace.ip("address", "add", "192.0.2.2/24", "dev", "eth0")
    namespace.ip("link", "set", "wall", "up")
    namespace.ip("link", "set", "eth0", "up")
    namespace.ip("route", "add", "default", "via", "192.0.2.1")
    assert namespace.says("half-open") < 5.0
    namespace.ip("route", "del", "default")
    assert namespace.says("offline") < 2.5
    namespace.ip("route", "add", "default", "via", "192.0.2.1")
    assert namespace.says("half-open") < 5.0
    namespace.ip("link", "set", "wall", "down")  # the other end: the route stays, the carrier goes
    assert namespace.says("offline") < 2.5
    namespace.ip("link", "set", "wall", "up")
    assert namespace.says("half-open") < 5.0
