"""The tables of schema `rag`, and transactions on them.

No table declares a primary key: DuckDB checks unique indexes too eagerly when one transaction deletes and
inserts the same key, which is how a document is replaced. Keys hold by construction (one writer, delete
then insert) and are named below.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from omni.warehouse import catalog

# A new number makes existing indexes rebuild.
LAYOUT = 1

_TABLES = {
    # Key: path. The text as read, so that a citation can be shown and checked verbatim.
    "documents": """path VARCHAR NOT NULL, title VARCHAR NOT NULL, content_hash VARCHAR NOT NULL,
        characters BIGINT NOT NULL, chunks BIGINT NOT NULL, text VARCHAR NOT NULL, run_id VARCHAR NOT NULL""",
    # Key: chunk_id. Offsets count characters (code points) of documents.text, end exclusive.
    "chunks": """chunk_id VARCHAR NOT NULL, path VARCHAR NOT NULL, ordinal BIGINT NOT NULL,
        heading VARCHAR NOT NULL, start_offset BIGINT NOT NULL, end_offset BIGINT NOT NULL,
        text VARCHAR NOT NULL, text_hash VARCHAR NOT NULL, terms BIGINT NOT NULL""",
    # Key: term, chunk_id.
    "terms": """term VARCHAR NOT NULL, chunk_id VARCHAR NOT NULL, path VARCHAR NOT NULL,
        frequency INTEGER NOT NULL""",
    # Key: embedder_digest, text_hash. Content-addressed, so it is vector store and embedding cache in one.
    # A list, not FLOAT[n]: vectors of a new embedder are prepared beside those that still answer.
    "vectors": "embedder_digest VARCHAR NOT NULL, text_hash VARCHAR NOT NULL, vector FLOAT[] NOT NULL",
    # One row, or none before the first load.
    "manifest": """layout INTEGER NOT NULL, analyzer VARCHAR NOT NULL, chunker_digest VARCHAR NOT NULL,
        chunk_config VARCHAR NOT NULL, embedder VARCHAR NOT NULL, dimension INTEGER NOT NULL,
        embedder_digest VARCHAR NOT NULL, k1 DOUBLE NOT NULL, b DOUBLE NOT NULL,
        vector_weight DOUBLE NOT NULL, run_id VARCHAR NOT NULL""",
}


@contextmanager
def transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit on success, roll everything back on any failure."""
    con.begin()
    try:
        yield
        con.commit()
    except BaseException:
        con.rollback()
        raise


@contextmanager
def one_state(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Let several SELECTs see the same state, whatever a writer commits between them.

    Joins the caller's transaction when there is one.
    """
    if _in_transaction(con):
        yield
        return
    con.begin()
    try:
        yield
    finally:
        con.rollback()


def _in_transaction(con: duckdb.DuckDBPyConnection) -> bool:
    # Outside a transaction each statement has its own id. Trying to begin instead would abort the caller's.
    first, second = (con.execute("SELECT txid_current()").fetchone() for _ in range(2))
    return first == second


def create(con: duckdb.DuckDBPyConnection) -> None:
    """Create what is missing, in its own transaction; does nothing when all is there."""
    if all(catalog.exists(con, f"rag.{name}") for name in _TABLES):
        return
    with transaction(con):
        con.execute("CREATE SCHEMA IF NOT EXISTS rag")
        for name, columns in _TABLES.items():
            con.execute(f"CREATE TABLE IF NOT EXISTS rag.{name} ({columns})")


def exists(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether the tables are there."""
    return catalog.exists(con, "rag.manifest")
