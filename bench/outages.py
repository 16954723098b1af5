"""A cloud that comes and goes, one that says nothing, a cable that is out: what do the applications notice?

    python bench/outages.py [flapping] [silent] [cable] [--rate 5] [--up 20] [--down 60] [--again 60] [--json FILE]

Requests come at a steady rate, streamed and whole in turn, to a box with one cloud in its configuration; real sockets,
the box's own engine with the starter model.

``flapping``: the cloud is well, then down (`--way errors`: 500 for everything; `resets`: every connection is reset),
then well again.
``silent``: it accepts every connection and never says a word; once to a box that does not know it, once after `--quick`
quick answers.
``cable``: the box lives in a network namespace of its own, the cloud in another, and the wire between them loses its
carrier; needs `unshare`, `nsenter` and `ip`.

Promised, or the exit code is 1: every request gets its whole answer; a cloud that is back gets the next request within
30 s, and nobody hammers it while it is down; a silent one costs each of the first requests its deadline, and after that
one request at a time; without a cable the box answers at once, what was asked before that was noticed waits for its
deadline at most, and the cloud has the next request within 5 s of its return.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from client import Heard, listen, request
from common import Box, command, free_port, median, prose, quantile, table

from appliance.drills.cloud import HEAD_LIMIT, Exchange, FailingCloud, Script
from appliance.drills.faults import HEALTHY

TOKENS = 4
AT_ONCE = 3.0  # seconds to the first word from the box, on a machine that computes eight answers at a time
BACK, BACK_OF_CABLE = 30.0, 5.0
NOTICED = 2.5  # seconds after which a box looks at the network's state at the latest
HAMMERING = 20  # requests to a cloud that is down for a minute
DEADLINE = 12.0  # for the first word, of a cloud that nobody knows yet or that is quick
DEADLINE_UNSEEN = 20.0  # for a whole answer of one that is quick, and for the next word
TRIALS_EVERY = 8.0
BOX, CLOUD, WALL = "192.0.2.2", "198.51.100.1", "192.0.2.1"


class Cloud(FailingCloud):
    """Well, or down in one `way`; it writes down when somebody came, and for what."""

    def __init__(self, host: str = "127.0.0.1", *, pace: float = 0.01) -> None:
        super().__init__(HEALTHY.act, script=Script(text="The cloud is well and says so. " * 2, pace=pace))
        self.way: str | None = None
        self.asked: list[float] = []
        self.probed: list[float] = []
        self.knocked: list[float] = []
        self._host = host

    async def __aenter__(self) -> Self:
        self._socket.bind((self._host, 0))
        self._port = self._socket.getsockname()[1]
        self._server = await asyncio.start_server(self._serve, sock=self._socket, limit=HEAD_LIMIT)
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.knocked.append(time.monotonic())
        if self.way == "resets":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return
        await super()._serve(reader, writer)

    async def _answer(self, exchange: Exchange) -> None:
        chat = exchange.asked.method == "POST"
        (self.asked if chat else self.probed).append(time.monotonic())
        match self.way:
            case "errors":
                await exchange.refuse_as("server-error")
            case "resets":
                await exchange.reset()
            case "silent":
                await exchange.silence()
            case _:
                await super()._answer(exchange)


@dataclass
class Answer:
    """What one request saw; times are of `time.monotonic`."""

    heard: Heard

    @property
    def whole(self) -> bool:
        return self.heard.complaint() is None

    @property
    def by(self) -> str:
        return self.heard.headers.get("x-appliance-served-by", "")


@dataclass
class Report:
    """The rows of the table, and what was not kept of the promises."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def add(self, scene: str, what: str, value: float | int | str, unit: str = "") -> None:
        shown = f"{value:.2f}" if isinstance(value, float) else str(value)
        self.rows.append((f"{scene}: {what}", f"{shown} {unit}".rstrip()))
        self.figures.setdefault(scene, {})[what] = None if isinstance(value, float) and math.isnan(value) else value

    def promise(self, kept: bool, sentence: str) -> None:
        if not kept:
            self.broken.append(sentence)


def configured(base_url: str) -> str:
    lines = ["[local]", "slots = 8", "context = 512", "[[upstream]]", 'name = "far"', 'api = "openai"']
    return "\n".join([*lines, f'base_url = "{base_url}"', 'key = "sk-bench"', ""])


async def asked(port: int, chance: random.Random, *, stream: bool = True) -> Answer:
    body = request(prose(chance.randint(2, 6), chance), TOKENS, model="some-model", stream=stream)
    if not stream:
        del body["stream_options"]
    heard = Heard()
    try:
        async with asyncio.timeout(150):
            await listen(port, body, heard)
    except TimeoutError:
        heard.error = "nothing ended within 150 s"
    return Answer(heard)


class Load:
    """Requests at a steady rate, whatever becomes of them, from `async with` to its end; then all are waited for."""

    def __init__(self, port: int, rate: float, chance: random.Random, *, whole: bool = True) -> None:
        self._port, self._rate, self._chance, self._whole = port, rate, chance, whole
        self._running: list[asyncio.Task[Answer]] = []
        self.answers: list[Answer] = []

    async def __aenter__(self) -> Self:
        self._beat = asyncio.create_task(self._ask())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._beat.cancel()
        with suppress(asyncio.CancelledError):
            await self._beat
        self.answers += await asyncio.gather(*self._running)

    async def _ask(self) -> None:
        began = time.monotonic()
        while True:
            stream = not (self._whole and len(self._running) % 2)
            self._running.append(asyncio.create_task(asked(self._port, self._chance, stream=stream)))
            await asyncio.sleep(max(0.0, began + len(self._running) / self._rate - time.monotonic()))


def firsts(answers: Sequence[Answer]) -> list[float]:
    return [answer.heard.first for answer in answers if answer.heard.pieces]


def between(answers: Sequence[Answer], start: float, end: float) -> list[Answer]:
    return [answer for answer in answers if start <= answer.heard.sent < end]


def tell_of(report: Report, scene: str, answers: Sequence[Answer]) -> None:
    """Was every request answered?"""
    lost = [answer for answer in answers if not answer.whole]
    report.add(scene, "requests", len(answers))
    report.add(scene, "not answered", len(lost))
    for answer in lost[:5]:
        print(f"{scene}: LOST: {answer.heard.complaint()}")
    report.promise(not lost, f"{scene}: {len(lost)} of {len(answers)} requests were not answered")


def tell_of_waits(report: Report, scene: str, what: str, answers: Sequence[Answer]) -> None:
    waits = firsts(answers)
    report.add(scene, f"first word {what}, median", median(waits), "s")
    report.add(scene, f"first word {what}, p99", quantile(waits, 0.99), "s")
    report.add(scene, f"first word {what}, worst", max(waits, default=math.nan), "s")


# ------------------------------------------------------------------------------------------------ the scenes


async def flapping(report: Report, given: argparse.Namespace, folder: Path) -> None:
    chance, scene = random.Random(given.seed), f"flapping ({given.way})"
    async with Cloud() as cloud:
        box = Box(free_port(), configured(cloud.base_url), folder)
        await box.start()
        async with Load(box.port, given.rate, chance) as load:
            await asyncio.sleep(given.up)
            cloud.way, down = given.way, time.monotonic()
            await asyncio.sleep(given.down)
            cloud.way, up = None, time.monotonic()
            await asyncio.sleep(given.again)
        await box.stop()
    answers = load.answers
    tell_of(report, scene, answers)
    # A request's own second try may come late; from here on the cloud is known to be down.
    known = down + 3.0
    tell_of_waits(report, scene, "while it is well", between(answers, 0.0, down))
    tell_of_waits(report, scene, "in the first 3 s of the outage", between(answers, down, known))
    tell_of_waits(report, scene, "after that", between(answers, known, up))
    at_once = quantile(firsts(between(answers, known, up)), 0.99)
    report.promise(at_once <= AT_ONCE, f"{scene}: while it is down the first word takes {at_once:.1f} s")
    came = cloud.asked if given.way == "errors" else cloud.knocked
    while_down = [at for at in came if down <= at < up]
    report.add(scene, "requests asked while it was down", len(between(answers, down, up)))
    report.add(scene, "of which reached it", len(while_down))
    report.add(scene, "of which later than 3 s", sum(at >= known for at in while_down))
    report.add(scene, "probes while it was down", sum(down <= at < up for at in cloud.probed))
    hammering = HAMMERING * max(1.0, given.down / 60)
    report.promise(len(while_down) <= hammering, f"{scene}: {len(while_down)} requests reached it while it was down")
    back = next((at - up for at in cloud.asked if at >= up), math.inf)
    report.add(scene, "asked again after its return within", back, "s")
    others = [answer.heard.sent for answer in between(answers, up, math.inf) if answer.by != "far"]
    report.add(scene, "all requests its own after its return within", max(others, default=up) - up, "s")
    report.promise(back <= BACK, f"{scene}: back in use {back:.1f} s after its return")


async def silent(report: Report, given: argparse.Namespace, folder: Path) -> None:
    for scene, quick in (("silent, unknown", 0), (f"silent, after {given.quick} quick answers", given.quick)):
        chance = random.Random(given.seed)
        async with Cloud() as cloud:
            box = Box(free_port(), configured(cloud.base_url), folder)
            await box.start()
            for _ in range(quick):
                report.promise((await asked(box.port, chance)).by == "far", f"{scene}: a quick answer is the box's")
            cloud.way = "silent"
            first = list(await asyncio.gather(*(asked(box.port, chance) for _ in range(3))))
            opened = time.monotonic()
            reached = len(cloud.asked)
            async with Load(box.port, given.rate, chance, whole=False) as load:
                await asyncio.sleep(given.down)
            seconds = time.monotonic() - opened
            await box.stop()
        tell_of(report, scene, [*first, *load.answers])
        tell_of_waits(report, scene, "of the first three", first)
        worst = max(firsts(first), default=math.inf)
        report.promise(worst <= DEADLINE + AT_ONCE, f"{scene}: the first requests paid {worst:.1f} s")
        tell_of_waits(report, scene, "once it is known", load.answers)
        trials = len(cloud.asked) - reached
        report.add(scene, "requests once it is known", len(load.answers))
        report.add(scene, "of which reached it", trials)
        report.add(scene, "probes", len(cloud.probed))
        late = sum(wait > AT_ONCE for wait in firsts(load.answers))
        report.add(scene, f"that waited for more than {AT_ONCE:.0f} s", late)
        report.promise(late <= trials, f"{scene}: {late} requests waited once it was known, {trials} were trials")
        report.promise(trials <= 1 + seconds / TRIALS_EVERY, f"{scene}: {trials} trials in {seconds:.0f} s")


async def cable(report: Report, given: argparse.Namespace, folder: Path) -> None:
    if not _namespaces():
        sentence = "skipped: no network namespaces here (they need unshare --net, nsenter and ip, and to be allowed)"
        report.add("cable", "all of it", sentence)
        return
    inside = [*_unshare(), sys.executable, __file__, "--inside", "cable", *_said(given)]
    process = await asyncio.create_subprocess_exec(*inside, stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    *lines, last = out.decode().splitlines() or [""]
    print("\n".join(lines))
    try:
        found = json.loads(last)
    except ValueError:
        raise SystemExit(f"the box in the namespace ended with {process.returncode} and said nothing") from None
    report.rows += [(what, shown) for what, shown in found["rows"]]
    report.figures |= found["figures"]
    report.broken += found["broken"]


# ------------------------------------------------------------------------------------- a wire and its two ends


def _unshare() -> list[str]:
    return ["unshare", "--net", *(["--map-root-user", "--user"] if os.getuid() else [])]


def _namespaces() -> bool:
    if not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        return False
    trial = [*_unshare(), "ip", "link", "add", "d0", "type", "veth"]
    return subprocess.run(trial, capture_output=True, check=False).returncode == 0


def _said(given: argparse.Namespace) -> list[str]:
    return ["--rate", str(given.rate), "--seed", str(given.seed), "--cut", str(given.cut)]


def _ip(*words: str, of: int | None = None) -> None:
    """`ip` in this namespace, or in that of a process."""
    enter = ["nsenter", "--target", str(of), "--net"] if of is not None else []
    subprocess.run([*enter, "ip", *words], check=True)


async def _behind() -> None:
    """The cloud at the other end of the wire: it says its port, and after each line it hears when it was last asked."""
    print("here", flush=True)
    hear = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(hear), sys.stdin)
    await hear.readline()  # the wire is there
    async with Cloud(CLOUD, pace=0.1) as cloud:  # slow enough to be in mid-answer at the cut
        print(cloud.base_url.replace("127.0.0.1", CLOUD), flush=True)
        while await hear.readline():
            print(json.dumps({"asked": cloud.asked, "probed": cloud.probed}), flush=True)


async def _inside(given: argparse.Namespace) -> None:
    """In a namespace of our own: the box and its clients here, the cloud in one further out, and a wire."""
    report, scene, chance = Report(), "cable", random.Random(given.seed)
    behind = [sys.executable, __file__, "--inside", "cloud"]
    far = await asyncio.create_subprocess_exec(
        "unshare", "--net", *behind, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 24
    )
    assert far.stdin is not None and far.stdout is not None

    async def say() -> str:
        assert far.stdin is not None and far.stdout is not None
        far.stdin.write(b"\n")
        return (await far.stdout.readline()).decode()

    await far.stdout.readline()
    _ip("link", "set", "lo", "up")
    _ip("link", "add", "eth0", "type", "veth", "peer", "name", "wall", "netns", str(far.pid))
    _ip("address", "add", f"{BOX}/24", "dev", "eth0")
    _ip("link", "set", "eth0", "up")
    for words in (
        ("link", "set", "lo", "up"),
        ("address", "add", f"{WALL}/24", "dev", "wall"),
        ("address", "add", f"{CLOUD}/32", "dev", "lo"),
        ("link", "set", "wall", "up"),
    ):
        _ip(*words, of=far.pid)
    _ip("route", "add", "default", "via", WALL)
    base_url = (await say()).strip()
    with tempfile.TemporaryDirectory() as folder:
        box = Box(free_port(), configured(base_url), Path(folder))
        await box.start()
        async with Load(box.port, given.rate, chance) as load:
            await asyncio.sleep(10)
            _ip("link", "set", "wall", "down", of=far.pid)
            cut = time.monotonic()
            await asyncio.sleep(given.cut)
            _ip("link", "set", "wall", "up", of=far.pid)
            back = time.monotonic()
            await asyncio.sleep(15)
        await box.stop()
    seen = json.loads(await say())
    far.stdin.close()
    await far.wait()
    answers = load.answers
    tell_of(report, scene, answers)
    tell_of_waits(report, scene, "while it is in", between(answers, 0.0, cut - 1.0))
    unnoticed, noticed = between(answers, cut, cut + NOTICED), between(answers, cut + NOTICED, back)
    report.add(scene, "first answer after the cut begun within", _begun(answers, cut), "s")
    tell_of_waits(report, scene, f"in the first {NOTICED} s without", unnoticed)
    tell_of_waits(report, scene, "after that", noticed)
    at_once = quantile(firsts(noticed), 0.99)
    report.promise(at_once <= AT_ONCE, f"{scene}: without it the first word takes {at_once:.1f} s")
    under_way = [answer.heard for answer in answers if answer.heard.sent < cut < answer.heard.ended]
    # A box that goes on may have nothing left to say: then the end is what comes next.
    gaps = [gap for heard in under_way if heard.pieces for gap in (*heard.gaps, heard.ended - heard.pieces[-1][0])]
    report.add(scene, "longest silence in an answer that was under way", max(gaps, default=math.nan), "s")
    worst = max([*firsts(unnoticed), *gaps], default=math.inf)
    report.promise(worst <= DEADLINE_UNSEEN + AT_ONCE, f"{scene}: before it was noticed, a silence of {worst:.1f} s")
    asked_again = next((at - back for at in seen["asked"] if at >= back), math.inf)
    report.add(scene, "cloud asked again after its return within", asked_again, "s")
    others = [answer.heard.sent for answer in between(answers, back, math.inf) if answer.by != "far"]
    report.add(scene, "all requests its own after its return within", max(others, default=back) - back, "s")
    report.promise(asked_again <= BACK_OF_CABLE, f"{scene}: back in use {asked_again:.1f} s after its return")
    probes = sum(cut + NOTICED <= at < back for at in seen["probed"])
    report.promise(probes == 0, f"{scene}: {probes} probes where there was no way")
    print(json.dumps({"rows": report.rows, "figures": report.figures, "broken": report.broken}))


def _begun(answers: Sequence[Answer], cut: float) -> float:
    """Seconds until the first word of a request that was asked after the cut."""
    begun = [answer.heard.pieces[0][0] for answer in answers if answer.heard.sent >= cut and answer.heard.pieces]
    return min(begun, default=math.inf) - cut


SCENES: dict[str, Callable[[Report, argparse.Namespace, Path], Awaitable[None]]] = {
    "flapping": flapping,
    "silent": silent,
    "cable": cable,
}


async def main(given: argparse.Namespace) -> int:
    print(command())
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        for name in given.scene or SCENES:
            await SCENES[name](report, given, Path(folder))
            print(f"  {name} is done", file=sys.stderr)
    print(table(report.rows))
    print(json.dumps(report.figures))
    if given.json:
        given.json.write_text(json.dumps(report.figures, indent=1))
    for sentence in report.broken:
        print(f"BROKEN: {sentence}")
    return 1 if report.broken else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "scene", nargs="*", choices=[[], *SCENES], metavar="scene", help=f"{', '.join(SCENES)}; all of them by default"
    )
    parser.add_argument("--rate", type=float, default=5.0, help="requests per second")
    parser.add_argument("--up", type=float, default=20.0, help="seconds for which the flapping cloud is well at first")
    parser.add_argument("--down", type=float, default=60.0, help="seconds for which it is down, or known to be silent")
    parser.add_argument("--again", type=float, default=60.0, help="seconds for which it is well afterwards")
    parser.add_argument("--way", choices=("errors", "resets"), default="errors", help="how the flapping one is down")
    parser.add_argument("--quick", type=int, default=30, help="answers from which the box learns")
    parser.add_argument("--cut", type=float, default=20.0, help="seconds without a cable")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--inside", choices=("cable", "cloud"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        asyncio.run(_inside(given) if given.inside == "cable" else _behind())
    else:
        sys.exit(asyncio.run(main(given)))
