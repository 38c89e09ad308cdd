"""Keeping the index equal to a folder of documents.

One run: read the folder, compare with what is stored, cut what is new, embed what has no vector yet, then
replace chunks, terms, vectors and manifest in one transaction. Vectors are stored by the hash of their
text while they arrive, invisible until that transaction: a crash or an outage leaves the old index
answering, costs no embedding twice, and the next run finishes the work.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

from omni.errors import ConfigError, SourceError
from omni.rag import folder as folders
from omni.rag import schema
from omni.rag.chunk import Chunk, ChunkConfig, chunk, title_of
from omni.rag.embed import Embedder, HashingEmbedder, Vectors
from omni.rag.folder import Contents, Document, Rejected
from omni.rag.text import ANALYZER, terms

_BATCH = 512


@dataclass(frozen=True)
class IndexConfig:
    """How documents are cut and hits are ranked.

    Attributes:
        k1: BM25's saturation of term frequency.
        b: BM25's normalisation by length, 0 to 1.
        vector_weight: share of the vector score in the fused score, 0 (keywords only) to 1. None takes
            0.2 for the hashing embedder, which sees words as BM25 does, and 0.5 for learned vectors
            (best of 0.1 steps on Cranfield for hashing: nDCG@10 0.390 against 0.384 for BM25 alone).
        max_bytes: larger files are rejected.
    """

    chunks: ChunkConfig = field(default_factory=ChunkConfig)
    k1: float = 1.5
    b: float = 0.75
    vector_weight: float | None = None
    max_bytes: int = folders.MAX_BYTES

    def __post_init__(self) -> None:
        weight = 0.0 if self.vector_weight is None else self.vector_weight
        if not (0 <= self.k1 <= 10 and 0 <= self.b <= 1 and 0 <= weight <= 1):
            raise ConfigError(
                f"Ranking needs 0 <= k1 <= 10, 0 <= b <= 1 and 0 <= vector_weight <= 1, "
                f"got {self.k1}, {self.b} and {self.vector_weight}."
            )


@dataclass(frozen=True)
class IndexSummary:
    """What a run did. `documents` and `chunks` count the index afterwards; the rest counts this run.

    A rejected file that was indexed before keeps its last readable version and counts as unchanged.
    """

    documents: int
    added: int
    changed: int
    removed: int
    unchanged: int
    chunks: int
    embedded: int
    seconds: float
    rebuilt: bool
    rejected: tuple[Rejected, ...]


@dataclass(frozen=True)
class _Plan:
    """Difference between folder and index; `write` holds the documents whose rows are (re)written."""

    added: int
    changed: int
    removed: list[str]
    unchanged: int
    write: list[Document]
    rebuilt: bool


def index(
    con: duckdb.DuckDBPyConnection,
    folder: Path,
    *,
    embedder: Embedder,
    run_id: str,
    config: IndexConfig | None = None,
    allow_empty: bool = False,
) -> IndexSummary:
    """Make the index equal to the folder; after any error the old index is whole and answers.

    Args:
        con: a connection to the tenant's warehouse, outside any transaction; the only writer.
        folder: read recursively.
        embedder: unless its digest is the index's, everything is embedded anew.
        run_id: recorded with every document written.
        config: bounds of chunks and ranking.
        allow_empty: accept that the folder has no document although the index has some.

    Raises:
        ConfigError: the folder is missing, or the configuration is wrong.
        SourceError: the folder is empty (see `allow_empty`) or the embedder's answer is unusable.
    """
    started = time.monotonic()
    config = config or IndexConfig()
    schema.create(con)
    contents = folders.read(folder, max_bytes=config.max_bytes)
    plan = _compare(con, contents, _identity(config, embedder))
    if not contents.documents and not contents.rejected and plan.removed and not allow_empty:
        raise SourceError(
            f"Document folder {folder} holds no document, but the index holds {len(plan.removed)}. "
            "Nothing was changed. Put the documents back, or allow an empty folder explicitly to empty "
            "the index."
        )
    cut = {document.path: chunk(document.path, document.text, config.chunks) for document in plan.write}
    embedded = _embed_missing(con, embedder, cut)
    _store(con, embedder, config, run_id, plan, cut)
    documents, chunks = _counts(con)
    return IndexSummary(
        documents=documents,
        added=plan.added,
        changed=plan.changed,
        removed=len(plan.removed),
        unchanged=plan.unchanged,
        chunks=chunks,
        embedded=embedded,
        seconds=time.monotonic() - started,
        rebuilt=plan.rebuilt,
        rejected=contents.rejected,
    )


def _identity(config: IndexConfig, embedder: Embedder) -> tuple[object, ...]:
    return (schema.LAYOUT, ANALYZER, config.chunks.digest, embedder.digest)


def _compare(con: duckdb.DuckDBPyConnection, contents: Contents, identity: tuple[object, ...]) -> _Plan:
    stored: dict[str, str] = dict(con.execute("SELECT path, content_hash FROM rag.documents").fetchall())
    manifest = con.execute(
        "SELECT layout, analyzer, chunker_digest, embedder_digest FROM rag.manifest"
    ).fetchone()
    rebuilt = manifest is not None and manifest != identity
    documents = dict(contents.documents)
    kept = {entry.path for entry in contents.rejected if entry.path in stored}
    incomplete = set() if rebuilt else _without_vectors(con, identity)
    documents |= _stored(con, kept if rebuilt else kept & incomplete)
    changed = {p for p, d in documents.items() if p in stored and stored[p] != d.content_hash}
    added = {p for p in documents if p not in stored}
    removed = sorted(stored.keys() - documents.keys() - kept)
    write = set(documents) if rebuilt else changed | added | (incomplete & documents.keys())
    return _Plan(
        added=len(added),
        changed=len(changed),
        removed=removed,
        unchanged=len(stored) - len(changed) - len(removed),
        write=[documents[path] for path in sorted(write)],
        rebuilt=rebuilt,
    )


def _without_vectors(con: duckdb.DuckDBPyConnection, identity: tuple[object, ...]) -> set[str]:
    rows = con.execute(
        "SELECT DISTINCT path FROM rag.chunks WHERE text_hash NOT IN "
        "(SELECT text_hash FROM rag.vectors WHERE embedder_digest = ?)",
        [identity[-1]],
    ).fetchall()
    return {path for (path,) in rows}


def _stored(con: duckdb.DuckDBPyConnection, paths: Iterable[str]) -> dict[str, Document]:
    rows = con.execute(
        "SELECT path, text, content_hash FROM rag.documents WHERE path IN (SELECT unnest($paths::VARCHAR[]))",
        {"paths": sorted(paths)},
    ).fetchall()
    return {path: Document(path, text, content_hash) for path, text, content_hash in rows}


def _text_hash(piece: Chunk) -> str:
    return hashlib.sha256(piece.searchable.encode()).hexdigest()


def _embed_missing(con: duckdb.DuckDBPyConnection, embedder: Embedder, cut: dict[str, list[Chunk]]) -> int:
    """Store a vector for every text of the coming index that has none; returns how many were embedded."""
    texts = {_text_hash(piece): piece.searchable for pieces in cut.values() for piece in pieces}
    known = con.execute(
        "SELECT text_hash FROM rag.vectors WHERE embedder_digest = ?", [embedder.digest]
    ).fetchall()
    missing = sorted(texts.keys() - {text_hash for (text_hash,) in known})
    for first in range(0, len(missing), _BATCH):
        batch = missing[first : first + _BATCH]
        vectors = _checked(embedder, embedder.embed([texts[key] for key in batch]), len(batch))
        frame = pl.DataFrame(
            {
                "embedder_digest": [embedder.digest] * len(batch),
                "text_hash": batch,
                "vector": pl.Series(values=vectors, dtype=pl.Array(pl.Float32, embedder.dimension)),
            }
        )
        with schema.transaction(con):
            _append(con, "vectors", frame)
    return len(missing)


def _checked(embedder: Embedder, vectors: Vectors, rows: int) -> Vectors:
    if vectors.shape != (rows, embedder.dimension) or not np.isfinite(vectors).all():
        raise SourceError(
            f"Embedder {embedder.name!r} returned {vectors.shape} numbers, some perhaps not finite; "
            f"expected {(rows, embedder.dimension)} finite ones. The index was left as it was."
        )
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _store(
    con: duckdb.DuckDBPyConnection,
    embedder: Embedder,
    config: IndexConfig,
    run_id: str,
    plan: _Plan,
    cut: dict[str, list[Chunk]],
) -> None:
    """Replace the rows of written and removed documents, the manifest, and drop vectors of no use.

    Writes nothing when nothing differs.
    """
    documents, chunks, postings = _frames(plan.write, cut, run_id)
    manifest = _manifest(config, embedder)
    with schema.transaction(con):
        gone = plan.removed + [document.path for document in plan.write]
        for table in ("documents", "chunks", "terms") if gone else ():
            con.execute(
                f"DELETE FROM rag.{table} WHERE path IN (SELECT unnest($paths::VARCHAR[]))", {"paths": gone}
            )
        for table, frame in (("documents", documents), ("chunks", chunks), ("terms", postings)):
            if frame.height:
                _append(con, table, frame)
        stored = con.execute(
            "SELECT layout, analyzer, chunker_digest, chunk_config, embedder, dimension, embedder_digest, "
            "k1, b, vector_weight FROM rag.manifest"
        ).fetchall()
        if stored != [manifest]:
            con.execute("DELETE FROM rag.manifest")
            marks = ", ".join("?" * (len(manifest) + 1))
            con.execute(f"INSERT INTO rag.manifest VALUES ({marks})", [*manifest, run_id])
        _drop_unused_vectors(con, embedder.digest)


def _manifest(config: IndexConfig, embedder: Embedder) -> tuple[object, ...]:
    weight = config.vector_weight
    if weight is None:
        weight = 0.2 if embedder.name == HashingEmbedder.name else 0.5
    return (
        schema.LAYOUT,
        ANALYZER,
        config.chunks.digest,
        json.dumps(asdict(config.chunks), sort_keys=True),
        embedder.name,
        embedder.dimension,
        embedder.digest,
        config.k1,
        config.b,
        weight,
    )


def _drop_unused_vectors(con: duckdb.DuckDBPyConnection, digest: str) -> None:
    # Also what keeps a deleted document's vectors from staying: they can be turned back into words.
    unused = """embedder_digest <> $digest
        OR text_hash NOT IN (SELECT text_hash FROM rag.chunks)"""
    found = con.execute(f"SELECT 1 FROM rag.vectors WHERE {unused} LIMIT 1", {"digest": digest}).fetchone()
    if found:
        con.execute(f"DELETE FROM rag.vectors WHERE {unused}", {"digest": digest})


def _frames(
    documents: Sequence[Document], cut: dict[str, list[Chunk]], run_id: str
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Rows of `documents`, `chunks` and `terms`, in the tables' column order."""
    files: list[tuple[object, ...]] = []
    pieces: list[tuple[object, ...]] = []
    postings: list[tuple[object, ...]] = []
    for document in documents:
        path, text = document.path, document.text
        own = cut[path]
        files.append((path, title_of(path, text), document.content_hash, len(text), len(own), text, run_id))
        for piece in own:
            found = terms(piece.searchable)
            pieces.append(
                (
                    *(piece.chunk_id, path, piece.ordinal, piece.heading, piece.start, piece.end),
                    *(piece.text, _text_hash(piece), len(found)),
                )
            )
            counts = sorted(Counter(found).items())
            postings.extend((term, piece.chunk_id, path, count) for term, count in counts)
    return _frame("documents", files), _frame("chunks", pieces), _frame("terms", postings)


_COLUMNS: dict[str, dict[str, type[pl.DataType]]] = {
    "documents": {
        "path": pl.String, "title": pl.String, "content_hash": pl.String, "characters": pl.Int64,
        "chunks": pl.Int64, "text": pl.String, "run_id": pl.String,
    },
    "chunks": {
        "chunk_id": pl.String, "path": pl.String, "ordinal": pl.Int64, "heading": pl.String,
        "start_offset": pl.Int64, "end_offset": pl.Int64, "text": pl.String, "text_hash": pl.String,
        "terms": pl.Int64,
    },
    "terms": {"term": pl.String, "chunk_id": pl.String, "path": pl.String, "frequency": pl.Int32},
}  # fmt: skip


def _frame(table: str, rows: list[tuple[object, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=_COLUMNS[table], orient="row")


def _append(con: duckdb.DuckDBPyConnection, table: str, frame: pl.DataFrame) -> None:
    # Bulk load through Arrow: row by row would take minutes.
    con.register("rag_load", frame)
    try:
        con.execute(f"INSERT INTO rag.{table} BY NAME SELECT * FROM rag_load")
    finally:
        con.unregister("rag_load")


def _counts(con: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    row = con.execute(
        "SELECT (SELECT count(*) FROM rag.documents), (SELECT count(*) FROM rag.chunks)"
    ).fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)
