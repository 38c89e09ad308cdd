"""Whole streams from the sandbox's company: with and without faults the same tables."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import httpx
import polars as pl
import pytest
from pydantic import SecretStr

from omni.errors import AuthError, CountMismatch, SchemaError, SourceError
from omni.sandbox.process import running
from omni.sources.connection import Connection
from omni.sources.extract import extract, streams, window_end
from omni.warehouse.staged import MANIFEST

pytestmark = pytest.mark.slow

STREAMS = [
    ("hubspot", "companies"),
    ("hubspot", "deals"),
    ("shopify", "products"),
    ("shopify", "productVariants"),
    ("shopify", "inventoryItems"),
    ("shopify", "customers"),
    ("shopify", "orders"),
]
END = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def calm():
    with running("demo", hubspot_per_10s=100_000) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def stormy():
    with running("demo", faults=0.05, seed=3, hubspot_per_10s=100_000) as sandbox:
        yield sandbox


@pytest.fixture
def read(home, tenant, tmp_path):
    def start(sandbox, vendor, stream, *, since=None, until=END, name="staged", **options):
        options = {"requests_per_10s": 100_000, "backoff": 0.02} | options
        token = SecretStr(options.pop("token", sandbox.token))
        return extract(
            tenant,
            vendor,
            stream,
            Connection(vendor, sandbox.url, token, **options),
            since=since,
            until=until,
            run_id="run-1",
            folder=tmp_path / name / stream,
        )

    return start


@pytest.fixture
def fail(calm):
    """Force a fault on the calm sandbox: `fail(kind, path, times)`."""

    def force(kind, path, times=1):
        body = {"kind": kind, "path": path, "times": times}
        httpx.post(f"{calm.url}/_sandbox/fault", json=body, headers=headers).raise_for_status()

    headers = {"Authorization": f"Bearer {calm.token}"}
    yield force
    httpx.request("DELETE", f"{calm.url}/_sandbox/fault", headers=headers)


def frames(staged):
    return {
        table: pl.concat([pl.read_parquet(staged.folder / file) for file in files]) if files else None
        for table, files in staged.tables.items()
    }


@pytest.mark.parametrize(("vendor", "stream"), STREAMS)
def test_faults_change_nothing(calm, stormy, read, vendor, stream):
    quiet = read(calm, vendor, stream, name="a")
    loud = read(stormy, vendor, stream, name="b")
    assert (quiet.rows, quiet.source_rows, quiet.rejected) == (loud.rows, loud.source_rows, loud.rejected)
    for table, frame in frames(quiet).items():
        assert frame.equals(frames(loud)[table])


@pytest.mark.parametrize(("vendor", "stream"), [("hubspot", "deals"), ("shopify", "orders")])
def test_two_windows_hold_what_one_load_holds(calm, read, vendor, stream):
    whole = read(calm, vendor, stream, name="whole")
    parent = f"raw.{vendor}__{stream}"
    cut = frames(whole)[parent]["updated_at"].quantile(0.9, "nearest")
    first = read(calm, vendor, stream, since=datetime(2000, 1, 1, tzinfo=UTC), until=cut, name="first")
    second = read(calm, vendor, stream, since=first.until, name="second")
    assert 0 < second.source_rows < first.source_rows
    for table, frame in frames(whole).items():
        both = pl.concat([part for part in (frames(first)[table], frames(second)[table]) if part is not None])
        assert both.sort(frame.columns).equals(frame.sort(frame.columns))


def test_no_address_of_a_person_is_staged(calm, read):
    listing = f"{calm.url}/crm/objects/2026-09/contacts?limit=100&properties=email,firstname,lastname,phone"
    found = httpx.get(listing, headers={"Authorization": f"Bearer {calm.token}"}).json()["results"]
    values = {value for row in found for value in row["properties"].values() if value}
    addresses = {value for value in values if "@" in value}
    assert len(addresses) > 50
    staged = read(calm, "hubspot", "contacts")
    content = b"".join(file.read_bytes() for file in staged.folder.iterdir())
    assert not [address for address in addresses if address.encode() in content]
    assert not re.search(rb"[\w.]+@[\w.]+\.\w+", content)
    people = frames(staged)["raw.hubspot__contacts"]
    assert people["first_name"].null_count() == people.height
    assert people["email"].drop_nulls().str.contains("^[0-9a-f]{64}$").all()


@pytest.mark.parametrize(("vendor", "stream"), [("hubspot", "companies"), ("shopify", "products")])
def test_a_wrong_token(calm, read, vendor, stream):
    with pytest.raises(AuthError, match=f"OMNI_{vendor.upper()}__TOKEN") as caught:
        read(calm, vendor, stream, token="wrong-token")
    assert "wrong-token" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "path", "error"),
    [
        ("401", "/companies.*after=", AuthError),
        ("missing_results", "objects/2026-09/companies", SourceError),
        ("drop_property:city", "properties/2026-09/companies", SchemaError),
        ("drop_property:city", "companies", SchemaError),
        ("change_type:createdate:string", "properties/2026-09/companies", SchemaError),
        ("truncate_page", "objects/2026-09/companies.*limit=100", CountMismatch),
    ],
)
def test_broken_answers_stop_the_load(calm, read, fail, tmp_path, kind, path, error):
    fail(kind, path, None)
    with pytest.raises(error):
        read(calm, "hubspot", "companies")
    assert not list(tmp_path.rglob(MANIFEST))


@pytest.mark.parametrize("kind", ["429", "429_retry_after", "503", "cut_body", "malformed_json"])
def test_passing_faults_pass(calm, read, fail, kind):
    fail(kind, "companies", 2)
    assert read(calm, "hubspot", "companies").source_rows > 0


def test_values_that_changed_their_type_are_rejected_one_by_one(calm, read, fail):
    fail("change_type:createdate:string", "objects/2026-09/companies.*limit=100", 1)
    staged = read(calm, "hubspot", "companies")
    assert staged.rejected == 100
    assert staged.rows["raw.hubspot__companies"] == staged.source_rows - 100


def test_a_night_later_nothing_is_new(calm, read):
    end = window_end("hubspot", datetime.now(UTC)) + timedelta(days=400)
    staged = read(calm, "hubspot", "companies", since=end, until=end + timedelta(days=1))
    assert (staged.source_rows, staged.rows) == (0, {"raw.hubspot__companies": 0})


def test_every_stream_of_the_contracts_is_known():
    assert {stream for vendor, stream in STREAMS if vendor == "shopify"} == set(streams("shopify"))
