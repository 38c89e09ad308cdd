"""Data checks: what must hold in a table, as short declarations that compile to one counting query each.

checks:
  - not_null: [order_id, ordered_at]
  - unique: [order_id]
  - accepted: {column: status, values: [open, won, lost]}
  - relationship: {column: customer_id, to: core.customers.customer_id}
  - expression: {sql: "amount >= 0", name: amount_not_negative}
    severity: warn
    max_rate: 0.02      # known dirt, pinned: more of it fails
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from omni.errors import CheckFailed
from omni.warehouse.connection import Connection
from omni.yamlfile import Declaration


class Accepted(Declaration):
    """Values a column may take; null passes."""

    column: str
    values: list[str] = Field(min_length=1)


class Relationship(Declaration):
    """Every value of `column` exists in `to` (schema.table.column); null passes."""

    column: str
    to: str = Field(pattern=r"^\w+\.\w+\.\w+$")


class Expression(Declaration):
    """A condition each row must meet; null counts as failing."""

    sql: str
    name: str = Field(pattern=r"^[a-z]\w*$")


class Check(Declaration):
    """Exactly one kind of check, how bad a failure is, and the rate of failing rows that is known."""

    not_null: list[str] | None = None
    unique: list[str] | None = None
    accepted: Accepted | None = None
    relationship: Relationship | None = None
    expression: Expression | None = None
    severity: Literal["warn", "error"] = "error"
    max_rate: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [self.not_null, self.unique, self.accepted, self.relationship, self.expression]
        if sum(kind is not None for kind in kinds) != 1:
            raise ValueError(
                "a check states exactly one of not_null, unique, accepted, relationship, expression"
            )
        return self

    @property
    def name(self) -> str:
        """A short name, unique within a table for sensible declarations."""
        if self.not_null:
            return "not_null:" + ",".join(self.not_null)
        if self.unique:
            return "unique:" + ",".join(self.unique)
        if self.accepted:
            return f"accepted:{self.accepted.column}"
        if self.relationship:
            return f"relationship:{self.relationship.column}"
        assert self.expression is not None
        return f"expression:{self.expression.name}"

    def failing_sql(self, table: str) -> str:
        """A query that counts the failing rows of `table`."""
        if self.not_null:
            where = " OR ".join(f'"{column}" IS NULL' for column in self.not_null)
            return f"SELECT count(*) FROM {table} WHERE {where}"
        if self.unique:
            columns = ", ".join(f'"{column}"' for column in self.unique)
            return (
                f"SELECT coalesce(sum(n - 1), 0) FROM "
                f"(SELECT count(*) AS n FROM {table} GROUP BY {columns} HAVING count(*) > 1) AS repeated"
            )
        if self.accepted:
            values = ", ".join("'" + value.replace("'", "''") + "'" for value in self.accepted.values)
            return f'SELECT count(*) FROM {table} WHERE "{self.accepted.column}" NOT IN ({values})'
        if self.relationship:
            other, _, column = self.relationship.to.rpartition(".")
            own = f'own."{self.relationship.column}"'
            return (
                f"SELECT count(*) FROM {table} AS own WHERE {own} IS NOT NULL "
                f'AND NOT EXISTS (SELECT 1 FROM {other} AS other WHERE other."{column}" = {own})'
            )
        assert self.expression is not None
        return f"SELECT count(*) FROM {table} WHERE ({self.expression.sql}) IS NOT TRUE"


@dataclass(frozen=True)
class CheckResult:
    """What one check found."""

    table: str
    check: str
    severity: str
    rows: int
    failing: int
    max_rate: float

    @property
    def passed(self) -> bool:
        """Whether the failing rate stays within what is known."""
        return self.failing <= self.max_rate * self.rows

    def __str__(self) -> str:
        return (
            f"{self.table} {self.check}: {self.failing} of {self.rows} rows fail "
            f"(allowed rate {self.max_rate:g})"
        )


def run_checks(
    con: Connection, table: str, checks: list[Check], *, name: str | None = None
) -> list[CheckResult]:
    """Run a table's checks.

    Args:
        con: an open connection.
        table: where to look (for a build not yet swapped in, the temporary table).
        checks: what must hold.
        name: the table's name in the results, if it differs from `table`.
    """
    if not checks:
        return []
    rows = _scalar(con, f"SELECT count(*) FROM {table}")
    return [
        CheckResult(name or table, c.name, c.severity, rows, _scalar(con, c.failing_sql(table)), c.max_rate)
        for c in checks
    ]


def _scalar(con: Connection, sql: str) -> int:
    row: tuple[Any, ...] | None = con.execute(sql).fetchone()
    assert row is not None
    return int(row[0])


def record_checks(con: Connection, results: list[CheckResult], run_id: str) -> None:
    """Keep check results over time, inside the caller's transaction."""
    now = datetime.now(UTC)
    for r in results:
        con.execute(
            "INSERT INTO ops.check_results VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            [run_id, r.table, r.check, r.severity, r.rows, r.failing, r.passed, now],
        )


def refuse_failed(results: list[CheckResult], consequence: str) -> list[CheckResult]:
    """The failed checks, if none of them is of severity `error`.

    Raises:
        CheckFailed: naming each failed error, its counts, and the consequence.
    """
    failed = [result for result in results if not result.passed]
    if blocking := [str(result) for result in failed if result.severity == "error"]:
        raise CheckFailed(f"{'; '.join(blocking)}: {consequence}")
    return failed
