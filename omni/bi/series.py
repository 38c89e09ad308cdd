"""What a panel draws, read from a published snapshot: series by period and member, totals of windows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import duckdb

from omni.bi.board import MAX_MEMBERS, stacks, sums
from omni.bi.metrics import Metric
from omni.bi.periods import Grain
from omni.bi.periods import end_of as period_end
from omni.bi.periods import start_of as period_start
from omni.bi.queries import compile_query

OTHER = "all others"


@dataclass(frozen=True)
class Snapshot:
    """A published warehouse, and what is known of its age.

    Attributes:
        con: a read-only connection.
        metrics: every metric by name.
        tables: `schema.table` of each table and view in it.
        as_of: when its newest data were loaded, in the company's zone; None before the first load.
    """

    con: duckdb.DuckDBPyConnection
    metrics: Mapping[str, Metric]
    tables: frozenset[str]
    as_of: datetime | None

    def last_day(self, metric: Metric) -> date | None:
        """The last day of a metric that is over: later loads will not add to it unless data come late."""
        if not self.available(metric):
            return None
        row = self.con.execute(
            f"SELECT max(day) FROM {metric.table} WHERE dimension = '' AND value IS NOT NULL "
            "AND ($1 IS NULL OR day < $1)",
            [self.as_of.date() if self.as_of else None],
        ).fetchone()
        return row[0] if row else None

    def first_day(self, metric: Metric) -> date | None:
        """The first day a metric has a value for."""
        if not self.available(metric):
            return None
        row = self.con.execute(
            f"SELECT min(day) FROM {metric.table} WHERE dimension = '' AND value IS NOT NULL"
        ).fetchone()
        return row[0] if row else None

    def available(self, metric: Metric) -> bool:
        """Whether the metric was rolled up into this snapshot."""
        needed = {metric.table, *(metric.cells(grain) for grain in metric.stored)}
        parts = [self.metrics[part] for part in metric.parts]
        model_is_there = metric.model is None or metric.model in self.tables
        return model_is_there and needed <= self.tables and all(map(self.available, parts))


@dataclass(frozen=True)
class Point:
    """One value; `complete` says whether its whole period is covered."""

    period: date
    member: str
    value: float | None
    complete: bool


def open_for_reading(
    con: duckdb.DuckDBPyConnection, metrics: Mapping[str, Metric], timezone: str
) -> Snapshot:
    """Look at a snapshot once: what is in it and how old it is."""
    rows = con.execute(
        "SELECT table_schema || '.' || table_name FROM information_schema.tables "
        "WHERE table_catalog = current_database()"
    ).fetchall()
    tables = frozenset(row[0] for row in rows)
    loaded = con.execute("SELECT max(loaded_at) FROM ops.loads").fetchone() if "ops.loads" in tables else None
    as_of = loaded[0].astimezone(ZoneInfo(timezone)) if loaded and loaded[0] else None
    return Snapshot(con, metrics, tables, as_of)


def read_series(
    snapshot: Snapshot, metric: Metric, grain: Grain, days: int, dimension: str | None = None
) -> list[Point]:
    """A metric by period, for the last `days` complete days and whole first period.

    With a dimension at most `MAX_MEMBERS` members, largest first; the rest is summed up as `OTHER` where
    values add up, and left out where they do not. Days without a value come as None.
    """
    last = snapshot.last_day(metric)
    if last is None:
        return []
    first = snapshot.first_day(metric) or last
    since = period_start(last - timedelta(days=days - 1), grain)
    query = compile_query(
        metric,
        snapshot.metrics,
        grain=grain,
        by=[dimension] if dimension else [],
        since=since,
        until=last + timedelta(days=1),
    )
    cells: dict[tuple[date, str], float] = {}
    for row in snapshot.con.execute(query).fetchall():
        if row[-1] is not None:
            cells[row[0], str(row[1]) if dimension else ""] = float(row[-1])
    if dimension:
        cells = _largest(cells, adds_up=stacks(metric, snapshot.metrics))
    members = list(dict.fromkeys(member for _, member in cells))
    fill = 0.0 if metric.fills_zero and dimension else None
    return [
        Point(period, member, cells.get((period, member), fill), first <= period and end <= last)
        for member in members
        for period, end in _periods(max(since, period_start(first, grain)), last, grain)
    ]


def _periods(first: date, last: date, grain: Grain) -> list[tuple[date, date]]:
    found = []
    start = first
    while start <= last:
        end = period_end(start, grain)
        found.append((start, end))
        start = end + timedelta(days=1)
    return found


def _largest(cells: dict[tuple[date, str], float], *, adds_up: bool) -> dict[tuple[date, str], float]:
    weight: defaultdict[str, float] = defaultdict(float)
    for (_, member), value in cells.items():
        weight[member] += value if adds_up else 1.0
    ranked = sorted(weight, key=lambda member: (-weight[member], member))
    kept = ranked[:MAX_MEMBERS]
    result = {(p, m): cells[p, m] for m in kept for p in sorted({q for q, n in cells if n == m})}
    if adds_up and len(ranked) > len(kept):
        for (period, member), value in sorted(cells.items()):
            if member not in kept:
                result[period, OTHER] = result.get((period, OTHER), 0.0) + value
    return result


def window_totals(
    snapshot: Snapshot, metric: Metric, first: date, last: date, dimension: str | None = None
) -> dict[str, float]:
    """A metric over the days `first` to `last`, by member ('' without a dimension).

    Only for metrics that `omni.bi.board.sums` allows: sums, and what is computed from the sums of its parts.
    Members without a value are absent.
    """
    assert sums(metric, snapshot.metrics), f"{metric.name} does not add up over days"
    by = [dimension] if dimension else []
    query = compile_query(
        metric, snapshot.metrics, grain="all", by=by, since=first, until=last + timedelta(days=1)
    )
    rows = snapshot.con.execute(query).fetchall()
    return {str(row[1]) if by else "": float(row[-1]) for row in rows if row[-1] is not None}


@dataclass(frozen=True)
class Comparison:
    """A period's value and that of the period before; either may be unknown."""

    first: date
    last: date
    value: float | None
    before: float | None


def compare(snapshot: Snapshot, metric: Metric, grain: Grain | None, days: int) -> Comparison | None:
    """The last window of `days` days, or the last complete period of `grain`, against the one before."""
    last, first = snapshot.last_day(metric), snapshot.first_day(metric)
    if last is None or first is None:
        return None
    if grain is None:
        start = last - timedelta(days=days - 1)
        earlier = start - timedelta(days=days)
        value = window_totals(snapshot, metric, start, last).get("")
        known = earlier >= first
        before = (
            window_totals(snapshot, metric, earlier, start - timedelta(days=1)).get("") if known else None
        )
        return Comparison(start, last, value, before)
    complete = [p for p in read_series(snapshot, metric, grain, 70) if p.complete]
    if not complete:
        return None
    newest = complete[-1]
    before = complete[-2].value if len(complete) > 1 else None
    return Comparison(newest.period, period_end(newest.period, grain), newest.value, before)
