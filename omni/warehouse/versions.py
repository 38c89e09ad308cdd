"""What changed, when, and for which days: the memory that lets a rerun do only what is needed.

Every visible change of a table takes the next number of one sequence (`version`) and records the days
it touched. A consumer remembers the versions it read; whatever is newer is its work. A change without
known days is recorded with a null day and means "anything may have changed".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from omni.warehouse.catalog import columns
from omni.warehouse.connection import Connection

MAX_CHANGES = 10_000


@dataclass(frozen=True)
class Changes:
    """Days of a table that changed; `everything` when the days are not known."""

    days: tuple[date, ...]
    everything: bool

    def __bool__(self) -> bool:
        return self.everything or bool(self.days)


def record_change(
    con: Connection,
    table: str,
    days: Iterable[date] | None,
    *,
    run_id: str,
    content_hash: str | None = None,
) -> int:
    """Give `table` its next version, inside the transaction that changed it.

    Args:
        days: days touched, or None for all.
        content_hash: hash of the whole table where it is known.

    Returns:
        The new version.
    """
    version = int(_one(con, "SELECT nextval('ops.version')"))
    rows = _one(con, f"SELECT count(*) FROM {table}")
    con.execute(
        "INSERT INTO ops.tables VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (table_name) DO UPDATE SET "
        "version = excluded.version, rows = excluded.rows, content_hash = excluded.content_hash, "
        "changed_at = excluded.changed_at, run_id = excluded.run_id",
        [table, version, rows, content_hash, datetime.now(UTC), run_id],
    )
    touched = [None] if days is None else sorted(set(days))
    if touched:
        con.execute("INSERT INTO ops.changes SELECT $1, $2, unnest($3::DATE[])", [table, version, touched])
    return version


def versions(con: Connection, tables: Iterable[str]) -> dict[str, int]:
    """Current versions; 0 for a table that never changed."""
    known: dict[str, int] = dict(con.execute("SELECT table_name, version FROM ops.tables").fetchall())
    return {table: known.get(table, 0) for table in tables}


def changes_since(con: Connection, seen: dict[str, int]) -> Changes:
    """What changed in any of the tables after the versions that were seen."""
    days: set[date] = set()
    everything = False
    for table, version in seen.items():
        for (day,) in con.execute(
            "SELECT DISTINCT day FROM ops.changes WHERE table_name = $1 AND version > $2", [table, version]
        ).fetchall():
            if day is None:
                everything = True
            else:
                days.add(day)
    return Changes(tuple(sorted(days)), everything)


def forget_seen_changes(con: Connection) -> None:
    """Drop the record of changes that every model reading the table has seen; new models build whole.

    What a model that never runs again keeps alive does not grow without end: past `MAX_CHANGES` a table's
    record becomes one change of unknown days, so that readers who have not seen it build whole.
    """
    con.execute(
        "DELETE FROM ops.changes c WHERE version <= coalesce((SELECT min(CAST(json_extract(m.inputs, "
        "concat('$.\"', c.table_name, '\"')) AS BIGINT)) FROM ops.models m), version)"
    )
    grown = con.execute(
        f"SELECT table_name, max(version) FROM ops.changes GROUP BY 1 HAVING count(*) > {MAX_CHANGES}"
    ).fetchall()
    for table, version in grown:
        con.execute("DELETE FROM ops.changes WHERE table_name = $1", [table])
        con.execute("INSERT INTO ops.changes VALUES ($1, $2, NULL)", [table, version])


def content_hash(con: Connection, relation: str) -> str:
    """An order-free hash of a relation's rows (lineage columns, which begin with `_`, left out)."""
    named = [column for column in columns(con, relation) if not column.startswith("_")]
    listed = ", ".join(_quoted(named))
    row = con.execute(
        f"SELECT count(*), coalesce(sum(hash(row({listed}))::HUGEINT), 0) FROM {relation}"
    ).fetchone()
    assert row is not None
    return _digest(f"{named}:{row[0]}:{row[1]}")


def changed_days(con: Connection, old: str, new: str, day_column: str) -> list[date] | None:
    """Days whose rows differ between two relations of the same columns; None if a day is null."""
    listed = ", ".join(_quoted(columns(con, new)))
    old_days, new_days = (
        f'SELECT "{day_column}" AS "day", {sign}count(*) AS n, {sign}sum(hash(row({listed}))::HUGEINT) AS h '
        f"FROM {relation} GROUP BY 1"
        for relation, sign in ((old, "-"), (new, ""))
    )
    rows = con.execute(
        f'SELECT "day" FROM ({old_days} UNION ALL {new_days}) AS counted '
        'GROUP BY "day" HAVING sum(n) <> 0 OR sum(h) <> 0'
    ).fetchall()
    if any(day is None for (day,) in rows):
        return None
    return sorted(day for (day,) in rows)


def complete_through(con: Connection, timezone: str) -> date | None:
    """The last day, in the tenant's zone, of which every source has been read to the end.

    None before any source was read.
    """
    row = con.execute(
        f"SELECT CAST(min(cursor) AT TIME ZONE '{timezone}' AS DATE) - 1 FROM ops.cursors"
    ).fetchone()
    return row[0] if row else None


def step_is_fresh(con: Connection, step: str, fingerprint: str) -> dict[str, Any] | None:
    """The summary of a step that already ran on just these inputs, else None."""
    row = con.execute("SELECT fingerprint, summary FROM ops.steps WHERE step = $1", [step]).fetchone()
    if row is None or row[0] != fingerprint:
        return None
    summary: dict[str, Any] = json.loads(row[1])
    return summary


def finish_step(con: Connection, step: str, fingerprint: str, run_id: str, summary: dict[str, Any]) -> None:
    """Remember that a step ran on these inputs, inside the transaction that wrote its results."""
    con.execute(
        "INSERT INTO ops.steps VALUES ($1, $2, $3, $4, $5) ON CONFLICT (step) DO UPDATE SET "
        "fingerprint = excluded.fingerprint, run_id = excluded.run_id, finished_at = excluded.finished_at, "
        "summary = excluded.summary",
        [step, fingerprint, run_id, datetime.now(UTC), json.dumps(summary)],
    )


def fingerprint(con: Connection, tables: Iterable[str], *parts: object) -> str:
    """A step's inputs as one string: versions of the tables it reads and whatever else decides it."""
    return _digest(json.dumps([sorted(versions(con, tables).items()), [repr(part) for part in parts]]))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _quoted(names: Iterable[str]) -> list[str]:
    return [f'"{name}"' for name in names]


def _one(con: Connection, sql: str) -> int:
    row = con.execute(sql).fetchone()
    assert row is not None
    return int(row[0])
