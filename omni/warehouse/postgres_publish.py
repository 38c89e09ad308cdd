"""The published snapshot from PostgreSQL: a DuckDB file, so that readers need not know where it came from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from omni.warehouse import postgres_values as values
from omni.warehouse.postgres_connection import PostgresConnection, database_errors
from omni.warehouse.postgres_statements import translate
from omni.warehouse.postgres_values import UNSIGNED

if TYPE_CHECKING:
    import duckdb


def copy_tables(
    con: PostgresConnection, into: duckdb.DuckDBPyConnection, tables: Iterable[tuple[str, str]], folder: Path
) -> None:
    """Copy tables as they are at one moment.

    Args:
        con: a session outside any transaction.
        into: the DuckDB file to fill; its schemas exist.
        tables: schema and name of each.
        folder: where rows may lie on their way, in files without a name.
    """
    with database_errors():
        con.session.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        with database_errors():
            for schema, table in tables:
                _copy(con, into, f'{schema}."{table}"', folder)
    finally:
        con.rollback()


def _copy(con: PostgresConnection, into: duckdb.DuckDBPyConnection, table: str, folder: Path) -> None:
    types = [(name, _bounded(con, table, name, kind)) for name, kind in con.columns(table).items()]
    (place,) = translate(f"SELECT * FROM {table}", con.prefix)
    batches = values.copy_out(con.session, f"({place.sql}) AS stored", types, folder)
    into.register("arriving", pa.RecordBatchReader.from_batches(values.arrow_schema(types), batches))
    into.execute(f"CREATE TABLE {table} AS SELECT {_typed(types)} FROM arriving")
    into.unregister("arriving")


def _bounded(con: PostgresConnection, table: str, column: str, kind: str) -> str:
    """DuckDB's type; a numeric without bounds (a sum) is wide enough for what it holds."""
    if kind != "DECIMAL":
        return kind
    (asked,) = translate(f'SELECT max("{column}") FROM {table}', con.prefix)
    scaled = asked.sql.replace("MAX(", "MAX(scale(", 1).replace(")", "))", 1)
    with con.session.cursor() as cursor:
        row = cursor.execute(scaled.encode()).fetchone()
    scale = (row[0] if row else None) or 0
    return f"DECIMAL(38,{scale})" if scale else "HUGEINT"


def _typed(types: Sequence[tuple[str, str]]) -> str:
    special = {
        "BLOB": "unhex(substr({}, 3))",
        "UBIGINT": f"(({{}}::HUGEINT + {UNSIGNED}) % {UNSIGNED})::UBIGINT",
    }
    casts = ((name, special.get(kind, f"CAST({{}} AS {kind})")) for name, kind in types)
    return ", ".join(cast.format(f'"{name}"') + f' AS "{name}"' for name, cast in casts)
