"""Dead letters: rows that could not be loaded, by key and reason, until a good version of them comes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime

from omni.warehouse.connection import Connection
from omni.warehouse.contracts import Contract
from omni.warehouse.staged import REJECTED, Staged


@dataclass(frozen=True)
class DeadLetter:
    """A row that waits: where it belongs, its own and its parent's key at the source, what was wrong."""

    vendor: str
    stream: str
    table: str
    key: str
    column: str
    reason: str
    first_seen: datetime
    parent: str | None = None

    @property
    def record(self) -> str | None:
        """The key of the top-level record to read again; None where it is not known."""
        key = self.key if self.parent is None else self.parent
        return None if not self.column or "?" in key.split("|") else key


def keep_rejected(con: Connection, staged: Staged) -> None:
    """Note a staged folder's rejected rows, inside the load's transaction; leaves them in `temp.rejected`."""
    con.execute(
        "CREATE OR REPLACE TEMP TABLE rejected (table_name VARCHAR, record_key VARCHAR, parent_key VARCHAR, "
        "unknown BOOLEAN)"
    )
    if not staged.rejected:
        return
    lines = (staged.folder / REJECTED).read_text(encoding="utf-8").split("\n")
    letters = [json.loads(line) for line in lines if line]
    tables, keys, columns, reasons, parents = (
        [letter.get(name) for letter in letters] for name in ("table", "key", "column", "reason", "parent")
    )
    # A row without a known key may be any row of its table.
    unknown = [not letter["column"] or "?" in letter["key"].split("|") for letter in letters]
    con.execute(
        "INSERT INTO rejected SELECT unnest($1::VARCHAR[]), unnest($2::VARCHAR[]), unnest($3::VARCHAR[]), "
        "unnest($4::BOOLEAN[])",
        [tables, keys, parents, unknown],
    )
    ids = [_identity(staged, letter) for letter in letters]
    con.execute(
        "INSERT INTO ops.dead_letters (id, run_id, vendor, stream, table_name, record_key, column_name, "
        "reason, parent_key, first_seen) SELECT DISTINCT ON (id) id, $1, $2, $3, table_name, record_key, "
        "column_name, reason, parent_key, $4 FROM (SELECT unnest($5::VARCHAR[]) AS id, "
        "unnest($6::VARCHAR[]) AS table_name, unnest($7::VARCHAR[]) AS record_key, "
        "unnest($8::VARCHAR[]) AS column_name, unnest($9::VARCHAR[]) AS reason, "
        "unnest($10::VARCHAR[]) AS parent_key) "
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
            parents,
        ],
    )


def _identity(staged: Staged, letter: dict[str, str]) -> str:
    text = json.dumps([staged.vendor, staged.stream, letter], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def resolve(con: Connection, staged: Staged, contract: Contract, incoming: str) -> None:
    """Close the letters of rows that arrived well this time, or that are gone at the source."""
    waiting = con.execute(
        "SELECT 1 FROM ops.dead_letters WHERE table_name = $1 AND replayed_at IS NULL LIMIT 1",
        [contract.table],
    ).fetchone()
    if waiting is None:
        return
    key = ", ".join(f'"{column}"' for column in contract.key)
    asked = f"OR {'record_key' if contract.parent is None else 'parent_key'} IN (FROM asked)"
    con.execute(
        "UPDATE ops.dead_letters SET replayed_at = $1 WHERE table_name = $2 AND vendor = $3 AND stream = $4 "
        f"AND replayed_at IS NULL AND (record_key IN (SELECT concat_ws('|', {key}) FROM {incoming}) {asked}) "
        "AND record_key NOT IN (SELECT record_key FROM rejected WHERE table_name = $2)",
        [datetime.now(UTC), contract.table, staged.vendor, staged.stream],
    )


def waiting(con: Connection, vendor: str | None = None) -> list[DeadLetter]:
    """Letters not yet replayed, oldest first."""
    rows = con.execute(
        "SELECT vendor, stream, table_name, record_key, column_name, reason, first_seen, parent_key "
        "FROM ops.dead_letters WHERE replayed_at IS NULL AND vendor = coalesce(CAST($1 AS VARCHAR), vendor) "
        "ORDER BY first_seen, table_name, record_key",
        [vendor],
    ).fetchall()
    return [DeadLetter(*row) for row in rows]
