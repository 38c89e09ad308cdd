"""Measures: how rows, or other metrics, become one number, and what may be done with such numbers.

| agg | takes | over days |
|---|---|---|
| sum, count | column; nothing | add up (or are taken at one time: `semi_additive`) |
| average, min, max | column | are put together from stored parts |
| count_distinct, percentile, conversion | see below | never: stored by day, week and month |
| distinct_approx | column | never; within 2 to 5 % on DuckDB (a sketch), exact on PostgreSQL |
| ratio, derived | other metrics | computed from their parts at the grain that is asked for |
| cumulative, change | another metric | as told by window, per, offset |
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Literal, Self

from pydantic import Field, model_validator
from sqlglot import exp

from omni.bi.expressions import columns_of, parse_arithmetic, parse_filter
from omni.yamlfile import Declaration

Aggregate = Literal[
    "sum", "count", "count_distinct", "distinct_approx", "average", "percentile", "min", "max",
    "ratio", "derived", "cumulative", "change", "conversion",
]  # fmt: skip
COMPOSITE = ("ratio", "derived", "cumulative", "change")
"""Made of other metrics; they read no model."""

_NEEDS: dict[str, set[str]] = {
    "count": set(),
    "percentile": {"column", "p"},
    "ratio": {"numerator", "denominator"},
    "derived": {"expression"},
    "cumulative": {"metric"},
    "change": {"metric", "offset"},
    "conversion": {"column", "first", "then", "within"},
}
_MAY: dict[str, set[str]] = {"cumulative": {"window", "per"}, "change": {"form"}}
_FIELDS = (
    "column", "p", "numerator", "denominator", "expression", "metric", "window", "per", "offset", "form",
    "first", "then", "within",
)  # fmt: skip
_OFFSET = re.compile(r"^([1-9]\d{0,3})(d|w|m|y)$")
_WINDOW = r"^[1-9]\d{0,3}d$"


class Measure(Declaration):
    """How rows become one number: an aggregate of a column, or something made of other metrics."""

    agg: Aggregate
    column: str | None = None
    p: float | None = Field(None, ge=0, le=1, description="of a percentile: 0.5 is the median")
    numerator: str | None = None
    denominator: str | None = None
    expression: str | None = Field(None, description="of derived: arithmetic on metrics, revenue - refunds")
    metric: str | None = Field(None, description="of cumulative and change: the metric it is made of")
    window: str | None = Field(None, pattern=_WINDOW, description="of cumulative: the last days only, 28d")
    per: Literal["year", "month"] | None = Field(None, description="of cumulative: begins anew")
    offset: str | None = Field(None, pattern=_OFFSET.pattern, description="of change: 7d, 4w, 1m or 1y back")
    form: Literal["difference", "relative"] | None = Field(None, description="of change; difference if unset")
    first: str | None = Field(None, description="of conversion: the condition of the first step")
    then: str | None = Field(None, description="of conversion: the condition of the second step")
    within: str | None = Field(None, pattern=_WINDOW, description="of conversion: the most days between, 7d")

    @model_validator(mode="after")
    def _fields(self) -> Self:
        needs = _NEEDS.get(self.agg, {"column"})
        given = {name for name in _FIELDS if getattr(self, name) is not None}
        if not needs <= given <= needs | _MAY.get(self.agg, set()):
            raise ValueError(
                f"agg: {self.agg} takes {', '.join(sorted(needs)) or 'nothing else'}; "
                f"given: {', '.join(sorted(given)) or 'nothing'}"
            )
        if self.window and self.per:
            raise ValueError("a cumulative metric has a window or begins anew per year or month, not both")
        _ = self.arithmetic, self.steps
        return self

    @property
    def composite(self) -> bool:
        """Whether it is made of other metrics."""
        return self.agg in COMPOSITE

    @cached_property
    def arithmetic(self) -> exp.Expr | None:
        """The parsed expression; of a ratio, numerator / denominator."""
        if self.expression:
            return parse_arithmetic(self.expression)
        if self.numerator and self.denominator:
            return exp.Div(this=exp.column(self.numerator), expression=exp.column(self.denominator))
        return None

    @cached_property
    def steps(self) -> tuple[exp.Condition, exp.Condition] | None:
        """The parsed conditions of a conversion's two steps."""
        if self.first is None or self.then is None:
            return None
        return parse_filter(self.first, "measure.first"), parse_filter(self.then, "measure.then")

    @property
    def parts(self) -> tuple[str, ...]:
        """The metrics it is made of."""
        if self.metric:
            return (self.metric,)
        return tuple(columns_of(self.arithmetic)) if self.arithmetic is not None else ()

    @property
    def days(self) -> int | None:
        """Days of the window of a cumulative metric, or between the steps of a conversion."""
        text = self.window or self.within
        return int(text[:-1]) if text else None

    @property
    def shift(self) -> Shift | None:
        """How far a change looks back."""
        return Shift.of(self.offset) if self.offset else None


class Shift(Declaration):
    """A step back in time: whole days, or whole months."""

    days: int = 0
    months: int = 0

    @classmethod
    def of(cls, text: str) -> Shift:
        """From 7d, 4w, 1m or 1y."""
        match = _OFFSET.match(text)
        assert match is not None
        count, unit = int(match[1]), match[2]
        if unit in "dw":
            return cls(days=count * (7 if unit == "w" else 1))
        return cls(months=count * (12 if unit == "y" else 1))


class SemiAdditive(Declaration):
    """A state, such as stock or open deals: it adds up over dimensions, and over time one is taken.

    `last` and `first` are the value on the last and first day of the period that the model has rows for,
    the same day for every member; `average` is the mean over those days.
    """

    over: Literal["time"] = "time"
    take: Literal["last", "first", "average"] = "last"


class Join(Declaration):
    """Another model whose columns may serve as dimensions: at most one of its rows for each of the metric's.

    `customer: {model: core.customers, key: customer_id, dimensions: [country]}` allows `customer.country`.
    """

    model: str = Field(pattern=r"^[a-z]\w*\.[a-z]\w*$")
    key: str = Field(description="the column of the metric's model that says which row")
    to: str | None = Field(None, description="that row's own key there; named as `key` by default")
    dimensions: list[str] = Field(min_length=1)

    @property
    def target(self) -> str:
        """The joined model's key."""
        return self.to or self.key
