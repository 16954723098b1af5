"""How exactly does the box continue an answer that was cut anywhere?

    python bench/cuts.py --model PATH.gguf [--cuts 200] [--seed 1]

Answers at temperature 0 are written whole, then cut at random characters and continued, through the engine's own
pipe. A cut is right if the next 40 bytes are those of the whole answer. A step of another shape computes slightly other
numbers, so some answers cannot be repeated at all: a cut that also goes another way when the answer is restarted
where one of its own tokens ended (the last three of them before the cut are tried) is counted apart.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from appliance.backends.process import Engine, EngineSpec

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QUESTIONS = (
    "Why is the sky blue?",
    "Write a Python function that returns the n-th Fibonacci number, and explain it.",
    "List ten countries of Europe with their capitals.",
    "Tell me a short story about a fox and a river.",
    "Explain how a bicycle stays upright.",
    "Give me a recipe for pancakes with exact amounts.",
    "What are the first twenty prime numbers?",
    "Write a JSON object that describes a person with name, age, and address.",
    "Write a letter to my landlord about a broken heater.",
    "Compare cats and dogs in a table in Markdown.",
    "Greet me with many emoji like 🎉🚀😀 and wish me a happy birthday.",
    "Translate 'good morning, how are you?' into French, German and Spanish.",
)
NEXT = 40


@dataclass
class Answer:
    question: str
    text: str = ""
    ended: bool = False
    boundaries: list[int] = field(default_factory=list)  # in characters: where the engine's pieces ended


async def write(engine: Engine, question: str, committed: str | None, *, tokens: int | None, enough: int) -> Answer:
    """What the engine writes after `committed`, `enough` bytes of it at least, unless it ends before."""
    job = {
        "messages": [{"role": "user", "content": question}],
        "committed": committed,
        "max_tokens": tokens,
        "stop": [],
        "trim": False,
        "sampling": {"temperature": 0.0},
    }
    answer = Answer(question)
    async with contextlib.aclosing(engine.generate(job)) as batches:
        async for batch in batches:
            for frame in batch:
                if frame["op"] == "text":
                    answer.text += frame["text"]
                    answer.boundaries.append(len(answer.text))
                elif frame["op"] == "finish":
                    answer.ended = frame["reason"] == "stop"
                elif frame["op"] == "error":
                    raise SystemExit(frame["message"])
            if len(answer.text.encode()) >= enough:
                break
    return answer


async def agrees(engine: Engine, answer: Answer, start: int, cut: int) -> bool:
    """Does the answer restarted at `start` say the same as the whole one until `NEXT` bytes behind `cut`?"""
    wanted = answer.text[start:cut].encode() + answer.text[cut:].encode()[:NEXT]
    again = await write(engine, answer.question, answer.text[:start], tokens=None, enough=len(wanted))
    said = again.text.encode()
    whole = answer.text[start:].encode()
    return said == whole if len(whole) <= len(wanted) and answer.ended else said[: len(wanted)] == wanted


async def measure(model: Path, template: str | None, cuts: int, seed: int, tokens: int) -> None:
    engine = Engine(EngineSpec(path=str(model), context=2048, slots=1, template=template))
    await engine.start()
    try:
        await engine.wait_ready(120)
        answers = []
        for question in QUESTIONS:
            answer = await write(engine, question, None, tokens=tokens, enough=1 << 30)
            if len(answer.text) > NEXT:
                answers.append(answer)
        chance = random.Random(seed)
        right = apart = wrong = 0
        for number in range(1, cuts + 1):
            answer = chance.choice(answers)
            # An answer that ran into its token limit says nothing about what follows its last bytes.
            last = len(answer.text) - (1 if answer.ended else NEXT)
            cut = chance.randint(1, last)
            starts = [boundary for boundary in answer.boundaries if boundary < cut][-3:]
            if await agrees(engine, answer, cut, cut):
                right += 1
            elif not all([await agrees(engine, answer, start, cut) for start in starts]):
                apart += 1
                print(f"  {number}: repeats nowhere  {answer.text[max(0, cut - 30) : cut]!r}", file=sys.stderr)
            else:
                wrong += 1
                again = await write(engine, answer.question, answer.text[:cut], tokens=None, enough=NEXT)
                print(
                    f"  {number}: {answer.text[max(0, cut - 30) : cut]!r} | {answer.text[cut : cut + NEXT]!r}"
                    f" became {again.text[:NEXT]!r}",
                    file=sys.stderr,
                )
        counted = right + wrong
        print(f"cuts {cuts}  same {right}  different {wrong}  not repeatable at a token boundary either {apart}")
        print(f"same: {100 * right / max(counted, 1):.1f} % of the repeatable, {100 * right / cuts:.1f} % of all")
    finally:
        await engine.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument(
        "--template", type=Path, help="a Jinja chat template; plain ChatML if absent, 'own' the model's"
    )
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=200, help="longest answer")
    given = parser.parse_args()
    own = given.template is not None and str(given.template) == "own"
    template = None if own else CHATML if given.template is None else given.template.read_text("utf-8")
    asyncio.run(measure(given.model, template, given.cuts, given.seed, given.tokens))


if __name__ == "__main__":
    main()
