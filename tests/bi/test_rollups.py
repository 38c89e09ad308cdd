"""Rollups equal an independent computation, and sums that mean nothing are refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import duckdb
import polars as pl
import pytest
import sqlglot
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from omni.bi.daily import models_of
from omni.bi.metrics import Metric
from omni.bi.periods import Grain
from omni.bi.queries import compile_query
from omni.errors import ConfigError

pytestmark = pytest.mark.slow

FIRST = date(2024, 2, 26)


def metric(name: str, measure: dict[str, str], **fields: Any) -> Metric:
    own: dict[str, Any] = {} if measure["agg"] == "ratio" else {
        "model": "core.sales", "time_column": "sold_on", "dimensions": ["channel", "country"],
    }  # fmt: skip
    return Metric.model_validate(
        {"name": name, "title": name, "description": name, "owner": "a@demo.example", "unit": "count"}
        | own
        | {"measure": measure}
        | fields
    )


METRICS = {
    m.name: m
    for m in [
        metric("amount", {"agg": "sum", "column": "amount"}, filter="NOT is_void"),
        metric("sales", {"agg": "count"}),
        metric("void_sales", {"agg": "count"}, filter="is_void", dimensions=["channel"]),
        metric("buyers", {"agg": "count_distinct", "column": "buyer"}, filter="NOT is_void"),
        metric("score", {"agg": "average", "column": "score"}),
        metric("basket", {"agg": "ratio", "numerator": "amount", "denominator": "sales"}),
        metric("void_rate", {"agg": "ratio", "numerator": "void_sales", "denominator": "sales"}),
        metric("score_per_buyer", {"agg": "ratio", "numerator": "score", "denominator": "buyers"}),
    ]
}

SALES = st.lists(
    st.fixed_dictionaries(
        {
            "sold_on": st.none() | st.integers(0, 12).map(lambda n: FIRST + timedelta(days=n)),
            "channel": st.sampled_from([None, "web", "store", "(none)", "it's"]),
            "country": st.sampled_from([None, "DE", "AT"]),
            "buyer": st.sampled_from([None, "a", "b", "c"]),
            "cents": st.none() | st.integers(-500, 500),
            "score": st.none() | st.integers(1, 5),
            "is_void": st.booleans(),
        }
    ),
    max_size=25,
)
SCHEMA = {
    "sold_on": pl.Date(), "channel": pl.String(), "country": pl.String(), "buyer": pl.String(),
    "cents": pl.Int64(), "score": pl.Int64(), "is_void": pl.Boolean(),
}  # fmt: skip
LIGHT = examples(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("CREATE SCHEMA core; CREATE SCHEMA metrics")
        yield connection


def load(con: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Store the sales, roll every metric up, and return the sales as the oracle sees them."""
    sales = pl.DataFrame(rows, schema=SCHEMA)
    con.register("given", sales.to_arrow())
    con.execute(
        "CREATE OR REPLACE TABLE core.sales AS "
        "SELECT * EXCLUDE (cents), CAST(cents / 100 AS DECIMAL(18, 2)) AS amount FROM given"
    )
    con.unregister("given")
    for model in models_of(METRICS, {}).values():
        what = "VIEW" if model.header.kind == "view" else "TABLE"
        con.execute(f"CREATE OR REPLACE {what} {model.name} AS {model.sql}")
    return sales.filter(pl.col("sold_on").is_not_null()).with_columns(
        pl.col("channel").fill_null("(none)"), pl.col("country").fill_null("(none)")
    )


def oracle(sales: pl.DataFrame, name: str) -> float | None:
    """One metric of some sales, in plain Polars; None where it has no value."""
    valid = sales.filter(~pl.col("is_void"))
    if name == "amount":
        return float(valid["cents"].sum()) / 100
    if name == "sales":
        return float(len(sales))
    if name == "void_sales":
        return float(sales["is_void"].sum())
    if name == "buyers":
        return float(valid["buyer"].drop_nulls().n_unique())
    if name == "score":
        mean = sales["score"].mean()
        return None if mean is None else float(mean)  # type: ignore[arg-type]
    above, below = METRICS[name].parts
    numerator, denominator = oracle(sales, above), oracle(sales, below)
    return None if numerator is None or not denominator else numerator / denominator


def close(found: dict[Any, float | None], expected: dict[Any, float | None]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == (None if value is None else pytest.approx(value, abs=1e-9)), key


def days_of(sales: pl.DataFrame, name: str, member: pl.DataFrame | None) -> list[date]:
    """Days a series has rows for: from its first (the model's first, for a total) to the model's last."""
    declared = METRICS[name]
    if declared.measure.agg == "ratio":
        above, below = declared.parts
        return sorted({*days_of(sales, above, member), *days_of(sales, below, member)})
    own = sales if member is None else member
    if not declared.fills_zero:
        return sorted(set(own["sold_on"]))
    if member is not None and declared.filter:
        own = own.filter(pl.col("is_void") if name == "void_sales" else ~pl.col("is_void"))
    if own.is_empty():
        return []
    first, last = own["sold_on"].min(), sales["sold_on"].max()
    assert isinstance(first, date)
    assert isinstance(last, date)
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


@LIGHT
@given(rows=SALES)
def test_rollups_equal_an_independent_computation(
    con: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]]
) -> None:
    sales = load(con, rows)
    for name in METRICS:
        expected: dict[Any, float | None] = {}
        dimensions = ["channel"] if name in ("void_sales", "void_rate") else ["channel", "country"]
        parts = [(d, str(m), sales.filter(pl.col(d) == m)) for d in dimensions for m in sales[d].unique()]
        for dimension, member, part in [("", "", None), *parts]:
            own = sales if part is None else part
            for day in days_of(sales, name, part):
                expected[dimension, member, day] = oracle(own.filter(pl.col("sold_on") == day), name)
        table = con.execute(f"SELECT * FROM {METRICS[name].table}").fetchall()
        assert {row[0] for row in table} <= {name}
        found = {row[1:4]: row[4] for row in table}
        assert len(found) == len(table), "one row per dimension, member and day"
        close(found, expected)


def start_of(day: date, grain: Grain) -> date:
    return {"day": day, "week": day - timedelta(days=day.weekday()), "month": day.replace(day=1)}[grain]


@LIGHT
@given(
    rows=SALES,
    grain=st.sampled_from(["day", "week", "month"]),
    by=st.sampled_from([[], ["channel"]]),
    edges=st.lists(st.integers(-1, 14), min_size=2, max_size=2, unique=True).map(sorted),
)
def test_queries_equal_an_independent_computation_whatever_they_read(
    con: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]], grain: Grain, by: list[str], edges: list[int]
) -> None:
    """From rollups where they do, from the model otherwise: the same periods and values."""
    sales = load(con, rows)
    since, until = (FIRST + timedelta(days=n) for n in edges)
    within = [since + timedelta(days=n) for n in range((until - since).days)]
    parts = [((m,), sales.filter(pl.col("channel") == m)) for m in sales["channel"].unique()]
    for name, declared in METRICS.items():
        expected: dict[Any, float | None] = {}
        for member, part in parts if by else [((), sales)]:
            days = set(within) & set(days_of(sales, name, part if by else None))
            for period in {start_of(day, grain) for day in days}:
                inside = [day for day in within if start_of(day, grain) == period]
                expected[period, *member] = oracle(part.filter(pl.col("sold_on").is_in(inside)), name)
        for source in ("auto", "model"):
            found = con.execute(
                compile_query(declared, METRICS, grain=grain, by=by, since=since, until=until, source=source)
            ).fetchall()
            assert found == sorted(found, key=lambda row: row[:-1])
            assert len({row[:-1] for row in found}) == len(found)
            close({row[:-1]: row[-1] for row in found}, expected)


def sale(day: int, **fields: Any) -> dict[str, Any]:
    usual = {"channel": "web", "country": "DE", "buyer": "a", "cents": 100, "score": 5, "is_void": False}
    return {"sold_on": FIRST + timedelta(days=day)} | usual | fields


def test_days_without_rows_are_zero_for_counts_and_missing_for_means(con: duckdb.DuckDBPyConnection) -> None:
    load(con, [sale(0), sale(3, channel="store"), sale(4, is_void=True)])

    def series(table: str, dimension: str = "", member: str = "") -> list[Any]:
        rows = con.execute(
            f"SELECT day, value FROM {table} WHERE dimension = ? AND member = ? ORDER BY day",
            [dimension, member],
        ).fetchall()
        return [((day - FIRST).days, value) for day, value in rows]

    assert series("metrics.amount") == [(0, 1.0), (1, 0.0), (2, 0.0), (3, 1.0), (4, 0.0)]
    assert series("metrics.amount", "channel", "store") == [(3, 1.0), (4, 0.0)]
    assert series("metrics.void_sales") == [(0, 0.0), (1, 0.0), (2, 0.0), (3, 0.0), (4, 1.0)]
    assert series("metrics.score") == [(0, 5.0), (3, 5.0), (4, 5.0)]
    assert series("metrics.basket") == [(0, 1.0), (1, None), (2, None), (3, 1.0), (4, 0.0)]


def test_a_customer_of_two_days_counts_once_in_the_week(con: duckdb.DuckDBPyConnection) -> None:
    load(con, [sale(0), sale(1), sale(2, buyer="b")])
    weekly = con.execute(compile_query(METRICS["buyers"], METRICS, grain="week")).fetchall()
    assert weekly == [(FIRST, 2.0)]


def test_ratio_of_a_week_is_the_ratio_of_sums_not_the_mean_of_ratios(con: duckdb.DuckDBPyConnection) -> None:
    load(con, [sale(0, cents=1000), sale(1, cents=100), sale(1, cents=100), sale(1, cents=100)])
    weekly = con.execute(compile_query(METRICS["basket"], METRICS, grain="week")).fetchall()
    assert weekly == [(FIRST, 3.25)]


@pytest.mark.parametrize("name", ["buyers", "score", "score_per_buyer"])
@pytest.mark.parametrize("grain", ["week", "month", "quarter", "year"])
def test_summing_what_does_not_add_up_is_an_error(name: str, grain: Grain) -> None:
    with pytest.raises(ConfigError, match="do not add up to a"):
        compile_query(METRICS[name], METRICS, grain=grain, source="rollup")
    assert "metrics." not in compile_query(METRICS[name], METRICS, grain=grain)


def test_two_dimensions_at_once_come_from_the_model(con: duckdb.DuckDBPyConnection) -> None:
    load(con, [sale(0), sale(0, country="AT"), sale(0, country="AT")])
    both = ["channel", "country"]
    with pytest.raises(ConfigError, match="one dimension at a time"):
        compile_query(METRICS["sales"], METRICS, grain="day", by=both, source="rollup")
    found = con.execute(compile_query(METRICS["sales"], METRICS, grain="day", by=both)).fetchall()
    assert found == [(FIRST, "web", "AT", 2.0), (FIRST, "web", "DE", 1.0)]


@pytest.mark.parametrize(
    ("name", "request_", "message"),
    [
        ("amount", {"by": ["buyer"]}, "cannot be split by 'buyer'; it has: channel, country"),
        ("void_rate", {"by": ["country"]}, "cannot be split by 'country'; it has: channel"),
        ("amount", {"by": ["channel", "channel"]}, "listed twice"),
        ("amount", {"since": FIRST, "until": FIRST}, "is empty"),
    ],
    ids=["undeclared dimension", "dimension of one part only", "dimension twice", "empty range"],
)
def test_wrong_request_is_refused(name: str, request_: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compile_query(METRICS[name], METRICS, grain="day", **request_)


def test_compiled_sql_reads_the_same_for_postgresql() -> None:
    for declared in METRICS.values():
        for sql in (
            compile_rollup(declared, METRICS),
            compile_query(declared, METRICS, grain="month", by=["channel"], source="model"),
        ):
            translated = sqlglot.transpile(
                sql, read="duckdb", write="postgres", unsupported_level=sqlglot.ErrorLevel.RAISE
            )
            assert len(translated) == 1
