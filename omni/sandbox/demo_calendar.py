"""When the demo company lives: its days, seasons, clock and the days on which something went wrong."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from omni.sandbox.company import DAY_SECONDS, Anomaly, end_of_day

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SEED = 20_241_101
ZONE = "Europe/Berlin"
START = date(2024, 11, 1)
END = date(2026, 10, 31)
DAYS = (END - START).days + 1

ORDER_FACTORS = {
    date(2025, 6, 13): 3.8,
    date(2025, 11, 28): 3.6,
    date(2026, 7, 10): 3.5,
    date(2025, 10, 7): 0.02,
    date(2026, 3, 10): 0.02,
    date(2026, 10, 13): 0.02,
}
"""Promotions (above 1) and outages of the shop (below 1): factor on the day's expected number of orders."""

RECALL_DAY = date(2026, 5, 19)
"""A recalled product is paid back to everybody on one day."""

_WEEK = (1.05, 1.0, 0.98, 1.0, 0.94, 0.86, 1.17)
_HOURS = (2, 1, 0, 0, 0, 0, 1, 3, 5, 6, 6, 6, 7, 6, 6, 6, 7, 8, 9, 10, 10, 8, 6, 4)


def rng(part: str) -> np.random.Generator:
    """The generator of one part of the company: parts do not disturb each other's draws."""
    return np.random.default_rng([SEED, *part.encode()])


def day_index(day: date) -> int:
    """Days since the company's first."""
    return (day - START).days


def horizon(until: date | None) -> int:
    """First second (UTC, since the epoch) that has not happened."""
    return end_of_day(min(until or END, END))


def orders_expected(total: float) -> Floats:
    """Expected orders per day, shape (DAYS,), summing to `total` before anomalies.

    Growth times week times year: most before Christmas, least in summer.
    """
    days = np.arange(DAYS)
    weekday = np.array([(START + timedelta(days=int(d))).weekday() for d in days])
    phase = 2 * np.pi * (days - day_index(date(2024, 12, 5))) / 365.25
    level = np.exp(0.55 * days / DAYS) * (1 + 0.22 * np.cos(phase) + 0.06 * np.cos(2 * phase))
    level *= np.array(_WEEK)[weekday]
    level *= total / level.sum()
    for day, factor in ORDER_FACTORS.items():
        level[day_index(day)] *= factor
    return np.asarray(level, dtype=np.float64)


def seconds_of_day(generator: np.random.Generator, size: int) -> Ints:
    """Local times of day at which shoppers are awake; never 02:00-05:59, where clocks change."""
    hours = generator.choice(24, size=size, p=np.array(_HOURS) / sum(_HOURS))
    return np.asarray(hours * 3600 + generator.integers(0, 3600, size), dtype=np.int64)


def to_epoch(days: npt.ArrayLike, seconds: npt.ArrayLike) -> Ints:
    """Local day indices and seconds of day to seconds since the epoch, clock changes heeded."""
    day, second = np.asarray(days, dtype=np.int64), np.asarray(seconds, dtype=np.int64)
    first = end_of_day(START) - DAY_SECONDS
    offsets = np.where(second < 2 * 3600, _EARLY[day], _NOON[day])
    return np.asarray(first + day * DAY_SECONDS + second - offsets, dtype=np.int64)


def _offsets(at: time) -> Ints:
    zone = ZoneInfo(ZONE)
    moments = (datetime.combine(START + timedelta(days=d), at, zone) for d in range(DAYS))
    return np.array([int(m.utcoffset().total_seconds()) for m in moments], dtype=np.int64)  # type: ignore[union-attr]


_EARLY, _NOON = _offsets(time(0, 30)), _offsets(time(12))


def anomalies() -> tuple[Anomaly, ...]:
    """The injected anomalies, oldest first."""
    found = [Anomaly("refunds", RECALL_DAY, "up")]
    for day, factor in ORDER_FACTORS.items():
        found += [Anomaly(metric, day, "up" if factor > 1 else "down") for metric in ("orders", "revenue")]
    return tuple(sorted(found, key=lambda a: (a.day, a.metric)))
