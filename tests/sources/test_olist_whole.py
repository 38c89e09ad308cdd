"""Olist as HubSpot, Shopify and Stripe: all of it loads and agrees with the files to the row and the cent."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import polars as pl
import pytest
from pydantic import SecretStr

from omni import tenancy
from omni.sandbox.process import running
from omni.settings import settings
from omni.sources.connection import Connection
from omni.sources.extract import extract
from omni.warehouse.database import open_warehouse
from omni.warehouse.load import load

pytestmark = [pytest.mark.real_data, pytest.mark.slow]
FOLDER = settings().real_data / "olist"
END = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Every stream of the tenant, read and loaded; gives a function that queries the warehouse."""
    if not FOLDER.exists():
        pytest.skip("real data absent: set OMNI_REAL_DATA to the folder that holds olist/")
    patch = pytest.MonkeyPatch()
    patch.setenv("OMNI_HOME", str(tmp_path_factory.mktemp("olist")))
    settings.cache_clear()
    tenant = tenancy.get("olist")
    try:
        with running("olist", hubspot_per_10s=100_000) as sandbox, open_warehouse(tenant) as warehouse:
            for vendor, streams in tenant.sources.items():
                for stream in streams:
                    account = Connection(
                        vendor, sandbox.url, SecretStr(sandbox.token), requests_per_10s=100_000,
                        searches_per_second=100_000, options={"bulk_poll": "0.01"},
                    )  # fmt: skip
                    folder = tenant.home / "staged" / f"{vendor}-{stream}"
                    staged = extract(
                        tenant, vendor, stream, account, since=None, until=END, run_id="r", folder=folder
                    )
                    assert staged.rejected == 0
                    load(warehouse, staged)
            with warehouse.cursor() as con:
                yield lambda sql: con.execute(sql).fetchall()
    finally:
        patch.undo()
        settings.cache_clear()


def file(name):
    return pl.read_parquet(FOLDER / f"{name}.parquet")


def cents(frame, column):
    return int((frame[column] * 100).round().cast(pl.Int64).sum())


def test_leads_deals_sellers_and_reviews(loaded):
    found = loaded("SELECT external_id FROM raw.hubspot__contacts ORDER BY 1")
    assert [row[0] for row in found] == file("marketing_qualified_leads")["mql_id"].sort().to_list()
    deals = file("closed_deals")
    ((count, amount),) = loaded("SELECT count(*), sum(amount) FROM raw.hubspot__deals")
    assert (count, amount) == (deals.height, Decimal(cents(deals, "declared_monthly_revenue")) / 100)
    ((sellers,),) = loaded("SELECT count(DISTINCT external_id) FROM raw.hubspot__companies")
    assert sellers == file("sellers").height
    reviews = file("order_reviews")
    assert loaded("SELECT count(*), sum(score) FROM raw.hubspot__reviews") == [
        (reviews.height, reviews["review_score"].sum())
    ]
    links = deals.filter(pl.col("seller_id").is_in(file("sellers")["seller_id"].implode())).height
    assert loaded("SELECT count(*) FROM raw.hubspot__deal_companies") == [(links,)]
    assert loaded("SELECT count(*) FROM raw.hubspot__deal_contacts") == [(deals.height,)]


def test_orders_lines_and_the_catalogue(loaded):
    orders, items = file("orders"), file("order_items")
    assert loaded("SELECT count(*) FROM raw.shopify__orders") == [(orders.height,)]
    assert loaded("SELECT count(*), sum(unit_price * quantity) FROM raw.shopify__order_lines") == [
        (items.height, Decimal(cents(items, "price")) / 100)
    ]
    freight = Decimal(cents(items, "freight_value")) / 100
    assert loaded("SELECT sum(shipping) FROM raw.shopify__orders") == [(freight,)]
    assert loaded("SELECT count(*) FROM raw.shopify__products") == [(file("products").height,)]
    buyers = orders.join(file("customers"), on="customer_id")["customer_unique_id"].n_unique()
    assert loaded("SELECT count(*) FROM raw.shopify__customers") == [(buyers,)]


def test_payments_are_the_same_in_the_shop_and_at_the_payment_provider(loaded):
    payments = file("order_payments")
    paid = cents(payments, "payment_value")
    assert loaded("SELECT count(*), sum(amount) * 100 FROM raw.shopify__transactions") == [
        (payments.height, Decimal(paid))
    ]
    # A payment of nothing is one that Stripe never sees.
    assert loaded("SELECT count(*) FILTER (amount > 0), sum(amount) FROM raw.stripe__charges") == [
        (payments.filter(pl.col("payment_value") > 0).height, paid)
    ]
    assert loaded("SELECT sum(amount) FROM raw.stripe__balance_transactions") == [(paid,)]
