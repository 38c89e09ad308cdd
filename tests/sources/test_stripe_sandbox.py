"""Stripe's streams from the sandbox's companies: faults and pauses change nothing, and Olist's sums agree."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta

import httpx
import polars as pl
import pytest
from pydantic import SecretStr

from omni.errors import AuthError, ConfigError, SourceError
from omni.sandbox.company import load_company
from omni.sandbox.process import running
from omni.settings import settings
from omni.sources.connection import Connection
from omni.sources.extract import extract, tables
from omni.sources.stripe_streams import STREAMS

pytestmark = pytest.mark.slow
FIRST, SECOND = date(2026, 9, 5), date(2026, 9, 26)
END = datetime(2100, 1, 1, tzinfo=UTC)


def after(day):
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)


@pytest.fixture(scope="module")
def earlier():
    with running("demo", until=FIRST) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def calm():
    with running("demo", until=SECOND) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def stormy():
    with running("demo", until=SECOND, faults=0.05, seed=3) as sandbox:
        yield sandbox


@pytest.fixture
def read(home, tenant, tmp_path):
    def start(sandbox, stream, *, since=None, until=END, name="staged"):
        account = Connection(
            "stripe", sandbox.url, SecretStr(sandbox.token), requests_per_10s=100_000, backoff=0.02
        )
        return extract(
            tenant, "stripe", stream, account, since=since, until=until, run_id="run-1",
            folder=tmp_path / name / stream,
        )  # fmt: skip

    return start


def frames(staged, stream):
    """Each table's contract and rows, the parent's first."""
    found = []
    for contract in tables("stripe", stream):
        files = [pl.read_parquet(staged.folder / file) for file in staged.tables[contract.table]]
        found.append((contract, pl.concat(files).sort(contract.key)))
    return found


def test_faults_change_nothing(read, calm, stormy):
    for stream in ("charges", "invoices"):
        one, other = (frames(read(box, stream, name=box.url[-5:]), stream) for box in (calm, stormy))
        for (contract, mine), (_, theirs) in zip(one, other, strict=True):
            assert mine.height > 600, contract.table
            assert mine.equals(theirs)
    said = httpx.get(f"{stormy.url}/_sandbox/stats").json()
    assert sum(said["faults"].values()) > 5


@pytest.mark.parametrize("stream", [name for name in STREAMS if name not in ("products", "prices")])
def test_a_later_load_makes_up_what_a_full_one_finds(read, earlier, calm, stream):
    before = read(earlier, stream, until=after(FIRST), name="before")
    change = read(calm, stream, since=after(FIRST), until=after(SECOND), name="change")
    whole = read(calm, stream, until=after(SECOND), name="whole")
    assert 0 < change.source_rows < whole.source_rows
    moved = 0
    for (contract, old), (_, new), (_, full) in zip(
        *(frames(staged, stream) for staged in (before, change, whole)), strict=True
    ):
        owner = contract.parent_key or contract.key[0]
        kept = old.filter(~pl.col(owner).is_in(new[owner].implode()))
        moved += old.height - kept.height
        assert pl.concat([kept, new]).sort(contract.key).equals(full)
    assert (moved > 0) == (stream in ("charges", "invoices", "subscriptions"))


def requests(sandbox):
    return httpx.get(f"{sandbox.url}/_sandbox/stats").json()["requests"]["stripe get charges"]


def test_a_killed_reading_is_taken_up(read, calm):
    order = {"kind": "401", "path": "/v1/charges.*starting_after", "times": 1}
    whole = read(calm, "charges", name="whole")
    passing = {"kind": "slow:0", "path": "/v1/charges", "times": 60}
    httpx.post(f"{calm.url}/_sandbox/fault", json=passing)
    httpx.post(f"{calm.url}/_sandbox/fault", json=order)
    with pytest.raises(AuthError, match="access refused"):
        read(calm, "charges", name="killed")
    asked = requests(calm)
    again = read(calm, "charges", name="killed")
    assert requests(calm) - asked < 50
    assert frames(again, "charges")[0][1].equals(frames(whole, "charges")[0][1])


@pytest.mark.parametrize(
    ("fault", "said"), [("missing_results", "lacks data"), ("change_type:has_more:string", "has_more should")]
)
def test_spoilt_lists_are_refused(read, calm, fault, said):
    httpx.post(f"{calm.url}/_sandbox/fault", json={"kind": fault, "path": "/v1/refunds", "times": 1})
    try:
        with pytest.raises(SourceError, match=said):
            read(calm, "refunds", name=fault[:5])
    finally:
        httpx.delete(f"{calm.url}/_sandbox/fault")


def test_a_page_cut_short_loses_nothing(read, calm):
    whole = read(calm, "refunds", name="whole")
    for path in ("starting_after", "/v1/refunds"):
        httpx.post(f"{calm.url}/_sandbox/fault", json={"kind": "truncate_page", "path": path, "times": 2})
    try:
        short = read(calm, "refunds", name="short")
    finally:
        httpx.delete(f"{calm.url}/_sandbox/fault")
    assert frames(short, "refunds")[0][1].equals(frames(whole, "refunds")[0][1])


@pytest.mark.real_data
def test_olists_payments_agree_to_the_row_and_the_cent(read):
    try:
        load_company("olist")
    except ConfigError as error:
        pytest.skip(f"real data absent: {error}")
    with running("olist") as sandbox:
        (_, charges), *_ = frames(read(sandbox, "charges"), "charges")
        (_, booked), *_ = frames(read(sandbox, "balance_transactions"), "balance_transactions")
    paid = pl.read_parquet(settings().real_data / "olist" / "order_payments.parquet")
    assert charges.height == booked.height == paid.height
    columns = ("order_id", "payment_sequential", "payment_type", "payment_value")
    expected = Counter(
        (order, sequence, kind, round(value * 100))
        for order, sequence, kind, value in paid.select(columns).iter_rows()
    )
    found = charges.select("order_ref", "payment_sequential", "payment_type", "amount")
    assert Counter(found.iter_rows()) == expected
    assert charges["amount"].sum() == booked["amount"].sum() == round(paid["payment_value"].sum() * 100)
    assert set(charges["currency"]) == {"brl"}
