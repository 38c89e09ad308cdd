"""Merging a staged stream into its raw tables, with the cursor that follows it, in one transaction.

Rows that arrive unchanged are not written: a rerun changes nothing, and what comes after sees nothing
to do. The transaction also records the days touched, the rejected rows and the counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from omni.errors import SchemaError
from omni.warehouse import versions_of_rows
from omni.warehouse.catalog import is_temporary_view
from omni.warehouse.check_runs import record_checks, refuse_failed, run_checks
from omni.warehouse.connection import Connection
from omni.warehouse.contracts import ROW_HASH, Column, Contract, contracts
from omni.warehouse.database import Warehouse
from omni.warehouse.dead_letters import keep_rejected, resolve
from omni.warehouse.parquet import forget, parquet
from omni.warehouse.staged import Staged
from omni.warehouse.versions import record_change

PARALLEL_ROWS = 1_000_000
"""From here on several threads pay; below, they cost half as much again as one."""


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


def cursor_of(
    con: Connection, vendor: str, stream: str, declared: Iterable[Contract] = ()
) -> datetime | None:
    """Up to where a stream is loaded (UTC).

    None before its first load, and when a contract has got a column that was not read so far, or reads one
    from elsewhere: only reading everything again fills it.
    """
    row = con.execute(
        "SELECT cursor, columns FROM ops.cursors WHERE vendor = $1 AND stream = $2", [vendor, stream]
    ).fetchone()
    if row is None:
        return None
    cursor: datetime = row[0]
    if row[1] is None:
        return cursor
    known = set(json.loads(row[1]))
    return cursor if known >= set(_columns(declared)) else None


def token_of(con: Connection, vendor: str, stream: str) -> Any:
    """Up to where a stream's changes were followed, as its vendor told; None if they were not."""
    row = con.execute(
        "SELECT token FROM ops.cursors WHERE vendor = $1 AND stream = $2", [vendor, stream]
    ).fetchone()
    return None if row is None or row[0] is None else json.loads(row[0])


def last_load(con: Connection, vendor: str, stream: str) -> datetime | None:
    """When rows of a stream were loaded last (UTC), by whatever run."""
    row = con.execute(
        "SELECT max(loaded_at) FROM ops.loads WHERE vendor = $1 AND stream = $2", [vendor, stream]
    ).fetchone()
    return row[0] if row else None


def already_loaded(con: Connection, staged: Staged) -> bool:
    """Whether a folder's rows are in the warehouse."""
    row = con.execute(
        "SELECT count(*) FROM ops.loads WHERE run_id = $1 AND vendor = $2 AND stream = $3",
        [staged.run_id, staged.vendor, staged.stream],
    ).fetchone()
    return row is not None and row[0] > 0


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
        (_with_learned(table, staged) for table in staged.tables),
        key=lambda c: (c.parent is not None, c.table),
    )
    if staged.columns:
        _widen(warehouse, staged, declared)
    small = sum(staged.rows.values()) < PARALLEL_ROWS
    with warehouse.one_thread() if small else nullcontext(), warehouse.transaction() as con:
        keep_rejected(con, staged)
        _asked(con, staged)
        results = [_merge(con, staged, contract, warehouse.tenant.timezone) for contract in declared]
        _record(con, staged, results, declared)
        _audit(con, staged, declared)
        for contract in reversed(declared):
            _drop_incoming(con, contract)
    return results


def _with_learned(table: str, staged: Staged) -> Contract:
    extra = staged.columns.get(table, {})
    return contracts()[table].with_columns({name: Column(**column) for name, column in extra.items()})


def _widen(warehouse: Warehouse, staged: Staged, declared: list[Contract]) -> None:
    """Add columns learnt from the source, in a transaction of their own."""
    with warehouse.transaction() as con:
        for contract in declared:
            for name in staged.columns.get(contract.table, {}):
                column = contract.columns[name]
                _refuse_moved(con, contract.table, name, column)
                tables = [contract.table]
                if contract.history:
                    tables.append(contract.versions().table)
                for table in tables:
                    con.execute(f'ALTER TABLE {table} ADD COLUMN IF NOT EXISTS "{name}" {column.duckdb_type}')
                con.execute(
                    "INSERT INTO ops.learned_columns VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
                    [contract.table, name, column.type, column.path, datetime.now(UTC), staged.run_id],
                )


def _refuse_moved(con: Connection, table: str, name: str, column: Column) -> None:
    """A column learnt from one field of one type holds no other.

    Raises:
        SchemaError: the source's field, or its type, is not the one that the column was made for.
    """
    known = con.execute(
        "SELECT type, path FROM ops.learned_columns WHERE table_name = $1 AND column_name = $2", [table, name]
    ).fetchone()
    if known is not None and known != (column.type, column.path):
        raise SchemaError(
            f"{table}.{name} was made for the source's {known[1]!r} ({known[0]}); it now sends "
            f"{column.path!r} ({column.type}). Declare it in the contract of {table}, under its own name."
        )


def _incoming(table: str) -> str:
    return f'"incoming_{table.replace(".", "_")}"'


def _gone(table: str) -> str:
    return f'"gone_{table.replace(".", "_")}"'


def _drop_incoming(con: Connection, contract: Contract) -> None:
    con.execute(f"DROP TABLE IF EXISTS {_gone(contract.table)}")
    kind = "VIEW" if is_temporary_view(con, _incoming(contract.table)) else "TABLE"
    con.execute(f"DROP {kind} {_incoming(contract.table)}")
    forget(con, contract.table)


def _read(con: Connection, staged: Staged, contract: Contract) -> None:
    """Make the staged rows a relation: of each key the last version, with the hash of its values."""
    incoming, key = _incoming(contract.table), ", ".join(f'"{column}"' for column in contract.key)
    names = [str(staged.folder / name) for name in staged.tables[contract.table]]
    if not names:
        columns = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in _types(contract).items())
        con.execute(
            f"CREATE TEMP VIEW {incoming} AS SELECT {columns}, NULL::UBIGINT AS {ROW_HASH} WHERE false"
        )
        return
    files = parquet(con, contract.table, names, _types(contract))
    row = con.execute(f"SELECT count(*), count(DISTINCT ({key})) FROM {files.relation}").fetchone()
    assert row is not None
    rows = f"{files.relation}{_fresh(con, staged, contract, files.relation)}"
    kind, typed = "VIEW", f"SELECT {files.columns} FROM {rows}"
    if row[0] != row[1]:
        last = f"row_number() OVER (PARTITION BY {key} ORDER BY _arrival DESC)"
        numbered = f"SELECT {files.columns}, {files.arrival} AS _arrival FROM {rows}"
        listed = ", ".join(_quoted(contract.columns))
        ranked = f"SELECT {listed}, {last} AS _place FROM ({numbered}) AS numbered"
        kind, typed = "TABLE", f"SELECT {listed} FROM ({ranked}) AS ranked WHERE _place = 1"
    con.execute(f"CREATE TEMP {kind} {incoming} AS SELECT *, {_row_hash(contract)} FROM ({typed}) AS typed")


def _fresh(con: Connection, staged: Staged, contract: Contract, files: str) -> str:
    """A condition that leaves out rows older than those the table holds, where there are any.

    A backfill of files that were delivered long ago, or a search index that lags behind, must not undo what
    came since. A full read, and records looked up one by one, are what the source holds now.
    """
    if _is_full(staged) or staged.asked is not None:
        return ""
    if contract.parent is not None:
        parent = contracts()[contract.parent].key[0]
        cut = con.execute("SELECT 1 FROM stale LIMIT 1").fetchone()
        kept = f'SELECT "{parent}" FROM {_incoming(contract.parent)}'
        return f' WHERE "{contract.parent_key}" IN ({kept})' if cut else ""
    cursor = contract.source.cursor if contract.source else None
    if cursor is None:
        return ""
    same_key = " AND ".join(f'old."{name}" = new."{name}"' for name in contract.key)
    older = f'FROM {contract.table} old WHERE {same_key} AND old."{cursor}" > new."{cursor}"'
    if con.execute(f"SELECT 1 FROM {files} new WHERE EXISTS (SELECT 1 {older}) LIMIT 1").fetchone() is None:
        return ""
    con.execute("INSERT INTO stale VALUES (true)")
    return f" new WHERE NOT EXISTS (SELECT 1 {older})"


def _row_hash(contract: Contract) -> str:
    """A hash of a row's values; a column that was learnt from the source counts only where it has a value."""
    declared = contracts()[contract.table].columns
    whole = f"hash(row({', '.join(_quoted(declared))}))"
    for name in contract.columns.keys() - declared.keys():
        whole = f'xor({whole}, CASE WHEN "{name}" IS NULL THEN 0 ELSE hash(row(\'{name}\', "{name}")) END)'
    return f"{whole} AS {ROW_HASH}"


def _quoted(names: Iterable[str]) -> list[str]:
    return [f'"{name}"' for name in names]


def _asked(con: Connection, staged: Staged) -> None:
    con.execute("CREATE OR REPLACE TEMP TABLE stale (found BOOLEAN)")
    con.execute("CREATE OR REPLACE TEMP TABLE asked (record_key VARCHAR)")
    con.execute("CREATE OR REPLACE TEMP TABLE told_gone (record_key VARCHAR)")
    for table, keys in (("asked", staged.asked), ("told_gone", staged.gone)):
        if keys:
            con.execute(f"INSERT INTO {table} SELECT unnest($1::VARCHAR[])", [list(keys)])


def _types(contract: Contract) -> dict[str, str]:
    return {name: kind for name, kind in contract.column_types().items() if name in contract.columns}


def _merge(con: Connection, staged: Staged, contract: Contract, timezone: str) -> Loaded:
    table, incoming = contract.table, _incoming(contract.table)
    first = con.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is None
    _read(con, staged, contract)
    resolve(con, staged, contract, incoming)
    if first:
        return _first_load(con, staged, contract, timezone)
    same_key = " AND ".join(f'old."{column}" = new."{column}"' for column in contract.key)
    compared = [ROW_HASH]
    if _is_full(staged) or staged.asked is not None:
        # Meant to put right whatever the table holds, also what changed there without its hash.
        compared += [name for name in contract.columns if name not in contract.key]
    differs = " OR ".join(f'old."{name}" IS DISTINCT FROM new."{name}"' for name in compared)
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE changed AS SELECT new.* FROM {incoming} new "
        f"LEFT JOIN {table} old ON {same_key} WHERE {differs}"
    )
    gone = _gone(table)
    con.execute(f"CREATE OR REPLACE TEMP TABLE {gone} AS {_gone_sql(staged, contract, same_key)}")
    days = _days(con, contract, same_key, timezone)
    if contract.history:
        versions_of_rows.append(con, contract, "changed", gone, staged.run_id)
    # Replacing whole rows costs DuckDB a third of updating them in place column by column.
    updated = _count(con, f"DELETE FROM {table} old USING changed new WHERE {same_key}")
    lineage = f"now() AS _loaded_at, '{staged.run_id}' AS _run_id"
    written = _count(con, f"INSERT INTO {table} BY NAME SELECT *, {lineage} FROM changed")
    deleted = _count(con, f"DELETE FROM {table} old USING {gone} new WHERE {same_key}")
    result = Loaded(table, staged.rows[table], written - updated, updated, deleted)
    if result.changed:
        record_change(con, table, days, run_id=staged.run_id)
    return result


def _first_load(con: Connection, staged: Staged, contract: Contract, timezone: str) -> Loaded:
    """Fill an empty table: nothing to compare with, so the rows go straight from the files."""
    table, incoming = contract.table, _incoming(contract.table)
    key = ", ".join(f'old."{column}"' for column in contract.key)
    con.execute(f"CREATE OR REPLACE TEMP TABLE {_gone(table)} AS SELECT {key} FROM {table} old WHERE false")
    inserted = _count(
        con,
        f"INSERT INTO {table} BY NAME SELECT *, now() AS _loaded_at, '{staged.run_id}' AS _run_id "
        f"FROM {incoming}",
    )
    result = Loaded(table, staged.rows[table], inserted, 0, 0)
    if contract.history:
        versions_of_rows.append(con, contract, incoming, _gone(table), staged.run_id)
    if result.changed:
        record_change(con, table, _days_of(con, contract, f"{table} AS r", timezone), run_id=staged.run_id)
    return result


def _count(con: Connection, sql: str) -> int:
    """Run a change; returns how many rows it touched."""
    row = con.execute(sql).fetchone()
    assert row is not None
    return int(row[0])


def _gone_sql(staged: Staged, contract: Contract, same_key: str) -> str:
    """Keys the source no longer has.

    Of a full read: all that are absent, unless they changed after its window. Of records read again one by
    one: those asked for and absent. Children go with their parent, and when their parent came without them.
    A row that did arrive but was rejected is not gone: its last good version stays.
    """
    key = ", ".join(f'old."{column}"' for column in contract.key)
    owner = contract.parent_key or contract.key[0]
    absent = f"NOT EXISTS (SELECT 1 FROM {_incoming(contract.table)} new WHERE {same_key})"
    if staged.rejected:
        rejected = "SELECT 1 FROM rejected r WHERE r.table_name ="
        absent += (
            f" AND NOT EXISTS ({rejected} '{contract.table}' AND r.record_key = concat_ws('|', {key})) "
            f"AND NOT EXISTS ({rejected} '{contract.parent or contract.table}' "
            f'AND r.record_key = old."{owner}") '
            f"AND NOT EXISTS ({rejected} '{contract.table}' AND r.unknown)"
        )
    if contract.parent is not None:
        parent, parent_key = contract.parent, contracts()[contract.parent].key[0]
        kept = f'SELECT "{parent_key}" FROM'
        here = f"{kept} {_incoming(parent)} UNION ALL {kept} {_gone(parent)}"
        touched = f'old."{owner}" IN ({here})'
        if _is_full(staged):
            # A parent that is neither here nor gone was left alone, and so are its children.
            touched = f'old."{owner}" NOT IN ({kept} {parent} EXCEPT ({here}))'
        return f"SELECT {key} FROM {contract.table} old WHERE {absent} AND {touched}"
    named = f'old."{owner}" IN (FROM asked UNION ALL FROM told_gone)'
    if _is_full(staged):
        cursor = contract.source.cursor if contract.source else None
        earlier = f"coalesce(old.\"{cursor}\" < '{staged.until.isoformat()}', true)" if cursor else "true"
        named = f"({earlier} OR {named})"
    return f"SELECT {key} FROM {contract.table} old WHERE {absent} AND {named}"


def _is_full(staged: Staged) -> bool:
    return staged.since is None and staged.asked is None and staged.moves_cursor


def _days(con: Connection, contract: Contract, same_key: str, timezone: str) -> list[date] | None:
    """Days, in the tenant's zone, that the rows about to change belong to now or belonged to before."""
    moved = f"SELECT old.* FROM {contract.table} old JOIN changed new ON {same_key}"
    removed = f"SELECT old.* FROM {contract.table} old JOIN {_gone(contract.table)} new ON {same_key}"
    fresh = "SELECT *, NULL AS _loaded_at, NULL AS _run_id FROM changed"
    rows = f"({fresh} UNION ALL BY NAME {moved} UNION ALL BY NAME {removed})"
    return _days_of(con, contract, f"{rows} AS r", timezone)


def _days_of(con: Connection, contract: Contract, rows: str, timezone: str) -> list[date] | None:
    """Days of some rows `r`; a child without a time column of its own belongs to its parent's days."""
    if contract.time_column:
        kind = contract.columns[contract.time_column].type
        source, column = rows, f'r."{contract.time_column}"'
    elif contract.parent and (parent := contracts()[contract.parent]).time_column:
        kind = parent.columns[parent.time_column].type
        source = f'{rows} LEFT JOIN {parent.table} p ON p."{parent.key[0]}" = r."{contract.parent_key}"'
        column = f'p."{parent.time_column}"'
    else:
        return None
    day = column if kind == "date" else f"CAST({column} AT TIME ZONE '{timezone}' AS DATE)"
    days = [row[0] for row in con.execute(f"SELECT DISTINCT {day} FROM {source}").fetchall()]
    return None if None in days else days


def _columns(declared: Iterable[Contract]) -> list[str]:
    """The columns that are read, each with where it comes from."""
    return sorted(
        f"{contract.table}.{name} from {column.path or name}"
        for contract in declared
        for name, column in contract.columns.items()
    )


def _record(con: Connection, staged: Staged, results: list[Loaded], declared: list[Contract]) -> None:
    now = datetime.now(UTC)
    if staged.moves_cursor and staged.asked is None:
        # The columns a cursor covers only grow by reading everything.
        covered = _columns(declared) if staged.since is None else None
        con.execute(
            "INSERT INTO ops.cursors (vendor, stream, cursor, run_id, updated_at, columns) "
            "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (vendor, stream) DO UPDATE SET "
            "cursor = excluded.cursor, run_id = excluded.run_id, updated_at = excluded.updated_at, "
            "columns = coalesce(excluded.columns, cursors.columns)",
            [
                staged.vendor,
                staged.stream,
                staged.until,
                staged.run_id,
                now,
                json.dumps(covered) if covered else None,
            ],
        )
    if staged.token is not None:
        con.execute(
            "UPDATE ops.cursors SET token = $3 WHERE vendor = $1 AND stream = $2",
            [staged.vendor, staged.stream, json.dumps(staged.token)],
        )
    rejected: dict[str, int] = dict(
        con.execute("SELECT table_name, count(*) FROM rejected GROUP BY 1").fetchall()
    )
    for result in results:
        con.execute(
            "INSERT INTO ops.loads VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            [
                staged.run_id, staged.vendor, staged.stream, result.table, result.rows_read, result.inserted,
                result.updated, result.deleted, rejected.get(result.table, 0), staged.source_rows, now,
            ],
        )  # fmt: skip


def _audit(con: Connection, staged: Staged, declared: list[Contract]) -> None:
    """Run the contracts' checks on the tables as they will be; a failed error undoes the load."""
    results = [r for c in declared for r in run_checks(con, c.table, c.checks, grain=c.key)]
    record_checks(con, results, staged.run_id)
    refuse_failed(results, "the load was undone")
