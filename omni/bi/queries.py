"""Questions to metrics as SQL.

A number is never made from numbers that do not add up: the smallest stored rollup that can answer is read,
else the model's rows, and insisting on a rollup that cannot is an error. A metric reads one model, and joins
others only where at most one of their rows meets one of its own, so no join can count a row twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Literal

from omni.bi.expressions import columns_of, parse_where, single_member
from omni.bi.measures import Shift
from omni.bi.metrics import Metric, dimensions_of
from omni.bi.periods import Grain, back, shift_for, start_of, step_of
from omni.bi.rollups import NO_MEMBER, arithmetic, counterpart, moved, quoted, running, text
from omni.bi.rows import Request, Source, at_one_time, from_model
from omni.errors import ConfigError

Compare = Literal["previous", "last_year"]


def compile_query(
    metric: Metric,
    metrics: Mapping[str, Metric],
    *,
    grain: Grain,
    by: Sequence[str] = (),
    since: date | None = None,
    until: date | None = None,
    where: str | None = None,
    source: Source = "auto",
) -> str:
    """One SELECT of a metric by period and dimensions.

    Columns: period (DATE, its first day), the dimensions, value (DOUBLE); ordered by period and dimensions.
    Periods follow the calendar (weeks begin on Monday); days outside [since, until) do not count.

    Args:
        metric: which.
        metrics: all, for those it is made of.
        grain: length of a period; `all` is the whole range as one, and needs `since`.
        by: dimensions to split by, of those the metric declares.
        since: first day, included.
        until: first day that is no longer included.
        where: a condition on its dimensions.
        source: `auto` reads a rollup where it gives the right number and the model otherwise; `rollup`
            insists on a rollup.

    Raises:
        ConfigError: an unknown dimension, a wrong condition, an empty range, or a rollup asked for what its
            values cannot give.
    """
    request = _request(metric, metrics, grain, by, since, until, where, source)
    return f"{_body(metric, metrics, request)}\n{_order(request)}"


def compile_answer(
    asked: Sequence[Metric],
    metrics: Mapping[str, Metric],
    *,
    grain: Grain,
    by: Sequence[str] = (),
    since: date | None = None,
    until: date | None = None,
    where: str | None = None,
    compare: Compare | None = None,
    source: Source = "auto",
) -> str:
    """One SELECT of several metrics by period and dimensions that they share.

    Columns: period, the dimensions, one per metric named as it, and with `compare` `<name>__before`: the same
    metric one period or one year earlier (52 weeks for weeks, so that weekdays agree). A day that the earlier
    year does not have has no such value. Arguments otherwise as `compile_query`.

    Raises:
        ConfigError: as `compile_query`, or the metrics have nothing in common to be split by.
    """
    parts, columns = [], []
    for metric in asked:
        request = _request(metric, metrics, grain, by, since, until, where, source)
        bodies = {metric.name: _body(metric, metrics, request)}
        if compare:
            bodies[f"{metric.name}__before"] = _before(metric, metrics, request, compare)
        keys = ", ".join(["period", *request.keys, "value"])
        parts += [f"SELECT {text(name)} AS part, {keys} FROM ({sql}) AS p" for name, sql in bodies.items()]
        columns += [f"max(CASE WHEN part = {text(name)} THEN value END) AS {quoted(name)}" for name in bodies]
    keys = ", ".join(["period", *request.keys])
    union = " UNION ALL ".join(parts)
    now = ", ".join(text(metric.name) for metric in asked)
    return (
        f"SELECT {keys}, {', '.join(columns)} FROM ({union}) AS parts GROUP BY {keys} "
        f"HAVING count(CASE WHEN part IN ({now}) THEN 1 END) > 0\n{_order(request)}"
    )


def _before(metric: Metric, metrics: Mapping[str, Metric], request: Request, compare: Compare) -> str:
    """The metric one period or year earlier, under the periods that it is compared with."""
    keys = ", ".join(f"e.{key}" for key in request.keys)
    named = f", {keys}" if keys else ""
    if request.grain == "all":
        if request.since is None or request.until is None:
            raise ConfigError("A comparison of a whole range needs its first day and the day after its last")
        shift = Shift(days=(request.until - request.since).days)
        if compare == "last_year":
            shift = Shift(months=12)
        earlier = replace(request, since=back(request.since, shift), until=back(request.until, shift))
        body = _body(metric, metrics, earlier)
        return f"SELECT {request.period('')} AS period{named}, e.value FROM ({body}) AS e"
    shift = step_of(request.grain) if compare == "previous" else shift_for(request.grain, Shift(months=12))
    moment = (
        f"e.period + INTERVAL {shift.days} DAY" if shift.days else f"e.period + INTERVAL {shift.months} MONTH"
    )
    now = f"CAST({moment} AS DATE)"
    wanted = ["e.period IS NOT NULL"]
    if request.since:
        wanted.append(f"{now} >= DATE '{start_of(request.since, request.grain).isoformat()}'")
    if request.until:
        wanted.append(f"{now} < DATE '{request.until.isoformat()}'")
    if shift.months:
        # 29 February would come to stand beside 28 February a year later.
        wanted.append(f"CAST({now} - INTERVAL {shift.months} MONTH AS DATE) = e.period")
    body = _body(metric, metrics, _shifted(request, shift))
    return f"SELECT {now} AS period{named}, e.value FROM ({body}) AS e WHERE {' AND '.join(wanted)}"


def _shifted(request: Request, shift: Shift) -> Request:
    """The request for the periods before: whole ones, however the range cuts the present ones."""
    if request.since is None:
        return request
    return replace(request, since=back(start_of(request.since, request.grain), shift))


def _request(
    metric: Metric,
    metrics: Mapping[str, Metric],
    grain: Grain,
    by: Sequence[str],
    since: date | None,
    until: date | None,
    where: str | None,
    source: Source,
) -> Request:
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
    if grain == "all" and since is None:
        raise ConfigError(f"metric {metric.name}: a whole range needs its first day")
    try:
        condition = parse_where(where, allowed) if where else None
    except ValueError as error:
        raise ConfigError(f"metric {metric.name}: {error}") from None
    return Request(grain, tuple(by), since, until, condition, source)


def _order(request: Request) -> str:
    return f"ORDER BY {', '.join(str(position) for position in range(1, len(request.by) + 2))}"


def _body(metric: Metric, metrics: Mapping[str, Metric], request: Request) -> str:
    match metric.measure.agg:
        case "ratio" | "derived":
            return _arithmetic(metric, metrics, request)
        case "cumulative":
            return _cumulative(metric, metrics, request)
        case "change":
            return _change(metric, metrics, request)
    refusal = _rollup_refusal(metric, request)
    if request.source == "rollup" and refusal:
        raise ConfigError(f"{refusal}. Compute it from {metric.model} instead (source: auto or model)")
    if request.source == "model" or refusal:
        return from_model(metric, request)
    return _from_rollup(metric, request)


def _arithmetic(metric: Metric, metrics: Mapping[str, Metric], request: Request) -> str:
    keys = ", ".join(["period", *request.keys])
    parts = " UNION ALL ".join(
        f"SELECT {text(part)} AS part, {keys}, value FROM ({_body(metrics[part], metrics, request)}) AS p"
        for part in metric.parts
    )
    return f"SELECT {keys}, {arithmetic(metric, metrics)} AS value FROM ({parts}) AS parts GROUP BY {keys}"


def _cumulative(metric: Metric, metrics: Mapping[str, Metric], request: Request) -> str:
    """Of every period the running total on its last day."""
    daily = _body(metrics[metric.parts[0]], metrics, replace(request, grain="day", since=None))
    keys = request.keys
    named = "".join(f"{key}, " for key in keys)
    now = request.period('"day"')
    kept = " AND ".join(['"day" IS NOT NULL', *request.within('"day"')])
    same = "".join(f" AND t.{key} = e.{key}" for key in keys)
    listed = "".join(f", t.{key}" for key in keys)
    return (
        f'WITH daily AS (SELECT period AS "day", {named}value FROM ({daily}) AS d), '
        f'totals AS (SELECT "day", {named}{running(metric, keys)} AS value FROM daily), '
        f'ends AS (SELECT {now} AS period, {named}max("day") AS at FROM daily WHERE {kept} '
        f"GROUP BY {', '.join([now, *keys])}) "
        f'SELECT e.period{listed}, t.value FROM ends AS e JOIN totals AS t ON t."day" = e.at{same}'
    )


def _change(metric: Metric, metrics: Mapping[str, Metric], request: Request) -> str:
    part, asked = metrics[metric.parts[0]], metric.measure.shift
    assert asked is not None
    try:
        shift = shift_for(request.grain, asked)
    except ValueError:
        raise ConfigError(
            f"metric {metric.name}: looks {metric.measure.offset} back, which is not a whole number of "
            f"periods of grain {request.grain}; ask by another grain, or {part.name} with compare"
        ) from None
    keys = "".join(f", c.{key}" for key in request.keys)
    same = "".join(f" AND e.{key} = c.{key}" for key in request.keys)
    return (
        f"SELECT c.period{keys}, {moved(metric)} AS value FROM ({_body(part, metrics, request)}) AS c "
        f"LEFT JOIN ({_body(part, metrics, _shifted(request, shift))}) AS e "
        f"ON {counterpart('period', shift)}{same}"
    )


def _rollup_refusal(metric: Metric, request: Request) -> str | None:
    """Why the stored values cannot give the answer; None if they can."""
    who = f"metric {metric.name}"
    if len(request.by) > 1:
        return f"{who}: its rollup holds one dimension at a time, not {' x '.join(request.by)}"
    named = [*request.by, *(columns_of(request.where) if request.where is not None else [])]
    if joined := [d for d in named if "." in d]:
        return f"{who}: its rollup holds no dimension of a joined model ({joined[0]})"
    if request.where is not None:
        only = single_member(request.where)
        if only is None or only[1] == NO_MEMBER or request.by not in ((), (only[0],)):
            return f"{who}: its rollup cannot be filtered by this condition"
    if len(metric.stored) == 1:
        return None
    if request.grain not in metric.stored:
        whole = "whole range" if request.grain == "all" else request.grain
        return (
            f"{who}: daily values of {metric.measure.agg} do not add up to a {whole}: "
            "summing them would give a wrong number"
        )
    for edge in (request.since, request.until):
        if edge and start_of(edge, request.grain) != edge:
            return (
                f"{who}: {edge} is inside a {request.grain}, and values of "
                f"{metric.measure.agg} do not add up to a part of it"
            )
    return None


def _from_rollup(metric: Metric, request: Request) -> str:
    dimension, only = (request.by[0] if request.by else ""), None
    if request.where is not None:
        single = single_member(request.where)
        assert single is not None
        dimension, only = single
    chosen = [f"dimension = {text(dimension)}", *([f"member = {text(only)}"] if only is not None else [])]
    kept = " AND ".join([*chosen, *request.within('"day"')])
    named = f", member AS {request.keys[0]}" if request.by else ""
    group = "".join(f", {key}" for key in (["member"] if request.by else []))
    now = request.period('"day"')
    grouped = f"WHERE {kept} GROUP BY {now}{group}"
    match metric.measure.agg:
        case "average":
            value = "sum(total) / nullif(sum(n), 0)"
            return f"SELECT {now} AS period{named}, {value} AS value FROM {metric.cells('day')} {grouped}"
        case "min" | "max":
            value = f"{metric.measure.agg}(value)"
            return f"SELECT {now} AS period{named}, {value} AS value FROM {metric.cells('day')} {grouped}"
    if metric.semi_additive:
        daily = f'SELECT "day"{named}, value FROM {metric.table} WHERE {kept}'
        days = " AND ".join(["dimension = ''", *request.within('"day"')])
        return at_one_time(metric, request, daily, f'SELECT "day" FROM {metric.table} WHERE {days}')
    if metric.additivity == "additive":
        return f"SELECT {now} AS period{named}, sum(value) AS value FROM {metric.table} {grouped}"
    if request.grain == "day":
        return f'SELECT "day" AS period{named}, value FROM {metric.table} WHERE {kept}'
    assert request.grain in ("week", "month")
    cells = metric.cells(request.grain)
    if not metric.fills_zero:
        return f'SELECT "day" AS period{named}, value FROM {cells} WHERE {kept}'
    grid = f"SELECT DISTINCT {now} AS period, member FROM {metric.table} WHERE {kept}"
    named = f", g.member AS {request.keys[0]}" if request.by else ""
    return (
        f"SELECT g.period{named}, coalesce(c.value, 0) AS value FROM ({grid}) AS g LEFT JOIN {cells} AS c "
        f'ON c.dimension = {text(dimension)} AND c.member = g.member AND c."day" = g.period'
    )
