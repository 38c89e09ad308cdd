"""Online Retail, 541,909 lines: day by day over its 305 days and all at once, to identical tables."""

from __future__ import annotations

import itertools
import os
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

import polars as pl
import pytest
from pydantic import SecretStr

from omni import tenancy
from omni.settings import settings
from omni.sources.connection import Connection
from omni.sources.extract import extract
from omni.warehouse.contracts import contracts
from omni.warehouse.database import open_warehouse
from omni.warehouse.load import load

pytestmark = [pytest.mark.slow, pytest.mark.real_data]

TABLE, STREAM = "raw.files__online_retail_lines", "online_retail_lines"
LINES, DAYS, WORTH = 541_909, 305, Decimal("9747747.934")


@pytest.fixture(scope="module")
def retail():
    path = settings().real_data / "online_retail" / "online_retail.parquet"
    if not path.exists():
        pytest.skip(f"real data absent: {path}")
    return pl.read_parquet(path)


def delivered(retail, root, *, daily):
    """The set as files of one day each, in turn CSV and Parquet, or as one; returns the days."""
    folder = root / STREAM
    folder.mkdir(parents=True)
    if not daily:
        retail.write_parquet(folder / "all.parquet")
        return []
    days = []
    for index, ((day,), lines) in enumerate(
        retail.with_columns(day=pl.col("InvoiceDate").dt.date())
        .partition_by("day", as_dict=True, include_key=False, maintain_order=True)
        .items()
    ):
        path = folder / f"{day}.{'parquet' if index % 2 else 'csv'}"
        if index % 2:
            lines.write_parquet(path)
        else:
            lines.write_csv(path, datetime_format="%Y-%m-%d %H:%M:%S")
        evening = datetime.combine(day, time(20), UTC)
        os.utime(path, (evening.timestamp(), evening.timestamp()))
        days.append(evening)
    return days


@pytest.fixture
def account():
    def make(root):
        options = {"timezone": "Europe/London", "arrival": "modified"}
        return Connection("files", root.as_uri(), SecretStr(""), options=options)

    return make


def loaded(account, root, windows, tmp_path, tenant):
    """Load windows one after the other; returns the lines of each and the table as a frame."""
    changed = []
    with open_warehouse(tenant) as warehouse:
        for step, (since, until) in enumerate(windows):
            staged = extract(
                tenant, "files", STREAM, account(root), since=since, until=until, run_id=f"r{step}",
                folder=tmp_path / "staged",
            )  # fmt: skip
            assert staged.rejected == 0
            changed.append(load(warehouse, staged)[0].changed)
        names = ", ".join(f'"{name}"' for name in contracts()[TABLE].columns)
        frame = warehouse.cursor().execute(f"SELECT {names} FROM {TABLE} ORDER BY invoice_no, line").pl()
        worth = warehouse.cursor().execute(f"SELECT sum(quantity * unit_price) FROM {TABLE}").fetchone()[0]
    return changed, frame, worth


def test_day_by_day_and_one_backfill_make_identical_tables(retail, account, tmp_path, home):
    days = delivered(retail, tmp_path / "days", daily=True)
    delivered(retail, tmp_path / "whole", daily=False)
    tenant = tenancy.get("retail")
    bounds = [days[0] - timedelta(days=1), *(day + timedelta(hours=1) for day in days)]
    windows = list(itertools.pairwise(bounds))
    changed, daily, worth = loaded(account, tmp_path / "days", windows, tmp_path, tenant)
    assert len(changed) == DAYS
    assert all(changed)
    other = tenant.model_copy(update={"tenant": "retail-again"})
    ever = datetime(2100, 1, 1, tzinfo=UTC)
    backfill, whole, also = loaded(account, tmp_path / "whole", [(None, ever)] * 2, tmp_path / "b", other)
    assert backfill == [LINES, 0]
    assert worth == also == WORTH
    hashed = "customer_id"  # keyed per tenant, so compared by which lines share a customer
    assert daily["arrived_at"].n_unique() == DAYS
    assert daily.drop(hashed, "arrived_at").equals(whole.drop(hashed, "arrived_at"))
    pairs = pl.DataFrame({"a": daily[hashed], "b": whole[hashed]}).unique()
    assert pairs.height == pairs["a"].n_unique() == pairs["b"].n_unique()
