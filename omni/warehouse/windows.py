"""Windows of incremental models: which of them a changed day reopens, and when each was built."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from omni.warehouse.connection import Connection
from omni.warehouse.models import Header, Model

Window = Literal["day", "week", "month"]
DAY = timedelta(days=1)
LENGTHS = {"day": 1, "week": 7, "month": 31}


def start_of(day: date, window: Window) -> date:
    """The first day of the window that holds `day`; weeks begin on Monday."""
    if window == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if window == "month" else day


def end_of(start: date, window: Window) -> date:
    """The day after the last of the window that begins on `start`."""
    if window == "month":
        return (start + timedelta(days=31)).replace(day=1)
    return start + timedelta(days=LENGTHS[window])


def windows_between(since: date, until: date, window: Window) -> list[date]:
    """First days of all windows that share a day with [since, until)."""
    found = []
    start = start_of(since, window)
    while start < until:
        found.append(start)
        start = end_of(start, window)
    return found


def reopened(header: Header, changed: Iterable[date], parent: Header | None) -> set[date]:
    """First days of the windows that rows of the changed days can be part of.

    Args:
        header: of the model to rebuild.
        changed: days recorded for one of its inputs.
        parent: that input's header if it is a model; a change of its week or month is one of all its days.
    """
    days = set(changed)
    if parent is not None and LENGTHS[parent.window] > LENGTHS[header.window]:
        days = {
            start + DAY * ahead
            for start in days
            for ahead in range((end_of(start, parent.window) - start).days)
        }
    return {start_of(day + DAY * back, header.window) for day in days for back in header.lookbacks}


def batches(windows: Sequence[date], window: Window, days: int) -> Iterator[list[date]]:
    """The windows in groups of about `days` days, each of at least one window."""
    size = max(1, days // LENGTHS[window])
    for first in range(0, len(windows), size):
        yield list(windows[first : first + size])


def record_windows(con: Connection, model: Model, windows: Collection[date] | None, run_id: str) -> None:
    """Note that windows of a model (None: all it has) were built, inside the transaction that swaps them in.

    A window without rows is noted too: that it was built and is empty is worth knowing.
    """
    column, now = model.header.time_column, datetime.now(UTC)
    counted = f'SELECT "{column}" AS start, count(*) AS n FROM {model.name}'
    if windows is None:
        con.execute("DELETE FROM ops.windows WHERE model = $1", [model.name])
        con.execute(
            f"INSERT INTO ops.windows SELECT $1, start, $2, n, $3 FROM ({counted} GROUP BY 1) AS built "
            "WHERE start IS NOT NULL",
            [model.name, run_id, now],
        )
        return
    starts = listed(windows)
    con.execute(f"DELETE FROM ops.windows WHERE model = $1 AND window_start IN ({starts})", [model.name])
    found: Mapping[date, int] = dict(
        con.execute(f'{counted} WHERE "{column}" IN ({starts}) GROUP BY 1').fetchall()
    )
    rows = ", ".join(f"(DATE '{start.isoformat()}', {found.get(start, 0)})" for start in sorted(windows))
    con.execute(
        f"INSERT INTO ops.windows SELECT $1, start, $2, n, $3 FROM (VALUES {rows}) AS built(start, n)",
        [model.name, run_id, now],
    )


def listed(days: Iterable[date]) -> str:
    """Days as SQL literals with commas between them."""
    return ", ".join(f"DATE '{day.isoformat()}'" for day in sorted(days))
