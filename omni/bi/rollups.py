"""Metrics as SQL, in the subset that runs on DuckDB and PostgreSQL.

A number is never made from numbers that do not add up: what cannot be summed is computed from the
model's rows at the grain that was asked for, and asking a rollup for it is an error. A metric reads one
model and splits only by that model's columns, so no join can count a row twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Literal

from omni.bi.metrics import Metric, dimensions_of
from omni.errors import ConfigError

Grain = Literal["day", "week", "month", "quarter", "year"]
Source = Literal["auto", "rollup", "model"]

NO_MEMBER = "(none)"
"""The member that rows without a value of the dimension belong to."""


def compile_rollup(metric: Metric, metrics: Mapping[str, Metric]) -> str:
    """One SELECT of a metric's daily values: the total and one series per member of each dimension.

    Columns: metric, dimension, member, day (DATE), value (DOUBLE). Totals have '' as dimension and member;
    a null member is `(none)`. Sums and counts hold 0 on days without rows: the total over all days of the
    model, a member from its own first day to the model's last. A ratio reads its parts' rollups and is
    null where the denominator is zero.
    """
    if metric.measure.agg == "ratio":
        return _ratio_rollup(metric, metrics)
    branches = []
    for dimension in ("", *metric.dimensions):
        by = [dimension] if dimension else []
        member = _quoted(dimension) if dimension else "''"
        branches.append(
            f"SELECT {_text(metric.name)} AS metric, {_text(dimension)} AS dimension, {member} AS member, "
            f'period AS "day", value FROM ({_from_model(metric, "day", by, None, None)}) AS cells'
        )
    return "\nUNION ALL\n".join(branches)


def compile_query(
    metric: Metric,
    metrics: Mapping[str, Metric],
    *,
    grain: Grain,
    by: Sequence[str] = (),
    since: date | None = None,
    until: date | None = None,
    source: Source = "auto",
) -> str:
    """One SELECT of a metric by period and dimensions.

    Columns: period (DATE, its first day), the dimensions, value (DOUBLE); ordered by period and dimensions.
    Periods follow the calendar (weeks begin on Monday); days outside [since, until) do not count.

    Args:
        metric: which.
        metrics: all, for the parts of ratios.
        grain: length of a period.
        by: dimensions to split by, of those the metric declares.
        since: first day, included.
        until: first day that is no longer included.
        source: `auto` reads the rollup where it gives the right number and the model otherwise; `rollup`
            insists on the rollup.

    Raises:
        ConfigError: an unknown dimension, an empty range, or a rollup asked for what its values cannot give:
            sums of distinct counts or averages, or more than one dimension at a time.
    """
    _refuse_wrong_request(metric, metrics, by, since, until)
    if metric.measure.agg == "ratio":
        body = _ratio(metric, metrics, grain, by, since, until, source)
    else:
        body = _body(metric, grain, by, since, until, source)
    order = ", ".join(str(position) for position in range(1, len(by) + 2))
    return f"{body}\nORDER BY {order}"


def _refuse_wrong_request(
    metric: Metric,
    metrics: Mapping[str, Metric],
    by: Sequence[str],
    since: date | None,
    until: date | None,
) -> None:
    allowed = dimensions_of(metric, metrics)
    for dimension in by:
        if dimension not in allowed:
            raise ConfigError(
                f"metric {metric.name} cannot be split by {dimension!r}; "
                f"it has: {', '.join(allowed) or 'no dimensions'}"
            )
    if len(set(by)) < len(by):
        raise ConfigError(f"metric {metric.name}: a dimension is listed twice: {', '.join(by)}")
    if since and until and since >= until:
        raise ConfigError(
            f"metric {metric.name}: the range [{since}, {until}) is empty; `until` is the day after the last"
        )


def _body(
    metric: Metric, grain: Grain, by: Sequence[str], since: date | None, until: date | None, source: Source
) -> str:
    refusal = _rollup_refusal(metric, grain, by)
    if source == "rollup" and refusal:
        raise ConfigError(f"{refusal}. Compute it from {metric.model} instead (source: auto or model)")
    if source == "model" or refusal:
        return _from_model(metric, grain, by, since, until)
    return _from_rollup(metric, grain, by, since, until)


def _rollup_refusal(metric: Metric, grain: Grain, by: Sequence[str]) -> str | None:
    """Why the stored daily values cannot give the answer; None if they can."""
    if len(by) > 1:
        return f"metric {metric.name}: its rollup holds one dimension at a time, not {' x '.join(by)}"
    if metric.additivity == "non_additive" and grain != "day":
        return (
            f"metric {metric.name}: daily values of {metric.measure.agg} do not add up to a {grain}: "
            "summing them would give a wrong number"
        )
    return None


def _from_rollup(
    metric: Metric, grain: Grain, by: Sequence[str], since: date | None, until: date | None
) -> str:
    dimension = by[0] if by else ""
    keys = [_period(_quoted("day"), grain), *(["member"] if by else [])]
    columns = [f"{keys[0]} AS period", *([f"member AS {_quoted(dimension)}"] if by else [])]
    where = [f"dimension = {_text(dimension)}", *_range(_quoted("day"), since, until)]
    value = "value" if metric.additivity == "non_additive" else "sum(value) AS value"
    grouped = "" if metric.additivity == "non_additive" else f" GROUP BY {', '.join(keys)}"
    return f"SELECT {', '.join(columns)}, {value} FROM {metric.table} WHERE {' AND '.join(where)}{grouped}"


def _from_model(
    metric: Metric, grain: Grain, by: Sequence[str], since: date | None, until: date | None
) -> str:
    time = _quoted(metric.time_column or "")
    period = _period(time, grain)
    keys = [f"coalesce(CAST({_quoted(d)} AS VARCHAR), {_text(NO_MEMBER)})" for d in by]
    named = [f"{key} AS {_quoted(d)}" for key, d in zip(keys, by, strict=True)]
    kept = [
        f"{time} IS NOT NULL",
        *([f"({metric.condition.sql('duckdb', comments=False)})"] if metric.condition else []),
    ]
    counted = " AND ".join([*kept, *_range(time, since, until)])
    cells = (
        f"SELECT {', '.join([f'{period} AS period', *named])}, {_aggregate(metric)} AS value "
        f"FROM {metric.model} WHERE {counted} GROUP BY {', '.join([period, *keys])}"
    )
    if not metric.fills_zero:
        return cells
    if by:
        starts = (
            f"SELECT {', '.join(named)}, min({time}) AS first_day FROM {metric.model} "
            f"WHERE {' AND '.join(kept)} GROUP BY {', '.join(keys)}"
        )
    else:
        starts = "SELECT first_day FROM extent"
    grid = ", ".join([f"{_period('d.moment', grain)} AS period", *(f"s.{_quoted(d)}" for d in by)])
    match = " AND ".join(f"c.{column} = g.{column}" for column in ["period", *map(_quoted, by)])
    within = " AND ".join(["d.moment >= s.first_day", *_range("d.moment", since, until)])
    return (
        f"WITH cells AS ({cells}), "
        f"extent AS (SELECT min({time}) AS first_day, max({time}) AS last_day FROM {metric.model}), "
        "days AS (SELECT CAST(t.moment AS DATE) AS moment FROM extent AS e "
        "CROSS JOIN generate_series(e.first_day, e.last_day, INTERVAL 1 DAY) AS t(moment)), "
        f"starts AS ({starts}), "
        f"grid AS (SELECT DISTINCT {grid} FROM starts AS s JOIN days AS d ON {within}) "
        f"SELECT {', '.join(['g.period', *(f'g.{_quoted(d)}' for d in by)])}, coalesce(c.value, 0) AS value "
        f"FROM grid AS g LEFT JOIN cells AS c ON {match}"
    )


def _aggregate(metric: Metric) -> str:
    column = _quoted(metric.measure.column or "")
    match metric.measure.agg:
        case "count":
            value = "count(*)"
        case "count_distinct":
            value = f"count(DISTINCT {column})"
        case "sum":
            value = f"coalesce(sum({column}), 0)"
        case _:
            value = f"avg({column})"
    return f"CAST({value} AS DOUBLE)"


def _quotient(numerator: Metric) -> str:
    above = "coalesce(n.value, 0)" if numerator.fills_zero else "n.value"
    return f"{above} / nullif(d.value, 0) AS value"


def _ratio(
    metric: Metric,
    metrics: Mapping[str, Metric],
    grain: Grain,
    by: Sequence[str],
    since: date | None,
    until: date | None,
    source: Source,
) -> str:
    numerator, denominator = (metrics[part] for part in metric.parts)
    above, below = (_body(part, grain, by, since, until, source) for part in (numerator, denominator))
    columns = ["period", *map(_quoted, by)]
    keys = ", ".join(f"coalesce(n.{c}, d.{c}) AS {c}" for c in columns)
    match = " AND ".join(f"n.{c} = d.{c}" for c in columns)
    return f"SELECT {keys}, {_quotient(numerator)} FROM ({above}) AS n FULL JOIN ({below}) AS d ON {match}"


def _ratio_rollup(metric: Metric, metrics: Mapping[str, Metric]) -> str:
    numerator, denominator = (metrics[part] for part in metric.parts)
    shared = ", ".join(_text(d) for d in ("", *dimensions_of(metric, metrics)))
    columns = ["dimension", "member", _quoted("day")]
    keys = ", ".join(f"coalesce(n.{c}, d.{c}) AS {c}" for c in columns)
    match = " AND ".join(f"n.{c} = d.{c}" for c in columns)
    return (
        f"SELECT {_text(metric.name)} AS metric, {keys}, {_quotient(numerator)} "
        f"FROM (SELECT * FROM {numerator.table} WHERE dimension IN ({shared})) AS n "
        f"FULL JOIN (SELECT * FROM {denominator.table} WHERE dimension IN ({shared})) AS d ON {match}"
    )


def _period(day: str, grain: Grain) -> str:
    return day if grain == "day" else f"CAST(date_trunc('{grain}', {day}) AS DATE)"


def _range(day: str, since: date | None, until: date | None) -> list[str]:
    return [
        f"{day} {sign} DATE '{bound.isoformat()}'" for sign, bound in ((">=", since), ("<", until)) if bound
    ]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
