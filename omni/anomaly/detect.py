"""Anomalous days of daily series: one-step expectation, robust scale, tail probability, grouping.

Every day is judged by the days before it only, so a verdict does not change when later days arrive and
a rerun gives the same alerts (whether a series counts things, and whether it can be negative, is read off
the whole of it). Values that cannot be negative are worked on as 2·√value, where counts have
a standard deviation near one at every level (Anscombe 1948) and money is far less skewed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

from omni.errors import SchemaError
from omni.warehouse.connection import Connection

Values = npt.NDArray[np.float64]

ALERTS: dict[str, pl.DataType] = {
    "day": pl.Date(),
    "value": pl.Float64(),
    "expected": pl.Float64(),
    "lower": pl.Float64(),
    "upper": pl.Float64(),
    "score": pl.Float64(),
    "severity": pl.String(),
    "direction": pl.String(),
}
ANOMALIES: dict[str, pl.DataType] = {
    "metric": pl.String(),
    "dimension": pl.String(),
    "member": pl.String(),
    **ALERTS,
}


@dataclass(frozen=True)
class Detector:
    """What counts as anomalous. Days are calendar days.

    Attributes:
        alpha: tail probability below which a day is flagged, per series and day.
        critical: tail probability below which a flagged day is `critical`, else `warning`.
        warm_up: days seen before the first expectation, and again residuals before the first flag.
        level: days whose median is the level.
        season: days from which the weekday profile is taken.
        memory: days of past residuals from which scale and tail are taken.
        refractory: days after a flag in which the same direction is flagged only if clearly worse.
    """

    alpha: float = 0.003
    critical: float = 1e-6
    warm_up: int = 28
    level: int = 14
    season: int = 56
    memory: int = 180
    refractory: int = 7


def detect(series: pl.DataFrame, detector: Detector = Detector()) -> pl.DataFrame:
    """Flag the anomalous days of one daily series.

    Null and non-finite values, days that are absent, and days after which more than half of the last
    `season` days are zero are not judged; neither are the first `2 * warm_up` days. So a short, constant
    or empty series has no anomalies.

    Args:
        series: `day` (Date, each at most once, any order) and `value` (numeric).

    Returns:
        One row per flagged day, by day: value, expected, lower, upper (what would not have been flagged),
        score (-log10 of the tail probability), severity (`warning`, `critical`), direction (`up`, `down`).

    Raises:
        SchemaError: a column is missing or of another type, or a day comes twice.
    """
    days, values = _calendar(series)
    observed = values[np.isfinite(values)]
    if observed.size < 2 * detector.warm_up:
        return pl.DataFrame(schema=ALERTS)
    scale_of = _Scale(signed=bool(observed.min() < 0), counts=bool((observed == np.rint(observed)).all()))
    expected, residuals = _one_step(scale_of.forward(values), values, detector)
    rows = []
    last: dict[str, tuple[int, float]] = {}
    for index in np.flatnonzero(np.isfinite(residuals)):
        verdict = _judge(int(index), expected, residuals, scale_of, detector)
        if verdict is None:
            continue
        direction, score, lower, upper = verdict
        flagged, previous = last.get(direction, (-detector.refractory - 1, 0.0))
        if index - flagged <= detector.refractory and score <= 1.5 * previous:
            continue
        last[direction] = (int(index), score)
        severity = "critical" if score >= -math.log10(detector.critical) else "warning"
        middle = scale_of.backward(expected[index])
        rows.append((days[index], values[index], middle, lower, upper, score, severity, direction))
    return pl.DataFrame(rows, schema=ALERTS, orient="row")


def detect_all(
    con: Connection,
    metrics: Sequence[str],
    *,
    through: date | None = None,
    detector: Detector = Detector(),
) -> pl.DataFrame:
    """Flag the anomalous days of metrics' totals in `metrics.daily`.

    Args:
        con: a warehouse that has `metrics.daily`.
        metrics: names of the metrics to watch; one without rows has no anomalies.
        through: last complete day; later days are left out.

    Returns:
        Columns as `ANOMALIES`, sorted by metric and day.
    """
    daily = con.execute(
        """
        SELECT metric, day, value FROM metrics.daily
        WHERE dimension = '' AND metric = ANY($metrics) AND day <= coalesce(CAST($through AS DATE), day)
        ORDER BY metric, day
        """,
        {"metrics": list(metrics), "through": through},
    ).pl()
    found = [
        detect(series.select("day", "value"), detector).select(
            pl.lit(metric).alias("metric"),
            pl.lit("").alias("dimension"),
            pl.lit("").alias("member"),
            pl.all(),
        )
        for (metric,), series in daily.group_by("metric", maintain_order=True)
    ]
    return pl.concat([pl.DataFrame(schema=ANOMALIES), *found])


@dataclass(frozen=True)
class _Scale:
    """The scale a series is worked on: as it is when it has negative values, else 2·√value."""

    signed: bool
    counts: bool

    def forward(self, values: Values) -> Values:
        return values if self.signed else 2 * np.sqrt(values)

    def backward(self, value: float) -> float:
        return float(value) if self.signed else float((max(value, 0.0) / 2) ** 2)


def _calendar(series: pl.DataFrame) -> tuple[list[date], Values]:
    """The series on consecutive days; what is absent, null or not finite is NaN."""
    missing = {"day", "value"} - set(series.columns)
    if missing or series.schema["day"] != pl.Date or not series.schema["value"].is_numeric():
        raise SchemaError(
            f"A daily series needs day (Date) and value (a number), found {dict(series.schema)}."
        )
    known = series.drop_nulls("day").sort("day")
    twice = known.filter(known["day"].is_duplicated())["day"]
    if twice.len():
        raise SchemaError(f"A daily series holds {twice[0]} more than once: sum or pick one value per day.")
    if not known.height:
        return [], np.empty(0)
    days = pl.date_range(known["day"][0], known["day"][-1], eager=True)
    values = pl.DataFrame({"day": days}).join(known, on="day", how="left", maintain_order="left")["value"]
    array = values.cast(pl.Float64).to_numpy().astype(np.float64)
    return days.to_list(), np.where(np.isfinite(array), array, np.nan)


def _one_step(work: Values, values: Values, detector: Detector) -> tuple[Values, Values]:
    """Expectation of each day from the days before it, and what was left over.

    Args:
        work: the series on its working scale, NaN where unknown.
        values: the series itself.

    Returns:
        expected and residual per day, NaN where a day cannot be judged.
    """
    size = work.size
    expected = np.full(size, np.nan)
    season = np.full(size, np.nan)
    for day in range(3, size - 3):
        week = work[day - 3 : day + 4]
        if np.isfinite(week).all():
            season[day] = work[day] - np.median(week)
    weekday = np.arange(size) % 7
    for day in range(detector.warm_up, size):
        # A centred week ends three days later: only those complete before `day` may be used.
        recent = slice(max(0, day - detector.season), day - 3)
        profile = _profile(season[recent], weekday[recent])
        past = slice(max(0, day - detector.level), day)
        flat = work[past] - profile[weekday[past]]
        known = flat[np.isfinite(flat)]
        window = values[max(0, day - detector.season) : day]
        window = window[np.isfinite(window)]
        if 2 * known.size < detector.level or 2 * np.count_nonzero(window) <= window.size:
            continue
        expected[day] = np.median(known) + profile[weekday[day]]
    return expected, work - expected


def _profile(season: Values, weekday: npt.NDArray[np.int64]) -> Values:
    """Typical offset of each weekday, drawn towards none where few weeks are known."""
    profile = np.zeros(7)
    for number in range(7):
        offsets = season[(weekday == number) & np.isfinite(season)]
        if offsets.size:
            profile[number] = np.median(offsets) * offsets.size / (offsets.size + 1)
    return profile


def _judge(
    day: int, expected: Values, residuals: Values, scale_of: _Scale, detector: Detector
) -> tuple[str, float, float, float] | None:
    """Direction, score, lower and upper bound of a day outside its bounds, else None."""
    past = np.abs(residuals[max(0, day - detector.memory) : day])
    past = past[np.isfinite(past)]
    if past.size < detector.warm_up:
        return None
    # Counts vary at least as a Poisson variable does; anything else by a hundredth of its level.
    floor = max(1.0 if scale_of.counts and not scale_of.signed else 0.0, 0.01 * abs(expected[day]))
    scale = max(1.4826 * float(np.median(past)), floor)
    if scale == 0.0:
        return None
    start, mean_excess = _tail(past / scale)
    limit = start + mean_excess * math.log(0.1 / detector.alpha)
    size = abs(residuals[day]) / scale
    if size <= limit:
        return None
    score = 1.0 + (size - start) / mean_excess * math.log10(math.e)
    lower = scale_of.backward(expected[day] - limit * scale)
    upper = scale_of.backward(expected[day] + limit * scale)
    return ("up" if residuals[day] > 0 else "down"), score, lower, upper


def _tail(sizes: Values) -> tuple[float, float]:
    """Start and mean excess of an exponential tail that a tenth of the residuals reach.

    Peaks over the 90 % quantile; the mean excess is taken from their median, so past anomalies do not
    raise it much. Both are at least those of normal residuals (1.645 and 0.42).
    """
    start = float(np.quantile(sizes, 0.9))
    excess = sizes[sizes > start] - start
    mean_excess = float(np.median(excess)) / math.log(2) if excess.size else 0.0
    return max(start, 1.645), max(mean_excess, 0.42)
