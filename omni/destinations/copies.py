"""Copies of published tables in a tenant's MongoDB or Firestore.

Beside the copy lies a note of whose it is and of the table's version, so that a table which did not change is
not copied again, whatever became of the copy meanwhile. The control database notes the same for people.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import duckdb
import polars as pl

from omni.control.database import now, session
from omni.control.ledger import WrittenRow
from omni.destinations.copy_declaration import Copy
from omni.destinations.declaration import parsed_condition
from omni.errors import ConfigError
from omni.sources.connection import Connection
from omni.tenancy import Tenant
from omni.warehouse.publish import SCHEMAS, open_snapshot

BATCH = 5_000
WHOLE = "*"
"""Stands in the ledger for the key of a row: a copy is noted whole."""


@dataclass(frozen=True)
class Noted:
    """What the control database knows of a copy: the version that was written last, and when (UTC)."""

    version: str
    rows: int
    at: datetime


@dataclass(frozen=True)
class Planned:
    """What copying would do: the table's version, how many rows it has, and what was copied last."""

    version: str
    rows: int
    before: Noted | None

    @property
    def changed(self) -> bool:
        """Whether there is something new to copy."""
        return self.before is None or self.before.version != self.version


def planned(tenant: Tenant, declared: Copy) -> Planned:
    """What copying would do, without asking the destination; raises as `copy`."""
    with open_snapshot(tenant) as con:
        _refuse_unknown(con, declared)
        return Planned(_version(con, declared), _count(con, declared), noted(tenant, declared))


def copy(tenant: Tenant, declared: Copy, connection: Connection, *, run_id: str) -> int | None:
    """Make a collection hold a published table's rows, of the columns declared.

    Args:
        tenant: whose.
        declared: the copy; whoever calls this refuses personal columns first.
        connection: the destination's.
        run_id: noted with it.

    Returns:
        Rows written; None if nothing changed since the last time.

    Raises:
        ConfigError: nothing is published, the table or a column is not, the vendor is no database, or the
            collection is somebody else's.
        CountMismatch: rows share a key.
        AuthError, SourceError, TransientError: as the server answers.
    """
    if connection.vendor != declared.destination:
        raise ConfigError(f"copy {declared.name} goes to {declared.destination}, not to {connection.vendor}")
    with open_snapshot(tenant) as con:
        _refuse_unknown(con, declared)
        version = _version(con, declared)
        target, frames = declared.target, _frames(con, declared)
        if connection.vendor == "mongodb":
            from omni.destinations import mongodb
            from omni.sources.mongodb import opened

            with opened(connection) as database:
                written = mongodb.publish(
                    database, target, frames, declared.key, version=version, owner=tenant.tenant
                )
        else:
            from omni.destinations import firestore
            from omni.sources import firestore as source

            with source.opened(connection) as store:
                written = firestore.publish(
                    store, target, frames, declared.key, version=version, owner=tenant.tenant
                )
        before = noted(tenant, declared)
        if written is not None or before is None or before.version != version:
            # The note may be older than the copy, after a crash between the two.
            _note(tenant, declared, version, written or _count(con, declared), run_id)
    return written


def _refuse_unknown(con: duckdb.DuckDBPyConnection, declared: Copy) -> None:
    schema, _, name = declared.table.partition(".")
    rows = con.execute(
        "SELECT column_name FROM duckdb_columns() WHERE schema_name = $1 AND table_name = $2 "
        "ORDER BY column_index",
        [schema, name],
    ).fetchall()
    there = [row[0] for row in rows]
    if schema not in SCHEMAS or not rows:
        raise ConfigError(
            f"copy {declared.name}: {declared.table} is not a published table; those are in "
            f"{', '.join(SCHEMAS)}. Has it been built yet?"
        )
    if unknown := [name for name in declared.columns if name not in there]:
        raise ConfigError(
            f"copy {declared.name}: {declared.table} has no column {', '.join(unknown)}; "
            f"it has {', '.join(there)}."
        )


def _source(declared: Copy) -> str:
    """The declared table and nothing but its declared rows."""
    if declared.where is None:
        return declared.table
    _, condition = parsed_condition(declared.where, f"copy {declared.name}")
    return f"{declared.table} WHERE {condition}"


def _version(con: duckdb.DuckDBPyConnection, declared: Copy) -> str:
    """Of the table's content and of how it is copied."""
    table = declared.table
    said = con.execute("SELECT t::VARCHAR FROM ops.tables t WHERE table_name = $1", [table]).fetchone()
    said = said or con.execute(f"SELECT count(*), bit_xor(hash(t)) FROM {table} t").fetchone()
    how = [declared.columns, declared.key, declared.where]
    return sha256(repr([said, *how]).encode()).hexdigest()[:32]


def _frames(con: duckdb.DuckDBPyConnection, declared: Copy) -> Iterator[pl.DataFrame]:
    names = ", ".join(_quoted(declared.columns))
    reader: Any = _asked(con, declared, names).fetch_record_batch(BATCH)
    for batch in reader:
        frame = pl.from_arrow(batch)
        assert isinstance(frame, pl.DataFrame)
        yield frame


def _count(con: duckdb.DuckDBPyConnection, declared: Copy) -> int:
    row = _asked(con, declared, "count(*)").fetchone()
    assert row is not None
    return int(row[0])


def _asked(con: duckdb.DuckDBPyConnection, declared: Copy, what: str) -> duckdb.DuckDBPyConnection:
    try:
        return con.execute(f"SELECT {what} FROM {_source(declared)}")
    except duckdb.Error as error:
        raise ConfigError(f"copy {declared.name}: {str(error).splitlines()[0]}") from None


def _quoted(names: Sequence[str]) -> list[str]:
    return ['"' + name.replace('"', '""') + '"' for name in names]


def _place(tenant: Tenant, declared: Copy) -> tuple[str, str, str, str]:
    return tenant.tenant, declared.name, f"{declared.destination}/{declared.target}", WHOLE


def noted(tenant: Tenant, declared: Copy) -> Noted | None:
    """What was copied last; None before the first time."""
    with session() as opened:
        row = opened.get(WrittenRow, _place(tenant, declared))
        if row is None or row.content is None or row.written_at is None:
            return None
        return Noted(row.content, int(row.columns["rows"]), row.written_at)


def _note(tenant: Tenant, declared: Copy, version: str, rows: int, run_id: str) -> None:
    place = _place(tenant, declared)
    with session() as opened:
        row = opened.get(WrittenRow, place)
        if row is None:
            names = ("tenant", "write_back", "destination", "key")
            row = WrittenRow(**dict(zip(names, place, strict=True)), writes=0)
            opened.add(row)
        row.content, row.columns, row.run_id = version, {"rows": rows}, run_id
        row.writes, row.written_at = row.writes + 1, now()
