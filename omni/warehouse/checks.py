"""Data checks: what must hold in a table, as short declarations that compile to one counting query each.

checks:
  - not_null: [order_id, ordered_at]
  - unique: [order_id]
  - accepted: {column: status, values: [open, won, lost]}
  - relationship: {column: customer_id, to: core.customers.customer_id}
  - expression: {sql: "amount >= 0", name: amount_not_negative}
    severity: warn
    max_rate: 0.02      # known dirt, pinned: more of it fails
  - row_count: {max_drop: 0.5}
  - reconcile: {name: revenue, measure: sum(revenue), to: core.orders, by: [order_date]}
  - freshness: {column: updated_at, hours: 36}

A failed check of severity `error` keeps the table as it was; `warn` only tells. Freshness moves
with the clock, so it is not looked at when a table is built. Running them: `omni.warehouse.check_runs`.
"""

from __future__ import annotations

from typing import Literal, Self

import sqlglot
from pydantic import Field, field_validator, model_validator
from sqlglot import exp

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


class Freshness(Declaration):
    """The newest value of a moment or day must not lie further back than so many hours."""

    column: str
    hours: int = Field(ge=1)


class RowCount(Declaration):
    """By which share a table may shrink or grow from one build to the next."""

    max_drop: float | None = Field(None, ge=0, le=1)
    max_growth: float | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.max_drop is None and self.max_growth is None:
            raise ValueError("row_count needs max_drop or max_growth")
        return self


class Reconcile(Declaration):
    """An aggregate that must be the same in another table, in all or for each group of `by`.

    `where` and `to_where` narrow the two sides; `to_measure` says how the other side counts, if otherwise.
    Groups that one side lacks count as zero there.
    """

    name: str = Field(pattern=r"^[a-z]\w*$")
    measure: str
    to: str = Field(pattern=r"^[a-z]\w*\.[a-z]\w*$")
    to_measure: str | None = None
    by: list[str] = []
    where: str | None = None
    to_where: str | None = None
    tolerance: float = Field(0, ge=0, description="difference that does not count, in the measure's unit")

    @field_validator("measure", "to_measure")
    @classmethod
    def _aggregates(cls, value: str | None) -> str | None:
        if value is not None and not _parsed(value).find(exp.AggFunc):
            raise ValueError(f"{value!r} is not an aggregate, for example sum(amount)")
        return value

    @field_validator("where", "to_where")
    @classmethod
    def _parses(cls, value: str | None) -> str | None:
        if value is not None:
            _parsed(value)
        return value


def _parsed(sql: str) -> exp.Expr:
    try:
        return sqlglot.parse_one(sql, read="duckdb")
    except sqlglot.errors.SqlglotError as error:
        raise ValueError(f"not SQL: {str(error).splitlines()[0]}") from None


class Check(Declaration):
    """Exactly one kind of check, how bad a failure is, and the rate of failing rows that is known."""

    not_null: list[str] | None = None
    unique: list[str] | None = None
    accepted: Accepted | None = None
    relationship: Relationship | None = None
    expression: Expression | None = None
    row_count: RowCount | None = None
    reconcile: Reconcile | None = None
    freshness: Freshness | None = None
    severity: Literal["warn", "error"] = "error"
    max_rate: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = ["not_null", "unique", "accepted", "relationship", "expression", "row_count", "reconcile"]
        kinds.append("freshness")
        if sum(getattr(self, kind) is not None for kind in kinds) != 1:
            raise ValueError(f"a check states exactly one of {', '.join(kinds)}")
        if self.max_rate and (self.freshness or self.row_count):
            raise ValueError("max_rate counts rows or groups: freshness and row_count have none")
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
        if self.reconcile:
            return f"reconcile:{self.reconcile.name}"
        if self.freshness:
            return f"freshness:{self.freshness.column}"
        if self.row_count:
            return "row_count"
        assert self.expression is not None
        return f"expression:{self.expression.name}"

    def reaches_beyond(self, window_column: str | None) -> bool:
        """Whether the rows of some windows cannot tell: other rows may repeat them, or belong to the sum."""
        apart = self.unique is not None and window_column not in self.unique
        return apart or self.row_count is not None or self.reconcile is not None

    @property
    def columns(self) -> list[str]:
        """The checked table's columns that tell why a row fails."""
        match self:
            case Check(not_null=list(names)) | Check(unique=list(names)):
                return names
            case Check(accepted=Accepted(column=name)) | Check(relationship=Relationship(column=name)):
                return [name]
            case Check(freshness=Freshness(column=name)):
                return [name]
            case Check(expression=Expression(sql=sql)):
                parsed = _parsed(sql)
                inner = {id(c) for query in parsed.find_all(exp.Query) for c in query.find_all(exp.Column)}
                return sorted({c.name for c in parsed.find_all(exp.Column) if id(c) not in inner})
        return []

    def failing_rows(self, table: str) -> str | None:
        """A SELECT of the failing rows of `table`; None where it is not rows that fail."""
        if self.not_null:
            where = " OR ".join(f'own."{column}" IS NULL' for column in self.not_null)
        elif self.accepted:
            values = ", ".join("'" + value.replace("'", "''") + "'" for value in self.accepted.values)
            where = f'own."{self.accepted.column}" NOT IN ({values})'
        elif self.relationship:
            other, _, column = self.relationship.to.rpartition(".")
            own = f'own."{self.relationship.column}"'
            found = f'SELECT 1 FROM {other} AS other WHERE other."{column}" = {own}'
            where = f"{own} IS NOT NULL AND NOT EXISTS ({found})"
        elif self.expression:
            where = f"({self.expression.sql}\n) IS NOT TRUE"
        else:
            return None
        return f"SELECT own.* FROM {table} AS own WHERE {where}"

    def failing_sql(self, table: str) -> str:
        """A query that counts the failing rows of `table`, or its groups that do not reconcile."""
        if self.unique:
            columns = ", ".join(f'"{column}"' for column in self.unique)
            return (
                f"SELECT coalesce(sum(n - 1), 0) FROM "
                f"(SELECT count(*) AS n FROM {table} GROUP BY {columns} HAVING count(*) > 1) AS repeated"
            )
        if self.reconcile:
            return f"SELECT count(*) FROM ({differences(self.reconcile, table)}) AS differing"
        return f"SELECT count(*) FROM ({self.failing_rows(table)}) AS failing"


def differences(check: Reconcile, table: str) -> str:
    """A SELECT of the groups whose two sides differ: the columns of `by`, here, there."""
    keys = [f'"{column}"' for column in check.by]
    grouped = f" GROUP BY {', '.join(keys)}" if keys else ""
    sides = []
    for here, measure, relation, where in (
        (True, check.measure, table, check.where),
        (False, check.to_measure or check.measure, check.to, check.to_where),
    ):
        value = f"CAST(coalesce({measure}, 0) AS DECIMAL(38, 6))"
        both = (f"{value} AS here", "0 AS there") if here else ("0 AS here", f"{value} AS there")
        narrowed = f" WHERE ({where}\n)" if where else ""
        sides.append(f"SELECT {', '.join([*keys, *both])} FROM {relation}{narrowed}{grouped}")
    return (
        f"SELECT {', '.join([*keys, 'sum(here) AS here', 'sum(there) AS there'])} "
        f"FROM ({' UNION ALL '.join(sides)}) AS sides{grouped} "
        f"HAVING abs(sum(here) - sum(there)) > {check.tolerance!r}"
    )
