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
    joins: {customer: {model: core.customers, key: customer_id, dimensions: [country]}}
    unit: currency
    direction: up_is_good

Ratios and other metrics made of metrics name those instead of a model. The kinds of measures are in
`omni.bi.measures`; how metrics become SQL: `omni.bi.rollups` (what is stored), `omni.bi.queries`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from sqlglot import exp

from omni import yamlfile
from omni.bi.expressions import columns_of, is_linear, parse_filter
from omni.bi.measures import Join, Measure, SemiAdditive
from omni.errors import ConfigError
from omni.settings import settings
from omni.yamlfile import Declaration

Unit = Literal["currency", "count", "percent", "days", "score"]
Direction = Literal["up_is_good", "down_is_good", "neutral"]
Additivity = Literal["additive", "semi_additive", "non_additive"]
CellGrain = Literal["day", "week", "month"]

NAME = r"^[a-z][a-z0-9_]*$"
RESERVED = {"metric", "dimension", "member", "day", "period", "value", "part", "complete"}
"""Columns of the compiled queries; a dimension of such a name could not be told apart."""


class Metric(Declaration):
    """One metric. One made of others takes model, time column and dimensions from its parts.

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
    joins: dict[str, Join] = Field({}, description="models whose columns serve as dimensions, by alias")
    semi_additive: SemiAdditive | None = Field(None, description="the metric is a state, not a flow")
    unit: Unit
    direction: Direction = "neutral"
    watch: bool = Field(False, description="look for anomalies in its daily series")
    synonyms: list[str] = []

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.name == "daily" or "__" in self.name:
            raise ValueError(
                "name: metrics.daily and names with __ are the rollups' own; choose another name"
            )
        own = {"model": self.model, "time_column": self.time_column}
        if self.measure.composite:
            more = {"filter": self.filter, "dimensions": self.dimensions, "joins": self.joins}
            stated = [k for k, v in {**own, **more, "semi_additive": self.semi_additive}.items() if v]
            if stated:
                raise ValueError(
                    f"a {self.measure.agg} metric takes {', '.join(stated)} from its parts; leave out here"
                )
        elif missing := [k for k, v in own.items() if v is None]:
            raise ValueError(f"{' and '.join(missing)} missing")
        if self.semi_additive and self.measure.agg not in ("sum", "count"):
            raise ValueError(f"semi_additive belongs to sums and counts, not to {self.measure.agg}")
        if bad := RESERVED & set(self.dimensions):
            raise ValueError(f"dimensions: {', '.join(sorted(bad))} is a reserved name")
        if len(set(self.dimensions)) < len(self.dimensions):
            raise ValueError("dimensions: one is listed twice")
        _ = self.condition
        return self

    @property
    def additivity(self) -> Additivity:
        """Whether values of parts (days, members) add up to the value of the whole.

        What is semi-additive adds up over members and not over days. Of metrics made of others see `adds_up`.
        """
        if self.semi_additive:
            return "semi_additive"
        return "additive" if self.measure.agg in ("sum", "count") else "non_additive"

    @property
    def fills_zero(self) -> bool:
        """Whether no rows mean zero (what is counted) rather than no value (averages, ratios, states)."""
        counted = ("sum", "count", "count_distinct", "distinct_approx")
        return self.measure.agg in counted and not self.semi_additive

    @property
    def approximate(self) -> bool:
        """Whether its values are estimates (≈)."""
        return self.measure.agg == "distinct_approx"

    @property
    def parts(self) -> tuple[str, ...]:
        """The metrics it is made of."""
        return self.measure.parts

    @property
    def table(self) -> str:
        """The view of its daily series."""
        return f"metrics.{self.name}"

    @property
    def stored(self) -> tuple[CellGrain, ...]:
        """The grains its cells are stored at; what can be put together from days is stored by day only."""
        if self.measure.composite:
            return ()
        never = ("count_distinct", "distinct_approx", "percentile", "conversion")
        return ("day", "week", "month") if self.measure.agg in never else ("day",)

    def cells(self, grain: CellGrain) -> str:
        """The table of its stored cells of a grain; days and members without rows are not in it."""
        return f"metrics.{self.name}__{grain}"

    @cached_property
    def condition(self) -> exp.Condition | None:
        """The parsed filter."""
        return None if self.filter is None else parse_filter(self.filter)

    @cached_property
    def columns(self) -> dict[str, list[str]]:
        """The model's columns it uses, by the field that names them."""
        measure = self.measure
        return {
            "measure.column": [measure.column] if measure.column else [],
            "time_column": [self.time_column] if self.time_column else [],
            "dimensions": self.dimensions,
            "filter": sorted(columns_of(self.condition)) if self.condition is not None else [],
            "joins": [join.key for join in self.joins.values()],
            "measure.first": sorted(columns_of(measure.steps[0])) if measure.steps else [],
            "measure.then": sorted(columns_of(measure.steps[1])) if measure.steps else [],
        }

    @cached_property
    def own_dimensions(self) -> list[str]:
        """What it can be split by if it reads a model: its columns, and those of joined models."""
        joined = [f"{alias}.{name}" for alias, join in self.joins.items() for name in join.dimensions]
        return [*self.dimensions, *joined]


def dimensions_of(metric: Metric, metrics: Mapping[str, Metric]) -> list[str]:
    """The dimensions a metric can be split by; of one made of others, those all parts have."""
    if not metric.measure.composite:
        return metric.own_dimensions
    first, *others = (dimensions_of(metrics[part], metrics) for part in metric.parts)
    return [d for d in first if all(d in other for other in others)]


def is_approximate(metric: Metric, metrics: Mapping[str, Metric]) -> bool:
    """Whether an estimate is part of it."""
    return metric.approximate or any(is_approximate(metrics[part], metrics) for part in metric.parts)


def adds_up(metric: Metric, metrics: Mapping[str, Metric]) -> bool:
    """Whether its values for days and for members add up: a sum, a count, or a sum of such."""
    if metric.measure.agg == "derived" and metric.measure.arithmetic is not None:
        parts = [metrics[part] for part in metric.parts]
        return is_linear(metric.measure.arithmetic) and all(p.additivity == "additive" for p in parts)
    return metric.additivity == "additive"


def in_order(metrics: Mapping[str, Metric]) -> list[Metric]:
    """Metrics by name, each after its parts."""
    return sorted(metrics.values(), key=lambda m: (_depth(m, metrics), m.name))


def _depth(metric: Metric, metrics: Mapping[str, Metric]) -> int:
    return 1 + max((_depth(metrics[p], metrics) for p in metric.parts if p in metrics), default=-1)


def load_metrics(folder: Path) -> dict[str, Metric]:
    """All metrics under a folder, by name.

    Raises:
        ConfigError: a file is wrong or not named after its metric, or a metric is made of one that does not
            exist or that it cannot be made of; the message names file and field.
    """
    found = yamlfile.load_folder(folder, Metric)
    for metric in found.values():
        for part in metric.parts:
            field = f"{metric.name}.yml: measure.{_field(metric.measure, part)}"
            if part not in found:
                raise ConfigError(f"{field}: no metric {part!r}{_hint(part, found)}")
            if refusal := _part_refusal(metric, found[part]):
                raise ConfigError(f"{field}: {refusal}")
    for metric in found.values():
        if metric.measure.agg == "cumulative" and not adds_up(found[metric.parts[0]], found):
            base = found[metric.parts[0]]
            raise ConfigError(
                f"{metric.name}.yml: measure.metric: days of {base.name} ({_said(base)}) do not add up, "
                "so there is no running total of it"
            )
    return found


def _field(measure: Measure, part: str) -> str:
    for field in ("numerator", "denominator", "metric"):
        if getattr(measure, field) == part:
            return field
    return "expression"


def _part_refusal(metric: Metric, part: Metric) -> str | None:
    """Why a metric cannot be made of another; None if it can."""
    agg, inner = metric.measure.agg, part.measure.agg
    if agg in ("ratio", "derived") and part.measure.composite:
        return f"{part.name} is itself a {inner}; name the metrics that are read from models"
    if agg == "cumulative" and inner not in ("sum", "count", "derived"):
        return f"days of {part.name} ({inner}) do not add up, so there is no running total of it"
    if agg == "change" and inner == "change":
        return f"{part.name} is itself a change"
    return None


def _said(metric: Metric) -> str:
    return "semi-additive" if metric.semi_additive else metric.measure.agg


@lru_cache(maxsize=4)
def _cached(folder: Path) -> dict[str, Metric]:
    return load_metrics(folder)


def metrics() -> dict[str, Metric]:
    """The project's metrics, read once per process."""
    return _cached(settings().data / "metrics")


def validate(
    metrics: Mapping[str, Metric],
    columns_by_table: Mapping[str, Iterable[str]],
    keys: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Check that every model and column a metric names exists, and is what the metric needs it to be.

    Args:
        metrics: by name.
        columns_by_table: column names of each table, by `schema.table`; where they come as a mapping, their
            types are checked too.
        keys: the columns that tell a table's rows apart (a model's grain, a contract's key), to check that a
            join meets one row at most.

    Raises:
        ConfigError: listing every wrong name, type and join with its metric and field.
    """
    problems: list[str] = []
    for metric in metrics.values():
        if metric.model is None:
            continue
        if metric.model not in columns_by_table:
            problems.append(
                f"metric {metric.name}: model: no table {metric.model}{_hint(metric.model, columns_by_table)}"
            )
            continue
        problems += _wrong_columns(metric, columns_by_table[metric.model])
        for alias, join in metric.joins.items():
            problems += _wrong_join(metric, alias, join, columns_by_table, keys)
    if problems:
        raise ConfigError("\n".join(problems))


_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER",
            "UBIGINT", "FLOAT", "DOUBLE", "DECIMAL")  # fmt: skip


def _wrong_columns(metric: Metric, known: Iterable[str]) -> list[str]:
    names = set(known)
    problems = [
        f"metric {metric.name}: {field}: {metric.model} has no column {column!r}{_hint(column, names)}"
        for field, columns in metric.columns.items()
        for column in columns
        if column not in names
    ]
    if problems or not isinstance(known, Mapping):
        return problems
    column, time = metric.measure.column, metric.time_column or ""
    kind = str(known[column]).partition("(")[0] if column else ""
    needs_number = metric.measure.agg in ("sum", "average", "percentile", "min", "max")
    if needs_number and kind not in _NUMBERS:
        problems.append(
            f"metric {metric.name}: measure.column: {metric.model}.{column} is {known[column or '']}; "
            f"{metric.measure.agg} needs a number"
        )
    if known[time] != "DATE":
        problems.append(
            f"metric {metric.name}: time_column: {metric.model}.{time} is {known[time]}; "
            "it must be a DATE in the company's zone"
        )
    return problems


def _wrong_join(
    metric: Metric,
    alias: str,
    join: Join,
    columns_by_table: Mapping[str, Iterable[str]],
    keys: Mapping[str, Sequence[str]] | None,
) -> list[str]:
    where = f"metric {metric.name}: joins.{alias}"
    if join.model not in columns_by_table:
        return [f"{where}: no table {join.model}{_hint(join.model, columns_by_table)}"]
    known = set(columns_by_table[join.model])
    problems = [
        f"{where}: {join.model} has no column {column!r}{_hint(column, known)}"
        for column in [join.target, *join.dimensions]
        if column not in known
    ]
    if not problems and keys is not None and list(keys.get(join.model, ())) != [join.target]:
        told = ", ".join(keys.get(join.model, ())) or "nothing known"
        problems.append(
            f"{where}: rows of {join.model} are told apart by {told}, not by {join.target} alone: one row of "
            f"{metric.model} could meet several and be counted several times. Declare a metric on "
            f"{join.model} instead, or join a model with one row per {join.target}"
        )
    return problems


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
