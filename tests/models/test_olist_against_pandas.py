"""Olist through the sandbox shop and the normal path: the marts equal what pandas computes from the files.

The computation here shares nothing with the models but the words of docs/marts.md. Amounts are whole cents.
Olist's files record no refund; a cancelled order is no sale, one without a line is worth nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest
from pydantic import SecretStr

from omni import tenancy
from omni.sandbox.process import running
from omni.settings import settings
from omni.sources.connection import Connection
from omni.sources.extract import extract
from omni.warehouse.build import build_models
from omni.warehouse.database import open_warehouse
from omni.warehouse.load import load
from omni.warehouse.models import cached_models
from omni.warehouse.selection import ancestors

pytestmark = [pytest.mark.slow, pytest.mark.real_data]

Query = Callable[[str], list[tuple[Any, ...]]]

MARTS = ("marts.revenue_daily", "marts.monthly_active_customers", "marts.customer_cohorts",
         "marts.product_returns", "marts.product_sales")  # fmt: skip


def file(name: str) -> pd.DataFrame:
    path = settings().real_data / "olist" / f"{name}.parquet"
    if not path.exists():
        pytest.skip(f"real data absent: {path}")
    return pd.read_parquet(path)


@pytest.fixture(scope="module")
def orders() -> pd.DataFrame:
    """Orders with their person, day and amounts in cents; whether cancelled."""
    items = file("order_items")
    cents = items.assign(
        goods=(items["price"] * 100).round().astype("int64"),
        freight=(items["freight_value"] * 100).round().astype("int64"),
    )
    sums = cents.groupby("order_id")[["goods", "freight"]].sum()
    table = file("orders").merge(file("customers"), on="customer_id").join(sums, on="order_id")
    table[["goods", "freight"]] = table[["goods", "freight"]].fillna(0).astype("int64")
    day = table["order_purchase_timestamp"].dt.normalize()
    return table.assign(
        day=day, month=day.dt.to_period("M").dt.start_time, total=table["goods"] + table["freight"],
        cancelled=table["order_status"] == "canceled", person=table["customer_unique_id"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def sales(orders: pd.DataFrame) -> pd.DataFrame:
    return orders[~orders["cancelled"]]


@pytest.fixture(scope="module")
def warehouse(orders: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Query]:
    """The tenant's warehouse, loaded from the sandbox and built; gives a function that queries it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNI_HOME", str(tmp_path_factory.mktemp("olist")))
        settings.cache_clear()
        tenant = tenancy.get("olist")
        models = cached_models(settings().data / "models")
        with running("olist") as sandbox, open_warehouse(tenant) as opened:
            account = Connection(
                "shopify", sandbox.url, SecretStr(sandbox.token), requests_per_10s=100_000,
                options={"bulk_poll": "0.01"},
            )  # fmt: skip
            for stream in ("customers", "orders"):
                staged = extract(
                    tenant, "shopify", stream, account, since=None, until=datetime(2100, 1, 1, tzinfo=UTC),
                    run_id="r", folder=tenant.home / "staged" / stream,
                )  # fmt: skip
                assert load(opened, staged)[0].changed > 0
            done = build_models(opened, models, select=ancestors(models, MARTS), run_id="r")
            assert [o for o in done if o.status != "done"] == []
            with opened.cursor() as con:
                yield lambda sql: con.execute(sql).fetchall()
    settings.cache_clear()


def test_net_sales_by_day(orders: pd.DataFrame, sales: pd.DataFrame, warehouse: Query) -> None:
    days = sales.groupby("day").agg(
        orders=("total", "size"), goods=("goods", "sum"), freight=("freight", "sum"), total=("total", "sum")
    )
    cancelled = orders.groupby("day")["cancelled"].sum()
    table = days.reindex(cancelled.index, fill_value=0).assign(cancelled=cancelled)
    columns = ["orders", "cancelled", "goods", "freight", "total"]
    assert warehouse(
        "SELECT CAST(sale_date AS TIMESTAMP), orders, cancelled_orders, CAST(gross_amount * 100 AS BIGINT), "
        "CAST(shipping_amount * 100 AS BIGINT), CAST(net_home * 100 AS BIGINT) FROM marts.revenue_daily "
        "ORDER BY 1"
    ) == list(table[columns].itertuples(name=None))
    assert warehouse(
        "SELECT sum(refund_amount), sum(other_amount), sum(without_rate) FROM marts.revenue_daily"
    ) == [(0, 0, 0)]


def test_goods_sold_by_product_and_nothing_returned(sales: pd.DataFrame, warehouse: Query) -> None:
    items = file("order_items").merge(sales[["order_id"]], on="order_id")
    items = items.assign(cents=(items["price"] * 100).round().astype("int64"))
    assert warehouse(
        "SELECT count(*) FILTER (WHERE items_sold > 0), sum(items_sold), "
        "CAST(sum(sold_amount) * 100 AS BIGINT), sum(items_returned) FROM marts.product_returns"
    ) == [(items["product_id"].nunique(), len(items), items["cents"].sum(), 0)]
    month = items.merge(sales[["order_id", "month"]], on="order_id").groupby("month")["cents"].sum()
    assert warehouse(
        "SELECT CAST(sale_month AS TIMESTAMP), CAST(sum(item_amount) * 100 AS BIGINT) "
        "FROM marts.product_sales GROUP BY 1 ORDER BY 1"
    ) == list(month.items())


def test_monthly_active_customers(sales: pd.DataFrame, warehouse: Query) -> None:
    months = sales.groupby("month").agg(
        people=("person", "nunique"), orders=("total", "size"), cents=("total", "sum")
    )
    new = sales.groupby("person")["month"].min().value_counts()
    assert warehouse(
        "SELECT CAST(month AS TIMESTAMP), customers, new_customers, orders, CAST(revenue * 100 AS BIGINT) "
        "FROM marts.monthly_active_customers ORDER BY 1"
    ) == [(month, row.people, new.get(month, 0), row.orders, row.cents) for month, row in months.iterrows()]


def test_cohorts(sales: pd.DataFrame, warehouse: Query) -> None:
    first = sales.groupby("person")["month"].transform("min")
    since = (sales["month"].dt.year - first.dt.year) * 12 + sales["month"].dt.month - first.dt.month
    table = sales.groupby([first.rename("cohort"), since.rename("since")]).agg(
        people=("person", "nunique"), orders=("total", "size"), cents=("total", "sum")
    )
    assert warehouse(
        "SELECT CAST(cohort_month AS TIMESTAMP), months_since, customers, orders, "
        "CAST(revenue * 100 AS BIGINT) FROM marts.customer_cohorts ORDER BY 1, 2"
    ) == [(*key, *values) for key, *values in table.itertuples(name=None)]
