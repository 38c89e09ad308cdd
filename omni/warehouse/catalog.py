"""What a warehouse holds: whether a table exists, and its columns with their types in DuckDB's words."""

from __future__ import annotations

from omni.warehouse.connection import Connection


def exists(con: Connection, table: str) -> bool:
    """Whether a table or view `schema.name` exists."""
    schema, _, name = table.partition(".")
    row = con.execute(
        "SELECT count(*) FROM information_schema.tables WHERE table_schema = $1 AND table_name = $2",
        [schema, name.strip('"')],
    ).fetchone()
    return row is not None and row[0] > 0


def columns(con: Connection, relation: str) -> dict[str, str]:
    """Columns of a table, a view or a parenthesised SELECT, in order, with their types.

    Types are DuckDB's names; a TIMESTAMP WITH TIME ZONE is `TIMESTAMPTZ`, as contracts write it.
    """
    described = con.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    return {row[0]: row[1].replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ") for row in described}
