"""Whole Salesforce streams into staged files: faults, crashes, and the real data set to the cent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import httpx
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pydantic import SecretStr

from omni.errors import ConfigError
from omni.sandbox import sales_org
from omni.sandbox.process import running
from omni.sources.connection import Connection
from omni.sources.extract import extract, reread, tables
from omni.warehouse.database import open_warehouse
from omni.warehouse.load import cursor_of, load

pytestmark = pytest.mark.slow

BEGIN, END = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
STREAMS = ("Account", "Contact", "Opportunity", "User", "Product2")


class Broken(Exception):
    """The process dies here."""


@pytest.fixture(scope="module")
def calm():
    with running("demo") as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def stormy():
    with running("demo", faults=0.08, seed=5) as sandbox:
        yield sandbox


@pytest.fixture
def start(home, tenant, tmp_path):
    def run(sandbox, stream, *, bulk_from=1_000_000, name="staged", since=None, until=END, **options):
        connection = Connection(
            "salesforce",
            sandbox.url,
            SecretStr(sandbox.token),
            requests_per_10s=1_000_000,
            backoff=0.005,
            options={"bulk_from": str(bulk_from)},
        )
        folder = tmp_path / name / stream
        given = {"since": since, "until": until, "run_id": "run-1", "folder": folder} | options
        return extract(tenant, "salesforce", stream, connection, **given)

    return run


def frame(staged):
    (files,) = staged.tables.values()
    return pl.concat([pl.read_parquet(staged.folder / file) for file in files]).sort("id")


@pytest.mark.parametrize("stream", STREAMS)
def test_both_ways_and_faults_give_the_same_table(start, calm, stormy, stream) -> None:
    by_rest = frame(start(calm, stream))
    assert_frame_equal(frame(start(calm, stream, bulk_from=1, name="bulk")), by_rest)
    assert_frame_equal(frame(start(stormy, stream, name="stormy")), by_rest)
    assert_frame_equal(frame(start(stormy, stream, bulk_from=1, name="stormy-bulk")), by_rest)


def test_windows_one_after_the_other_make_up_the_whole(start, calm) -> None:
    whole = frame(start(calm, "Opportunity"))
    middle = whole["updated_at"].sort()[300]
    last = whole["updated_at"].max() + timedelta(milliseconds=1)
    early = start(calm, "Opportunity", name="early", since=BEGIN, until=middle)
    late = start(calm, "Opportunity", name="late", since=middle, until=last)
    assert 0 < early.source_rows < whole.height
    assert early.source_rows + late.source_rows == whole.height
    assert_frame_equal(pl.concat([frame(early), frame(late)]).sort("id"), whole)


@pytest.mark.parametrize("bulk_from", [1, 1_000_000])
def test_a_full_read_keeps_what_changed_after_the_window(start, calm, bulk_from) -> None:
    whole = frame(start(calm, "Opportunity"))
    middle = whole["updated_at"].sort()[300]
    early = start(calm, "Opportunity", name="early", until=middle, bulk_from=bulk_from)
    assert_frame_equal(frame(early), whole)
    assert early.source_rows == whole.filter(whole["updated_at"] < middle).height


def test_personal_columns_are_protected(start, calm) -> None:
    found = frame(start(calm, "Contact"))
    assert found["first_name"].is_null().all()
    assert found["email"].drop_nulls().str.contains("@").sum() == 0
    assert found["is_deleted"].sum() > 0


def test_single_records_are_read_again(start, calm, home, tenant, tmp_path) -> None:
    ids = frame(start(calm, "Account"))["id"].to_list()[:3]
    connection = Connection("salesforce", calm.url, SecretStr(calm.token))
    staged = reread(
        tenant, "salesforce", "Account", connection, ids, run_id="again", folder=tmp_path / "again"
    )
    assert frame(staged)["id"].to_list() == ids


def test_changes_and_deletions_reach_the_warehouse(start, tenant) -> None:
    with running("demo") as sandbox, open_warehouse(tenant) as warehouse:
        headers = {"Authorization": f"Bearer {sandbox.token}"}
        accounts = f"{sandbox.url}/services/data/v68.0/sobjects/Account"
        loaded = datetime.now(UTC)
        load(warehouse, start(sandbox, "Account", until=loaded))
        with warehouse.cursor() as con:
            assert cursor_of(con, "salesforce", "Account") == loaded.replace(
                microsecond=loaded.microsecond // 1000 * 1000
            )
            first, second = con.execute(
                "SELECT id FROM raw.salesforce__accounts ORDER BY id LIMIT 2"
            ).fetchall()
        httpx.patch(f"{accounts}/{first[0]}", json={"Name": "Renamed"}, headers=headers).raise_for_status()
        httpx.delete(f"{accounts}/{second[0]}", headers=headers).raise_for_status()
        made = httpx.post(accounts, json={"Name": "New"}, headers=headers).json()["id"]
        later = start(sandbox, "Account", name="later", since=loaded, run_id="run-2")
        assert later.source_rows == 3
        load(warehouse, later)
        with warehouse.cursor() as con:
            found = con.execute(
                "SELECT id, name, is_deleted FROM raw.salesforce__accounts WHERE _run_id = 'run-2'"
            ).fetchall()
            total = con.execute("SELECT count(*) FROM raw.salesforce__accounts").fetchone()
    assert {row[0] for row in found} == {first[0], second[0], made}
    assert {row[1:] for row in found if row[0] != second[0]} == {("Renamed", False), ("New", False)}
    assert [row[2] for row in found if row[0] == second[0]] == [True]
    assert total == (201,)


@pytest.fixture(scope="module")
def sales():
    try:
        sales_org.folder()
    except ConfigError as error:
        pytest.skip(f"real data absent: {error}")
    with running("sales") as sandbox:
        yield sandbox


def deals():
    return pl.DataFrame(sales_org.read("sales_pipeline"))


@pytest.mark.real_data
@pytest.mark.parametrize("bulk_from", [1_000_000, 1], ids=["rest", "bulk"])
def test_the_real_pipeline_agrees_with_its_files_to_the_row_and_the_cent(start, sales, bulk_from) -> None:
    staged = start(sales, "Opportunity", bulk_from=bulk_from)
    mine, theirs = frame(staged), deals()
    assert (staged.source_rows, staged.rejected) == (8_800, 0)
    assert mine["amount"].sum() == sum(Decimal(v) for v in theirs["close_value"].drop_nulls())
    assert mine["amount"].null_count() == theirs["close_value"].null_count() == 2_089
    columns = {
        "external_id": "opportunity_id",
        "account_name": "account",
        "stage": "deal_stage",
        "product_name": "product",
        "engaged_on": "engage_date",
        "closed_on": "close_date",
        "amount": "close_value",
    }
    shown = mine.select(
        pl.col(name).cast(pl.String).str.strip_suffix(".00").alias(theirs_name)
        for name, theirs_name in columns.items()
    ).sort("opportunity_id")
    expected = theirs.select(columns.values()).with_columns(pl.col("product").replace("GTXPro", "GTX Pro"))
    assert_frame_equal(shown, expected.sort("opportunity_id"))
    assert mine.filter(pl.col("is_won"))["amount"].sum() == Decimal(10_005_534)


@pytest.mark.real_data
def test_the_real_accounts_products_and_agents_agree_with_their_files(start, sales) -> None:
    accounts = frame(start(sales, "Account"))
    given = pl.DataFrame(sales_org.read("accounts"))
    millions = sum(Decimal(v) for v in given["revenue"])
    assert (accounts.height, accounts["annual_revenue"].sum()) == (85, millions * 1_000_000)
    assert accounts["parent_id"].drop_nulls().len() == given["subsidiary_of"].drop_nulls().len()
    assert accounts["employees"].sum() == given["employees"].cast(pl.Int64).sum()
    products = frame(start(sales, "Product2"))
    prices = sum(Decimal(r["sales_price"]) for r in sales_org.read("products"))
    assert products["list_price"].sum() == prices
    people = frame(start(sales, "User"))
    teams = pl.DataFrame(sales_org.read("sales_teams"))
    assert people["manager_id"].drop_nulls().len() == teams.height
    assert people.height == teams.height + teams["manager"].n_unique()


@pytest.mark.real_data
@pytest.mark.parametrize("bulk_from", [1_000_000, 1], ids=["rest", "bulk"])
def test_a_reading_that_dies_goes_on_where_it_was(start, sales, bulk_from) -> None:
    def die(read):
        if read >= 8_000:
            raise Broken

    whole = frame(start(sales, "Opportunity", name="whole", bulk_from=bulk_from))
    with pytest.raises(Broken):
        start(sales, "Opportunity", bulk_from=bulk_from, progress=die)
    before = httpx.get(f"{sales.url}/_sandbox/stats").json()["requests"]
    again = start(sales, "Opportunity", bulk_from=bulk_from, run_id="run-2")
    after = httpx.get(f"{sales.url}/_sandbox/stats").json()["requests"]
    assert_frame_equal(frame(again), whole)
    assert again.source_rows == 8_800
    new = {k: v - before.get(k, 0) for k, v in after.items()}
    if bulk_from == 1:
        assert new.get("salesforce bulk query", 0) == 0
    else:
        assert new["salesforce queryMore"] == 1


def test_the_streams_have_contracts_with_the_best_cursor() -> None:
    for stream in STREAMS:
        parent = tables("salesforce", stream)[0]
        assert parent.columns[parent.source.cursor].path == "SystemModstamp"
