"""Olist through bulk operations: orders, lines and payments agree with the files to the row and the cent."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import polars as pl
import pytest
from pydantic import SecretStr

from omni.sandbox.process import running
from omni.settings import settings
from omni.sources.connection import Connection
from omni.sources.extract import extract

pytestmark = [pytest.mark.real_data, pytest.mark.slow]
FOLDER = settings().real_data / "olist"


@pytest.fixture(scope="module")
def box():
    if not FOLDER.exists():
        pytest.skip("real data absent: set OMNI_REAL_DATA to the folder that holds olist/")
    with running("olist") as sandbox:
        yield sandbox


@pytest.fixture
def staged(box, home, tenant, tmp_path):
    def read(stream, **options):
        account = Connection(
            "shopify",
            box.url,
            SecretStr(box.token),
            requests_per_10s=100_000,
            options={"bulk_poll": "0.01", **options},
        )
        until = datetime(2100, 1, 1, tzinfo=UTC)
        folder = tmp_path / stream
        found = extract(
            tenant, "shopify", stream, account, since=None, until=until, run_id="run-1", folder=folder
        )
        assert found.rejected == 0
        frames = {
            table: pl.concat([pl.read_parquet(folder / file) for file in files])
            for table, files in found.tables.items()
            if files
        }
        return found, frames

    return read


def file(name):
    return pl.read_parquet(FOLDER / f"{name}.parquet")


def reais(column):
    """The files' floats as exact cents."""
    return (pl.col(column) * 100).round().cast(pl.Int64)


def cents(column):
    return (pl.col(column) * 100).cast(pl.Int64)


def test_orders_lines_and_payments_agree_with_the_files(staged, box):
    found, frames = staged("orders")
    started = httpx.get(f"{box.url}/_sandbox/stats").json()["requests"]
    assert started["shopify bulkOperationRunQuery"] == 1, "19,674 orders are more than the threshold"
    orders, lines = frames["raw.shopify__orders"], frames["raw.shopify__order_lines"]
    payments = frames["raw.shopify__transactions"]
    assert (orders.height, lines.height, payments.height) == (19_674, 22_512, 20_525)
    items = file("order_items")
    of_files = items.group_by("order_id").agg(
        value=reais("price").sum(), freight=reais("freight_value").sum(), lines=pl.len()
    )
    names = orders.select("id", "name", value=cents("subtotal"), freight=cents("shipping"))
    counted = lines.group_by("order_id").agg(lines=pl.len(), value_of_lines=cents("unit_price").sum())
    ours = names.join(counted, left_on="id", right_on="order_id")
    assert ours.select(pl.col("value") == pl.col("value_of_lines")).to_series().all()
    ours = ours.select("value", "freight", pl.col("lines").cast(pl.UInt32), order_id="name")
    theirs = of_files.select("value", "freight", pl.col("lines").cast(pl.UInt32), "order_id")
    assert ours.sort("order_id").equals(theirs.sort("order_id"))
    assert set(orders["name"]) == set(file("orders")["order_id"])
    paid = file("order_payments").group_by("order_id").agg(paid=reais("payment_value").sum())
    ours_paid = payments.join(orders.select("id", "name"), left_on="order_id", right_on="id")
    ours_paid = ours_paid.group_by("name").agg(paid=cents("amount").sum()).rename({"name": "order_id"})
    assert ours_paid.sort("order_id").equals(paid.sort("order_id"))
    assert found.source_rows == 19_674


def test_variants_and_stock_have_one_row_for_each_product(staged):
    products = staged("products")[1]["raw.shopify__products"]
    variants = staged("productVariants")[1]["raw.shopify__variants"]
    frames = staged("inventoryItems")[1]
    items, levels = frames["raw.shopify__inventory_items"], frames["raw.shopify__inventory_levels"]
    assert products.height == variants.height == items.height == 32_951
    assert set(variants["product_id"]) == set(products["id"])
    assert set(levels["inventory_item_id"]) == set(items["id"])
    available = levels.group_by("inventory_item_id").agg(pl.col("available").sum())
    joined = variants.join(available, on="inventory_item_id")
    assert joined.select(pl.col("available") == pl.col("inventory_quantity")).to_series().all()
