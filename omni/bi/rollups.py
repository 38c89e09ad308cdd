"""What is stored of a metric: cells by day (and week and month), and the view of its daily series.

Cells are sparse: only days and members that have rows. They are incremental models, so a day that changed
is rolled up again and no other. The view `metrics.<name>` fills the days between with zeros where no rows
mean zero. Values that cannot be put together from days (distinct counts, percentiles) have cells of their own
for weeks and months. All SQL is in the subset that runs on DuckDB and PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlglot import exp

from omni.bi.expressions import render
from omni.bi.measures import Shift
from omni.bi.metrics import CellGrain, Metric, dimensions_of

NO_MEMBER = "(none)"
"""The member that rows without a value of the dimension belong to."""


def compile_cells(metric: Metric, grain: CellGrain) -> str:
    """One SELECT of a metric's stored cells: the total, and one series per member of each own dimension.

    Columns: dimension, member, day (DATE, the period's first), value (DOUBLE); of an average total and n
    instead of value. Totals have '' as dimension and member; a null member is `(none)`. A counted metric's
    total has a cell, maybe 0, for every period the model has rows in, so that it also says where its days
    begin and end.
    """
    if metric.measure.steps:
        branches = [_conversion_branch(metric, grain, d) for d in ("", *metric.dimensions)]
    else:
        branches = [_branch(metric, grain, dimension) for dimension in ("", *metric.dimensions)]
    return "\nUNION ALL\n".join(branches)


def _branch(metric: Metric, grain: CellGrain, dimension: str) -> str:
    time = column("m", metric.time_column or "")
    day = period(time, grain)
    kept = [f"{time} IS NOT NULL"]
    condition = None if metric.condition is None else on_rows(metric.condition)
    whole = not dimension and has_every_day(metric)
    if condition and not whole:
        kept.append(f"({condition})")
    key = member(column("m", dimension)) if dimension else "''"
    values = ", ".join(
        f"{value} AS {name}" for name, value in aggregates(metric, condition if whole else None).items()
    )
    return (
        f'SELECT {text(dimension)} AS dimension, {key} AS member, {day} AS "day", {values} '
        f"FROM {metric.model} AS m WHERE {' AND '.join(kept)} "
        f"GROUP BY {', '.join([day, *([key] if dimension else [])])}"
    )


def _conversion_branch(metric: Metric, grain: CellGrain, dimension: str) -> str:
    day = period(column("m", metric.time_column or ""), grain)
    key = member(column("m", dimension)) if dimension else "''"
    steps = first_steps(metric, [f"{key} AS member", f'{day} AS "day"'])
    return (
        f'SELECT {text(dimension)} AS dimension, member, "day", {CONVERTED} AS value FROM ({steps}) AS steps '
        f'GROUP BY member, "day"'
    )


CONVERTED = (
    "CAST(count(DISTINCT CASE WHEN converted THEN entity END) AS DOUBLE) / nullif(count(DISTINCT entity), 0)"
)


def first_steps(metric: Metric, keys: list[str], more: str = "", joins: str = "") -> str:
    """A row per first step of a conversion: the keys, `entity`, and whether it was `converted`.

    That is: the same entity made the second step on the same day or within the days after. Days are all that
    is known of the order, so a second step earlier on the same day counts.
    """
    measure, time = metric.measure, metric.time_column or ""
    assert measure.steps is not None
    filters = [] if metric.condition is None else [metric.condition]
    began = " AND ".join(f"({on_rows(c)})" for c in [measure.steps[0], *filters])
    ended = " AND ".join(f"({on_rows(c, 's')})" for c in [measure.steps[1], *filters])
    entity = column("m", measure.column or "")
    return (
        f"SELECT {', '.join([*keys, f'{entity} AS entity'])}, EXISTS (SELECT 1 FROM {metric.model} AS s "
        f"WHERE {column('s', measure.column or '')} = {entity} AND {ended} "
        f"AND {column('s', time)} >= {column('m', time)} "
        f"AND {column('s', time)} <= CAST({column('m', time)} + INTERVAL {measure.days} DAY AS DATE)) "
        f"AS converted FROM {metric.model} AS m{joins} "
        f"WHERE {column('m', time)} IS NOT NULL AND {began}{more}"
    )


def has_every_day(metric: Metric) -> bool:
    """Whether the total has a cell for every day of the model, with 0 where the filter finds nothing."""
    return metric.fills_zero or metric.semi_additive is not None


def aggregates(metric: Metric, condition: str | None = None) -> dict[str, str]:
    """The aggregates of a cell by column; over the rows that meet `condition` if one is given."""
    only = f" FILTER (WHERE {condition})" if condition else ""
    measured = column("m", metric.measure.column or "")
    match metric.measure.agg:
        case "average":
            return {"total": f"CAST(sum({measured}){only} AS DOUBLE)", "n": f"count({measured}){only}"}
        case "count":
            value = f"count(*){only}"
        case "count_distinct":
            value = f"count(DISTINCT {measured}){only}"
        case "distinct_approx":
            value = f"approx_count_distinct({measured}){only}"
        case "sum":
            value = f"coalesce(sum({measured}){only}, 0)"
        case "percentile":
            value = f"quantile_cont(CAST({measured} AS DOUBLE), {metric.measure.p}){only}"
        case _:
            value = f"{metric.measure.agg}({measured}){only}"
    return {"value": f"CAST({value} AS DOUBLE)"}


def compile_view(metric: Metric, metrics: Mapping[str, Metric]) -> str:
    """One SELECT of a metric's daily series: the total and one series per member of each dimension.

    Columns: metric, dimension, member, day, value. What is counted holds 0 on days without rows: the total
    over all days of the model, a member from its own first day to the model's last. A state (semi-additive)
    has a value on the days the model has rows for. A metric made of others reads their views.
    """
    match metric.measure.agg:
        case "ratio" | "derived":
            return _arithmetic_view(metric, metrics)
        case "cumulative":
            return _cumulative_view(metric, metrics)
        case "change":
            return _change_view(metric, metrics)
        case _:
            return _cells_view(metric)


def _cells_view(metric: Metric) -> str:
    cells = metric.cells("day")
    if not has_every_day(metric):
        value = "total / nullif(n, 0)" if metric.measure.agg == "average" else "value"
        return (
            f'SELECT {text(metric.name)} AS metric, dimension, member, "day", {value} AS value FROM {cells}'
        )
    totals = f"FROM {cells} WHERE dimension = ''"
    if metric.semi_additive:
        days = f'SELECT "day" AS moment {totals}'
    else:
        days = (
            "SELECT CAST(t.moment AS DATE) AS moment FROM "
            f'(SELECT min("day") AS first_day, max("day") AS last_day {totals}) AS e '
            "CROSS JOIN generate_series(e.first_day, e.last_day, INTERVAL 1 DAY) AS t(moment)"
        )
    return (
        f"WITH days AS ({days}), "
        f'starts AS (SELECT dimension, member, min("day") AS first_day FROM {cells} '
        "GROUP BY dimension, member) "
        f'SELECT {text(metric.name)} AS metric, s.dimension, s.member, d.moment AS "day", '
        "coalesce(c.value, 0) AS value FROM starts AS s JOIN days AS d ON d.moment >= s.first_day "
        f'LEFT JOIN {cells} AS c ON c.dimension = s.dimension AND c.member = s.member AND c."day" = d.moment'
    )


def _arithmetic_view(metric: Metric, metrics: Mapping[str, Metric]) -> str:
    shared = ", ".join(text(d) for d in ("", *rolled_dimensions(metric, metrics)))
    parts = " UNION ALL ".join(
        f'SELECT {text(part)} AS part, dimension, member, "day", value FROM {metrics[part].table} '
        f"WHERE dimension IN ({shared})"
        for part in metric.parts
    )
    return (
        f'SELECT {text(metric.name)} AS metric, dimension, member, "day", '
        f"{arithmetic(metric, metrics)} AS value "
        f'FROM ({parts}) AS parts GROUP BY dimension, member, "day"'
    )


def arithmetic(metric: Metric, metrics: Mapping[str, Metric]) -> str:
    """The expression over rows that hold a part's name and value; counted parts without a row are 0."""

    def named(part: str) -> str:
        value = f"max(CASE WHEN part = {text(part)} THEN value END)"
        return f"coalesce({value}, 0)" if metrics[part].fills_zero else value

    assert metric.measure.arithmetic is not None
    return render(metric.measure.arithmetic, named, safe_division=True)


def _cumulative_view(metric: Metric, metrics: Mapping[str, Metric]) -> str:
    part = metrics[metric.parts[0]]
    return (
        f'SELECT {text(metric.name)} AS metric, dimension, member, "day", '
        f"{running(metric, ['dimension', 'member'])} AS value FROM {part.table}"
    )


def running(metric: Metric, keys: list[str]) -> str:
    """The running total over rows with `day` and `value`, one series per value of `keys`."""
    per = metric.measure.per
    within = ", ".join([*keys, *([period('"day"', per)] if per else [])])
    days = metric.measure.days
    start = f"INTERVAL {days - 1} DAY PRECEDING" if days else "UNBOUNDED PRECEDING"
    partition = f"PARTITION BY {within} " if within else ""
    return f'sum(value) OVER ({partition}ORDER BY "day" RANGE BETWEEN {start} AND CURRENT ROW)'


def _change_view(metric: Metric, metrics: Mapping[str, Metric]) -> str:
    part, shift = metrics[metric.parts[0]], metric.measure.shift
    assert shift is not None
    return (
        f'SELECT {text(metric.name)} AS metric, c.dimension, c.member, c."day", {moved(metric)} AS value '
        f"FROM {part.table} AS c LEFT JOIN {part.table} AS e ON e.dimension = c.dimension "
        f"AND e.member = c.member AND {counterpart('day', shift)}"
    )


def moved(metric: Metric) -> str:
    """The change from `e.value` to `c.value`; null where either is unknown."""
    if metric.measure.form == "relative":
        return "(c.value - e.value) / nullif(abs(e.value), 0)"
    return "c.value - e.value"


def counterpart(name: str, shift: Shift) -> str:
    """The condition under which `e` is the day or period before `c`, by the DATE column `name`.

    A day that the other month or year does not have (31 April, 29 February) has no counterpart.
    """
    now, then = f'c."{name}"', f'e."{name}"'
    if shift.days:
        return f"{then} = CAST({now} - INTERVAL {shift.days} DAY AS DATE)"
    return (
        f"{then} = CAST({now} - INTERVAL {shift.months} MONTH AS DATE) "
        f"AND CAST({then} + INTERVAL {shift.months} MONTH AS DATE) = {now}"
    )


def rolled_dimensions(metric: Metric, metrics: Mapping[str, Metric]) -> list[str]:
    """Dimensions that are rolled up: all but those of joined models."""
    return [d for d in dimensions_of(metric, metrics) if "." not in d]


def period(day: str, grain: str) -> str:
    """The first day of the period that a DATE expression falls in; weeks begin on Monday."""
    return day if grain == "day" else f"CAST(date_trunc('{grain}', {day}) AS DATE)"


def member(value: str) -> str:
    """A dimension's value as the text that stands for it."""
    return f"coalesce(CAST({value} AS VARCHAR), {text(NO_MEMBER)})"


def on_rows(condition: exp.Expr, alias: str = "m") -> str:
    """A condition on the model's own columns, with its alias."""
    return render(condition, lambda name: column(alias, name))


def column(alias: str, name: str) -> str:
    """A column of a relation."""
    return f"{alias}.{quoted(name)}"


def quoted(name: str) -> str:
    """A name as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A value as a text literal."""
    return "'" + value.replace("'", "''") + "'"
