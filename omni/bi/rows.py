"""A metric computed from its model's rows: what no stored rollup can answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

from sqlglot import exp

from omni.bi.expressions import columns_of, render
from omni.bi.metrics import Metric
from omni.bi.periods import Grain
from omni.bi.rollups import (
    CONVERTED,
    NO_MEMBER,
    aggregates,
    column,
    first_steps,
    has_every_day,
    member,
    on_rows,
    period,
    quoted,
)

Source = Literal["auto", "rollup", "model"]


@dataclass(frozen=True)
class Request:
    """What is asked of a metric; every metric made of others passes it on."""

    grain: Grain
    by: tuple[str, ...]
    since: date | None
    until: date | None
    where: exp.Condition | None
    source: Source

    def period(self, day: str) -> str:
        """The period of a DATE expression."""
        if self.grain == "all":
            assert self.since is not None
            return f"DATE '{self.since.isoformat()}'"
        return period(day, self.grain)

    def within(self, day: str) -> list[str]:
        """Conditions that keep a DATE expression in the range."""
        bounds = ((">=", self.since), ("<", self.until))
        return [f"{day} {sign} DATE '{bound.isoformat()}'" for sign, bound in bounds if bound]

    @property
    def keys(self) -> list[str]:
        """The dimensions' columns."""
        return [quoted(d) for d in self.by]


def at_one_time(metric: Metric, request: Request, daily: str, days: str) -> str:
    """A state by period: its value on the first or last day with data, or its mean over those days."""
    assert metric.semi_additive is not None
    now = request.period('d."day"')
    at = "min" if metric.semi_additive.take == "first" else "max"
    named = "".join(f", v.{key}" for key in request.keys)
    ends = f'SELECT {now} AS period, {at}(d."day") AS at, count(*) AS n FROM ({days}) AS d GROUP BY {now}'
    if metric.semi_additive.take != "average":
        return (
            f"WITH daily AS ({daily}), ends AS ({ends}) "
            f'SELECT e.period{named}, v.value FROM ends AS e JOIN daily AS v ON v."day" = e.at'
        )
    value_period = request.period('v."day"')
    return (
        f"WITH daily AS ({daily}), ends AS ({ends}) "
        f"SELECT e.period{named}, sum(v.value) / max(e.n) AS value FROM ends AS e "
        f"JOIN daily AS v ON {value_period} = e.period GROUP BY e.period{named}"
    )


def from_model(metric: Metric, request: Request) -> str:
    if metric.semi_additive:
        daily = _cells(metric, replace(request, grain="day"))
        time = column("m", metric.time_column or "")
        kept = " AND ".join([f"{time} IS NOT NULL", *request.within(time)])
        days = f'SELECT DISTINCT {time} AS "day" FROM {metric.model} AS m WHERE {kept}'
        named = "".join(f", {key}" for key in request.keys)
        return at_one_time(metric, request, f'SELECT period AS "day"{named}, value FROM ({daily}) AS x', days)
    return _cells(metric, request)


def _cells(metric: Metric, request: Request) -> str:
    """A metric from its model's rows; where no rows mean zero, with zeros from a series' first day on."""
    time = column("m", metric.time_column or "")
    now = request.period(time)
    used = dict.fromkeys([*request.by, *(columns_of(request.where) if request.where is not None else [])])
    joins = _joins(metric, list(used))
    keys = [member(_place(d)) for d in request.by]
    named = "".join(f", {key} AS {quoted(d)}" for key, d in zip(keys, request.by, strict=True))
    wanted = [f"({_where(request.where)})"] if request.where is not None else []
    if metric.measure.steps:
        more = "".join(f" AND {c}" for c in [*wanted, *request.within(time)])
        columns = [
            f"{now} AS period",
            *(f"{k} AS {quoted(d)}" for k, d in zip(keys, request.by, strict=True)),
        ]
        listed = ", ".join(["period", *request.keys])
        steps = first_steps(metric, columns, more, joins)
        return f"SELECT {listed}, {CONVERTED} AS value FROM ({steps}) AS steps GROUP BY {listed}"
    filters = [f"({on_rows(metric.condition)})"] if metric.condition is not None else []
    kept = [f"{time} IS NOT NULL", *filters, *wanted]
    found = aggregates(metric)
    value = found["value"] if "value" in found else f"{found['total']} / nullif({found['n']}, 0)"
    cells = (
        f"SELECT {now} AS period{named}, {value} AS value FROM {metric.model} AS m{joins} "
        f"WHERE {' AND '.join([*kept, *request.within(time)])} GROUP BY {', '.join([now, *keys])}"
    )
    if not has_every_day(metric):
        return cells
    starts = "SELECT first_day FROM extent"
    if request.by or wanted:
        grouped = f" GROUP BY {', '.join(keys)}" if keys else ""
        starts = (
            f"SELECT min({time}) AS first_day{named} FROM {metric.model} AS m{joins} "
            f"WHERE {' AND '.join(kept)}{grouped}"
        )
    return _filled(metric, request, cells, starts)


def _filled(metric: Metric, request: Request, cells: str, starts: str) -> str:
    time = quoted(metric.time_column or "")
    if metric.semi_additive:
        days = f"SELECT DISTINCT {time} AS moment FROM {metric.model} WHERE {time} IS NOT NULL"
    else:
        days = (
            "SELECT CAST(t.moment AS DATE) AS moment FROM extent AS e "
            "CROSS JOIN generate_series(e.first_day, e.last_day, INTERVAL 1 DAY) AS t(moment)"
        )
    grid = ", ".join([f"{request.period('d.moment')} AS period", *(f"s.{key}" for key in request.keys)])
    match = " AND ".join(f"c.{key} = g.{key}" for key in ["period", *request.keys])
    within = " AND ".join(["d.moment >= s.first_day", *request.within("d.moment")])
    named = "".join(f", g.{key}" for key in request.keys)
    return (
        f"WITH cells AS ({cells}), "
        f"extent AS (SELECT min({time}) AS first_day, max({time}) AS last_day FROM {metric.model}), "
        f"days AS ({days}), starts AS ({starts}), "
        f"grid AS (SELECT DISTINCT {grid} FROM starts AS s JOIN days AS d ON {within}) "
        f"SELECT g.period{named}, coalesce(c.value, 0) AS value "
        f"FROM grid AS g LEFT JOIN cells AS c ON {match}"
    )


def _joins(metric: Metric, dimensions: Sequence[str]) -> str:
    """The joined models that the dimensions need: each meets a row at most once."""
    aliases = dict.fromkeys(d.partition(".")[0] for d in dimensions if "." in d)
    return "".join(
        f" LEFT JOIN {metric.joins[alias].model} AS j_{alias} "
        f"ON {column(f'j_{alias}', metric.joins[alias].target)} = {column('m', metric.joins[alias].key)}"
        for alias in aliases
    )


def _place(dimension: str) -> str:
    """Where a dimension's value comes from."""
    alias, dot, name = dimension.partition(".")
    return column(f"j_{alias}", name) if dot else column("m", dimension)


def _where(condition: exp.Condition) -> str:
    """The condition on the rows. `(none)` is how a null member is shown, and so how one asks for it."""
    tree = condition.copy()
    for literal in list(tree.find_all(exp.Literal)):
        parent = literal.parent
        if literal.is_string and literal.this == NO_MEMBER and isinstance(parent, exp.EQ | exp.NEQ | exp.In):
            for named in list(parent.find_all(exp.Column)):
                if not isinstance(named.parent, exp.Coalesce):
                    text_of = exp.cast(named.copy(), "varchar")
                    named.replace(exp.Coalesce(this=text_of, expressions=[exp.Literal.string(NO_MEMBER)]))
    return render(tree, _place)
