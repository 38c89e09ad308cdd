"""Online Retail through the normal path: every number of the marts equals one computed with pandas.

The computation here shares nothing with the models but the words of docs/marts.md. Amounts are whole mills
(thousandths of a pound), so that equal means equal.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest
from pydantic import SecretStr

from omni import tenancy
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

MARTS = ("marts.retail_sales", "marts.revenue_daily", "marts.monthly_active_customers",
         "marts.customer_cohorts", "marts.customer_value")  # fmt: skip
POSTAGE, CORRECTIONS, FEES = {"POST", "DOT", "C2"}, {"M", "S", "PADS"}, {"BANK CHARGES", "AMAZONFEE", "CRUK"}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """The file with what each line is."""
    path = settings().real_data / "online_retail" / "online_retail.parquet"
    if not path.exists():
        pytest.skip(f"real data absent: {path}")
    lines = pd.read_parquet(path)
    code, number = lines["StockCode"].str.strip().str.upper(), lines["InvoiceNo"].str.strip().str.upper()
    kind = pd.Series("goods", index=lines.index)
    kind[code.isin(POSTAGE)] = "postage"
    kind[code.isin(CORRECTIONS)] = "corrections"
    kind[code.isin(FEES)] = "fees"
    kind[code == "D"] = "discounts"
    kind[code == "B"] = "bad_debt"
    kind[code.str.startswith("GIFT_")] = "vouchers"
    kind[lines["UnitPrice"] == 0] = "unpriced"
    mills = (lines["UnitPrice"] * 1000).round().astype("int64") * lines["Quantity"]
    cancelled = number.str.startswith("C")
    kind[(kind == "goods") & cancelled] = "returns"
    return lines.assign(
        code=code, number=number, kind=kind, mills=mills, cancelled=cancelled,
        day=lines["InvoiceDate"].dt.normalize(), customer=lines["CustomerID"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def orders(frame: pd.DataFrame) -> pd.DataFrame:
    """Invoices that sold goods: total in cents, customer (or none), month."""
    sales = frame[~frame["cancelled"] & ~frame["number"].str.startswith("A")]
    by = sales.groupby("number").agg(
        mills=("mills", "sum"), customer=("customer", "first"), day=("day", "first")
    )
    goods = sales[sales["kind"] == "goods"].groupby("number")["mills"].sum()
    by = by[by.index.isin(goods[goods > 0].index)]
    return by.assign(
        cents=by["mills"].map(lambda m: (m + 5) // 10), month=by["day"].dt.to_period("M").dt.start_time
    )


@pytest.fixture(scope="module")
def credited(frame: pd.DataFrame) -> pd.DataFrame:
    """Cancellations: what they gave back for goods, postage and vouchers and as a discount, in cents."""
    lines = frame[frame["cancelled"] & frame["kind"].isin(["returns", "discounts", "postage", "vouchers"])]
    by = lines.groupby("number").agg(
        mills=("mills", "sum"), customer=("customer", "first"), day=("day", "first")
    )
    return by[by["mills"] < 0].assign(cents=by["mills"].map(lambda m: (5 - m) // 10))


@pytest.fixture(scope="module")
def warehouse(frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Query]:
    """The tenant's warehouse, loaded and built; gives a function that queries it."""
    root, home = tmp_path_factory.mktemp("delivered"), tmp_path_factory.mktemp("retail")
    source = settings().real_data / "online_retail" / "online_retail.parquet"
    (root / "online_retail_lines").mkdir()
    shutil.copy(source, root / "online_retail_lines" / "all.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNI_HOME", str(home))
        settings.cache_clear()
        tenant = tenancy.get("retail")
        options = {"timezone": "Europe/London", "arrival": "modified"}
        account = Connection("files", root.as_uri(), SecretStr(""), options=options)
        staged = extract(
            tenant, "files", "online_retail_lines", account,
            since=None, until=datetime(2100, 1, 1, tzinfo=UTC), run_id="r", folder=home / "staged",
        )  # fmt: skip
        models = cached_models(settings().data / "models")
        with open_warehouse(tenant) as opened:
            assert load(opened, staged)[0].changed == len(frame)
            done = build_models(opened, models, select=ancestors(models, MARTS), run_id="r")
            assert [o for o in done if o.status != "done"] == []
            with opened.cursor() as con:
                yield lambda sql: con.execute(sql).fetchall()
    settings.cache_clear()


def test_the_sums_known_of_the_set(frame: pd.DataFrame, warehouse: Query) -> None:
    known = "customer_hash IS NOT NULL AND quantity > 0 AND unit_price > 0"
    assert warehouse(
        f"SELECT count(*), sum(amount), sum(amount) FILTER ({known}) FROM core.retail_lines"
    ) == [(541_909, Decimal("9747747.934"), Decimal("8911407.904"))]
    assert warehouse("SELECT sum(total_amount) * 1000 FROM marts.retail_sales") == [
        (int(frame["mills"].sum()),)
    ]


def test_every_kind_of_line_is_told_apart(frame: pd.DataFrame, warehouse: Query) -> None:
    ours = frame.groupby("kind").agg(lines=("mills", "size"), mills=("mills", "sum"))
    found = warehouse(
        "SELECT CASE WHEN is_return THEN 'returns' WHEN line_kind IN ('free', 'stock') THEN 'unpriced' "
        "WHEN line_kind IN ('manual', 'sample') THEN 'corrections' WHEN line_kind = 'fee' THEN 'fees' "
        "WHEN line_kind IN ('discount', 'voucher') THEN line_kind || 's' ELSE line_kind END AS kind, "
        "count(*), sum(amount) * 1000 FROM core.retail_lines GROUP BY 1 ORDER BY 1"
    )
    assert [(kind, lines, int(mills)) for kind, lines, mills in found] == list(ours.itertuples(name=None))


def test_repeated_lines_are_kept_and_marked(frame: pd.DataFrame, warehouse: Query) -> None:
    same = ["number", "code", "Quantity", "InvoiceDate", "UnitPrice", "customer", "Country"]
    repeated = frame.assign(text=frame["Description"].str.strip().replace("", None)).duplicated(
        [*same, "text"]
    )
    assert warehouse("SELECT count(*) FILTER (is_repeated), count(*) FROM core.retail_lines") == [
        (int(repeated.sum()), len(frame))
    ]


@pytest.mark.parametrize("period", ["D", "M"])
def test_sales_by_day_or_month_and_country(frame: pd.DataFrame, warehouse: Query, period: str) -> None:
    at = frame["day"].dt.to_period(period).dt.start_time
    table = frame.pivot_table(
        index=[at, "Country"], columns="kind", values="mills", aggfunc="sum", fill_value=0
    ).assign(total=frame.groupby([at, "Country"])["mills"].sum())
    table["returns"], table["discounts"] = -table["returns"], -table["discounts"]
    table["net"] = table["goods"] - table["returns"] - table["discounts"]
    nobody = (
        frame[(frame["kind"] == "goods") & frame["customer"].isna()].groupby([at, "Country"])["mills"].sum()
    )
    table["nobody"] = nobody.reindex(table.index, fill_value=0)
    columns = ["goods", "returns", "discounts", "net", "postage", "vouchers", "corrections", "fees",
               "bad_debt", "nobody", "total"]  # fmt: skip
    names = ["gross_sales", "returns", "discounts", "net_sales", "postage", "vouchers", "corrections",
             "fees", "bad_debt", "unknown_customer_sales", "total_amount"]  # fmt: skip
    sums = ", ".join(f"CAST(sum({name}) * 1000 AS BIGINT)" for name in names)
    unit = {"D": "day", "M": "month"}[period]
    found = warehouse(
        f"SELECT CAST(date_trunc('{unit}', sale_date) AS TIMESTAMP), country, {sums} FROM marts.retail_sales "
        "GROUP BY 1, 2 ORDER BY 1, 2"
    )
    assert found == [(*key, *values) for key, *values in table[columns].itertuples(name=None)]


def test_monthly_active_customers(orders: pd.DataFrame, warehouse: Query) -> None:
    known = orders.dropna(subset=["customer"])
    months = known.groupby("month").agg(customers=("customer", "nunique"), orders=("cents", "size"),
                                        cents=("cents", "sum"))  # fmt: skip
    new = known.groupby("customer")["month"].min().value_counts()
    ours = [
        (month, row.customers, new.get(month, 0), row.orders, row.cents) for month, row in months.iterrows()
    ]
    assert (
        warehouse(
            "SELECT CAST(month AS TIMESTAMP), customers, new_customers, orders, "
            "CAST(revenue * 100 AS BIGINT) "
            "FROM marts.monthly_active_customers ORDER BY 1"
        )
        == ours
    )


def test_cohorts(orders: pd.DataFrame, warehouse: Query) -> None:
    known = orders.dropna(subset=["customer"])
    first = known.groupby("customer")["month"].transform("min")
    since = (known["month"].dt.year - first.dt.year) * 12 + known["month"].dt.month - first.dt.month
    table = known.groupby([first, since]).agg(customers=("customer", "nunique"), orders=("cents", "size"),
                                              cents=("cents", "sum"))  # fmt: skip
    assert warehouse(
        "SELECT CAST(cohort_month AS TIMESTAMP), months_since, customers, orders, "
        "CAST(revenue * 100 AS BIGINT) "
        "FROM marts.customer_cohorts ORDER BY 1, 2"
    ) == [(*key, *values) for key, *values in table.itertuples(name=None)]


def test_what_customers_are_worth(orders: pd.DataFrame, credited: pd.DataFrame, warehouse: Query) -> None:
    """Customers are hashed in the warehouse, so their numbers are compared in order of size."""
    back = credited.groupby("customer")["cents"].sum()
    known = orders.dropna(subset=["customer"])
    known = known.groupby("customer").agg(n=("cents", "size"), cents=("cents", "sum"))
    worth = known["cents"] - back.reindex(known.index, fill_value=0)
    found = warehouse("SELECT orders, CAST(revenue * 100 AS BIGINT) FROM marts.customer_value ORDER BY 1, 2")
    assert found == sorted(zip(known["n"], worth, strict=True))


def test_revenue_by_day_is_orders_less_what_was_given_back(
    orders: pd.DataFrame, credited: pd.DataFrame, warehouse: Query
) -> None:
    back, sold = credited.groupby("day")["cents"].sum(), orders.groupby("day")["cents"].sum()
    net = sold.sub(back, fill_value=0).astype("int64").sort_index()
    found = warehouse(
        "SELECT CAST(sale_date AS TIMESTAMP), CAST(sum(net_home) * 100 AS BIGINT) FROM marts.revenue_daily "
        "GROUP BY 1 ORDER BY 1"
    )
    assert found == list(net.items())
