"""A company with partners, clicks, orders and refunds in memory, from which the project's models compute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import duckdb
import pytest

from omni.settings import settings
from omni.warehouse.models import cached_models
from omni.warehouse.unit_tests import create_schemas, drop, fill, sample_tenant

MONEY, MOMENT = "DECIMAL(18,2)", "TIMESTAMPTZ"
TYPES = {
    "core.partner_terms": {
        "partner_id": "VARCHAR", "partner_name": "VARCHAR", "code": "VARCHAR", "program": "VARCHAR",
        "joined_on": "DATE", "left_on": "DATE", "window_days": "BIGINT", "hold_days": "BIGINT",
        "minimum_payout": MONEY, "currency": "VARCHAR",
    },
    "core.person_links": {"source": "VARCHAR", "record_id": "VARCHAR", "person_id": "VARCHAR"},
    "core.partner_clicks": {
        "click_id": "VARCHAR", "partner_id": "VARCHAR", "program": "VARCHAR", "person_id": "VARCHAR",
        "clicked_at": MOMENT, "position": "BIGINT",
    },
    "core.orders": {
        "order_id": "VARCHAR", "customer_id": "VARCHAR", "email_hash": "VARCHAR", "ordered_at": MOMENT,
        "order_date": "DATE", "item_amount_home": MONEY, "cancelled_at": MOMENT,
    },
    "core.refunds": {
        "refund_id": "VARCHAR", "order_id": "VARCHAR", "refunded_at": MOMENT, "refund_date": "DATE",
        "amount_home": MONEY,
    },
    "seeds.partner_tiers": {"program": "VARCHAR", "from_amount": MONEY, "rate": "DECIMAL(18,4)"},
}  # fmt: skip
MODELS = ("core.partner_orders", "core.partner_earnings", "marts.partner_commissions")
TIERS = {"affiliate": [("0", "0.05"), ("100", "0.07"), ("500", "0.1")], "reseller": [("50", "0.125")]}
NOON = time(12, tzinfo=UTC)


@dataclass
class Order:
    """An order of a customer of its own, who clicked a partner's link just before."""

    partner: str
    day: date
    cents: int
    cancelled: date | None = None
    refunds: list[tuple[date, int]] = field(default_factory=list)


@dataclass
class Company:
    """What the sources say; `build` makes the published tables of it."""

    con: duckdb.DuckDBPyConnection
    orders: dict[str, Order] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=lambda: {"p1": "One", "p2": "Two", "p3": "=Three"})
    minimum: str = "5.00"

    def build(self, through: date = date(2026, 12, 31)) -> duckdb.DuckDBPyConnection:
        for table, rows in self._rows().items():
            fill(self.con, table, TYPES[table], rows)
        models = cached_models(settings().data / "models")
        for name in MODELS:
            drop(self.con, name)
            self.con.execute(f"CREATE TABLE {name} AS {models[name].bound(sample_tenant())}")
        after = datetime.combine(through + timedelta(days=1), NOON)
        self.con.execute("DELETE FROM ops.cursors")
        self.con.execute("INSERT INTO ops.cursors VALUES ($1)", [after])
        return self.con

    def _rows(self):
        programs = {partner: "reseller" if partner == "p3" else "affiliate" for partner in self.names}
        terms = [
            {"partner_id": p, "partner_name": name, "code": p.upper(), "program": programs[p],
             "joined_on": "2020-01-01", "window_days": 30, "hold_days": 10, "minimum_payout": self.minimum,
             "currency": "EUR"}
            for p, name in self.names.items()
        ]  # fmt: skip
        clicks, orders, refunds = [], [], []
        for position, (key, one) in enumerate(self.orders.items()):
            at = datetime.combine(one.day, NOON)
            clicks.append(
                {"click_id": key, "partner_id": one.partner, "program": programs[one.partner],
                 "person_id": key, "clicked_at": at - timedelta(hours=1), "position": position}
            )  # fmt: skip
            back = one.cancelled and datetime.combine(one.cancelled, NOON)
            orders.append(
                {"order_id": key, "customer_id": key, "ordered_at": at, "order_date": one.day,
                 "item_amount_home": Decimal(one.cents) / 100, "cancelled_at": back}
            )  # fmt: skip
            refunds += [
                {"refund_id": f"{key}/{n}", "order_id": key, "refunded_at": datetime.combine(day, NOON),
                 "refund_date": day, "amount_home": Decimal(cents) / 100}
                for n, (day, cents) in enumerate(one.refunds)
            ]  # fmt: skip
        return {
            "core.partner_terms": terms,
            "core.person_links": [{"source": "shop", "record_id": k, "person_id": k} for k in self.orders],
            "core.partner_clicks": clicks,
            "core.orders": orders,
            "core.refunds": refunds,
            "seeds.partner_tiers": [
                {"program": program, "from_amount": start, "rate": rate}
                for program, tiers in TIERS.items()
                for start, rate in tiers
            ],
        }


@pytest.fixture
def company() -> Iterator[Company]:
    with duckdb.connect() as con:
        create_schemas(con)
        con.execute("SET TimeZone = 'UTC'")
        con.execute("CREATE SCHEMA ops; CREATE TABLE ops.cursors (cursor TIMESTAMPTZ)")
        yield Company(con)


@pytest.fixture
def ordered():
    """Makes an order."""
    return Order
