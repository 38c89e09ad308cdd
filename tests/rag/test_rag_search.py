"""Ranking: BM25 against the formula written out, cosine, fusion, odd questions, snapshots."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pytest

from omni.errors import ConfigError
from omni.rag.embed import HashingEmbedder
from omni.rag.index import IndexConfig, index
from omni.rag.search import search
from omni.rag.text import plain, terms

QUESTIONS = [
    ("How many days of holiday do I get?", "people/leave.md"),
    ("what happens to unused holiday at the end of the year", "people/leave.md"),
    ("When do I need a doctor's note?", "people/leave.md"),
    ("hotel limit per day", "people/expenses.md"),
    ("who signs off expenses above 500 EUR", "people/expenses.md"),
    ("business class flights", "people/expenses.md"),
    ("how long may customers return an article?", "work/returns.md"),
    ("parcel arrived damaged", "work/returns.md"),
    ("who decides on access to a table", "work/data-access.md"),
    ("SELECT count FROM core.orders", "work/data-access.md"),
    ("Auszahlung von Überstunden", "work/überstunden.md"),
    ("加班 批准", "work/überstunden.md"),
    ("propose a change of the handbook", "welcome.md"),
    ("buisness class fligths", "people/expenses.md"),
]


@pytest.fixture
def indexed(con: duckdb.DuckDBPyConnection, handbook: Path, embedder: Any) -> duckdb.DuckDBPyConnection:
    index(con, handbook, embedder=embedder, run_id="1")
    return con


@pytest.mark.parametrize(("question", "path"), QUESTIONS)
def test_the_right_page_comes_first(indexed: Any, embedder: Any, question: str, path: str) -> None:
    assert search(indexed, question, embedder=embedder)[0].path == path


def test_bm25_follows_its_formula(con: Any, handbook: Path, embedder: Any) -> None:
    k1, b, question = 1.2, 0.6, "manager signature leave manager"
    config = IndexConfig(k1=k1, b=b, vector_weight=0)
    index(con, handbook, embedder=embedder, run_id="1", config=config)
    texts = {
        chunk_id: terms(f"{heading}\n{plain(text)}")
        for chunk_id, heading, text in con.execute(
            "SELECT chunk_id, heading, text FROM rag.chunks"
        ).fetchall()
    }
    mean = sum(map(len, texts.values())) / len(texts)
    scores: dict[str, float] = {}
    for term, weight in Counter(terms(question)).items():
        df = sum(term in found for found in texts.values())
        idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
        for chunk_id, found in texts.items():
            f = found.count(term)
            if f:
                part = weight * idf * f * (k1 + 1) / (f + k1 * (1 - b + b * len(found) / mean))
                scores[chunk_id] = scores.get(chunk_id, 0) + part
    hits = search(con, question, embedder=embedder, k=100)
    assert [hit.chunk_id for hit in hits] == sorted(scores, key=lambda c: (-round(scores[c], 9), c))
    low, high = min(scores.values()), max(scores.values())
    for hit in hits:
        assert hit.score == pytest.approx((scores[hit.chunk_id] - low) / (high - low), abs=1e-6)


def test_vectors_alone_rank_by_cosine(con: Any, handbook: Path, embedder: Any) -> None:
    index(con, handbook, embedder=embedder, run_id="1", config=IndexConfig(vector_weight=1))
    rows = con.execute("SELECT chunk_id, heading, text FROM rag.chunks").fetchall()
    vectors = embedder.embed([f"{heading}\n{plain(text)}" for _, heading, text in rows])
    similarity = vectors @ embedder.embed(["refund of a parcel"])[0]
    best = rows[int(similarity.argmax())][0]
    hits = search(con, "refund of a parcel", embedder=embedder, k=3)
    assert (hits[0].chunk_id, hits[0].score) == (best, 1)
    assert hits[0].score >= hits[1].score >= hits[2].score


def test_hits_are_verbatim_and_repeatable(indexed: Any, embedder: Any) -> None:
    stored = dict(indexed.execute("SELECT path, text FROM rag.documents").fetchall())
    for question, _ in QUESTIONS:
        hits = search(indexed, question, embedder=embedder, k=20)
        assert hits == search(indexed, question, embedder=embedder, k=20)
        assert all(stored[hit.path][hit.start : hit.end] == hit.text for hit in hits)
        assert all(0 <= hit.score <= 1 for hit in hits)


@pytest.mark.parametrize("question", ["", "   ", "?!…", "the of and to be", "\0", "'", '"'])
def test_a_question_without_words_finds_nothing(indexed: Any, embedder: Any, question: str) -> None:
    embedder.texts.clear()
    assert search(indexed, question, embedder=embedder) == []
    assert embedder.texts == []


@pytest.mark.parametrize(
    "question",
    [
        "'; DROP TABLE rag.chunks; --",
        "holiday' OR '1'='1",
        "holiday'); DELETE FROM rag.terms; SELECT ('",
        "$terms ? :k1 {dimension} %s holiday",
        "holiday \0 😀 \u202e",
        "holiday " * 5000,
    ],
)
def test_questions_are_data(indexed: Any, embedder: Any, question: str) -> None:
    before = indexed.execute("SELECT count(*), sum(hash(term, chunk_id)) FROM rag.terms").fetchall()
    search(indexed, question, embedder=embedder)
    assert indexed.execute("SELECT count(*), sum(hash(term, chunk_id)) FROM rag.terms").fetchall() == before


def test_a_read_only_snapshot_answers(tmp_path: Path, handbook: Path, embedder: Any) -> None:
    path = tmp_path / "w.duckdb"
    with duckdb.connect(path) as con:
        index(con, handbook, embedder=embedder, run_id="1")
    content = path.read_bytes()
    with duckdb.connect(path, read_only=True) as con:
        assert search(con, "refund", embedder=embedder)[0].path == "work/returns.md"
    assert path.read_bytes() == content


def test_vectors_of_another_embedder_are_ignored(indexed: Any, embedder: Any) -> None:
    before = search(indexed, "refund", embedder=embedder)
    indexed.execute("INSERT INTO rag.vectors SELECT 'other', text_hash, [1.0, 2.0] FROM rag.chunks")
    assert search(indexed, "refund", embedder=embedder) == before


def test_a_search_joins_the_callers_transaction(indexed: Any, embedder: Any) -> None:
    indexed.begin()
    indexed.execute("DELETE FROM rag.chunks WHERE path = 'work/returns.md'")
    assert all(h.path != "work/returns.md" for h in search(indexed, "refund", embedder=embedder))
    indexed.rollback()
    assert search(indexed, "refund", embedder=embedder)[0].path == "work/returns.md"


def test_without_an_index_the_message_says_what_to_do(con: Any, indexed: Any, embedder: Any) -> None:
    with duckdb.connect() as bare, pytest.raises(ConfigError, match="Run the flow that indexes documents"):
        search(bare, "refund", embedder=embedder)
    for k in (0, 101):
        with pytest.raises(ConfigError, match="k must be 1 to 100"):
            search(indexed, "refund", embedder=embedder, k=k)
    indexed.execute("UPDATE rag.manifest SET analyzer = 'older'")
    with pytest.raises(ConfigError, match="another version"):
        search(indexed, "refund", embedder=HashingEmbedder())
