"""The steps of ingestion as plain calls: what they leave behind, and what they take up."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import duckdb
import polars as pl
import pytest

from omni.errors import ConfigError
from omni.sources.extract import tables
from omni.tenancy import Tenant
from omni.warehouse.contracts import contracts
from omni.warehouse.database import open_warehouse
from omni.warehouse.load import load
from omni.warehouse.staged import REJECTED, Staged
from tasks import crm

DAY = datetime(2026, 3, 1, tzinfo=UTC)
TABLE = "raw.hubspot__companies"


def staged(folder, run_id, ids):
    """A whole folder of companies, as a reading leaves it."""
    folder.mkdir(parents=True)
    kinds = {"timestamp": pl.Datetime("us", "UTC"), "boolean": pl.Boolean, "integer": pl.Int64}
    schema = {name: kinds.get(c.type, pl.String) for name, c in contracts()[TABLE].columns.items()}
    rows = [{"id": i, "updated_at": DAY, "archived": False} for i in ids]
    pl.DataFrame(rows, schema=schema).write_parquet(folder / "rows.parquet")
    (folder / REJECTED).write_text("")
    return Staged(
        tenant="demo", vendor="hubspot", stream="companies", run_id=run_id, folder=folder,
        tables={TABLE: ["rows.parquet"]}, rows={TABLE: len(ids)}, rejected=0, source_rows=len(ids),
        since=None, until=DAY + timedelta(days=1),
    ).save()  # fmt: skip


def test_a_folder_older_than_the_last_load_is_outdated(home, tenant):
    left = staged(home / "left", "killed", ["1"])
    with open_warehouse(tenant) as warehouse:
        with warehouse.cursor() as con:
            assert not crm._outdated(con, "hubspot", "companies", left.folder)
        load(warehouse, staged(home / "newer", "webhook", ["1"]))
        with warehouse.cursor() as con:
            assert crm._outdated(con, "hubspot", "companies", left.folder)
            os.utime(left.folder / "manifest.json", (4e9, 4e9))
            assert not crm._outdated(con, "hubspot", "companies", left.folder)


def test_rows_that_the_warehouse_refuses_are_read_again_next_time(home):
    broken = staged(home / "staged", "r1", ["1", None])
    with pytest.raises(duckdb.ConstraintException):
        crm.load_stream.fn("demo", "hubspot", "companies", {"folder": str(broken.folder), "read": 2})
    assert not broken.folder.exists()


def test_what_was_loaded_leaves_no_folder(home):
    good = staged(home / "staged", "r1", ["1", "2"])
    told = crm.load_stream.fn("demo", "hubspot", "companies", {"folder": str(good.folder), "read": 2})
    assert told["tables"] == {TABLE: {"inserted": 2, "updated": 0, "deleted": 0}}
    assert not good.folder.exists()


ACME = Tenant(
    tenant="acme", title="Acme", timezone="UTC", currency="EUR",
    sources={"hubspot": ["contacts", "deals"], "shopify": ["orders"]},
)  # fmt: skip


@pytest.mark.parametrize(
    ("streams", "found"),
    [
        ((), [("hubspot", "contacts"), ("hubspot", "deals"), ("shopify", "orders")]),
        (("hubspot",), [("hubspot", "contacts"), ("hubspot", "deals")]),
        (("orders", "hubspot.deals"), [("hubspot", "deals"), ("shopify", "orders")]),
    ],
)
def test_streams_are_selected_by_vendor_or_name(streams, found):
    assert list(crm.Selection(streams).of(ACME)) == found


@pytest.mark.parametrize(
    ("selection", "said"),
    [
        (crm.Selection(("faxes",)), r"no stream 'faxes'. It reads hubspot.contacts"),
        (crm.Selection(since="yesterday"), "'yesterday' is no moment"),
        (crm.Selection(until="2026-10-01"), "no moment with a zone"),
    ],
)
def test_wrong_selections_say_what_would_be_right(selection, said):
    with pytest.raises(ConfigError, match=said):
        list(selection.of(ACME))


def test_the_streams_of_the_tests_are_declared():
    assert [contract.table for contract in tables("hubspot", "companies")] == [TABLE]
