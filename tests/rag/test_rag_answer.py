"""Answers quote the documents verbatim, cite every quote, and refuse when nothing supports them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from omni.errors import CheckFailed
from omni.rag.answer import REFUSAL, Citation, ask, check, render
from omni.rag.index import index
from omni.rag.search import search


@pytest.fixture
def indexed(con: duckdb.DuckDBPyConnection, handbook: Path, embedder: Any) -> duckdb.DuckDBPyConnection:
    index(con, handbook, embedder=embedder, run_id="1")
    return con


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("How many days of paid holiday do we have?", "Everyone has 28 days of paid holiday a year"),
        ("What is the limit for a hotel per day?", "Hotel | 140 EUR"),
        ("Can I fly business class?", "No. Flights are booked in economy class"),
        ("How fast do we refund?", "The warehouse inspects a parcel within two days."),
        ("Please tell me: who approves expenses?", "Your manager approves expenses up to 500 EUR."),
        ("What do I need to apply for parental leave?", "your manager's signature."),
        ("Werden Überstunden ausgeglichen?", "innerhalb von drei Monaten"),
        ("加班 必须 批准", "加班必须事先得到经理的批准。"),
    ],
)
def test_answers(indexed: Any, embedder: Any, question: str, expected: str) -> None:
    answer = ask(indexed, question, embedder=embedder)
    assert answer.supported
    assert expected in answer.text
    assert answer == ask(indexed, question, embedder=embedder)


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of France?",
        "Who won the football championship?",
        "Which horsepower does the company car's engine deliver?",
        "",
        "to be or not to be",
        "'; DROP TABLE rag.documents; --",
        "🙂🙃",
    ],
)
def test_refusals(indexed: Any, embedder: Any, question: str) -> None:
    answer = ask(indexed, question, embedder=embedder)
    assert (answer.text, answer.citations, answer.supported) == (REFUSAL, (), False)


_WORDS = (
    "manager parcel leave expenses refund who approves holiday hotel 500 ? the ' 加班 ticket days of sick"
)


@hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None
)
@given(question=st.lists(st.sampled_from(_WORDS.split()), max_size=6).map(" ".join))
def test_every_citation_holds(indexed: Any, embedder: Any, question: str) -> None:
    answer = ask(indexed, question, embedder=embedder)
    stored = dict(indexed.execute("SELECT path, text FROM rag.documents").fetchall())
    hits = search(indexed, question, embedder=embedder)
    assert answer.supported == bool(answer.citations)
    for number, citation in enumerate(answer.citations, start=1):
        assert citation.number == number
        assert stored[citation.path][citation.start : citation.end] == citation.quote
        assert citation.chunk_id in {hit.chunk_id for hit in hits}
        assert f" [{number}]" in answer.text
        assert len(citation.quote) <= 600


def test_headings_questions_and_bare_links_are_no_answers(con: Any, tmp_path: Path, embedder: Any) -> None:
    (tmp_path / "a.md").write_text(
        "# Refund rules\n\n[Refund rules](x.md)\n\nWhat are the refund rules?\n\n"
        "```\nrefund rules in code\n```\n\nRefunds follow the rules of the shop.\n"
    )
    index(con, tmp_path, embedder=embedder, run_id="1")
    answer = ask(con, "refund rules", embedder=embedder)
    assert "Refunds follow the rules of the shop. [" in answer.text
    assert "What are" not in answer.text
    assert "[Refund rules](" not in "".join(citation.quote for citation in answer.citations)


def test_markers_in_a_document_cannot_pose_as_citations(con: Any, tmp_path: Path, embedder: Any) -> None:
    (tmp_path / "a.md").write_text("Refunds take nine days as note [7] says.")
    index(con, tmp_path, embedder=embedder, run_id="1")
    answer = ask(con, "how many days do refunds take", embedder=embedder)
    assert answer.text == "Refunds take nine days as note (7) says. [1]"
    assert "[7]" in answer.citations[0].quote


def test_long_sentences_are_cut_verbatim(con: Any, tmp_path: Path, embedder: Any) -> None:
    (tmp_path / "a.md").write_text("The refund rule covers " + "very many words " * 60 + "indeed.")
    index(con, tmp_path, embedder=embedder, run_id="1")
    (citation,) = ask(con, "refund rule", embedder=embedder).citations
    assert 300 < len(citation.quote) <= 600
    assert citation.quote.endswith(("very", "many", "words"))


def test_false_citations_are_found(indexed: Any, embedder: Any) -> None:
    question = "Who approves expenses?"
    hits = search(indexed, question, embedder=embedder)
    answer = ask(indexed, question, embedder=embedder)
    assert check(indexed, answer, hits) == []
    first, rest = answer.citations[0], answer.citations[1:]

    def problems(changed: Citation) -> str:
        citations = (changed, *rest)
        return "; ".join(check(indexed, replace(answer, citations=citations, text=render(citations)), hits))

    assert "does not stand at its place" in problems(replace(first, quote=first.quote + "!"))
    assert "does not stand at its place" in problems(replace(first, start=first.start + 1))
    assert "no passage that was found" in problems(replace(first, chunk_id="made up"))
    assert "no passage that was found" in problems(replace(first, start=0, end=5))
    assert "out of order" in problems(replace(first, number=9))
    assert "markers" in "; ".join(check(indexed, replace(answer, text="Nothing cited."), hits))


def test_a_damaged_index_does_not_answer(indexed: Any, embedder: Any) -> None:
    indexed.execute("UPDATE rag.documents SET text = 'x' || text")
    with pytest.raises(CheckFailed, match="Rebuild the index"):
        ask(indexed, "Who approves expenses?", embedder=embedder)


def test_a_read_only_snapshot_answers(tmp_path: Path, handbook: Path, embedder: Any) -> None:
    with duckdb.connect(tmp_path / "w.duckdb") as con:
        index(con, handbook, embedder=embedder, run_id="1")
    with duckdb.connect(tmp_path / "w.duckdb", read_only=True) as con:
        assert "two days" in ask(con, "How fast do we refund?", embedder=embedder).text
