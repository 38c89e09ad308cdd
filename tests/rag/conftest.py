"""A warehouse in memory, the small handbook, and an embedder that counts and fails on request."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pytest

from omni.errors import TransientError
from omni.rag.embed import HashingEmbedder, Vectors


class CountingEmbedder(HashingEmbedder):
    """The default embedder; records the texts it embeds and is out of order while `down`."""

    def __init__(self, dimension: int = 512) -> None:
        super().__init__(dimension)
        self.texts: list[str] = []
        self.down = False

    def embed(self, texts: Sequence[str]) -> Vectors:
        if self.down:
            raise TransientError("Embedding model did not answer in time.")
        self.texts += texts
        return super().embed(texts)


@pytest.fixture
def embedder() -> CountingEmbedder:
    return CountingEmbedder()


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as made:
        yield made


@pytest.fixture
def handbook(tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(Path(__file__).parent / "handbook", tmp_path / "handbook"))
