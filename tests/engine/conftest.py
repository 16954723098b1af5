"""Tiny models of every kind of memory, written once per run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine import tiny


def _written(kind: str, factory: pytest.TempPathFactory) -> Path:
    return tiny.KINDS[kind](factory.mktemp("tiny") / f"{kind}.gguf")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _written("llama", tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_swa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _written("sliding", tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_hybrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _written("hybrid", tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_recurrent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _written("recurrent", tmp_path_factory)
