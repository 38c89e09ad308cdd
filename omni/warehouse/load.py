"""Merging a staged stream into its raw tables, with the cursor that follows it, in one transaction.

Rows that arrive unchanged are not written: a rerun changes nothing, and what comes after sees nothing
to do. The transaction also records the days touched, the rejected rows and the counts.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime

import duckdb

from omni.warehouse.checks import record_checks, refuse_failed, run_checks
from omni.warehouse.contracts import Contract, contracts
from omni.warehouse.database import Warehouse
from omni.warehouse.staged import REJECTED, Staged
from omni.warehouse.versions import record_change


@dataclass(frozen=True)
class Loaded:
    """What a load did to one table."""

    table: str
    rows_read: int
    inserted: int
    updated: int
    deleted: int

    @property
    def changed(self) -> int:
        """Rows written or removed."""
        return self.inserted + self.updated + self.deleted


def cursor_of(con: duckdb.DuckDBPyConnection, vendor: str, stream: str) -> datetime | None:
    """Up to where a stream is loaded (UTC), or None before its first load."""
    row = con.execute(
        "SELECT cursor FROM ops.cursors WHERE vendor = $1 AND stream = $2", [vendor, stream]
    ).fetchone()
    return row[0] if row else None


def load(warehouse: Warehouse, staged: Staged) -> list[Loaded]:
    """Merge a complete staged folder.

    A full read (`staged.since` is None) also removes rows the source no longer has. Loading the same
    folder twice changes nothing.

    Returns:
        One entry per table, parents before their children.

    Raises:
        CheckFailed: a contract's check of severity `error` fails; nothing of the folder was kept.
    """
    declared = sorted(
        (contracts()[table] for table in staged.tables), key=lambda c: (c.parent is not None, c.table)
    )
    with warehouse.transaction() as con:
        for contract in declared:
            _read(con, staged, contract)
        _read_rejected(con, staged)
        results = [_merge(con, staged, contract, warehouse.tenant.timezone) for contract in declared]
        _record(con, staged, results)
        _audit(con, staged, declared)
        for contract in declared:
            con.execute(f"DROP TABLE {_incoming(contract.table)}")
    return results


def _incoming(table: str) -> str:
    return f'temp."incoming_{table.replace(".", "_")}"'


def _read(con: duckdb.DuckDBPyConnection, staged: Staged, contract: Contract) -> None:
    """Stage files into a temporary table, the last version of each key kept."""
    files = [str(staged.folder / name) for name in staged.tables[contract.table]]
    columns = ", ".join(f'"{name}"::{kind} AS "{name}"' for name, kind in _types(contract).items())
    key = ", ".join(f'"{column}"' for column in contract.key)
    if not files:
        con.execute(
            f"CREATE TEMP TABLE {_incoming(contract.table)} AS SELECT {columns} FROM {contract.table} LIMIT 0"
        )
        return
    con.execute(
        f"CREATE TEMP TABLE {_incoming(contract.table)} AS SELECT {columns} FROM "
        "(SELECT *, row_number() OVER () AS arrival FROM read_parquet($1, union_by_name = true)) "
        f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY arrival DESC) = 1",
        [files],
    )


def _read_rejected(con: duckdb.DuckDBPyConnection, staged: Staged) -> None:
    con.execute("CREATE OR REPLACE TEMP TABLE rejected (table_name VARCHAR, record_key VARCHAR)")
    if letters := _dead_letters(staged):
        con.execute(
            "INSERT INTO rejected SELECT unnest($1::VARCHAR[]), unnest($2::VARCHAR[])",
            [[letter["table"] for letter in letters], [letter["key"] for letter in letters]],
        )


def _types(contract: Contract) -> dict[str, str]:
    return {name: kind for name, kind in contract.column_types().items() if name in contract.columns}


def _merge(con: duckdb.DuckDBPyConnection, staged: Staged, contract: Contract, timezone: str) -> Loaded:
    table, incoming = contract.table, _incoming(contract.table)
    same_key = " AND ".join(f'old."{column}" = new."{column}"' for column in contract.key)
    differs = " OR ".join(
        f'old."{column}" IS DISTINCT FROM new."{column}"'
        for column in contract.columns
        if column not in contract.key
    )
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE changed AS SELECT new.* FROM {incoming} new "
        f"LEFT JOIN {table} old ON {same_key} "
        f'WHERE old."{contract.key[0]}" IS NULL {f"OR {differs}" if differs else ""}'
    )
    con.execute(f"CREATE OR REPLACE TEMP TABLE gone AS {_gone_sql(staged, contract, same_key)}")
    days = _days(con, contract, same_key, timezone)
    actions = [
        row[0]
        for row in con.execute(
            f"MERGE INTO {table} old USING (SELECT *, now() AS _loaded_at, '{staged.run_id}' AS _run_id "
            f"FROM changed) new ON {same_key} WHEN MATCHED THEN UPDATE BY NAME "
            "WHEN NOT MATCHED THEN INSERT BY NAME RETURNING merge_action"
        ).fetchall()
    ]
    con.execute(f"DELETE FROM {table} old USING gone new WHERE {same_key}")
    row = con.execute("SELECT count(*) FROM gone").fetchone()
    assert row is not None
    result = Loaded(table, staged.rows[table], actions.count("INSERT"), actions.count("UPDATE"), int(row[0]))
    if result.changed:
        record_change(con, table, days, run_id=staged.run_id)
    return result


def _gone_sql(staged: Staged, contract: Contract, same_key: str) -> str:
    """Keys the source no longer has: all absent from a full read, else absent children of parents read.

    A row that did arrive but was rejected is not gone: its last good version stays.
    """
    key = ", ".join(f'old."{column}"' for column in contract.key)
    owner = contract.parent_key or contract.key[0]
    rejected = "SELECT 1 FROM rejected r WHERE r.table_name ="
    absent = (
        f"NOT EXISTS (SELECT 1 FROM {_incoming(contract.table)} new WHERE {same_key}) "
        f"AND NOT EXISTS ({rejected} '{contract.table}' AND r.record_key = concat_ws('|', {key})) "
        f"AND NOT EXISTS ({rejected} '{contract.parent or contract.table}' "
        f'AND r.record_key = old."{owner}")'
    )
    if staged.since is None:
        return f"SELECT {key} FROM {contract.table} old WHERE {absent}"
    if contract.parent is None:
        return f"SELECT {key} FROM {contract.table} old WHERE false"
    parent = contracts()[contract.parent]
    return (
        f"SELECT {key} FROM {contract.table} old WHERE {absent} AND EXISTS (SELECT 1 FROM "
        f'{_incoming(contract.parent)} parent WHERE parent."{parent.key[0]}" = old."{contract.parent_key}")'
    )


def _days(
    con: duckdb.DuckDBPyConnection, contract: Contract, same_key: str, timezone: str
) -> list[date] | None:
    """Days, in the tenant's zone, that the rows about to change belong to now or belonged to before.

    A child without a time column of its own belongs to its parent's days.
    """
    moved = f"SELECT old.* FROM {contract.table} old JOIN changed new ON {same_key}"
    removed = f"SELECT old.* FROM {contract.table} old JOIN gone new ON {same_key}"
    fresh = "SELECT *, NULL AS _loaded_at, NULL AS _run_id FROM changed"
    rows = f"({fresh} UNION ALL BY NAME {moved} UNION ALL BY NAME {removed})"
    if contract.time_column:
        kind = contract.columns[contract.time_column].type
        source, column = f"{rows} AS r", f'r."{contract.time_column}"'
    elif contract.parent and (parent := contracts()[contract.parent]).time_column:
        kind = parent.columns[parent.time_column].type
        source = f'{rows} AS r LEFT JOIN {parent.table} p ON p."{parent.key[0]}" = r."{contract.parent_key}"'
        column = f'p."{parent.time_column}"'
    else:
        return None
    day = column if kind == "date" else f"CAST({column} AT TIME ZONE '{timezone}' AS DATE)"
    days = [row[0] for row in con.execute(f"SELECT DISTINCT {day} FROM {source}").fetchall()]
    return None if None in days else days


def _record(con: duckdb.DuckDBPyConnection, staged: Staged, results: list[Loaded]) -> None:
    now = datetime.now(UTC)
    con.execute(
        "INSERT OR REPLACE INTO ops.cursors VALUES ($1, $2, $3, $4, $5)",
        [staged.vendor, staged.stream, staged.until, staged.run_id, now],
    )
    letters = _dead_letters(staged)
    for result in results:
        rejected = sum(letter["table"] == result.table for letter in letters)
        con.execute(
            "INSERT INTO ops.loads VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            [
                staged.run_id, staged.vendor, staged.stream, result.table, result.rows_read, result.inserted,
                result.updated, result.deleted, rejected, staged.source_rows, now,
            ],
        )  # fmt: skip
    for letter in letters:
        identity = hashlib.sha256(json.dumps([staged.vendor, staged.stream, letter], sort_keys=True).encode())
        con.execute(
            "INSERT INTO ops.dead_letters VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, NULL) "
            "ON CONFLICT DO NOTHING",
            [
                identity.hexdigest(), staged.run_id, staged.vendor, staged.stream, letter["table"],
                letter["key"], letter["column"], letter["reason"], now,
            ],
        )  # fmt: skip


def _audit(con: duckdb.DuckDBPyConnection, staged: Staged, declared: list[Contract]) -> None:
    """Run the contracts' checks on the tables as they will be; a failed error undoes the load."""
    results = [r for contract in declared for r in run_checks(con, contract.table, contract.checks)]
    record_checks(con, results, staged.run_id)
    refuse_failed(results, "the load was undone")


def _dead_letters(staged: Staged) -> list[dict[str, str]]:
    if not staged.rejected:
        return []
    lines = (staged.folder / REJECTED).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
