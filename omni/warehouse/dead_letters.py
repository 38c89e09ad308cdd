"""Dead letters: rows that could not be loaded, by key and reason, until a good version of them comes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb

from omni.warehouse.contracts import Contract
from omni.warehouse.staged import REJECTED, Staged


@dataclass(frozen=True)
class DeadLetter:
    """A row that waits: where it belongs, its key at the source, and what was wrong."""

    vendor: str
    stream: str
    table: str
    key: str
    column: str
    reason: str
    first_seen: datetime


def keep_rejected(con: duckdb.DuckDBPyConnection, staged: Staged) -> None:
    """Note a staged folder's rejected rows, inside the load's transaction; leaves them in `temp.rejected`."""
    con.execute("CREATE OR REPLACE TEMP TABLE rejected (table_name VARCHAR, record_key VARCHAR)")
    if not staged.rejected:
        return
    lines = (staged.folder / REJECTED).read_text(encoding="utf-8").splitlines()
    letters = [json.loads(line) for line in lines]
    tables, keys, columns, reasons = (
        [letter[name] for letter in letters] for name in ("table", "key", "column", "reason")
    )
    con.execute("INSERT INTO rejected SELECT unnest($1::VARCHAR[]), unnest($2::VARCHAR[])", [tables, keys])
    ids = [_identity(staged, letter) for letter in letters]
    con.execute(
        "INSERT INTO ops.dead_letters SELECT DISTINCT ON (id) id, $1, $2, $3, table_name, record_key, "
        "column_name, reason, $4, NULL FROM (SELECT unnest($5::VARCHAR[]) AS id, "
        "unnest($6::VARCHAR[]) AS table_name, unnest($7::VARCHAR[]) AS record_key, "
        "unnest($8::VARCHAR[]) AS column_name, unnest($9::VARCHAR[]) AS reason) "
        "ON CONFLICT (id) DO UPDATE SET replayed_at = NULL",
        [
            staged.run_id,
            staged.vendor,
            staged.stream,
            datetime.now(UTC),
            ids,
            tables,
            keys,
            columns,
            reasons,
        ],
    )


def _identity(staged: Staged, letter: dict[str, str]) -> str:
    text = json.dumps([staged.vendor, staged.stream, letter], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def resolve(con: duckdb.DuckDBPyConnection, staged: Staged, contract: Contract, incoming: str) -> None:
    """Close the letters of rows that arrived well this time, or that are gone at the source."""
    waiting = con.execute(
        "SELECT 1 FROM ops.dead_letters WHERE table_name = $1 AND replayed_at IS NULL LIMIT 1",
        [contract.table],
    ).fetchone()
    if waiting is None:
        return
    key = ", ".join(f'"{column}"' for column in contract.key)
    asked = "OR record_key IN (FROM asked)" if contract.parent is None else ""
    con.execute(
        "UPDATE ops.dead_letters SET replayed_at = $1 WHERE table_name = $2 AND vendor = $3 AND stream = $4 "
        f"AND replayed_at IS NULL AND (record_key IN (SELECT concat_ws('|', {key}) FROM {incoming}) {asked}) "
        "AND record_key NOT IN (SELECT record_key FROM rejected WHERE table_name = $2)",
        [datetime.now(UTC), contract.table, staged.vendor, staged.stream],
    )


def waiting(con: duckdb.DuckDBPyConnection, vendor: str | None = None) -> list[DeadLetter]:
    """Letters not yet replayed, oldest first."""
    rows = con.execute(
        "SELECT vendor, stream, table_name, record_key, column_name, reason, first_seen "
        "FROM ops.dead_letters WHERE replayed_at IS NULL AND ($1 IS NULL OR vendor = $1) "
        "ORDER BY first_seen, table_name, record_key",
        [vendor],
    ).fetchall()
    return [DeadLetter(*row) for row in rows]
