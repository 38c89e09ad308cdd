"""Olist behind the vendors' shapes: every count and sum equals the files'."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from omni.errors import ConfigError
from omni.sandbox.company import Company, load_company
from omni.settings import settings

pytestmark = [pytest.mark.real_data, pytest.mark.slow]
BRAZIL = ZoneInfo("America/Sao_Paulo")


def local_days(texts: list[str]) -> Counter[date]:
    return Counter(datetime.fromisoformat(t).astimezone(BRAZIL).date() for t in texts)


def file(name: str) -> pl.DataFrame:
    return pl.read_parquet(settings().real_data / "olist" / f"{name}.parquet")


def test_counts(olist: Company) -> None:
    sizes = {kind: len(objects.records) for kind, objects in olist.crm.items()}
    assert sizes == {"contacts": 8000, "companies": 3095, "deals": 842, "reviews": 2993}
    shop = olist.shop
    assert (len(shop.customers), len(shop.products), len(shop.orders)) == (19_521, 32_951, 19_674)
    assert sum(len(o["lineItems"]) for o in shop.orders) == 22_512
    assert sum(len(o["transactions"]) for o in shop.orders) == 20_525
    assert len(olist.associations["deals", "contacts"]) == 842
    assert len(olist.associations["deals", "companies"]) == 380


def test_sums_are_exact(olist: Company) -> None:
    lines = [line for o in olist.shop.orders for line in o["lineItems"]]
    assert sum(Decimal(n["originalUnitPriceSet"]["shopMoney"]["amount"]) for n in lines) == Decimal(
        "2692857.45"
    )
    paid = sum(
        Decimal(t["amountSet"]["shopMoney"]["amount"]) for o in olist.shop.orders for t in o["transactions"]
    )
    assert paid == Decimal(str(round(file("order_payments")["payment_value"].sum(), 2)))
    freight = sum(Decimal(o["totalShippingPriceSet"]["shopMoney"]["amount"]) for o in olist.shop.orders)
    assert freight == Decimal(str(round(file("order_items")["freight_value"].sum(), 2)))


def test_local_dates_survive_daylight_saving(olist: Company) -> None:
    days = local_days([o["createdAt"] for o in olist.shop.orders])
    assert days[date(2017, 11, 24)] == 215
    assert days == Counter(file("orders")["order_purchase_timestamp"].dt.date().to_list())
    reviews = local_days([r.properties["createdate"] or "" for r in olist.crm["reviews"].records])
    assert reviews == Counter(file("order_reviews")["review_creation_date"].dt.date().to_list())
    assert reviews[date(2017, 10, 15)] > 0, "the day whose midnight does not exist"
    first = Counter(r.properties["first_contact_date"] for r in olist.crm["contacts"].records)
    expected = file("marketing_qualified_leads")["first_contact_date"].cast(pl.String).to_list()
    assert first == Counter(expected)


def test_states_follow_the_files(olist: Company) -> None:
    orders = olist.shop.orders
    assert sum(o["cancelledAt"] is not None for o in orders) == 79
    assert sum(o["displayFulfillmentStatus"] == "ON_HOLD" for o in orders) == 63
    assert sum(r.properties["lifecyclestage"] == "customer" for r in olist.crm["contacts"].records) == 842
    names = {o["name"] for o in orders}
    assert all(r.properties["order_ref"] in names for r in olist.crm["reviews"].records)
    external = Counter(r.properties["external_id"] for r in olist.crm["reviews"].records)
    assert sorted(external.values())[-2:] == [1, 2]


def test_no_person_is_made_up(olist: Company) -> None:
    contacts = olist.crm["contacts"].records
    assert not any(r.properties[k] for r in contacts for k in ("email", "firstname", "lastname"))
    assert not any(c["firstName"] or c["defaultEmailAddress"] for c in olist.shop.customers)


@pytest.mark.real_data
@pytest.mark.usefixtures("olist")
def test_until_shows_the_state_of_that_day() -> None:
    company = load_company("olist", until=date(2017, 11, 24))
    assert max(o["updatedAt"] for o in company.shop.orders) < "2017-11-25"
    assert {o["displayFinancialStatus"] for o in company.shop.orders} >= {"PAID", "PENDING"}


def test_absent_data_say_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNI_REAL_DATA", str(tmp_path))
    settings.cache_clear()
    try:
        with pytest.raises(ConfigError, match="OMNI_REAL_DATA"):
            load_company("olist")
    finally:
        monkeypatch.undo()
        settings.cache_clear()
