"""Parquet files as a relation to load from: read in place by DuckDB, copied into PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb

from omni.warehouse.connection import Connection
from omni.warehouse.postgres_connection import PostgresConnection


@dataclass(frozen=True)
class Files:
    """Rows of files.

    Attributes:
        relation: what stands after FROM.
        columns: the wanted columns as a SELECT list, typed; null where the files lack them.
        arrival: an expression that grows in the order of the files and of the rows in them.
    """

    relation: str
    columns: str
    arrival: str


def parquet(con: Connection, table: str, names: Sequence[str], types: Mapping[str, str]) -> Files:
    """Make files readable on a connection, until `forget`.

    Args:
        con: inside the transaction that loads them.
        table: whose rows they hold.
        names: paths, in the order they were written.
        types: DuckDB types of the wanted columns by name.
    """
    listed = ", ".join("'" + name.replace("'", "''") + "'" for name in names)
    files = f"read_parquet([{listed}], union_by_name = true)"
    if not isinstance(con, PostgresConnection):
        return Files(files, _columns(con, files, types), "row_number() OVER ()")
    with duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false"}) as local:
        local.execute("SET TimeZone = 'UTC'")
        local.execute(f"CREATE VIEW given AS SELECT {_columns(local, files, types)} FROM {files}")
        numbered = "SELECT *, row_number() OVER () AS _arrival FROM given"
        con.register(_copied(table), local.execute(numbered).to_arrow_table())
    columns = ", ".join(f'CAST("{name}" AS {kind}) AS "{name}"' for name, kind in types.items())
    return Files(_copied(table), columns, "_arrival")


def forget(con: Connection, table: str) -> None:
    """Drop what `parquet` copied of a table's files."""
    if isinstance(con, PostgresConnection):
        con.unregister(_copied(table))


def _copied(table: str) -> str:
    return f"files_{table.replace('.', '_')}"


def _columns(con: Connection, files: str, types: Mapping[str, str]) -> str:
    present = {row[0] for row in con.execute(f"DESCRIBE SELECT * FROM {files}").fetchall()}
    return ", ".join(
        f'"{name}"::{kind} AS "{name}"' if name in present else f'NULL::{kind} AS "{name}"'
        for name, kind in types.items()
    )
