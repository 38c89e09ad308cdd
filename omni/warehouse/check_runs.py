"""Running checks: counting what fails, sampling it, keeping the results over time."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from omni.errors import CheckFailed
from omni.warehouse.catalog import exists
from omni.warehouse.checks import Check, Freshness, Reconcile, RowCount, differences
from omni.warehouse.connection import Connection
from omni.warehouse.contracts import contracts
from omni.warehouse.database import Warehouse

SAMPLES = 5
"""Failing rows kept of one check."""


@dataclass(frozen=True)
class CheckResult:
    """What one check found.

    Attributes:
        table: the checked table.
        check: the check's name.
        severity: `warn` or `error`.
        rows: how many rows (or groups) there were.
        failing: how many of them fail.
        max_rate: the share of failing ones that is known.
        detail: what there is to say besides the counts.
        samples: some failing rows, without what could name a person.
    """

    table: str
    check: str
    severity: str
    rows: int
    failing: int
    max_rate: float
    detail: str = ""
    samples: tuple[dict[str, Any], ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the failing rate stays within what is known."""
        return self.failing <= self.max_rate * self.rows + 1e-9

    def __str__(self) -> str:
        if self.detail:
            return f"{self.table} {self.check}: {self.detail}"
        return (
            f"{self.table} {self.check}: {self.failing} of {self.rows} rows fail "
            f"(allowed rate {self.max_rate:g})"
        )


def run_checks(
    con: Connection,
    table: str,
    checks: Sequence[Check],
    *,
    name: str | None = None,
    grain: Sequence[str] = (),
    window_column: str | None = None,
    whole: str | None = None,
    at: datetime | None = None,
) -> list[CheckResult]:
    """Run a table's checks.

    Args:
        con: an open connection.
        table: where to look (for a build not yet swapped in, the temporary table).
        checks: what must hold.
        name: the table's name in the results, if it differs from `table`.
        grain: columns that identify a row, for the samples.
        window_column: the column that tells windows apart, where only some were built.
        whole: all rows as they will be, where `table` holds only some windows: for checks that other rows
            matter to.
        at: the moment that freshness is measured by; without it freshness is left out.
    """
    chosen = [check for check in checks if at or not check.freshness]
    called = name or table
    results = []
    rows: dict[str, int] = {}
    for check in chosen:
        where = whole if whole and check.reaches_beyond(window_column) else table
        if where not in rows:
            rows[where] = _scalar(con, f"SELECT count(*) FROM {where}")
        results.append(_run(con, where, called, check, rows[where], grain, at))
    return results


def _run(
    con: Connection,
    table: str,
    called: str,
    check: Check,
    rows: int,
    grain: Sequence[str],
    at: datetime | None,
) -> CheckResult:
    detail, samples = "", list[dict[str, Any]]()
    if check.freshness:
        assert at is not None
        detail = _staleness(con, table, check.freshness, at)
        failing = int(bool(detail))
    elif check.row_count:
        detail = _jump(con, called, rows, check.row_count)
        failing = int(bool(detail))
    else:
        failing = _scalar(con, check.failing_sql(table))
        samples = _sample(con, table, check, grain) if failing else []
    if check.reconcile:
        rows = _groups(con, table, check.reconcile)
        detail = f"{failing} of {rows} groups differ from {check.reconcile.to}" if failing else ""
    return CheckResult(
        called, check.name, check.severity, rows, failing, check.max_rate, detail, tuple(samples)
    )


def _staleness(con: Connection, table: str, check: Freshness, at: datetime) -> str:
    row = con.execute(f'SELECT max("{check.column}") FROM {table}').fetchone()
    newest = row[0] if row else None
    if newest is None:
        return f"{check.column} has no value"
    if not isinstance(newest, date):
        return f"{check.column} is neither a moment nor a day"
    if isinstance(newest, date) and not isinstance(newest, datetime):
        # A day is as fresh as its end.
        newest = datetime(newest.year, newest.month, newest.day, tzinfo=UTC) + timedelta(days=1)
    moment = newest if newest.tzinfo else newest.replace(tzinfo=UTC)
    hours = (at - moment) / timedelta(hours=1)
    if hours <= check.hours:
        return ""
    return f"the newest {check.column} is {hours:.0f} hours old; {check.hours} are allowed"


def _jump(con: Connection, table: str, rows: int, check: RowCount) -> str:
    """How much the rows moved since the last build, if by more than is allowed."""
    found = con.execute('SELECT "rows" FROM ops.tables WHERE table_name = $1', [table]).fetchone()
    before = int(found[0]) if found else 0
    if before == 0:
        return ""
    change = rows / before - 1
    fell = check.max_drop is not None and change < -check.max_drop
    grew = check.max_growth is not None and change > check.max_growth
    return f"{before} rows became {rows} ({change:+.0%})" if fell or grew else ""


def _groups(con: Connection, table: str, check: Reconcile) -> int:
    if not check.by:
        return 1
    keys = ", ".join(f'"{column}"' for column in check.by)
    return _scalar(
        con,
        f"SELECT count(*) FROM (SELECT {keys} FROM {table} UNION SELECT {keys} FROM {check.to}) AS found",
    )


def _sample(con: Connection, table: str, check: Check, grain: Sequence[str]) -> list[dict[str, Any]]:
    """Some failing rows: what identifies them and what the check looks at; never personal data.

    Columns that any contract calls personal are left out. Since a model may give such a column another name,
    texts are shown as their shape (letters as a, digits as 9) unless the column's name says that it holds an
    identifier or a category; digests are cut, days outside the grain are shown as months.
    """
    if check.reconcile:
        query, columns = differences(check.reconcile, table), [*check.reconcile.by, "here", "there"]
        grain = check.reconcile.by
    elif check.unique:
        keys = ", ".join(f'"{column}"' for column in check.unique)
        columns, grain = [*check.unique, "repeated"], check.unique
        query = f"SELECT {keys}, count(*) AS repeated FROM {table} GROUP BY {keys} HAVING count(*) > 1"
    else:
        query, columns = check.failing_rows(table) or "", list(dict.fromkeys([*grain, *check.columns]))
    personal = {name for contract in contracts().values() for name in contract.personal_columns}
    kept = [column for column in columns if column not in personal]
    if not kept:
        return []
    listed = ", ".join(f'"{column}"' for column in kept)
    rows = con.execute(
        f"SELECT {listed} FROM ({query}) AS failing ORDER BY {', '.join(map(str, range(1, len(kept) + 1)))} "
        f"LIMIT {SAMPLES}"
    ).fetchall()
    return [
        {
            column: _shown(column, value, identifies=column in grain)
            for column, value in zip(kept, row, strict=True)
        }
        for row in rows
    ]


_TELLS_NOBODY = re.compile(
    r"(^|_)(id|no|number|code|day|date|week|month|year|period|channel|country|currency|status|state|kind|type|"
    r"event|source|rule|metric|dimension|stage|variant|step)$"
)
_DIGEST = re.compile(r"[0-9a-f]{24,}")


def _shown(column: str, value: object, *, identifies: bool) -> Any:
    if value is None or isinstance(value, bool):
        return value
    plain = identifies and _TELLS_NOBODY.search(column) is not None
    if isinstance(value, int):
        # A telephone number is a number too.
        return value if plain or abs(value) < 10**9 else "9" * len(str(abs(value)))
    if isinstance(value, float):
        return value
    if isinstance(value, datetime | date):
        return str(value) if plain else value.strftime("%Y-%m")
    if isinstance(value, Decimal):
        return str(value)
    if not isinstance(value, str):
        return type(value).__name__
    if plain and "@" not in value:
        return _DIGEST.sub(lambda found: found.group()[:8] + "…", value)[:80]
    return re.sub(r"[^\W\d_]", "a", re.sub(r"\d", "9", value))[:40]


def _scalar(con: Connection, sql: str) -> int:
    row: tuple[Any, ...] | None = con.execute(sql).fetchone()
    assert row is not None
    return int(row[0])


def record_checks(con: Connection, results: Sequence[CheckResult], run_id: str) -> None:
    """Keep check results over time, and the newest samples of each, inside the caller's transaction."""
    now = datetime.now(UTC)
    for r in results:
        con.execute(
            "INSERT INTO ops.check_results (run_id, table_name, check_name, severity, rows, failing, passed, "
            "checked_at, detail) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            [run_id, r.table, r.check, r.severity, r.rows, r.failing, r.passed, now, r.detail or None],
        )
        con.execute(
            "DELETE FROM ops.check_samples WHERE table_name = $1 AND check_name = $2", [r.table, r.check]
        )
        if r.samples:
            con.execute(
                "INSERT INTO ops.check_samples VALUES ($1, $2, $3, $4, $5)",
                [run_id, r.table, r.check, json.dumps(r.samples, default=str), now],
            )


def refuse_failed(results: Sequence[CheckResult], consequence: str) -> list[CheckResult]:
    """The failed checks, if none of them is of severity `error`.

    Raises:
        CheckFailed: naming each failed error, its counts, and the consequence.
    """
    failed = [result for result in results if not result.passed]
    if blocking := [str(result) for result in failed if result.severity == "error"]:
        raise CheckFailed(f"{'; '.join(blocking)}: {consequence}")
    return failed


@dataclass(frozen=True)
class Checked:
    """A stored table's checks, and the columns that identify its rows."""

    checks: Sequence[Check]
    grain: Sequence[str]


def check_tables(
    warehouse: Warehouse, tables: Mapping[str, Checked], run_id: str, *, at: datetime, timed: bool = False
) -> list[CheckResult]:
    """Run the checks of tables as they stand, freshness among them, and keep the results.

    Args:
        warehouse: open for writing.
        tables: by name; those that do not exist yet are passed over.
        run_id: kept with the results.
        at: the moment that freshness is measured by.
        timed: only the checks whose answer moves with the clock.
    """
    results: list[CheckResult] = []
    with warehouse.cursor() as con:
        for table, declared in tables.items():
            checks = [check for check in declared.checks if check.freshness or not timed]
            # A table is its own last build: there is nothing to compare its rows with.
            checks = [check for check in checks if not check.row_count]
            if checks and exists(con, table):
                results += run_checks(con, table, checks, grain=declared.grain, at=at)
    with warehouse.transaction() as write:
        record_checks(write, results, run_id)
    return results
