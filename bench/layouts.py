"""Which KV layout: one stream of cells per sequence (split), or one pool for all (unified)?

    python bench/layouts.py [--rounds 10]

Each scene fills some sequences, then decodes with the busy ones; both layouts take turns in every round, on the same
weights in one process. Printed: steps per second of each, and the median ratio unified / split.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import llama_cpp as llama

from appliance.engine.cores import cores

SEQUENCES, CONTEXT, STEPS = 8, 4096, 24
# name: (tokens in each sequence, sequences that decode)
SCENES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "1 busy, alone": ((300,), (0,)),
    "1 busy, 3 idle of 2,000": ((300, 2000, 2000, 2000), (0,)),
    "4 busy of 300": ((300,) * 4, (0, 1, 2, 3)),
    "4 busy of 300, 4 idle of 2,000": ((300,) * 4 + (2000,) * 4, (0, 1, 2, 3)),
    "8 busy of 300": ((300,) * 8, tuple(range(8))),
    "4 busy of 2,000": ((2000,) * 4, (0, 1, 2, 3)),
    "2 busy, a gap of one between them": ((300,) * 3, (0, 2)),
    "the same, the gap filled": ((300,) * 3, (0, 1, 2)),
    "4 busy, gaps between all": ((300,) * 7, (0, 2, 4, 6)),
    "the same, the gaps filled": ((300,) * 7, tuple(range(7))),
}


class Layout:
    def __init__(self, model: Any, unified: bool) -> None:
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_seq_max = SEQUENCES * CONTEXT, SEQUENCES
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = cores()
        params.kv_unified = unified
        params.no_perf = True
        self.context = llama.llama_init_from_model(model, params)
        self.memory = llama.llama_get_memory(self.context)
        self.batch = llama.llama_batch_init(512, 0, 1)
        self.lengths: list[int] = []

    def compute(self, rows: Sequence[tuple[int, int, int]], *, logits: bool) -> None:
        """Rows are (sequence, first position, how many)."""
        at = 0
        for sequence, start, count in rows:
            for index in range(count):
                self.batch.token[at] = 100 + (start + index) % 1000
                self.batch.pos[at] = start + index
                self.batch.n_seq_id[at] = 1
                self.batch.seq_id[at][0] = sequence
                self.batch.logits[at] = logits and index == count - 1
                at += 1
        self.batch.n_tokens = at
        status = llama.llama_decode(self.context, self.batch)
        assert status == 0, status
        llama.llama_synchronize(self.context)

    def fill(self, lengths: Sequence[int]) -> None:
        llama.llama_memory_clear(self.memory, False)
        self.lengths = list(lengths)
        for sequence, length in enumerate(lengths):
            for start in range(0, length, 512):
                self.compute([(sequence, start, min(512, length - start))], logits=False)

    def decode(self, busy: Sequence[int]) -> float:
        """Steps per second; what they added is taken away again."""
        began = time.perf_counter()
        for step in range(STEPS):
            self.compute([(sequence, self.lengths[sequence] + step, 1) for sequence in busy], logits=True)
        seconds = time.perf_counter() - began
        for sequence in busy:
            llama.llama_memory_seq_rm(self.memory, sequence, self.lengths[sequence], -1)
        return STEPS / seconds

    def share(self) -> float:
        """Seconds until sequence 7 holds the first half of what sequence 0 holds."""
        began = time.perf_counter()
        half = self.lengths[0] // 2
        whole = llama.llama_memory_seq_cp
        whole(self.memory, 0, SEQUENCES - 1, -1, -1)
        llama.llama_memory_seq_rm(self.memory, SEQUENCES - 1, half, -1)
        self.compute([(SEQUENCES - 1, half, 1)], logits=True)
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()

    @llama.llama_log_callback
    def quiet(*_: Any) -> None: ...

    llama.llama_log_set(quiet, None)
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(arguments.model.encode(), llama.llama_model_default_params())
    split, unified = Layout(model, False), Layout(model, True)
    print(f"{'scene':42} {'split':>8} {'unified':>8} {'ratio':>7}   steps/s, medians of {arguments.rounds} rounds")
    for name, (lengths, busy) in SCENES.items():
        split.fill(lengths)
        unified.fill(lengths)
        pairs = [(split.decode(busy), unified.decode(busy)) for _ in range(arguments.rounds)]
        ratio = statistics.median(after / before for before, after in pairs)
        middle = [statistics.median(column) for column in zip(*pairs, strict=True)]
        print(f"{name:42} {middle[0]:8.1f} {middle[1]:8.1f} {ratio:7.2f}", flush=True)
    for name, layout in (("split", split), ("unified", unified)):
        layout.fill((2000,))
        print(f"share 1,000 of 2,000 tokens, and a step: {name} {1000 * layout.share():.1f} ms")


if __name__ == "__main__":
    main()
