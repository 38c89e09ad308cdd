"""A seller of computer hardware, from Maven Analytics' CRM sales opportunities, as a Salesforce org.

A published, fictitious data set (`crm_sales_opportunities/SOURCE.md` among the real data sets tells the
origin and the quirks). Values stay as they are in the files, misspellings too, but for revenue, which the
files give in millions, and the product `GTXPro`, which the products call `GTX Pro`. Dates carry no time of
day: records change after noon UTC. Prospects have no date at all and begin with the data set.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from omni.errors import ConfigError
from omni.sandbox.company import Company, Shop
from omni.sandbox.salesforce_org import Org, OrgField
from omni.sandbox.salesforce_schema import account, contact, opportunity, product, user
from omni.settings import settings

BEGIN = date(2016, 10, 20)
"""The first day of the data set."""
STAGES = ("Prospecting", "Engaging", "Won", "Lost")
PRODUCTS = {"GTXPro": "GTX Pro"}
FILES = ("accounts", "products", "sales_teams", "sales_pipeline")

Row = dict[str, Any]
Ids = dict[str, str]


def folder() -> Path:
    """Where the files are.

    Raises:
        ConfigError: they are absent.
    """
    path = settings().real_data / "crm_sales_opportunities"
    if not all((path / f"{name}.csv").is_file() for name in FILES):
        raise ConfigError(
            f"The company 'sales' needs its data under {path}, which is absent. Set OMNI_REAL_DATA to the "
            "folder that holds crm_sales_opportunities/sales_pipeline.csv, or use the company 'demo'."
        )
    return path


def read(name: str) -> list[Row]:
    """One file's rows as text; empty cells are None."""
    frame = pl.read_csv(folder() / f"{name}.csv", infer_schema=False)
    return frame.to_dicts()


def build(until: date | None = None) -> Company:
    """The company as of the end of a UTC day (see `company.load_company`)."""
    files = {name: read(name) for name in FILES}
    return Company(
        name="sales",
        timezone="America/New_York",
        crm={},
        associations={},
        shop=Shop("Sales", "USD", (), (), ()),
        documents=None,
        org=partial(build_org, files, until),
    )


def build_org(files: dict[str, list[Row]], until: date | None = None) -> Org:
    """A new org of the files' rows."""
    org = Org(
        (
            account(),
            contact(),
            opportunity(
                STAGES,
                OrgField("External_Id__c", external_id=True, length=40),
                OrgField("Engage_Date__c", "date"),
                OrgField("Product__c", "reference", target="Product2", relationship="Product__r"),
            ),
            user(OrgField("Regional_Office__c", "picklist", values=("Central", "East", "West"))),
            product(OrgField("List_Price__c", "currency")),
        )
    )
    agents = _users(org, files["sales_teams"])
    products = _products(org, files["products"])
    accounts = _accounts(org, files["accounts"])
    last = until or date.max
    for number, row in enumerate(files["sales_pipeline"], 1):
        _opportunity(org, number, row, last, agents, products, accounts)
    return org


def _noon(day: date, number: int = 0) -> str:
    """Noon of a day, some seconds apart by record."""
    moment = datetime.combine(day, time(12)) + timedelta(seconds=number % 3600)
    return f"{moment.isoformat()}.000Z"


def _users(org: Org, rows: list[Row]) -> Ids:
    managers = sorted({row["manager"] for row in rows})
    found: Ids = {}
    for name in (*managers, *(row["sales_agent"] for row in rows)):
        first, _, last = name.partition(" ")
        row = next((r for r in rows if r["sales_agent"] == name), None)
        values = {
            "Username": f"{name.lower().replace(' ', '.')}@sales.example",
            "FirstName": first,
            "LastName": last,
            "Name": name,
            "Title": "Sales Agent" if row else "Sales Manager",
            "IsActive": True,
            "ManagerId": found[row["manager"]] if row else None,
            "Regional_Office__c": row["regional_office"] if row else None,
        }
        found[name] = org.put("User", len(found) + 1, _noon(BEGIN), _noon(BEGIN), values)
    return found


def _products(org: Org, rows: list[Row]) -> Ids:
    found: Ids = {}
    for number, row in enumerate(rows, 1):
        values = {
            "Name": row["product"],
            "Family": row["series"],
            "IsActive": True,
            "List_Price__c": float(row["sales_price"]),
        }
        found[row["product"]] = org.put("Product2", number, _noon(BEGIN), _noon(BEGIN), values)
    return found


def _accounts(org: Org, rows: Iterable[Row]) -> Ids:
    found: Ids = {}
    parents = {}
    for number, row in enumerate(rows, 1):
        values = {
            "Name": row["account"],
            "Industry": row["sector"],
            "AnnualRevenue": float(Decimal(row["revenue"]) * 1_000_000),
            "NumberOfEmployees": int(row["employees"]),
            "YearStarted": row["year_established"],
            "BillingCountry": row["office_location"],
        }
        found[row["account"]] = org.put("Account", number, _noon(BEGIN), _noon(BEGIN), values)
        parents[found[row["account"]]] = row["subsidiary_of"]
    for identity, parent in parents.items():
        org.rows["Account"][identity]["ParentId"] = found.get(parent)
    return found


def _opportunity(
    org: Org, number: int, row: Row, last: date, agents: Ids, products: Ids, accounts: Ids
) -> None:
    """A deal as it stood on the last day; those not begun by then are left out."""
    engaged = date.fromisoformat(row["engage_date"]) if row["engage_date"] else None
    closed = date.fromisoformat(row["close_date"]) if row["close_date"] else None
    begun = engaged or BEGIN
    if begun > last:
        return
    over, sold = closed is not None and closed <= last, str(row["product"])
    values = {
        "AccountId": accounts.get(row["account"]),
        "Name": row["opportunity_id"],
        "StageName": row["deal_stage"] if over or closed is None else "Engaging",
        "Amount": float(row["close_value"]) if over and row["close_value"] else None,
        "CloseDate": row["close_date"] if over else None,
        "IsClosed": over,
        "IsWon": over and row["deal_stage"] == "Won",
        "OwnerId": agents[row["sales_agent"]],
        "External_Id__c": row["opportunity_id"],
        "Engage_Date__c": row["engage_date"],
        "Product__c": products[PRODUCTS.get(sold, sold)],
    }
    changed = closed if over and closed else begun
    org.put("Opportunity", number, _noon(begun, number), _noon(changed, number), values)
