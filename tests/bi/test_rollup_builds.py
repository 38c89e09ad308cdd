"""Rollups are incremental: a changed day is rolled up again and no other, and the end is a full build's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from omni.bi.daily import models_of, of_metric
from omni.bi.metrics import Metric
from omni.tenancy import Tenant
from omni.warehouse.database import Warehouse, open_warehouse
from omni.warehouse.models import Header, Model
from omni.warehouse.publish import open_snapshot, publish
from omni.warehouse.runner import Built, build

pytestmark = pytest.mark.slow

START = date(2025, 12, 22)
COMMON = {"title": "t", "description": "d", "owner": "a@demo.example", "unit": "count"}
READ = {"model": "core.sales", "time_column": "sold_on", "dimensions": ["channel"]}
METRICS = {
    name: Metric.model_validate({"name": name, **COMMON, **fields})
    for name, fields in {
        "amount": READ | {"measure": {"agg": "sum", "column": "amount"}},
        "buyers": READ | {"measure": {"agg": "count_distinct", "column": "buyer"}, "filter": "amount > 0"},
        "mean": READ | {"measure": {"agg": "average", "column": "amount"}},
        "middle": READ | {"measure": {"agg": "percentile", "column": "amount", "p": 0.9}},
        "shipped": READ | {"measure": {"agg": "count"}, "time_column": "shipped_on"},
        "per_buyer": {"measure": {"agg": "ratio", "numerator": "amount", "denominator": "buyers"}},
        "running": {"measure": {"agg": "cumulative", "metric": "amount", "per": "year"}},
    }.items()
}  # fmt: skip
SALES = Header(
    kind="full", owner="a@demo.example", description="Sales.", grain=["sale_id"], time_column="sold_on"
)
SQL = "SELECT sale_id, sold_on, shipped_on, channel, buyer, amount FROM raw.given"
MODELS = {"core.sales": Model("core.sales", SALES, SQL, "core/sales.sql")}
MODELS |= models_of(METRICS, MODELS)


@pytest.fixture
def warehouse(home: Path, tenant: Tenant) -> Iterator[Warehouse]:
    with open_warehouse(tenant) as opened:
        with opened.transaction() as con:
            con.execute(
                "CREATE TABLE raw.given (sale_id INTEGER, sold_on DATE, shipped_on DATE, channel VARCHAR, "
                "buyer VARCHAR, amount DECIMAL(18, 2))"
            )
        yield opened


def given(warehouse: Warehouse, *rows: tuple[Any, ...], gone: list[int] | None = None) -> None:
    """Add rows, take others away, and say that the source changed."""
    from omni.warehouse.versions import record_change

    with warehouse.transaction() as con:
        for row in rows:
            con.execute("INSERT INTO raw.given VALUES ($1, $2, $3, $4, $5, $6)", list(row))
        for sale_id in gone or []:
            con.execute("DELETE FROM raw.given WHERE sale_id = $1", [sale_id])
        record_change(con, "raw.given", None, run_id="r")


def built(warehouse: Warehouse) -> dict[str, Built]:
    return {name: build(warehouse, model, MODELS, "r") for name, model in MODELS.items()}


def contents(warehouse: Warehouse) -> dict[str, list[Any]]:
    with warehouse.cursor() as con:
        return {
            name: con.execute(f"SELECT * FROM {name} ORDER BY ALL").fetchall()
            for name in MODELS
            if name.startswith("metrics.")
        }


def sale(sale_id: int, day: int, **fields: Any) -> tuple[Any, ...]:
    usual = {"shipped": day + 1, "channel": "web", "buyer": "a", "amount": 10}
    f = usual | fields
    return (
        sale_id, START + timedelta(days=day), START + timedelta(days=f["shipped"]), f["channel"], f["buyer"],
        f["amount"],
    )  # fmt: skip


def test_a_late_day_is_rolled_up_alone(warehouse: Warehouse) -> None:
    given(warehouse, *(sale(n, n) for n in range(20)))
    assert built(warehouse)["metrics.amount__day"].action == "full"
    given(warehouse, sale(100, 9, buyer="b"))
    again = built(warehouse)
    assert again["core.sales"].action == "full"
    for name, windows in {"amount__day": "1 days", "buyers__day": "1 days", "buyers__week": "1 weeks",
                          "buyers__month": "1 months", "mean__day": "1 days"}.items():  # fmt: skip
        one = again[f"metrics.{name}"]
        assert (one.action, one.reason) == ("days", f"{windows} changed in core.sales")
    with warehouse.cursor() as con:
        days = con.execute(
            "SELECT DISTINCT day FROM ops.changes "
            "WHERE table_name = 'metrics.buyers__day' AND day IS NOT NULL"
        ).fetchall()
    assert days == [(START + timedelta(days=9),)]
    assert {b.action for b in built(warehouse).values()} == {"skip"}


def test_days_of_another_column_are_rolled_up_whole(warehouse: Warehouse) -> None:
    """The model tells the days of sold_on; what was shipped on other days has changed with them."""
    given(warehouse, sale(1, 0, shipped=5), sale(2, 1, shipped=6))
    built(warehouse)
    given(warehouse, sale(3, 0, shipped=6))
    assert built(warehouse)["metrics.shipped__day"].action == "full"
    with warehouse.cursor() as con:
        rows = con.execute("SELECT day, value FROM metrics.shipped__day WHERE dimension = '' ORDER BY 1")
        assert [value for _, value in rows.fetchall()] == [1, 2]


@pytest.mark.parametrize("seed", range(3))
def test_whatever_arrives_in_turn_ends_as_one_full_build(
    seed: int, warehouse: Warehouse, tenant: Tenant, home: Path
) -> None:
    draw = random.Random(seed)
    alive: list[int] = []
    for turn in range(5):
        new = [
            sale(
                turn * 100 + n, draw.randrange(40), shipped=draw.randrange(40), buyer=draw.choice("abc"),
                channel=draw.choice(["web", None, "it's"]), amount=draw.choice([None, 0, 5, 7.25]),
            )
            for n in range(draw.randrange(6))
        ]  # fmt: skip
        gone = draw.sample(alive, min(len(alive), draw.randrange(3)))
        given(warehouse, *new, gone=gone)
        alive = [*(row[0] for row in new), *(i for i in alive if i not in gone)]
        built(warehouse)
    in_turn = contents(warehouse)
    with warehouse.transaction() as con:
        for name in MODELS:
            con.execute("DELETE FROM ops.models WHERE model = $1", [name])
    assert {b.action for b in built(warehouse).values()} == {"full", "view"}
    assert contents(warehouse) == in_turn


def test_views_are_published_in_whatever_order_they_were_made(warehouse: Warehouse, tenant: Tenant) -> None:
    given(warehouse, sale(1, 0), sale(2, 1, buyer="b"))
    built(warehouse)
    with warehouse.transaction() as con:
        con.execute("DELETE FROM ops.models WHERE model = 'metrics.buyers'")
    build(warehouse, MODELS["metrics.buyers"], MODELS, "r")  # now newer than those that read it
    publish(warehouse)
    with open_snapshot(tenant) as con:
        assert con.execute(
            "SELECT value FROM metrics.daily WHERE metric = 'per_buyer' AND dimension = '' ORDER BY day"
        ).fetchall() == [(10.0,), (10.0,)]


def test_a_rollup_that_was_a_table_becomes_a_view(warehouse: Warehouse) -> None:
    given(warehouse, sale(1, 0))
    with warehouse.transaction() as con:
        con.execute("CREATE TABLE metrics.amount AS SELECT 1 AS old")
    assert built(warehouse)["metrics.amount"].action == "view"
    with warehouse.cursor() as con:
        assert con.execute("SELECT value FROM metrics.amount WHERE dimension = ''").fetchall() == [(10.0,)]


def test_a_metrics_models_are_built_cells_first() -> None:
    assert of_metric(MODELS, "metrics.buyers") == [
        "metrics.buyers__day", "metrics.buyers__week", "metrics.buyers__month", "metrics.buyers",
    ]  # fmt: skip
    assert of_metric(MODELS, "metrics.daily") == ["metrics.daily"]
