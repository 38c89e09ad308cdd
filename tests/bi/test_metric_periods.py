"""Comparisons of periods: leap days, lengths of months, weeks across years, growth, conversion, gaps."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from omni.bi.daily import models_of
from omni.bi.measures import Shift
from omni.bi.metrics import Metric
from omni.bi.periods import Grain, back, end_of, shift_for, start_of, step_of
from omni.bi.queries import compile_answer, compile_query

GRAINS: list[Grain] = ["day", "week", "month", "quarter", "year"]
COMMON = {"description": "d", "owner": "a@demo.example", "unit": "count"}
READ = {"model": "core.visits", "time_column": "seen_on", "dimensions": ["channel"]}


def metric(name: str, measure: dict[str, Any], read: dict[str, Any] | None = None) -> Metric:
    return Metric.model_validate(COMMON | {"name": name, "title": name, "measure": measure} | (read or {}))


METRICS = {
    m.name: m
    for m in [
        metric("visits", {"agg": "count"}, READ),
        metric("growth", {"agg": "change", "metric": "visits", "offset": "1y", "form": "relative"}),
        metric("monthly_change", {"agg": "change", "metric": "visits", "offset": "1m"}),
        metric("total", {"agg": "cumulative", "metric": "visits"}),
        metric("trailing", {"agg": "cumulative", "metric": "visits", "window": "7d"}),
        metric(
            "converted",
            {"agg": "conversion", "column": "who", "first": "what = 'view'", "then": "what = 'buy'"}
            | {"within": "2d"},
            READ,
        ),
    ]
}  # fmt: skip


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("CREATE SCHEMA core; CREATE SCHEMA metrics")
        connection.execute("CREATE TABLE core.visits (seen_on DATE, channel TEXT, who TEXT, what TEXT)")
        yield connection


def fill(con: duckdb.DuckDBPyConnection, visits: dict[str, int], *more: tuple[str, str, str, str]) -> None:
    """So many visits on so many days, and single ones: day, channel, who, what."""
    rows = [(day, "web", "x", "view") for day, n in visits.items() for _ in range(n)]
    con.executemany("INSERT INTO core.visits VALUES (?, ?, ?, ?)", [*rows, *more])
    for model in models_of(METRICS, {}).values():
        what = "VIEW" if model.header.kind == "view" else "TABLE"
        con.execute(f"CREATE {what} {model.name} AS {model.sql}")


def compared(con: duckdb.DuckDBPyConnection, **request: Any) -> dict[str, tuple[Any, Any]]:
    rows = con.execute(compile_answer([METRICS["visits"]], METRICS, **request)).fetchall()
    return {str(row[0]): (row[-2], row[-1]) for row in rows}


def test_a_leap_day_has_no_day_a_year_before_and_is_none(con: duckdb.DuckDBPyConnection) -> None:
    fill(
        con,
        {
            "2023-02-28": 1,
            "2024-02-28": 2,
            "2024-02-29": 3,
            "2024-03-01": 4,
            "2025-02-28": 5,
            "2025-03-01": 6,
        },
    )
    asked = {"grain": "day", "compare": "last_year"}
    year = compared(con, since=date(2024, 2, 28), until=date(2024, 3, 2), **asked)
    assert year == {"2024-02-28": (2, 1), "2024-02-29": (3, None), "2024-03-01": (4, 0)}
    next_year = compared(con, since=date(2025, 2, 28), until=date(2025, 3, 2), **asked)
    assert next_year == {"2025-02-28": (5, 2), "2025-03-01": (6, 4)}
    growth = con.execute(compile_query(METRICS["growth"], METRICS, grain="day", since=date(2024, 2, 28)))
    assert {str(day): value for day, value in growth.fetchall()}["2024-02-29"] is None


def test_months_of_any_length_are_compared_whole(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, {"2024-01-29": 1, "2024-01-31": 2, "2024-02-29": 5, "2024-03-31": 7})
    assert compared(con, grain="month", compare="previous", since=date(2024, 2, 1)) == {
        "2024-02-01": (5, 3),
        "2024-03-01": (7, 5),
    }
    changed = con.execute(compile_query(METRICS["monthly_change"], METRICS, grain="day")).fetchall()
    by_day = {str(day): value for day, value in changed}
    assert by_day["2024-02-29"] == 5 - 1, "against 29 January"
    assert by_day["2024-03-31"] is None, "there is no 31 February"
    assert by_day["2024-03-29"] == -5
    stored = dict(
        con.execute(
            "SELECT CAST(day AS VARCHAR), value FROM metrics.monthly_change WHERE dimension = ''"
        ).fetchall()
    )
    assert stored == by_day


def test_weeks_across_years_are_compared_with_the_same_weekdays(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, {"2023-12-31": 1, "2024-01-01": 2, "2024-12-30": 4, "2025-01-05": 8})
    weeks = compared(con, grain="week", compare="last_year", since=date(2024, 12, 30))
    assert weeks == {"2024-12-30": (12, 2)}, "30 December 2024 to 5 January, against 1 to 7 January 2024"
    previous = compared(con, grain="week", compare="previous", since=date(2024, 1, 1), until=date(2024, 1, 8))
    assert previous == {"2024-01-01": (2, 1)}


def test_a_whole_range_is_compared_with_the_days_before_it(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, {"2024-01-01": 1, "2024-01-11": 2, "2024-01-20": 4, "2024-01-21": 8})
    asked = {"grain": "all", "since": date(2024, 1, 11), "until": date(2024, 1, 21)}
    assert compared(con, compare="previous", **asked) == {"2024-01-11": (6, 1)}


def test_a_period_without_its_forerunner_is_compared_with_nothing(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, {"2024-01-10": 1, "2024-03-10": 2})
    assert compared(con, grain="month", compare="previous") == {
        "2024-01-01": (1, None),
        "2024-02-01": (0, 1),
        "2024-03-01": (2, 0),
    }


def test_running_totals_go_on_over_gaps(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, {"2024-01-01": 1, "2024-01-20": 2})
    total = compile_query(METRICS["total"], METRICS, grain="week", since=date(2024, 1, 8))
    assert [value for _, value in con.execute(total).fetchall()] == [1, 3]
    trailing = dict(con.execute(compile_query(METRICS["trailing"], METRICS, grain="day")).fetchall())
    assert trailing[date(2024, 1, 7)] == 1
    assert trailing[date(2024, 1, 8)] == 0


def test_who_buys_within_the_days_converts_once(con: duckdb.DuckDBPyConnection) -> None:
    fill(
        con, {},
        ("2024-01-01", "web", "a", "view"), ("2024-01-01", "web", "a", "view"),
        ("2024-01-03", "web", "a", "buy"), ("2024-01-01", "web", "b", "view"),
        ("2024-01-04", "web", "b", "buy"),
        ("2024-01-02", "ad", "c", "view"), ("2024-01-01", "ad", "c", "buy"),
    )  # fmt: skip
    for source in ("rollup", "model"):
        query = compile_query(METRICS["converted"], METRICS, grain="day", by=["channel"], source=source)
        found = {(str(day), member): value for day, member, value in con.execute(query).fetchall()}
        assert found == {("2024-01-01", "web"): 0.5, ("2024-01-02", "ad"): 0.0}
    week = compile_query(METRICS["converted"], METRICS, grain="week", source="rollup")
    assert con.execute(week).fetchall() == [(date(2024, 1, 1), pytest.approx(1 / 3))]


DAYS = st.dates(date(1999, 1, 1), date(2101, 1, 1))


@examples(derandomize=True, max_examples=60)
@given(day=DAYS, grain=st.sampled_from(GRAINS))
def test_periods_tile_the_calendar(day: date, grain: Grain) -> None:
    start = start_of(day, grain)
    end = end_of(start, grain)
    assert start <= day <= end
    assert start_of(end, grain) == start
    assert start_of(end + timedelta(days=1), grain) == end + timedelta(days=1)
    assert back(end + timedelta(days=1), step_of(grain)) == start


def test_a_shift_is_whole_periods_or_refused() -> None:
    assert shift_for("week", Shift.of("1y")) == Shift(days=364)
    assert shift_for("quarter", Shift.of("1y")) == Shift(months=12)
    for grain, offset in (("week", "1m"), ("month", "4w"), ("quarter", "1m"), ("year", "6m"), ("all", "1y")):
        with pytest.raises(ValueError, match="no whole number of periods"):
            shift_for(grain, Shift.of(offset))  # type: ignore[arg-type]
