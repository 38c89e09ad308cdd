"""Every kind of metric yields on PostgreSQL what it yields on DuckDB: cells, series and questions."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import duckdb
import pytest

from omni.bi.daily import models_of
from omni.bi.metrics import Metric
from omni.bi.queries import compile_answer
from omni.errors import ConfigError
from omni.warehouse.dialect import to_postgres

psycopg = pytest.importorskip("psycopg", reason="PostgreSQL tests need psycopg (the extra postgres)")
pytestmark = pytest.mark.slow

COMMON = {"title": "t", "description": "d", "owner": "a@demo.example", "unit": "count"}
READ = {
    "model": "core.sales", "time_column": "sold_on", "dimensions": ["channel"],
    "joins": {"card": {"model": "core.cards", "key": "buyer", "dimensions": ["tier"]}},
}  # fmt: skip
MEASURES: dict[str, dict[str, Any]] = {
    "amount": {"agg": "sum", "column": "amount"},
    "sales": {"agg": "count"},
    "buyers": {"agg": "count_distinct", "column": "buyer"},
    "about": {"agg": "distinct_approx", "column": "buyer"},
    "mean": {"agg": "average", "column": "amount"},
    "middle": {"agg": "percentile", "column": "amount", "p": 0.3},
    "most": {"agg": "max", "column": "amount"},
    "stock": {"agg": "sum", "column": "amount"},
    "mean_stock": {"agg": "count"},
    "bought": {
        "agg": "conversion",
        "column": "buyer",
        "first": "is_seen",
        "then": "NOT is_seen",
        "within": "3d",
    },
    "basket": {"agg": "ratio", "numerator": "amount", "denominator": "sales"},
    "profit": {"agg": "derived", "expression": "(amount - 2 * sales) / (buyers - 1)"},
    "running": {"agg": "cumulative", "metric": "amount", "per": "month"},
    "trailing": {"agg": "cumulative", "metric": "sales", "window": "5d"},
    "growth": {"agg": "change", "metric": "amount", "offset": "1m", "form": "relative"},
}
STATES = {"stock": "last", "mean_stock": "average"}


def declared(name: str) -> Metric:
    measure = MEASURES[name]
    composite = measure["agg"] in ("ratio", "derived", "cumulative", "change")
    more = {} if composite else READ | ({"filter": "amount <> 2"} if name != "sales" else {})
    state = {"semi_additive": {"over": "time", "take": STATES[name]}} if name in STATES else {}
    return Metric.model_validate({"name": name, **COMMON, "measure": measure, **more, **state})


METRICS = {name: declared(name) for name in MEASURES}


@pytest.fixture(scope="module")
def both(postgres: Any) -> Iterator[tuple[duckdb.DuckDBPyConnection, Any]]:
    """Connections to both, with the same 150 sales around two new years and a leap day, rolled up."""
    rng = random.Random(3)
    days = [*(date(2023, 12, 20) + timedelta(days=n) for n in range(80)), None]
    rows = [
        (rng.choice(days), rng.choice(["web", "it's", None]), rng.choice(["a", "b", "c", None]),
         rng.choice([None, 0, 2, 7, -3]), rng.random() < 0.6)
        for _ in range(150)
    ]  # fmt: skip
    postgres.run("CREATE DATABASE rollups TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'")
    with (
        duckdb.connect(config={"threads": 1}) as con,
        psycopg.connect(host=str(postgres.folder), user="omni", dbname="rollups", autocommit=True) as pg,
    ):
        for target, sql in ((con, str), (pg, to_postgres)):
            target.execute("CREATE SCHEMA core")
            target.execute("CREATE SCHEMA metrics")
            target.execute(
                "CREATE TABLE core.sales (sold_on DATE, channel VARCHAR, buyer VARCHAR, "
                "amount DECIMAL(18, 2), is_seen BOOLEAN)"
            )
            target.execute("CREATE TABLE core.cards (buyer VARCHAR, tier VARCHAR)")
            target.execute("INSERT INTO core.cards VALUES ('a', 'gold'), ('b', NULL)")
            mark = "?" if target is con else "%s"
            insert = f"INSERT INTO core.sales VALUES ({', '.join([mark] * 5)})"
            (con if target is con else pg.cursor()).executemany(insert, rows)
            for model in models_of(METRICS, {}).values():
                what = "VIEW" if model.header.kind == "view" else "TABLE"
                target.execute(sql(f"CREATE {what} {model.name} AS {model.sql}"))
        yield con, pg
    postgres.run("DROP DATABASE rollups WITH (FORCE)")


def plain(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    rounded = [tuple(round(float(v), 9) if isinstance(v, float) else v for v in row) for row in rows]
    return sorted(rounded, key=repr)


def test_cells_and_series_are_equal(both: tuple[duckdb.DuckDBPyConnection, Any]) -> None:
    con, pg = both
    for name in models_of(METRICS, {}):
        found = con.execute(f"SELECT * FROM {name}").fetchall()
        assert found, name
        assert plain(pg.execute(f"SELECT * FROM {name}").fetchall()) == plain(found), name


@pytest.mark.parametrize("grain", ["day", "week", "month", "year", "all"])
def test_questions_are_answered_equally(grain: Any, both: tuple[duckdb.DuckDBPyConnection, Any]) -> None:
    con, pg = both
    asked = {"since": date(2023, 12, 27), "until": date(2024, 3, 2), "grain": grain}
    for by, where in (
        ([], None),
        (["channel"], None),
        (["card.tier"], "channel <> 'web' OR channel IS NULL"),
    ):
        for metric in METRICS.values():
            for compare in ("last_year", None):
                try:
                    sql = compile_answer([metric], METRICS, by=by, where=where, compare=compare, **asked)
                except ConfigError:
                    assert metric.measure.agg == "change", metric.name
                    continue
                found = con.execute(sql).fetchall()
                assert plain(pg.execute(to_postgres(sql)).fetchall()) == plain(found), (metric.name, by)
