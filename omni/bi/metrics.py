"""Metrics: what a number means, stated once, one file each under `data/metrics/`.

    name: revenue
    title: Revenue
    description: What orders earned after refunds, by the day they were placed.
    owner: shop@demo.example
    model: core.orders
    measure: {agg: sum, column: revenue}
    filter: NOT is_cancelled
    time_column: order_date
    dimensions: [channel, country]
    unit: currency
    direction: up_is_good

A ratio names two other metrics instead of a model. How metrics become SQL: `omni.bi.rollups`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, Self

import sqlglot
from pydantic import Field, model_validator
from sqlglot import exp

from omni import yamlfile
from omni.errors import ConfigError
from omni.settings import settings
from omni.yamlfile import Declaration

Aggregate = Literal["sum", "count", "count_distinct", "average", "ratio"]
Unit = Literal["currency", "count", "percent", "days", "score"]
Direction = Literal["up_is_good", "down_is_good", "neutral"]

NAME = r"^[a-z][a-z0-9_]*$"
RESERVED = {"metric", "dimension", "member", "day", "period", "value"}
"""Columns of the compiled queries; a dimension of such a name could not be told apart."""


class Measure(Declaration):
    """How rows become one number: an aggregate of a column, or the quotient of two metrics."""

    agg: Aggregate
    column: str | None = None
    numerator: str | None = None
    denominator: str | None = None

    @model_validator(mode="after")
    def _parts(self) -> Self:
        needs = {"count": set(), "ratio": {"numerator", "denominator"}}.get(self.agg, {"column"})
        given = {name for name in ("column", "numerator", "denominator") if getattr(self, name) is not None}
        if given != needs:
            raise ValueError(
                f"agg: {self.agg} takes {', '.join(sorted(needs)) or 'nothing else'}; "
                f"given: {', '.join(sorted(given)) or 'nothing'}"
            )
        return self


class Metric(Declaration):
    """One metric. A ratio takes model, time column and dimensions from its two parts.

    `unit: percent` holds a fraction: 0.25 is 25 %.
    """

    name: str = Field(pattern=NAME)
    title: str = Field(min_length=1)
    description: str = Field(min_length=1)
    owner: str
    measure: Measure
    model: str | None = Field(None, pattern=r"^[a-z]\w*\.[a-z]\w*$", description="the table it is read from")
    filter: str | None = Field(None, description="SQL condition on the model's rows")
    time_column: str | None = Field(None, description="a DATE in the company's time zone")
    dimensions: list[str] = []
    unit: Unit
    direction: Direction = "neutral"
    watch: bool = Field(False, description="look for anomalies in its daily series")
    synonyms: list[str] = []

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.name == "daily":
            raise ValueError("name: metrics.daily is the table of all metrics; choose another name")
        own = {"model": self.model, "time_column": self.time_column}
        if self.measure.agg == "ratio":
            stated = [
                k for k, v in {**own, "filter": self.filter, "dimensions": self.dimensions}.items() if v
            ]
            if stated:
                raise ValueError(f"a ratio takes {', '.join(stated)} from its parts; leave out here")
        elif missing := [k for k, v in own.items() if v is None]:
            raise ValueError(f"{' and '.join(missing)} missing")
        if bad := RESERVED & set(self.dimensions):
            raise ValueError(f"dimensions: {', '.join(sorted(bad))} is a reserved name")
        if len(set(self.dimensions)) < len(self.dimensions):
            raise ValueError("dimensions: one is listed twice")
        _ = self.condition
        return self

    @property
    def additivity(self) -> Literal["additive", "non_additive"]:
        """Whether values of parts (days, members) add up to the value of the whole."""
        return "additive" if self.measure.agg in ("sum", "count") else "non_additive"

    @property
    def fills_zero(self) -> bool:
        """Whether no rows mean zero (sums and counts) rather than no value (averages, ratios)."""
        return self.measure.agg in ("sum", "count", "count_distinct")

    @property
    def parts(self) -> tuple[str, ...]:
        """The metrics a ratio is made of."""
        return tuple(p for p in (self.measure.numerator, self.measure.denominator) if p is not None)

    @property
    def table(self) -> str:
        """The table of its daily rollup."""
        return f"metrics.{self.name}"

    @cached_property
    def condition(self) -> exp.Condition | None:
        """The parsed filter."""
        return None if self.filter is None else _condition(self.filter)

    @cached_property
    def columns(self) -> dict[str, list[str]]:
        """The model's columns it uses, by the field that names them."""
        return {
            "measure.column": [self.measure.column] if self.measure.column else [],
            "time_column": [self.time_column] if self.time_column else [],
            "dimensions": self.dimensions,
            "filter": sorted({c.name for c in self.condition.find_all(exp.Column)}) if self.condition else [],
        }


def _condition(sql: str) -> exp.Condition:
    try:
        condition = sqlglot.parse_one(sql, read="duckdb", into=exp.Condition)
    except sqlglot.errors.SqlglotError as error:
        raise ValueError(f"filter: not a SQL condition: {str(error).splitlines()[0]}") from None
    if next(condition.find_all(exp.Query, exp.AggFunc, exp.Window, exp.Placeholder, exp.Parameter), None):
        raise ValueError(
            "filter: only conditions on the model's own columns; no subquery, aggregate, parameter"
        )
    if any(column.table for column in condition.find_all(exp.Column)):
        raise ValueError("filter: columns are named without their table")
    return condition


def dimensions_of(metric: Metric, metrics: Mapping[str, Metric]) -> list[str]:
    """The dimensions a metric can be split by; of a ratio, those both parts have."""
    if metric.measure.agg != "ratio":
        return list(metric.dimensions)
    numerator, denominator = (metrics[part] for part in metric.parts)
    return [d for d in numerator.dimensions if d in denominator.dimensions]


def in_order(metrics: Mapping[str, Metric]) -> list[Metric]:
    """Metrics by name, ratios after the rest: each comes after its parts."""
    return sorted(metrics.values(), key=lambda m: (m.measure.agg == "ratio", m.name))


def load_metrics(folder: Path) -> dict[str, Metric]:
    """All metrics under a folder, by name.

    Raises:
        ConfigError: a file is wrong or not named after its metric, or a ratio's part does not exist or is
            itself a ratio; the message names file and field.
    """
    found = yamlfile.load_folder(folder, Metric)
    for metric in found.values():
        for field in ("numerator", "denominator"):
            part = getattr(metric.measure, field)
            if part is None:
                continue
            if part not in found:
                raise ConfigError(
                    f"{metric.name}.yml: measure.{field}: no metric {part!r}{_hint(part, found)}"
                )
            if found[part].measure.agg == "ratio":
                raise ConfigError(f"{metric.name}.yml: measure.{field}: {part} is itself a ratio")
    return found


@lru_cache(maxsize=4)
def _cached(folder: Path) -> dict[str, Metric]:
    return load_metrics(folder)


def metrics() -> dict[str, Metric]:
    """The project's metrics, read once per process."""
    return _cached(settings().data / "metrics")


def validate(metrics: Mapping[str, Metric], columns_by_table: Mapping[str, Iterable[str]]) -> None:
    """Check that every model and column a metric names exists.

    Args:
        metrics: by name.
        columns_by_table: column names of each table, by `schema.table`.

    Raises:
        ConfigError: listing every wrong name with its metric and field.
    """
    problems = []
    for metric in metrics.values():
        if metric.model is None:
            continue
        if metric.model not in columns_by_table:
            problems.append(
                f"metric {metric.name}: model: no table {metric.model}{_hint(metric.model, columns_by_table)}"
            )
            continue
        known = set(columns_by_table[metric.model])
        problems += [
            f"metric {metric.name}: {field}: {metric.model} has no column {column!r}{_hint(column, known)}"
            for field, columns in metric.columns.items()
            for column in columns
            if column not in known
        ]
    if problems:
        raise ConfigError("\n".join(problems))


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
