"""Metrics equal an independent computation, whatever they are read from; senseless sums are refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from omni.bi.daily import models_of
from omni.bi.metrics import Metric
from omni.bi.periods import Grain, start_of
from omni.bi.queries import compile_query
from omni.errors import ConfigError
from omni.warehouse.dialect import to_postgres
from omni.warehouse.portable import refuse_unportable

pytestmark = pytest.mark.slow

FIRST = date(2024, 2, 26)
DAY = timedelta(days=1)


def metric(name: str, measure: dict[str, Any], **fields: Any) -> Metric:
    own: dict[str, Any] = {
        "model": "core.sales", "time_column": "sold_on", "dimensions": ["channel", "country"],
    }  # fmt: skip
    composite = measure["agg"] in ("ratio", "derived", "cumulative", "change")
    return Metric.model_validate(
        {"name": name, "title": name, "description": name, "owner": "a@demo.example", "unit": "count"}
        | ({} if composite else own)
        | {"measure": measure}
        | fields
    )


def state(take: str) -> dict[str, Any]:
    return {"semi_additive": {"over": "time", "take": take}}


CARDS = {"cards": {"model": "core.cards", "key": "buyer", "dimensions": ["tier"]}}
METRICS = {
    m.name: m
    for m in [
        metric("amount", {"agg": "sum", "column": "amount"}, filter="NOT is_void"),
        metric("sales", {"agg": "count"}, joins=CARDS),
        metric("void_sales", {"agg": "count"}, filter="is_void", dimensions=["channel"]),
        metric("buyers", {"agg": "count_distinct", "column": "buyer"}, filter="NOT is_void"),
        metric("about_buyers", {"agg": "distinct_approx", "column": "buyer"}),
        metric("score", {"agg": "average", "column": "score"}),
        metric("middle", {"agg": "percentile", "column": "score", "p": 0.5}, filter="NOT is_void"),
        metric("best", {"agg": "max", "column": "score"}),
        metric("least", {"agg": "min", "column": "amount"}),
        metric("stock", {"agg": "sum", "column": "amount"}, filter="NOT is_void", **state("last")),
        metric("opening", {"agg": "count"}, **state("first")),
        metric("mean_stock", {"agg": "sum", "column": "score"}, **state("average")),
        metric("basket", {"agg": "ratio", "numerator": "amount", "denominator": "sales"}),
        metric("void_rate", {"agg": "ratio", "numerator": "void_sales", "denominator": "sales"}),
        metric("score_per_buyer", {"agg": "ratio", "numerator": "score", "denominator": "buyers"}),
        metric("profit", {"agg": "derived", "expression": "amount - 2 * sales"}),
        metric("margin", {"agg": "derived", "expression": "(amount - sales) / amount / 2"}),
        metric("running", {"agg": "cumulative", "metric": "amount"}),
        metric("running_month", {"agg": "cumulative", "metric": "sales", "per": "month"}),
        metric("trailing", {"agg": "cumulative", "metric": "sales", "window": "4d"}),
        metric("moved", {"agg": "change", "metric": "amount", "offset": "1d"}),
    ]
}
COMPUTED = [name for name in METRICS if name != "moved"]
STATES = {"stock": "last", "opening": "first", "mean_stock": "average"}
ONE_DIMENSION = ("void_sales", "void_rate")

SALES = st.lists(
    st.fixed_dictionaries(
        {
            "sold_on": st.none() | st.integers(0, 12),
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
ORIGINS = st.sampled_from([FIRST, date(2025, 12, 24)])
"""Around a leap day, and around a new year whose first week began in the old one."""
SCHEMA = {
    "sold_on": pl.Date(), "channel": pl.String(), "country": pl.String(), "buyer": pl.String(),
    "cents": pl.Int64(), "score": pl.Int64(), "is_void": pl.Boolean(),
}  # fmt: skip
LIGHT = examples(
    max_examples=15,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("CREATE SCHEMA core; CREATE SCHEMA metrics")
        connection.execute(
            "CREATE TABLE core.cards AS FROM (VALUES ('a', 'gold'), ('b', NULL)) AS t(buyer, tier)"
        )
        yield connection


def dated(rows: list[dict[str, Any]], origin: date = FIRST) -> list[dict[str, Any]]:
    return [
        row | {"sold_on": None if row["sold_on"] is None else origin + row["sold_on"] * DAY} for row in rows
    ]


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
    """An aggregate of some sales, in plain Polars; None where it has no value."""
    valid = sales.filter(~pl.col("is_void"))
    match name:
        case "amount" | "stock":
            return float(valid["cents"].sum()) / 100
        case "sales" | "opening":
            return float(len(sales))
        case "mean_stock":
            return float(sales["score"].sum())
        case "void_sales":
            return float(sales["is_void"].sum())
        case "buyers":
            return float(valid["buyer"].drop_nulls().n_unique())
        case "about_buyers":
            return float(sales["buyer"].drop_nulls().n_unique())
    value: Any = {
        "score": sales["score"].mean(),
        "middle": valid["score"].quantile(0.5, "linear"),
        "best": sales["score"].max(),
        "least": sales["cents"].min(),
    }[name]
    return None if value is None else float(value) / (100 if name == "least" else 1)


def combined(name: str, values: dict[str, float | None]) -> float | None:
    """A metric made of others at one place, from theirs."""
    known = {p: v for p, v in values.items() if v is not None}
    a, s = known.get("amount", 0.0), known.get("sales", 0.0)
    if name == "profit":
        return a - 2 * s
    if name == "margin":
        return (a - s) / a / 2 if a else None
    above, below = METRICS[name].parts
    top = known.get(above, 0.0 if METRICS[above].fills_zero else None)
    return None if top is None or not known.get(below) else top / known[below]


def counted(sales: pl.DataFrame, name: str) -> pl.DataFrame:
    """The sales a metric's filter lets through."""
    if METRICS[name].filter is None:
        return sales
    return sales.filter(pl.col("is_void") if name == "void_sales" else ~pl.col("is_void"))


def days_of(sales: pl.DataFrame, name: str, member: pl.DataFrame | None) -> list[date]:
    """Days a series has values for: from its first (the model's first, for a total) to the model's last."""
    own = sales if member is None else counted(member, name)
    if name in STATES:
        first = own["sold_on"].min()
        return sorted(day for day in set(sales["sold_on"]) if first is not None and day >= first)
    if not METRICS[name].fills_zero:
        return sorted(set(counted(own, name)["sold_on"]))
    if own.is_empty():
        return []
    first, last = own["sold_on"].min(), sales["sold_on"].max()
    assert isinstance(first, date)
    assert isinstance(last, date)
    return [first + n * DAY for n in range((last - first).days + 1)]


def series(
    sales: pl.DataFrame, name: str, member: pl.DataFrame | None, grain: Grain, since: date, until: date
) -> dict[date, float | None]:
    """A metric of one member (or in total) by period, computed the long way."""
    own = sales if member is None else member
    if METRICS[name].measure.agg in ("ratio", "derived"):
        parts = {part: series(sales, part, member, grain, since, until) for part in METRICS[name].parts}
        periods = {period for part in parts.values() for period in part}
        return {p: combined(name, {part: found.get(p) for part, found in parts.items()}) for p in periods}
    cumulative = METRICS[name].measure.agg == "cumulative"
    base = METRICS[name].parts[0] if cumulative else name
    days = [day for day in days_of(sales, base, member) if since <= day < until]
    found: dict[date, float | None] = {}
    for period in {start_of(day, grain) if grain != "all" else since for day in days}:
        inside = [day for day in days if grain == "all" or start_of(day, grain) == period]
        if cumulative:
            at = max(inside)
            begins = {"running": date.min, "running_month": at.replace(day=1), "trailing": at - 3 * DAY}[name]
            found[period] = oracle(own.filter(pl.col("sold_on").is_between(begins, at)), base)
        elif name in STATES:
            found[period] = state_at(sales, own, name, inside, period, grain, since, until)
        else:
            found[period] = oracle(own.filter(pl.col("sold_on").is_in(inside)), name)
    return {period: value for period, value in found.items() if value != "absent"}


def state_at(
    sales: pl.DataFrame, own: pl.DataFrame, name: str, inside: list[date], period: date, grain: Grain,
    since: date, until: date,
) -> Any:  # fmt: skip
    all_days = sorted(
        day
        for day in set(sales["sold_on"])
        if since <= day < until and (grain == "all" or start_of(day, grain) == period)
    )
    if STATES[name] == "average":
        total = oracle(own.filter(pl.col("sold_on").is_in(inside)), name)
        assert total is not None
        return total / len(all_days)
    at = all_days[0] if STATES[name] == "first" else all_days[-1]
    return oracle(own.filter(pl.col("sold_on") == at), name) if at in inside else "absent"


def close(found: dict[Any, float | None], expected: dict[Any, float | None], what: object) -> None:
    assert found.keys() == expected.keys(), what
    for key, value in expected.items():
        assert found[key] == (None if value is None else pytest.approx(value, abs=1e-9)), (what, key)


@LIGHT
@given(rows=SALES, origin=ORIGINS)
def test_daily_series_equal_an_independent_computation(
    con: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]], origin: date
) -> None:
    sales = load(con, dated(rows, origin))
    for name in COMPUTED:
        expected: dict[Any, float | None] = {}
        dimensions = ["channel"] if name in ONE_DIMENSION else ["channel", "country"]
        parts = [(d, str(m), sales.filter(pl.col(d) == m)) for d in dimensions for m in sales[d].unique()]
        for dimension, member, part in [("", "", None), *parts]:
            for day, value in series(sales, name, part, "day", origin, origin + 20 * DAY).items():
                expected[dimension, member, day] = value
        table = con.execute(f"SELECT * FROM {METRICS[name].table}").fetchall()
        assert {row[0] for row in table} <= {name}
        found = {row[1:4]: row[4] for row in table}
        assert len(found) == len(table), "one row per dimension, member and day"
        close(found, expected, name)


@LIGHT
@given(
    rows=SALES,
    origin=ORIGINS,
    grain=st.sampled_from(["day", "week", "month", "quarter", "year", "all"]),
    by=st.sampled_from([[], ["channel"]]),
    edges=st.lists(st.integers(-8, 20), min_size=2, max_size=2, unique=True).map(sorted),
)
def test_queries_equal_an_independent_computation_whatever_they_read(
    con: duckdb.DuckDBPyConnection,
    rows: list[dict[str, Any]],
    origin: date,
    grain: Grain,
    by: list[str],
    edges: list[int],
) -> None:
    """From rollups where they do, from the model otherwise: the same periods and values."""
    sales = load(con, dated(rows, origin))
    since, until = (origin + n * DAY for n in edges)
    members = [((m,), sales.filter(pl.col("channel") == m)) for m in sales["channel"].unique()]
    for name in COMPUTED:
        expected: dict[Any, float | None] = {}
        for member, part in members if by else [((), None)]:
            for period, value in series(sales, name, part, grain, since, until).items():
                expected[period, *member] = value
        for source in ("auto", "model"):
            query = compile_query(
                METRICS[name], METRICS, grain=grain, by=by, since=since, until=until, source=source
            )
            found = con.execute(query).fetchall()
            assert found == sorted(found, key=lambda row: row[:-1])
            assert len({row[:-1] for row in found}) == len(found)
            close({row[:-1]: row[-1] for row in found}, expected, (name, source))


@LIGHT
@given(rows=SALES, grain=st.sampled_from(["day", "week", "month"]), member=st.sampled_from(["web", "it's"]))
def test_a_condition_on_one_member_is_the_members_series(
    con: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]], grain: Grain, member: str
) -> None:
    load(con, dated(rows))
    text = member.replace("'", "''")
    for name in METRICS:
        if name == "moved" and grain != "day":
            continue
        split = compile_query(METRICS[name], METRICS, grain=grain, by=["channel"], source="model")
        expected = {row[0]: row[2] for row in con.execute(split).fetchall() if row[1] == member}
        for source in ("auto", "model"):
            where = f"channel = '{text}'"
            sql = compile_query(METRICS[name], METRICS, grain=grain, where=where, source=source)
            close(dict(con.execute(sql).fetchall()), expected, (name, source))


def sale(day: int, **fields: Any) -> dict[str, Any]:
    usual = {"channel": "web", "country": "DE", "buyer": "a", "cents": 100, "score": 5, "is_void": False}
    return {"sold_on": FIRST + day * DAY} | usual | fields


def test_days_without_rows_are_zero_for_counts_and_missing_for_means_and_states(
    con: duckdb.DuckDBPyConnection,
) -> None:
    load(con, [sale(0), sale(3, channel="store"), sale(4, is_void=True)])

    def found(table: str, dimension: str = "", member: str = "") -> list[Any]:
        rows = con.execute(
            f"SELECT day, value FROM {table} WHERE dimension = ? AND member = ? ORDER BY day",
            [dimension, member],
        ).fetchall()
        return [((day - FIRST).days, value) for day, value in rows]

    assert found("metrics.amount") == [(0, 1.0), (1, 0.0), (2, 0.0), (3, 1.0), (4, 0.0)]
    assert found("metrics.amount", "channel", "store") == [(3, 1.0), (4, 0.0)]
    assert found("metrics.amount__day") == [(0, 1.0), (3, 1.0), (4, 0.0)]
    assert found("metrics.amount__day", "channel", "store") == [(3, 1.0)]
    assert found("metrics.void_sales") == [(0, 0.0), (1, 0.0), (2, 0.0), (3, 0.0), (4, 1.0)]
    assert found("metrics.score", "channel", "web") == [(0, 5.0), (4, 5.0)]
    assert found("metrics.basket") == [(0, 1.0), (1, None), (2, None), (3, 1.0), (4, 0.0)]
    assert found("metrics.stock") == [(0, 1.0), (3, 1.0), (4, 0.0)]
    assert found("metrics.stock", "channel", "web") == [(0, 1.0), (3, 0.0), (4, 0.0)]


def rows_of(con: duckdb.DuckDBPyConnection, name: str, **request: Any) -> list[Any]:
    return con.execute(compile_query(METRICS[name], METRICS, **request)).fetchall()


def test_a_customer_of_two_days_counts_once_in_the_week(con: duckdb.DuckDBPyConnection) -> None:
    load(con, [sale(0), sale(1), sale(2, buyer="b")])
    for source in ("rollup", "model"):
        assert rows_of(con, "buyers", grain="week", source=source) == [(FIRST, 2.0)]


def test_ratio_and_mean_of_a_week_are_of_sums_not_means_of_days(con: duckdb.DuckDBPyConnection) -> None:
    load(con, [sale(0, cents=1000, score=1), *(sale(1, cents=100, score=5) for _ in range(3))])
    assert rows_of(con, "basket", grain="week") == [(FIRST, 3.25)]
    assert rows_of(con, "score", grain="week", source="rollup") == [(FIRST, 4.0)]


def test_a_member_that_is_gone_counts_zero_on_the_states_last_day(con: duckdb.DuckDBPyConnection) -> None:
    """Each member at its own last day would add up to more than the total ever was."""
    load(con, [sale(0, channel="store", cents=500), sale(2, cents=300)])
    assert rows_of(con, "stock", grain="week") == [(FIRST, 3.0)]
    assert rows_of(con, "stock", grain="week", by=["channel"]) == [(FIRST, "store", 0.0), (FIRST, "web", 3.0)]


@pytest.mark.parametrize("grain", ["quarter", "year", "all"])
@pytest.mark.parametrize("name", ["buyers", "about_buyers", "middle", "score_per_buyer"])
def test_summing_what_does_not_add_up_is_an_error(name: str, grain: Grain) -> None:
    with pytest.raises(ConfigError, match="do not add up to a"):
        compile_query(METRICS[name], METRICS, grain=grain, since=FIRST, source="rollup")
    query = compile_query(METRICS[name], METRICS, grain=grain, since=FIRST)
    assert "metrics.buyers" not in query
    assert "core.sales" in query


def test_a_part_of_a_stored_week_is_no_sum_of_days() -> None:
    tuesday, next_monday = FIRST + DAY, FIRST + 7 * DAY
    with pytest.raises(ConfigError, match="2024-02-27 is inside a week"):
        compile_query(METRICS["buyers"], METRICS, grain="week", since=tuesday, source="rollup")
    assert "core.sales" in compile_query(METRICS["buyers"], METRICS, grain="week", since=tuesday)
    whole = compile_query(METRICS["buyers"], METRICS, grain="week", since=FIRST, until=next_monday)
    assert "core.sales" not in whole
    assert "metrics.buyers__week" in whole


@pytest.mark.parametrize("name", ["amount", "score", "best", "stock", "running"])
@pytest.mark.parametrize("grain", ["day", "week", "month", "quarter", "year", "all"])
def test_what_can_be_put_together_is_read_from_the_rollup(name: str, grain: Grain) -> None:
    query = compile_query(METRICS[name], METRICS, grain=grain, by=["country"], since=FIRST + DAY)
    assert "core.sales" not in query


def test_two_dimensions_at_once_come_from_the_model(con: duckdb.DuckDBPyConnection) -> None:
    load(con, [sale(0), sale(0, country="AT"), sale(0, country="AT")])
    both = ["channel", "country"]
    with pytest.raises(ConfigError, match="one dimension at a time"):
        compile_query(METRICS["sales"], METRICS, grain="day", by=both, source="rollup")
    assert rows_of(con, "sales", grain="day", by=both) == [
        (FIRST, "web", "AT", 2.0),
        (FIRST, "web", "DE", 1.0),
    ]


def test_a_joined_dimension_counts_every_row_once(con: duckdb.DuckDBPyConnection) -> None:
    load(con, [sale(0), sale(0, buyer="b"), sale(0, buyer="c"), sale(0, buyer=None), sale(0)])
    assert rows_of(con, "sales", grain="day", by=["cards.tier"]) == [
        (FIRST, "(none)", 3.0),
        (FIRST, "gold", 2.0),
    ]
    assert rows_of(con, "sales", grain="day", where="cards.tier = 'gold'") == [(FIRST, 2.0)]
    assert rows_of(con, "sales", grain="day", where="cards.tier <> '(none)' OR channel IS NULL") == [
        (FIRST, 2.0)
    ]


@pytest.mark.parametrize(
    ("name", "request_", "message"),
    [
        ("amount", {"by": ["buyer"]}, "cannot be split by 'buyer'; it has: channel, country"),
        ("void_rate", {"by": ["country"]}, "cannot be split by 'country'; it has: channel"),
        ("amount", {"by": ["channel", "channel"]}, "listed twice"),
        ("amount", {"since": FIRST, "until": FIRST}, "is empty"),
        ("amount", {"where": "buyer = 'a'"}, "where: no dimension 'buyer'"),
        ("amount", {"where": "channel = 'a' OR 1 = (SELECT 1)"}, "where: .* is not allowed"),
        ("amount", {"where": "channel = 'a') OR (TRUE"}, "where: "),
        ("amount", {"where": "read_text(channel) = 'a'"}, "where: .* is not allowed"),
        ("amount", {"where": "("*1500 + "channel" + ")"*1500 + " = 'a'"}, "where: "),
        ("moved", {"grain": "week"}, "1d back, which is not a whole number of periods"),
    ],
    ids=[
        "undeclared dimension", "dimension of one part only", "dimension twice", "empty range",
        "condition on a column", "subquery", "parenthesis", "function", "depth", "offset within a period",
    ],
)  # fmt: skip
def test_wrong_request_is_refused(name: str, request_: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compile_query(METRICS[name], METRICS, **{"grain": "day"} | request_)


def test_all_sql_is_portable() -> None:
    models = models_of(METRICS, {})
    refuse_unportable(models)
    for declared in METRICS.values():
        sql = compile_query(declared, METRICS, grain="day", by=["channel"], source="model")
        assert to_postgres(sql)
