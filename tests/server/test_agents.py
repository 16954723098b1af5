"""An agent goes through three rounds of tools with the official clients, and the cloud dies in each round, everywhere in
it: the application is asked to do exactly what it would have been asked without that.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from tests.fakes import Stage, stage
from tests.server.agents import CLIENTS, FORMAL, PARSED, SPOKEN, Cut, Knowing, cuts, runs

pytestmark = pytest.mark.live

CLOUDS = ("openai", "anthropic")
PAIRS = pytest.mark.parametrize(("client", "cloud"), list(product(CLIENTS, CLOUDS)))


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("stage"), local=Knowing()) as running:
        yield running


@PAIRS
def test_undisturbed_the_box_is_not_asked(box: Stage, client: str, cloud: str) -> None:
    runs(box, client, cloud, None)
    assert (len(box.cloud.chats), box.local.asked) == (4, [])


@PAIRS
@pytest.mark.parametrize("round", range(4))
def test_a_cloud_that_dies_in_a_round(box: Stage, client: str, cloud: str, round: int) -> None:
    errand = FORMAL if client in PARSED else SPOKEN
    for cut in cuts(cloud, errand):
        if cut.round == round:
            runs(box, client, cloud, cut)
            assert len(box.local.asked) == 1
