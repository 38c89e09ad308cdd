"""Questions to metrics and their answers: what the command line, the assistant and interfaces ask through.

A question is a typed object, never SQL. Its answer says, besides the numbers, how far the data go, which
periods are not over, which numbers are estimates and what may not be added up.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal

import duckdb
from pydantic import Field

from omni.bi.metrics import Metric, Unit, adds_up, dimensions_of, is_approximate
from omni.bi.periods import Grain, end_of
from omni.bi.queries import Compare, compile_answer
from omni.bi.series import Snapshot, open_for_reading
from omni.errors import ConfigError
from omni.tenancy import Tenant
from omni.warehouse.versions import complete_through
from omni.yamlfile import Declaration

MAX_ROWS = 50_000


class MetricQuery(Declaration):
    """One question to one or several metrics.

    `metrics` are names, titles or synonyms. `by` are dimensions that all of them have. `grain: all` is the
    whole range as one number. `until` is the first day that no longer counts. `where` compares dimensions
    with values: `channel = 'web' AND country IN ('DE', 'AT')`.
    """

    metrics: list[str] = Field(min_length=1, max_length=12)
    by: list[str] = Field([], max_length=4)
    grain: Grain = "month"
    since: date | None = None
    until: date | None = None
    where: str | None = Field(None, max_length=2000)
    compare: Compare | None = Field(None, description="the period before, or the same period of last year")


@dataclass(frozen=True)
class Column:
    """A column of an answer: what it is, and of values their unit and whether they are estimates (≈)."""

    name: str
    title: str
    kind: Literal["period", "dimension", "value", "before"]
    unit: Unit | None = None
    approximate: bool = False
    metric: str | None = None


@dataclass(frozen=True)
class Answer:
    """The answer to a question.

    Attributes:
        query: the question, metrics by their names and the range as it was taken.
        sql: what was run.
        columns: of `rows`, in order.
        rows: the period's first day, dimensions, values; ordered by period and dimensions.
        complete: of every row, whether the whole of its period is in it.
        complete_through: the last day that is over and fully loaded, as far as that is known.
        as_of: when the newest data were loaded, in the company's zone.
        currency: of values whose unit is currency.
        notes: what a reader should know.
    """

    query: MetricQuery
    sql: str
    columns: tuple[Column, ...]
    rows: list[tuple[Any, ...]]
    complete: list[bool]
    complete_through: date | None
    as_of: datetime | None
    currency: str
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        names = [column.name for column in self.columns]
        return {
            "query": self.query.model_dump(mode="json"),
            "complete_through": self.complete_through.isoformat() if self.complete_through else None,
            "as_of": self.as_of.isoformat() if self.as_of else None,
            "currency": self.currency,
            "notes": list(self.notes),
            "columns": [
                {k: v for k, v in vars(column).items() if v not in (None, False)} for column in self.columns
            ],
            "rows": [
                {n: v.isoformat() if isinstance(v, date) else v for n, v in zip(names, row, strict=True)}
                | {"complete": whole}
                for row, whole in zip(self.rows, self.complete, strict=True)
            ],
        }


def list_metrics(metrics: Mapping[str, Metric]) -> list[dict[str, Any]]:
    """What can be asked for, as plain values: for people who choose and for an assistant."""
    return [describe(metric, metrics) for metric in sorted(metrics.values(), key=lambda m: m.name)]


def describe(metric: Metric, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """One metric as plain values: what it means, how it is made, what it can be split by."""
    return {
        "name": metric.name,
        "title": metric.title,
        "description": metric.description,
        "synonyms": metric.synonyms,
        "unit": metric.unit,
        "direction": metric.direction,
        "measure": metric.measure.model_dump(exclude_none=True),
        "additivity": "additive" if adds_up(metric, metrics) else metric.additivity,
        "approximate": is_approximate(metric, metrics),
        "dimensions": dimensions_of(metric, metrics),
        "made_of": list(metric.parts),
        "model": metric.model,
        "filter": metric.filter,
        "time_column": metric.time_column,
        "owner": metric.owner,
    }


def find_metric(name: str, metrics: Mapping[str, Metric]) -> Metric:
    """A metric by its name, title or synonym.

    Raises:
        ConfigError: there is none, or a synonym is shared; the message names those that are meant.
    """
    if name in metrics:
        return metrics[name]
    asked = name.strip().lower()
    called: dict[str, list[str]] = {}
    for metric in metrics.values():
        for word in {metric.title.lower(), *(synonym.lower() for synonym in metric.synonyms), metric.name}:
            called.setdefault(word, []).append(metric.name)
    found = called.get(asked, [])
    if len(found) == 1:
        return metrics[found[0]]
    if found:
        raise ConfigError(f"{name!r} may be {' or '.join(sorted(found))}; ask for one of them")
    close = difflib.get_close_matches(asked, called, n=1)
    hint = f"; did you mean {called[close[0]][0]}?" if close else ""
    raise ConfigError(f"No metric {name!r}{hint} (`omni metrics list` lists them)")


def answer(
    con: duckdb.DuckDBPyConnection, metrics: Mapping[str, Metric], tenant: Tenant, query: MetricQuery
) -> Answer:
    """Answer a question from a published snapshot.

    Args:
        con: the snapshot (`omni.warehouse.publish.open_snapshot`).
        metrics: every metric by name (`omni.bi.metrics.metrics`).
        tenant: whose snapshot it is; its zone and currency.
        query: the question.

    Raises:
        ConfigError: an unknown metric or dimension, metrics without the dimension in common, a condition that
            is not allowed, a range that is empty, or more than `MAX_ROWS` rows.
    """
    asked = list({m.name: m for m in (find_metric(name, metrics) for name in query.metrics)}.values())
    _refuse_foreign_dimensions(asked, metrics, query)
    snapshot = open_for_reading(con, metrics, tenant.timezone)
    if missing := [metric.name for metric in asked if not snapshot.available(metric)]:
        raise ConfigError(
            f"The published snapshot has no {', '.join(missing)} yet. "
            f"Run `omni nightly --company {tenant.tenant}`"
        )
    through = _through(snapshot, tenant)
    query = _with_range(
        query.model_copy(update={"metrics": [m.name for m in asked]}), snapshot, asked, through
    )
    sql = compile_answer(
        asked, metrics, grain=query.grain, by=query.by, since=query.since, until=query.until,
        where=query.where, compare=query.compare,
    )  # fmt: skip
    rows = con.execute(sql).fetchmany(MAX_ROWS + 1)
    if len(rows) > MAX_ROWS:
        raise ConfigError(
            f"More than {MAX_ROWS:,} rows; ask by a longer grain, a shorter range or fewer dimensions"
        )
    complete = [_is_complete(row[0], query, asked, metrics, through) for row in rows]
    return Answer(
        query, sql, _columns(asked, metrics, query), rows, complete, through, snapshot.as_of, tenant.currency,
        tuple(_notes(asked, metrics, query, complete, through)),
    )  # fmt: skip


def ask(tenant: Tenant, query: MetricQuery) -> Answer:
    """Answer a question about a tenant, with the project's metrics.

    Raises:
        ConfigError: as `answer`, or nothing is published yet.
    """
    from omni.bi.metrics import metrics
    from omni.warehouse.publish import open_snapshot

    with open_snapshot(tenant) as con:
        return answer(con, metrics(), tenant, query)


def _refuse_foreign_dimensions(
    asked: list[Metric], metrics: Mapping[str, Metric], query: MetricQuery
) -> None:
    if len(asked) < 2:
        return
    shared = [
        d for d in dimensions_of(asked[0], metrics) if all(d in dimensions_of(m, metrics) for m in asked)
    ]
    for dimension in query.by:
        lacking = [m.name for m in asked if dimension not in dimensions_of(m, metrics)]
        if lacking and len(lacking) < len(asked):
            raise ConfigError(
                f"{', '.join(lacking)} cannot be split by {dimension!r}; together "
                f"{', '.join(m.name for m in asked)} have: {', '.join(shared) or 'no dimensions'}. "
                "Ask for them one by one"
            )


def _through(snapshot: Snapshot, tenant: Tenant) -> date | None:
    known = complete_through(snapshot.con, tenant.timezone) if "ops.cursors" in snapshot.tables else None
    return known or (snapshot.as_of.date() - timedelta(days=1) if snapshot.as_of else None)


def _with_range(
    query: MetricQuery, snapshot: Snapshot, asked: list[Metric], through: date | None
) -> MetricQuery:
    """A whole range needs both ends: by default all there is, up to the last day that is over."""
    if query.grain != "all" or (query.since and query.until):
        return query
    firsts = [day for day in (snapshot.first_day(metric) for metric in asked) if day]
    lasts = [day for day in (snapshot.last_day(metric) for metric in asked) if day]
    last = through or max(lasts, default=None)
    since = query.since or min(firsts, default=None)
    until = query.until or (last + timedelta(days=1) if last else None)
    if since is None or until is None:
        raise ConfigError(f"{', '.join(m.name for m in asked)} has no values yet; give --since and --until")
    return query.model_copy(update={"since": since, "until": until})


def _is_complete(
    period: date, query: MetricQuery, asked: list[Metric], metrics: Mapping[str, Metric], through: date | None
) -> bool:
    """Whether every day of the period is in the range and over, conversions' time to convert included."""
    if query.grain == "all":
        assert query.until is not None
        last = query.until - timedelta(days=1)
    else:
        last = end_of(period, query.grain)
    within = not (query.since and period < query.since) and not (query.until and last >= query.until)
    waits = max(_waits(metric, metrics) for metric in asked)
    return within and through is not None and last + timedelta(days=waits) <= through


def _waits(metric: Metric, metrics: Mapping[str, Metric]) -> int:
    own = (metric.measure.days or 0) if metric.measure.agg == "conversion" else 0
    return max([own, *(_waits(metrics[part], metrics) for part in metric.parts)])


def _columns(asked: list[Metric], metrics: Mapping[str, Metric], query: MetricQuery) -> tuple[Column, ...]:
    columns = [Column("period", "Period" if query.grain == "all" else query.grain.capitalize(), "period")]
    columns += [Column(d, d.replace("_", " ").replace(".", " ").capitalize(), "dimension") for d in query.by]
    for metric in asked:
        about = is_approximate(metric, metrics)
        columns.append(Column(metric.name, metric.title, "value", metric.unit, about, metric.name))
        if query.compare:
            before = f"{metric.title}, {'a year' if query.compare == 'last_year' else 'period'} before"
            columns.append(
                Column(f"{metric.name}__before", before, "before", metric.unit, about, metric.name)
            )
    return tuple(columns)


def _notes(
    asked: list[Metric],
    metrics: Mapping[str, Metric],
    query: MetricQuery,
    complete: list[bool],
    through: date | None,
) -> list[str]:
    notes = []
    for metric in asked:
        if is_approximate(metric, metrics):
            notes.append(f"≈ {metric.title} is an estimate: a sketch, a few per cent off.")
        if metric.semi_additive:
            notes.append(
                f"{metric.title} is a state: its {metric.semi_additive.take} value in a period. "
                "Periods do not add up; members do."
            )
        elif not adds_up(metric, metrics):
            notes.append(f"{metric.title} does not add up over periods or members.")
    if not all(complete):
        if through is None:
            notes.append("How far the data are complete is not known.")
        else:
            notes.append(f"Periods marked … are not whole: data are complete through {through.isoformat()}.")
    if query.compare == "last_year" and query.grain == "week":
        notes.append("A year before is 52 weeks before, so that weekdays agree.")
    return notes
