"""What a warehouse holds: its tables and views, and their columns with their types in DuckDB's words."""

from __future__ import annotations

from collections.abc import Sequence

from omni.warehouse.connection import Connection
from omni.warehouse.postgres_connection import PostgresConnection


def exists(con: Connection, table: str) -> bool:
    """Whether a table or view `schema.name` exists."""
    schema, _, name = table.partition(".")
    if isinstance(con, PostgresConnection):
        schema = con.prefix + schema
    row = con.execute(
        "SELECT count(*) FROM information_schema.tables WHERE table_schema = $1 AND table_name = $2",
        [schema, name.strip('"')],
    ).fetchone()
    return row is not None and row[0] > 0


def columns(con: Connection, relation: str) -> dict[str, str]:
    """Columns of a table, a view or a parenthesised SELECT, in order, with their types.

    Types are DuckDB's names; a TIMESTAMP WITH TIME ZONE is `TIMESTAMPTZ`, as contracts write it.
    """
    if isinstance(con, PostgresConnection):
        return con.columns(relation)
    described = con.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    return {row[0]: row[1].replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ") for row in described}


def is_temporary_view(con: Connection, name: str) -> bool:
    """Whether a name without a schema is a temporary view of the connection."""
    bare = name.strip('"')
    if isinstance(con, PostgresConnection):
        return con.is_temporary_view(bare)
    sql = "SELECT 1 FROM duckdb_views() WHERE temporary AND view_name = $1"
    return con.execute(sql, [bare]).fetchone() is not None


def stored_tables(con: Connection) -> list[tuple[str, str]]:
    """Schema and name of every stored table, in order; what is being built (`__…`) left out."""
    if isinstance(con, PostgresConnection):
        return con.stored_tables()
    rows = con.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = current_database() "
        "AND NOT temporary AND NOT internal AND NOT starts_with(table_name, '__') ORDER BY 1, 2"
    ).fetchall()
    return [(schema, name) for schema, name in rows]


def views_of(con: Connection, schema: str) -> dict[str, str]:
    """The views of a schema by name, each with its SELECT in DuckDB's dialect, oldest first."""
    if isinstance(con, PostgresConnection):
        return con.views_of(schema)
    rows = con.execute(
        "SELECT view_name, sql FROM duckdb_views() WHERE schema_name = $1 AND NOT internal "
        "AND database_name = current_database() ORDER BY view_oid",
        [schema],
    ).fetchall()
    return {name: sql.partition(" AS ")[2].strip().rstrip(";") for name, sql in rows}


def declared_columns(con: Connection, tables: Sequence[str]) -> list[tuple[str, str, str]]:
    """Table, column and type of every column of some stored tables, in order."""
    if isinstance(con, PostgresConnection):
        return con.declared_columns(tables)
    rows = con.execute(
        "SELECT schema_name || '.' || table_name AS name, column_name, data_type FROM duckdb_columns() "
        "WHERE NOT internal AND name IN (SELECT unnest($1::VARCHAR[])) ORDER BY ALL",
        [list(tables)],
    ).fetchall()
    return [(table, column, kind) for table, column, kind in rows]
