"""Ranking chunks: BM25 over terms and cosine over vectors, both exact, in plain SQL, and their fusion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from omni.errors import ConfigError
from omni.rag import schema
from omni.rag.embed import Embedder
from omni.rag.text import ANALYZER, terms

DEPTH = 100
"""How many hits of each ranking take part in the fusion."""

_BM25 = """
WITH asked AS (
    SELECT unnest($terms::VARCHAR[]) AS term, unnest($counts::DOUBLE[]) AS weight
), corpus AS (
    SELECT count(*) AS n, avg(terms) AS mean_length FROM rag.chunks
), found AS (
    SELECT t.chunk_id, t.frequency AS f, asked.weight, count(*) OVER (PARTITION BY t.term) AS df
    FROM rag.terms AS t JOIN asked ON asked.term = t.term
), scored AS (
    SELECT found.chunk_id, round(sum(
        weight * ln(1 + (n - df + 0.5) / (df + 0.5))
        * f * ($k1 + 1) / (f + $k1 * (1 - $b + $b * c.terms / mean_length))
    ), 9) AS score
    FROM found JOIN rag.chunks AS c ON c.chunk_id = found.chunk_id CROSS JOIN corpus
    GROUP BY found.chunk_id
)
SELECT chunk_id, score FROM scored ORDER BY score DESC, chunk_id LIMIT $depth
"""

_COSINE = """
WITH compared AS (
    SELECT text_hash, CASE
        WHEN len(vector) = $dimension THEN round(list_cosine_similarity(vector, $question::FLOAT[]), 6)
    END AS score
    FROM rag.vectors WHERE embedder_digest = $digest
)
SELECT c.chunk_id, compared.score
FROM compared JOIN rag.chunks AS c ON c.text_hash = compared.text_hash
WHERE compared.score > 0
ORDER BY compared.score DESC, c.chunk_id LIMIT $depth
"""


@dataclass(frozen=True)
class Hit:
    """A chunk found: `text` is the document's `[start:end]` verbatim, `score` lies in 0 to 1."""

    chunk_id: str
    path: str
    heading: str
    text: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class Query:
    """A question made ready: its terms with their counts, its vector or () when none is needed."""

    terms: Counter[str]
    vector: tuple[float, ...]


@dataclass(frozen=True)
class _Manifest:
    k1: float
    b: float
    vector_weight: float


def search(con: duckdb.DuckDBPyConnection, question: str, *, embedder: Embedder, k: int = 5) -> list[Hit]:
    """The `k` chunks that match best, best first; equal scores are ordered by chunk id.

    Scores of either ranking are scaled to 0-1 over its first `DEPTH` hits and added with the index's
    `vector_weight`; a chunk that one ranking lacks has 0 there.

    Args:
        con: the tenant's warehouse or a read-only snapshot of it. Nothing is written.
        question: any text. One without a word that could be searched finds nothing.
        embedder: the one the index was built with.
        k: at most `DEPTH`.

    Raises:
        ConfigError: nothing is indexed, another embedder or version built the index, or `k` is wrong.
    """
    query = prepare(con, question, embedder=embedder)
    with schema.one_state(con):
        return ranked(con, query, embedder=embedder, k=k)


def prepare(con: duckdb.DuckDBPyConnection, question: str, *, embedder: Embedder) -> Query:
    """What `ranked` needs to know of a question. The embedder is called here, outside any transaction."""
    manifest = _manifest(con, embedder)
    asked = Counter(terms(question))
    if not asked or manifest.vector_weight == 0:
        return Query(asked, ())
    vector = embedder.embed([question])[0]
    return Query(asked, tuple(vector.tolist()) if vector.any() else ())


def ranked(con: duckdb.DuckDBPyConnection, query: Query, *, embedder: Embedder, k: int) -> list[Hit]:
    """As `search`, for a prepared question, within the caller's transaction."""
    if not 1 <= k <= DEPTH:
        raise ConfigError(f"k must be 1 to {DEPTH}, got {k}.")
    manifest = _manifest(con, embedder)
    if not query.terms:
        return []
    weight = manifest.vector_weight
    rankings = []
    if weight < 1:
        rankings.append((1 - weight, _by_keywords(con, query, manifest)))
    if weight > 0 and query.vector:
        rankings.append((weight, _by_vector(con, query, embedder)))
    fused = _fuse(rankings)
    best = sorted(fused, key=lambda chunk_id: (-fused[chunk_id], chunk_id))[:k]
    return _hits(con, {chunk_id: fused[chunk_id] for chunk_id in best})


def _manifest(con: duckdb.DuckDBPyConnection, embedder: Embedder) -> _Manifest:
    row = None
    if schema.exists(con):
        row = con.execute(
            "SELECT layout, analyzer, embedder, dimension, embedder_digest, k1, b, vector_weight "
            "FROM rag.manifest"
        ).fetchone()
    if row is None:
        raise ConfigError("No documents are indexed yet. Run the flow that indexes documents first.")
    layout, analyzer, name, dimension, digest, k1, b, vector_weight = row
    if (layout, analyzer) != (schema.LAYOUT, ANALYZER):
        raise ConfigError(
            "The index was built by another version of this program. Index the documents again."
        )
    if digest != embedder.digest:
        raise ConfigError(
            f"The index was built with embedder {name!r} ({dimension} dimensions), but the question would "
            f"use {embedder.name!r} ({embedder.dimension}). Use the same one, or index the documents again."
        )
    return _Manifest(k1, b, vector_weight)


def _by_keywords(
    con: duckdb.DuckDBPyConnection, query: Query, manifest: _Manifest
) -> list[tuple[str, float]]:
    """Robertson's BM25 with the inverse document frequency that Lucene uses, which is never negative."""
    found: list[tuple[str, float]] = con.execute(
        _BM25,
        {
            "terms": list(query.terms),
            "counts": [float(count) for count in query.terms.values()],
            "k1": manifest.k1,
            "b": manifest.b,
            "depth": DEPTH,
        },
    ).fetchall()
    return found


def _by_vector(con: duckdb.DuckDBPyConnection, query: Query, embedder: Embedder) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = con.execute(
        _COSINE,
        {
            "question": list(query.vector),
            "dimension": embedder.dimension,
            "digest": embedder.digest,
            "depth": DEPTH,
        },
    ).fetchall()
    return found


def _fuse(rankings: list[tuple[float, list[tuple[str, float]]]]) -> dict[str, float]:
    fused: dict[str, float] = {}
    for weight, ranking in rankings:
        if not ranking:
            continue
        highest, lowest = ranking[0][1], ranking[-1][1]
        for chunk_id, score in ranking:
            scaled = (score - lowest) / (highest - lowest) if highest > lowest else 1.0
            fused[chunk_id] = fused.get(chunk_id, 0.0) + weight * scaled
    return fused


def _hits(con: duckdb.DuckDBPyConnection, scores: Mapping[str, float]) -> list[Hit]:
    rows = con.execute(
        "SELECT chunk_id, path, heading, text, start_offset, end_offset FROM rag.chunks "
        "WHERE chunk_id IN (SELECT unnest($chunk_ids::VARCHAR[]))",
        {"chunk_ids": list(scores)},
    ).fetchall()
    found = {
        row[0]: Hit(row[0], row[1], row[2], row[3], scores[row[0]], start=row[4], end=row[5]) for row in rows
    }
    return [found[chunk_id] for chunk_id in scores]
