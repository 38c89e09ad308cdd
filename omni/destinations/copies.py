"""Copies of published tables in a tenant's MongoDB or Firestore."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

import duckdb
import polars as pl

from omni.errors import ConfigError
from omni.sources.connection import Connection
from omni.tenancy import Tenant
from omni.warehouse.publish import SCHEMAS, open_snapshot

BATCH = 5_000


def copy_table(
    tenant: Tenant, connection: Connection, table: str, *, columns: Sequence[str], key: Sequence[str]
) -> int | None:
    """Make a collection, named as the table with `__` for the dot, hold columns of a published table.

    Args:
        tenant: whose.
        connection: of MongoDB or Firestore.
        table: schema.name.
        columns: what may leave; nothing else does. Whoever calls this refuses personal ones.
        key: the columns among them that identify a row.

    Returns:
        Rows written; None if nothing changed since the last time.

    Raises:
        ConfigError: nothing is published, the table or a column is not, or the vendor is no database.
        CountMismatch: rows share a key.
        AuthError, SourceError, TransientError: as the server answers.
    """
    if not key or (missing := sorted(set(key) - set(columns))):
        raise ConfigError(f"{table}: the key {', '.join(missing if key else [])} must be among the columns.")
    with open_snapshot(tenant) as con:
        there = _columns(con, table)
        if unknown := [name for name in columns if name not in there]:
            raise ConfigError(f"{table}: no column {', '.join(unknown)}; it has {', '.join(there)}.")
        version = _version(con, table, columns, key)
        target, frames = table.replace(".", "__"), _frames(con, table, columns)
        if connection.vendor == "mongodb":
            from omni.destinations import mongodb
            from omni.sources.mongodb import opened

            with opened(connection) as database:
                return mongodb.publish(database, target, frames, list(key), version=version)
        if connection.vendor == "firestore":
            from omni.destinations import firestore
            from omni.sources import firestore as source

            with source.opened(connection) as store:
                return firestore.publish(store, target, frames, list(key), version=version)
    raise ConfigError(f"Tables are copied to mongodb or firestore, not to {connection.vendor}.")


def _columns(con: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    schema, _, name = table.partition(".")
    rows = con.execute(
        "SELECT column_name FROM duckdb_columns() WHERE schema_name = $1 AND table_name = $2 "
        "ORDER BY column_index",
        [schema, name],
    ).fetchall()
    if schema not in SCHEMAS or not rows:
        raise ConfigError(f"{table} is not a published table; those are in {', '.join(SCHEMAS)}.")
    return [row[0] for row in rows]


def _version(con: duckdb.DuckDBPyConnection, table: str, columns: Sequence[str], key: Sequence[str]) -> str:
    """Of the table's content and of how it is copied."""
    noted = con.execute("SELECT t::VARCHAR FROM ops.tables t WHERE table_name = $1", [table]).fetchone()
    said = noted or con.execute(f"SELECT count(*), bit_xor(hash(t)) FROM {table} t").fetchone()
    return sha256(repr([said, list(columns), list(key)]).encode()).hexdigest()[:32]


def _frames(con: duckdb.DuckDBPyConnection, table: str, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    names = ", ".join('"' + name.replace('"', '""') + '"' for name in columns)
    reader: Any = con.execute(f"SELECT {names} FROM {table}").fetch_record_batch(BATCH)
    for batch in reader:
        frame = pl.from_arrow(batch)
        assert isinstance(frame, pl.DataFrame)
        yield frame
