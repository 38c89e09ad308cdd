"""Answers without a model: the sentences of the documents that answer best, each with its citation.

An answer is nothing but quotes, so it cannot say what the documents do not; when no sentence, read
under its headings, covers enough of the question, the answer is a refusal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb

from omni.errors import CheckFailed
from omni.rag import schema
from omni.rag.embed import Embedder
from omni.rag.search import Hit, Query, prepare, ranked
from omni.rag.text import plain, sentences, terms

REFUSAL = "The documents do not say: no passage supports an answer to this question."

SUPPORT = 0.6
"""Share of the question's information (inverse document frequency) that a sentence and its headings must
cover. On the TTS handbook with its question headings hidden it answers four in five of their questions and
refuses all questions of Cranfield (aerodynamics) and three in four of Banking77."""

_SENTENCES = 3
_QUOTE_SIZE = 600
_NEAR_BEST = 0.8
_NOT_AN_ANSWER = re.compile(r"\s*(?:#{1,6}(?:\s|\Z)|```|~~~)")
_TABLE_RULE = re.compile(r"[ \t:|-]*-[ \t:|-]*\Z")
_LIST_LINE = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+\S|[ \t]{2,}\S")
_LINK_ONLY = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])?\s*!?\[[^\[\]]*\]\([^\n]*\)[\s.,;]*\Z")
_FEWEST_WORDS = 3
_CARRIERS = frozenset(
    terms("anything describe explain kind know long many much often please say something tell")
)
"""Words that carry a question rather than say what it is about."""
_MARKER = re.compile(r"\[(\d+)\]")


@dataclass(frozen=True)
class Citation:
    """A quote: `quote` is the stored document's `[start:end]`, inside chunk `chunk_id`."""

    number: int
    path: str
    heading: str
    quote: str
    start: int
    end: int
    chunk_id: str


@dataclass(frozen=True)
class Answer:
    """`text` is the quotes as a reader sees them, each followed by its `[number]`, or the refusal."""

    text: str
    citations: tuple[Citation, ...]
    supported: bool


@dataclass(frozen=True)
class _Candidate:
    hit: Hit
    start: int
    end: int
    covered: float
    score: float


def ask(con: duckdb.DuckDBPyConnection, question: str, *, embedder: Embedder, k: int = 5) -> Answer:
    """Answer a question from the documents, or refuse.

    Args:
        con: the tenant's warehouse or a read-only snapshot of it. Nothing is written.
        question: any text.
        embedder: the one the index was built with.
        k: how many passages to read.

    Raises:
        ConfigError: as `search.search`.
        CheckFailed: a citation does not hold; the index is damaged and must be rebuilt.
    """
    query = prepare(con, question, embedder=embedder)
    with schema.one_state(con):
        hits = ranked(con, query, embedder=embedder, k=k)
        weights = _weights(con, query)
        chosen = _choose(hits, weights)
        if not chosen:
            return Answer(REFUSAL, (), supported=False)
        citations = tuple(
            Citation(
                number,
                c.hit.path,
                c.hit.heading,
                c.hit.text[c.start : c.end],
                c.hit.start + c.start,
                c.hit.start + c.end,
                c.hit.chunk_id,
            )
            for number, c in enumerate(chosen, start=1)
        )
        answer = Answer(render(citations), citations, supported=True)
        problems = check(con, answer, hits)
        if problems:
            raise CheckFailed("Citations do not hold: " + "; ".join(problems) + ". Rebuild the index.")
        return answer


def render(citations: Sequence[Citation]) -> str:
    """The answer's text. A `[3]` that stands in a document itself is shown as `(3)`."""
    shown = [(_MARKER.sub(r"(\1)", plain(citation.quote)), citation.number) for citation in citations]
    return " ".join(f"{text} [{number}]" for text, number in shown)


def check(con: duckdb.DuckDBPyConnection, answer: Answer, hits: Sequence[Hit]) -> list[str]:
    """Everything wrong with an answer's citations; empty when all hold.

    Each must be numbered in order, lie in a passage that was found, stand verbatim at its place in the
    stored document, and appear in the text; the text must have no other marker.
    """
    context = {hit.chunk_id: hit for hit in hits}
    paths = sorted({citation.path for citation in answer.citations})
    stored: dict[str, str] = dict(
        con.execute(
            "SELECT path, text FROM rag.documents WHERE path IN (SELECT unnest($paths::VARCHAR[]))",
            {"paths": paths},
        ).fetchall()
    )
    problems = []
    for expected, citation in enumerate(answer.citations, start=1):
        hit = context.get(citation.chunk_id)
        name = f"citation {citation.number}"
        if citation.number != expected:
            problems.append(f"{name} is out of order")
        if (
            hit is None
            or hit.path != citation.path
            or not hit.start <= citation.start < citation.end <= hit.end
        ):
            problems.append(f"{name} lies in no passage that was found")
        if stored.get(citation.path, "")[citation.start : citation.end] != citation.quote:
            problems.append(f"{name} does not stand at its place in {citation.path}")
    markers = [int(number) for number in _MARKER.findall(answer.text)]
    if sorted(set(markers)) != [citation.number for citation in answer.citations]:
        problems.append("the text's markers are not the citations' numbers")
    return problems


def _weights(con: duckdb.DuckDBPyConnection, query: Query) -> dict[str, float]:
    """Share of the question's information that each of its terms carries; they add up to 1."""
    asked = sorted(query.terms.keys() - _CARRIERS) or sorted(query.terms)
    counts: dict[str, int] = dict(
        con.execute(
            "SELECT term, count(*) FROM rag.terms "
            "WHERE term IN (SELECT unnest($terms::VARCHAR[])) GROUP BY term",
            {"terms": asked},
        ).fetchall()
    )
    row = con.execute("SELECT count(*) FROM rag.chunks").fetchone()
    n = row[0] if row else 0
    idf = {
        term: math.log(1 + (n - counts.get(term, 0) + 0.5) / (counts.get(term, 0) + 0.5)) for term in asked
    }
    total = sum(idf.values())
    return {term: value / total for term, value in idf.items()} if total > 0 else {}


def _choose(hits: Sequence[Hit], weights: Mapping[str, float]) -> list[_Candidate]:
    candidates = [c for hit in hits for c in _candidates(hit, weights) if c.covered >= SUPPORT]
    # Python's sort is stable: equal scores keep the order of hits, then of the text.
    candidates.sort(key=lambda c: -c.score)
    chosen: list[_Candidate] = []
    said: list[str] = []
    for candidate in candidates:
        text = plain(candidate.hit.text[candidate.start : candidate.end])
        repeated = any(text in other or other in text for other in said)
        if candidate.score < _NEAR_BEST * candidates[0].score or len(chosen) == _SENTENCES:
            break
        if not repeated:
            chosen.append(candidate)
            said.append(text)
    passages = list(dict.fromkeys(c.hit.chunk_id for c in chosen))
    return sorted(chosen, key=lambda c: (passages.index(c.hit.chunk_id), c.start))


def _candidates(hit: Hit, weights: Mapping[str, float]) -> Iterator[_Candidate]:
    heading = set(terms(hit.heading))
    columns: set[str] = set()
    position = 0
    begin: int | None = None
    spans = list(sentences(hit.text))
    for (start, end), following in zip(spans, [*spans[1:], (0, 0)], strict=True):
        sentence = hit.text[start:end]
        said = plain(sentence)
        found = terms(said)
        own = set(found)
        row = sentence.startswith("|")
        if row and _TABLE_RULE.match(hit.text[slice(*following)]):
            # The names of the columns answer nothing, but tell what the rows below are about.
            columns, begin = own, None
            continue
        if _says_nothing(sentence) or (own and max(len(said.split()), len(found)) < _FEWEST_WORDS):
            begin = None
            continue
        begin = start if begin is None else begin
        if not own:
            # "No." says something only together with what follows.
            continue
        covered = _covered(heading | own | (columns if row else set()), weights)
        score = covered + 0.5 * _covered(own, weights) + 0.7 * hit.score - 0.03 * position
        yield _Candidate(hit, begin, _quote_end(hit.text, begin, end), covered, score)
        begin = None
        position += 1


def _says_nothing(sentence: str) -> bool:
    """Headings, code fences, table rules, bare links and questions answer nothing."""
    question = sentence.rstrip('*_"”)').endswith("?")
    return question or bool(
        _NOT_AN_ANSWER.match(sentence) or _TABLE_RULE.match(sentence) or _LINK_ONLY.match(sentence)
    )


def _covered(found: set[str], weights: Mapping[str, float]) -> float:
    # Rounded, so that the order of addition cannot move a sentence over the threshold.
    return round(math.fsum(weight for term, weight in weights.items() if term in found), 9)


def _quote_end(text: str, start: int, end: int) -> int:
    """End of the quote: a sentence that announces a list takes the list along; bounded in length."""
    if text[start:end].rstrip("*_ ").endswith(":"):
        position = end
        for line in text[end : start + 2 * _QUOTE_SIZE].splitlines(keepends=True):
            position += len(line)
            if line.strip() and not _LIST_LINE.match(line):
                break
            if line.strip():
                end = min(position, len(text)) - (len(line) - len(line.rstrip()))
    if end - start <= _QUOTE_SIZE:
        return end
    for boundary in ("\n", " "):
        cut = text.rfind(boundary, start + _QUOTE_SIZE // 2, start + _QUOTE_SIZE)
        if cut > start:
            return start + len(text[start:cut].rstrip())
    return start + _QUOTE_SIZE
