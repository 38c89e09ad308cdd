"""Calendar periods: where they begin and end, and how far back a comparison looks."""

from __future__ import annotations

import calendar
from datetime import date, timedelta
from typing import Literal

from omni.bi.measures import Shift

Grain = Literal["day", "week", "month", "quarter", "year", "all"]
"""Length of a period; weeks begin on Monday, `all` is a whole range as one."""

_MONTHS = {"month": 1, "quarter": 3, "year": 12}


def start_of(day: date, grain: Grain) -> date:
    """The first day of the period that a day belongs to."""
    if grain == "week":
        return day - timedelta(days=day.weekday())
    if grain in _MONTHS:
        months = _MONTHS[grain]
        return date(day.year, (day.month - 1) // months * months + 1, 1)
    return day


def end_of(start: date, grain: Grain) -> date:
    """The last day of the period that begins on `start`."""
    if grain == "week":
        return start + timedelta(days=6)
    if grain in _MONTHS:
        return back(start, Shift(months=-_MONTHS[grain])) - timedelta(days=1)
    return start


def back(day: date, shift: Shift) -> date:
    """The day that lies `shift` before; the month's last day where it has no such day."""
    if not shift.months:
        return day - timedelta(days=shift.days)
    index = day.year * 12 + day.month - 1 - shift.months
    year, month = divmod(index, 12)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def step_of(grain: Grain) -> Shift:
    """From a period to the one before."""
    if grain in _MONTHS:
        return Shift(months=_MONTHS[grain])
    return Shift(days=7 if grain == "week" else 1)


def shift_for(grain: Grain, shift: Shift) -> Shift:
    """A shift in whole periods of a grain; of weeks, a year is 52, so that weekdays agree.

    Raises:
        ValueError: it is no whole number of periods.
    """
    if grain == "week" and shift.months and shift.months % 12 == 0:
        return Shift(days=364 * (shift.months // 12))
    whole = {
        "day": True,
        "week": bool(shift.days) and shift.days % 7 == 0,
        "all": False,
    }.get(grain, bool(shift.months) and shift.months % _MONTHS.get(grain, 1) == 0)
    if not whole:
        raise ValueError(f"{shift} is no whole number of periods of grain {grain}")
    return shift
