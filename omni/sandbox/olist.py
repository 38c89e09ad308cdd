"""Olist's marketplace, served as if its sales ran on HubSpot and its shop on Shopify.

Real, anonymised data (`olist/SOURCE.md` among the real data sets tells the origin and the quirks). Nothing is
invented: who has no name or address in the data has none here. Times are Brazilian local time in the files
and become UTC; local dates come back unchanged. Products and sellers carry no dates in the files: they begin
with their first sale, and those without one with the data set.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from omni.errors import ConfigError
from omni.sandbox.company import (
    Anomaly,
    Company,
    CrmObjects,
    CrmRecord,
    Shop,
    Truth,
    both_ways,
    crm_time,
    end_of_day,
)
from omni.sandbox.crm_schema import declared, modified_property
from omni.sandbox.olist_shop import render_shop
from omni.settings import settings

ZONE = "America/Sao_Paulo"
BEGIN = int(datetime.fromisoformat("2016-09-04T12:00:00-03:00").timestamp())
"""When what has no date of its own begins: the first day of the published data set."""
FIRST_CONTACT, FIRST_COMPANY, FIRST_DEAL, FIRST_REVIEW = 100_001, 10_001, 500_001, 700_001

_ABSENT = {
    "contacts": (
        "phone",
        "country",
        "job_level",
        "industry",
        "employees",
        "visits_before_signup",
        "newsletter",
    ),
    "companies": ("domain", "industry"),
    "deals": ("external_id",),
    "reviews": (),
}
"""Properties this account never had."""

Row = dict[str, Any]


def folder() -> Path:
    """Where the files are.

    Raises:
        ConfigError: they are absent.
    """
    path = settings().real_data / "olist"
    if not (path / "orders.parquet").is_file():
        raise ConfigError(
            f"The company 'olist' needs its data under {path}, which is absent. "
            "Set OMNI_REAL_DATA to the folder that holds olist/orders.parquet, or use the company 'demo'."
        )
    return path


def epoch(column: str) -> pl.Expr:
    """Local time to seconds since the epoch.

    An hour skipped by daylight saving (in Brazil the first of the day) is read as the next one, so the date
    stays; of an hour that comes twice the first is meant.
    """
    at = pl.col(column).cast(pl.Datetime("us"))
    return (
        pl.coalesce(
            at.dt.replace_time_zone(ZONE, non_existent="null", ambiguous="earliest"),
            at.dt.offset_by("1h").dt.replace_time_zone(ZONE, non_existent="null", ambiguous="earliest"),
        )
        .dt.epoch("s")
        .alias(column)
    )


def read(name: str, *times: str) -> pl.DataFrame:
    """One file, its time columns as seconds since the epoch."""
    return pl.read_parquet(folder() / f"{name}.parquet").with_columns(*(epoch(t) for t in times))


def _record(kind: str, number: int, created: int, updated: int, values: dict[str, str | None]) -> CrmRecord:
    properties = {
        "hs_object_id": str(number),
        "createdate": crm_time(created * 1000),
        modified_property(kind): crm_time(updated * 1000),
        **values,
    }
    return CrmRecord(str(number), properties, created * 1000, updated * 1000)


def _objects(kind: str, records: Iterator[CrmRecord], limit: int) -> CrmObjects:
    visible = tuple(r for r in records if r.created_ms < limit * 1000)
    return CrmObjects(kind, declared(kind, _ABSENT[kind]), visible)


def _contacts(leads: pl.DataFrame, limit: int) -> Iterator[CrmRecord]:
    for n, row in enumerate(leads.iter_rows(named=True)):
        created, won = int(row["first_contact_at"]), row["won_date"]
        is_won = won is not None and won < limit
        values = {
            "email": None,
            "firstname": None,
            "lastname": None,
            "lifecyclestage": "customer" if is_won else "lead",
            "lead_source": row["origin"],
            "first_contact_date": row["first_contact_date"].isoformat(),
            "external_id": row["mql_id"],
            "landing_page": row["landing_page_id"],
        }
        yield _record("contacts", FIRST_CONTACT + n, created, max(created, won if is_won else 0), values)


def _companies(sellers: pl.DataFrame) -> Iterator[CrmRecord]:
    for n, row in enumerate(sellers.iter_rows(named=True)):
        created = int(row["begin"])
        values = {
            "name": None,
            "city": row["seller_city"],
            "country": "BR",
            "state": row["seller_state"],
            "external_id": row["seller_id"],
        }
        yield _record("companies", FIRST_COMPANY + n, created, created, values)


def _deals(deals: pl.DataFrame) -> Iterator[CrmRecord]:
    for n, row in enumerate(deals.iter_rows(named=True)):
        won = int(row["won_date"])
        values = {
            "dealname": " ".join(filter(None, (row["business_segment"], row["seller_id"][:8]))),
            "amount": f"{row['declared_monthly_revenue']:.2f}",
            "dealstage": "closedwon",
            "pipeline": "default",
            "closedate": crm_time(won * 1000),
            "segment": row["business_segment"],
            "lead_type": row["lead_type"],
            "external_company_id": row["seller_id"],
        }
        yield _record("deals", FIRST_DEAL + n, won, won, values)


def _reviews(reviews: pl.DataFrame, limit: int) -> Iterator[CrmRecord]:
    for n, row in enumerate(reviews.iter_rows(named=True)):
        created, answered = int(row["review_creation_date"]), int(row["review_answer_timestamp"])
        values = {
            "external_id": row["review_id"],
            "order_ref": row["order_id"],
            "score": str(row["review_score"]),
            "title": row["review_comment_title"],
            "message": row["review_comment_message"],
        }
        updated = max(created, answered if answered < limit else 0)
        yield _record("reviews", FIRST_REVIEW + n, created, updated, values)


def _leads_and_deals() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Leads with the moment they were won, and deals, both in the order of their ids."""
    deals = read("closed_deals", "won_date").sort("won_date", "mql_id")
    leads = pl.read_parquet(folder() / "marketing_qualified_leads.parquet").with_columns(
        first_contact_at=pl.col("first_contact_date").cast(pl.Datetime("us")).dt.offset_by("12h")
    )
    leads = leads.with_columns(epoch("first_contact_at"))
    leads = leads.join(deals.select("mql_id", "won_date"), on="mql_id", how="left")
    return leads.sort("first_contact_date", "mql_id"), deals


def _sellers(items: pl.DataFrame, deals: pl.DataFrame) -> pl.DataFrame:
    """Sellers, each from its first sale or the day it was won, whichever came first."""
    seen = pl.concat([items.select("seller_id", at="sold_at"), deals.select("seller_id", at="won_date")])
    first = seen.group_by("seller_id").agg(begin=pl.col("at").min())
    sellers = read("sellers").join(first, on="seller_id", how="left")
    return sellers.with_columns(pl.col("begin").fill_null(BEGIN)).sort("begin", "seller_id")


def _links(
    leads: pl.DataFrame, deals: pl.DataFrame, sellers: pl.DataFrame, limit: int
) -> dict[tuple[str, str], list[tuple[str, str]]]:
    contact = {mql: str(FIRST_CONTACT + n) for n, mql in enumerate(leads["mql_id"])}
    company = {seller: str(FIRST_COMPANY + n) for n, seller in enumerate(sellers["seller_id"])}
    contacts, companies = [], []
    rows = deals.select("mql_id", "seller_id", "won_date").iter_rows()
    for n, (mql, seller, won) in enumerate(rows):
        if won >= limit:
            continue
        contacts.append((str(FIRST_DEAL + n), contact[mql]))
        if seller in company:
            companies.append((str(FIRST_DEAL + n), company[seller]))
    return {("deals", "contacts"): contacts, ("deals", "companies"): companies}


def build(until: date | None = None) -> Company:
    """The marketplace as of the end of a UTC day (see `company.load_company`)."""
    root = folder()
    limit = end_of_day(until or date(2018, 12, 31))
    times = ("purchase_timestamp", "approved_at", "delivered_carrier_date", "delivered_customer_date")
    orders = read("orders", *(f"order_{t}" for t in times)).sort("order_purchase_timestamp", "order_id")
    sold = orders.select("order_id", sold_at=pl.col("order_purchase_timestamp"))
    items = read("order_items").join(sold, on="order_id").sort("sold_at", "order_id", "order_item_id")
    leads, deals = _leads_and_deals()
    sellers = _sellers(items, deals)
    reviews = read("order_reviews", "review_creation_date", "review_answer_timestamp")
    reviews = reviews.sort("review_creation_date", "review_id", "order_id")
    records = {
        "contacts": _contacts(leads, limit),
        "companies": _companies(sellers),
        "deals": _deals(deals),
        "reviews": _reviews(reviews, limit),
    }
    customers, products, nodes = render_shop(orders, items, read, BEGIN, limit)
    handbook = root.parent / "tts_handbook" / "pages"
    return Company(
        name="olist",
        timezone=ZONE,
        crm={kind: _objects(kind, found, limit) for kind, found in records.items()},
        associations=both_ways(_links(leads, deals, sellers, limit)),
        shop=Shop("Olist marketplace", "BRL", tuple(customers), tuple(products), tuple(nodes)),
        documents=handbook if handbook.is_dir() else None,
        truth=Truth(
            (Anomaly("orders", date(2017, 11, 24), "up"), Anomaly("revenue", date(2017, 11, 24), "up"))
        ),
    )
