"""The tables for people."""

from __future__ import annotations

from appliance.bench.result import NOTE
from appliance.bench.table import INTERRUPTED, markdown
from tests.bench_room.made_up import RESULT, ROWS, result

WHOLE = """\
| model         |      size |   params | backend | threads |          test |            t/s |
|---------------|----------:|---------:|--------:|--------:|--------------:|---------------:|
| llama 1B Q4_0 | 93.46 MiB | 134.52 M |     CPU |       2 |         pp512 | 400.00 ± 10.00 |
| llama 1B Q4_0 | 93.46 MiB | 134.52 M |     CPU |       2 |         tg128 |  100.00 ± 2.00 |
| llama 1B Q4_0 | 93.46 MiB | 134.52 M |     CPU |       2 | pp512 @ d4096 |  100.00 ± 1.00 |

| one at a time | first token p50, ms |   p95 | between tokens p50 / p95 / p99, ms | per token, ms |
|---------------|--------------------:|------:|-----------------------------------:|--------------:|
| pp512         |               1,300 | 1,350 |                                    |               |
| tg128         |                     |       |                 10.0 / 20.0 / 20.0 |          10.0 |
| pp512 @ d4096 |               5,000 | 5,000 |                                    |               |

| at once | t/s together |     t/s each | first token p50, ms | p95 | between tokens p50 / p95 / p99, ms |
|--------:|-------------:|-------------:|--------------------:|----:|-----------------------------------:|
|       1 |        50.00 |        90.00 |                 400 | 400 |                 10.0 / 10.0 / 10.0 |
|       4 |       100.00 | 42.00 ± 2.83 |                 800 | 800 |                                    |

128 tokens of prompt and 64 of answer for each.

| the box                                               | measured                                        |
|-------------------------------------------------------|-------------------------------------------------|
| start and load, the file on the disk                  | 1.90 s                                          |
| start and load, the file in memory                    | 0.80 s                                          |
| most memory of the engine                             | 251 MB                                          |
| memory of the service beside it                       | 67 MB                                           |
| memory bandwidth, measured                            | 20.0 GB/s                                       |
| of the speed that it allows                           | 50 % (at most 200 t/s, 100 MB read for a token) |
| silence at takeover, cold, behind 2,000 tokens        | 9,900 ms                                        |
| silence at takeover, standing by, behind 2,000 tokens | 21.0 ms (worst 40.0); a decode step is 15.0 ms  |
| of it, to notice a broken connection                  | 1.3 ms                                          |
| added to a cloud's first token                        | 1.10 ms (at most 1.20); without the box 0.30 ms |
| added to each further token                           | 0.0110 ms (at most 0.0120)                      |

build: llama-cpp-python 0.3.36, appliance 1.0; Fast 9000, 2 cores
"""


def test_the_table_of_llama_bench_comes_first_then_what_it_does_not_measure() -> None:
    assert markdown(RESULT) == WHOLE + NOTE


def test_on_a_gpu_its_layers_take_the_place_of_the_threads() -> None:
    setup = {"gpu_layers": 31, "gpu": "Card 1", "backends": "CUDA", "layers": 31}
    said = markdown(result(setup=setup, vram=5_000_000_000)).splitlines()
    assert said[2].split("|")[4:6] == ["    CUDA ", "  31 "]
    assert "| layers on GPU                                         | 31 of 31" in "\n".join(said)
    assert "| memory taken on GPU                                   | 5,000 MB" in "\n".join(said)
    assert "of the speed that it allows" not in "\n".join(said)


def test_a_busy_machine_is_said_to_be_one() -> None:
    assert markdown(result(setup={"busy": 1.0})).endswith(NOTE)
    assert markdown(result(setup={"busy": 1.1})).splitlines()[-1] == (
        "The machine was busy with something else (load 1.1 on 2 cores), so these numbers are too low; "
        "measure again when it is idle."
    )


def test_what_went_wrong_stands_below() -> None:
    said = markdown(result(notes=("It was hot.",), interrupted=True, setup={"random_weights": True})).splitlines()
    assert said[-3] == "It was hot."
    assert said[-2].startswith("The model has random weights")
    assert said[-1] == INTERRUPTED


def test_half_a_run_is_half_a_page() -> None:
    said = markdown(result(rows=ROWS[:1], takeover=None, added=None, load_warm=None, service_memory=None))
    assert "at once" not in said
    assert "takeover" not in said
    assert [table.split("|")[1].strip() for table in said.split("\n\n")[:-1]] == ["model", "one at a time", "the box"]
