"""kill -9 in mid-stream, a hundred answers: does any client notice?

    python bench/kills.py cloud  [--answers 100] [--clients 4] [--seed 1]
    python bench/kills.py engine [--answers 100] [--clients 4] [--seed 1]

``cloud``: a second appliance stands in as the cloud (it speaks the same wire). A tee in between writes down what
the cloud really sent. In every round all clients begin an answer with the official OpenAI SDK, and at a random
moment the cloud's process is killed. Afterwards it is started again and the breaker is reset.

``engine``: the box has no cloud, and its own engine process is killed in the same way.

An answer is whole if the SDK raised nothing, saw exactly one finish_reason, and the text begins with exactly the
characters the cloud sent (``cloud``), or is not empty (``engine``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from common import Box, free_port
from openai import AsyncOpenAI

PROMPTS = (
    "Write a short story about a lighthouse keeper.",
    "Explain how bread is made, step by step.",
    "Describe the city of Paris to a child.",
    "What are the planets of the solar system? Tell something about each.",
    "Write a letter to a friend about a journey by train.",
    "Explain what a computer does when it starts.",
    "Tell me about the history of the bicycle.",
)
MAX_TOKENS = 120


@dataclass
class Tee:
    """A byte-transparent hop that writes down the text of every answer that passed, by its id."""

    target: int
    sent: dict[str, str] = field(default_factory=dict)

    async def serve(self, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._pass, "127.0.0.1", port)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        seen = bytearray()

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, note: bytearray | None) -> None:
            try:
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
                    if note is not None:
                        note += data
            except OSError:
                sink.transport.abort()
            else:
                sink.close()

        await asyncio.gather(pump(reader, up_writer, None), pump(up_reader, writer, seen), return_exceptions=True)
        self._write_down(bytes(seen))

    def _write_down(self, seen: bytes) -> None:
        for line in seen.split(b"\n"):
            if not line.startswith(b"data: {"):
                continue
            try:
                chunk = json.loads(line[6:])
            except ValueError:
                continue  # the half event at the cut: the client never had it
            for choice in chunk.get("choices", ()):
                text = choice["delta"].get("content") or ""
                self.sent[chunk["id"]] = self.sent.get(chunk["id"], "") + text


@dataclass
class Seen:
    id: str = ""
    text: str = ""
    finishes: int = 0
    error: str | None = None
    longest_silence: float = 0.0


async def ask(client: AsyncOpenAI, prompt: str, model: str) -> Seen:
    seen = Seen()
    last = time.perf_counter()
    try:
        stream = await client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": prompt}],
            stream=True,
            temperature=0,
            max_tokens=MAX_TOKENS,
        )
        async for chunk in stream:
            now = time.perf_counter()
            seen.longest_silence, last = max(seen.longest_silence, now - last), now
            seen.id = chunk.id
            for choice in chunk.choices:
                seen.text += choice.delta.content or ""
                seen.finishes += choice.finish_reason is not None
    except Exception as error:  # whatever the SDK raises is what an application would see
        seen.error = f"{type(error).__name__}: {error}"
    return seen


async def main(victim: str, answers: int, clients: int, seed: int) -> int:
    chance = random.Random(seed)
    verdicts: Counter[str] = Counter()
    silences: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tee_port, cloud_port, box_port = free_port(), free_port(), free_port()
        cloud = Box(cloud_port, "[local]\nslots = 4\ncontext = 2048\n", folder)
        tee = Tee(cloud_port)
        upstream = f'[[upstream]]\nname = "other"\napi = "openai"\nbase_url = "http://127.0.0.1:{tee_port}/v1"\n'
        local = "[local]\nslots = 4\ncontext = 2048\n"
        box = Box(box_port, local + (upstream if victim == "cloud" else ""), folder)
        server = await tee.serve(tee_port)
        await asyncio.gather(box.start(), *([cloud.start()] if victim == "cloud" else []))
        client = AsyncOpenAI(base_url=f"{box.url}/v1", api_key="none", max_retries=0, timeout=300)
        model = "some-model" if victim == "cloud" else "local"
        began = time.perf_counter()
        await asyncio.gather(*(ask(client, chance.choice(PROMPTS), model) for _ in range(clients)))
        usual = time.perf_counter() - began  # how long a round takes undisturbed: where the kills are spread over
        done = 0
        while done < answers:
            await box.ready()
            asked = [chance.choice(PROMPTS) for _ in range(min(clients, answers - done))]
            running = [asyncio.ensure_future(ask(client, prompt, model)) for prompt in asked]
            await asyncio.sleep(chance.uniform(0.05, usual * 0.9))
            if victim == "cloud":
                await cloud.stop(signal.SIGKILL)
            else:
                async with httpx.AsyncClient() as http:
                    pid = (await http.get(f"{box.url}/appliance/status")).json()["engine"]["pid"]
                os.kill(pid, signal.SIGKILL)
            for seen in await asyncio.gather(*running):
                verdict = judge(seen, tee.sent.get(seen.id, ""), victim)
                verdicts[verdict] += 1
                silences.append(seen.longest_silence)
                if verdict.startswith("LOST"):
                    print(verdict, seen.error, repr(seen.text[-60:]), repr(tee.sent.get(seen.id, "")[-60:]))
            done += len(running)
            if victim == "cloud":
                await cloud.start()
                async with httpx.AsyncClient() as http:
                    await http.post(f"{box.url}/appliance/reset", json={})
            print(f"{done}/{answers}", dict(verdicts), flush=True)
        async with httpx.AsyncClient() as http:
            status = (await http.get(f"{box.url}/appliance/status")).json()
        await box.stop()
        if victim == "cloud":
            await cloud.stop()
        server.close()
    silences.sort()
    print("requests", status["requests"], "engine restarts", status["engine"]["restarts"])
    print(f"longest silence in an answer: median {silences[len(silences) // 2]:.2f} s, worst {silences[-1]:.2f} s")
    print("verdicts", dict(verdicts))
    return 1 if any(verdict.startswith("LOST") for verdict in verdicts) else 0


def judge(seen: Seen, sent: str, victim: str) -> str:
    if seen.error is not None:
        return "LOST: error"
    if seen.finishes != 1:
        return f"LOST: {seen.finishes} ends"
    if not seen.text:
        return "LOST: empty"
    if not seen.text.startswith(sent):
        return "LOST: not what the cloud sent"
    if victim == "engine":
        return "whole"
    if not sent:
        return "whole, all from the box"
    return "whole, all from the cloud" if seen.text == sent else "whole, taken over"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("victim", choices=("cloud", "engine"))
    parser.add_argument("--answers", type=int, default=100)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.victim, given.answers, given.clients, given.seed)))
