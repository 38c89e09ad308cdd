"""A foreign client, simple-salesforce as it is published, reads the sandbox as our connector does."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import polars as pl
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from polars.testing import assert_frame_equal
from pydantic import SecretStr
from requests.adapters import HTTPAdapter
from simple_salesforce import Salesforce, SalesforceExpiredSession, SalesforceMalformedRequest
from simple_salesforce.exceptions import SalesforceAuthenticationFailed, SalesforceOperationError

from omni.sandbox.process import Sandbox, running
from omni.sandbox.salesforce_oauth import CLIENT_ID, USER
from omni.security.hashing import Hasher
from omni.sources.connection import Connection
from omni.sources.extract import extract, tables
from omni.sources.records import Shield, typed
from omni.sources.salesforce import VENDOR
from omni.sources.vendor import Window
from omni.tenancy import Tenant

pytestmark = pytest.mark.slow

END = datetime(2100, 1, 1, tzinfo=UTC)
OBJECTS = ("Account", "Contact", "Opportunity", "User", "Product2")


class ToLoopback(HTTPAdapter):
    """Sends what the client addresses by https, which it hard-codes, to the sandbox."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._netloc = urlsplit(url).netloc

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        parts = urlsplit(request.url or "")
        request.url = urlunsplit(("http", self._netloc, parts.path, parts.query, ""))
        request.headers.pop("Host", None)
        return super().send(request, *args, **options)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running("demo") as running_sandbox:
        yield running_sandbox


@pytest.fixture
def session(sandbox: Sandbox) -> Iterator[requests.Session]:
    with requests.Session() as opened:
        opened.trust_env = False
        opened.mount("https://", ToLoopback(sandbox.url))
        yield opened


@pytest.fixture
def foreign(sandbox: Sandbox, session: requests.Session) -> Salesforce:
    return Salesforce(session_id=sandbox.token, instance_url=sandbox.url, version="68.0", session=session)


def control(sandbox: Sandbox, **body: Any) -> None:
    with requests.Session() as own:
        own.trust_env = False
        own.post(f"{sandbox.url}/_sandbox/salesforce", json=body, timeout=10).raise_for_status()


def ours(sandbox: Sandbox, bulk_from: int = 1_000_000) -> Connection:
    return Connection(
        "salesforce",
        sandbox.url,
        SecretStr(sandbox.token),
        requests_per_10s=100_000,
        backoff=0.01,
        options={"bulk_from": str(bulk_from)},
    )


def soql(stream: str) -> str:
    parent = tables("salesforce", stream)[0]
    paths = [
        c.path or n for n, c in parent.columns.items() if not (c.personal and c.personal.protect == "drop")
    ]
    absent = {
        "Contact": (),
        "Account": (),
        "Opportunity": ("Engage_Date__c",),
        "User": (),
        "Product2": (),
    }[stream]
    return f"SELECT {', '.join(p for p in paths if p not in absent)} FROM {stream}"


def frame(stream: str, records: list[dict[str, Any]]) -> pl.DataFrame:
    """Records in the contract's types, in order of id; hashed under a fixed key."""
    wanted = tables("salesforce", stream)
    found = typed(records, wanted, Shield(Hasher(b"k" * 32)))
    assert found.rejected == []
    return found.frames[wanted[0].table].sort("id")


def read(sandbox: Sandbox, stream: str, bulk_from: int = 1_000_000) -> list[dict[str, Any]]:
    with VENDOR.open(ours(sandbox, bulk_from)) as client:
        pages = VENDOR.read(client, tables("salesforce", stream), Window(None, END), None)
        return [record for page in pages for record in page.records]


def nested(row: dict[str, str]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name, value in row.items():
        step, _, rest = name.partition(".")
        if rest:
            record.setdefault(step, {})[rest] = value or None
        else:
            record[name] = value or None
    return record


@pytest.mark.parametrize("stream", OBJECTS)
def test_the_sdk_reads_by_rest_and_by_bulk_what_we_read(
    sandbox: Sandbox, foreign: Salesforce, stream: str, tmp_path: Path
) -> None:
    mine = frame(stream, read(sandbox, stream))
    by_rest = foreign.query_all(soql(stream), include_deleted=True)
    assert by_rest["totalSize"] == mine.height > 0
    assert_frame_equal(frame(stream, [dict(r) for r in _plain(by_rest["records"])]), mine)
    pages = getattr(foreign.bulk2, stream).query_all(soql(stream), max_records=400, wait=0)
    rows = [nested(row) for page in pages for row in csv.DictReader(io.StringIO(page))]
    assert_frame_equal(frame(stream, rows), mine)
    assert_frame_equal(frame(stream, read(sandbox, stream, bulk_from=1)), mine)


def _plain(value: Any) -> Any:
    """The SDK's ordered dictionaries as plain ones."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("stream", OBJECTS)
@pytest.mark.parametrize("bulk_from", [1_000_000, 1], ids=["rest", "bulk"])
def test_extracted_files_hold_what_the_sdk_reads(
    home: Path,
    tenant: Tenant,
    sandbox: Sandbox,
    foreign: Salesforce,
    tmp_path: Path,
    stream: str,
    bulk_from: int,
) -> None:
    staged = extract(
        tenant,
        "salesforce",
        stream,
        ours(sandbox, bulk_from),
        since=None,
        until=END,
        run_id="run-1",
        folder=tmp_path / "staged",
    )
    wanted = tables("salesforce", stream)
    files = [tmp_path / "staged" / name for name in staged.tables[wanted[0].table]]
    mine = pl.concat([pl.read_parquet(file) for file in files]).sort("id")
    records = _plain(foreign.query_all(soql(stream), include_deleted=True)["records"])
    theirs = (
        typed(records, wanted, Shield(Hasher.for_tenant(tenant.tenant))).frames[wanted[0].table].sort("id")
    )
    assert staged.rejected == 0
    assert staged.source_rows == mine.height == len(records)
    assert_frame_equal(mine.select(theirs.columns), theirs)


def test_the_sdk_sees_pages_limits_and_errors(sandbox: Sandbox, foreign: Salesforce) -> None:
    first = foreign.query("SELECT Id FROM Contact")
    assert not first["done"]
    assert len(first["records"]) == 2_000
    more = foreign.query_more(first["nextRecordsUrl"], identifier_is_url=True)
    assert more["done"]
    assert foreign.api_usage["api-usage"].total == 100_000
    assert {s["name"] for s in foreign.describe()["sobjects"]} == set(OBJECTS)
    assert foreign.Account.describe()["name"] == "Account"
    with pytest.raises(SalesforceMalformedRequest):
        foreign.query("SELECT Nothing FROM Contact")
    control(sandbox, action="fate", state="Failed", message="out of luck")
    with pytest.raises(SalesforceOperationError, match="out of luck"):
        list(foreign.bulk2.Contact.query("SELECT Id FROM Contact", wait=0))


def test_the_sdk_writes_records_and_bulk_jobs(foreign: Salesforce) -> None:
    made = foreign.Account.create({"Name": "From the SDK", "External_Id__c": "SDK-1"})
    assert foreign.Account.get_by_custom_id("External_Id__c", "SDK-1")["Id"] == made["id"]
    assert foreign.Account.update(made["id"], {"Name": "Renamed"}) == 204
    assert foreign.Account.upsert("External_Id__c/SDK-1", {"Website": "https://sdk.example"}) in (200, 204)
    records = [
        {"External_Id__c": "SDK-1", "Name": "Again"},
        {"External_Id__c": "SDK-2", "Name": "Second"},
        {"External_Id__c": "SDK-3", "Name": "#N/A"},
    ]
    result = foreign.bulk2.Account.upsert(records=records, external_id_field="External_Id__c", wait=0)[0]
    assert (result["numberRecordsProcessed"], result["numberRecordsFailed"]) == (3, 1)
    good = list(csv.DictReader(io.StringIO(foreign.bulk2.Account.get_successful_records(result["job_id"]))))
    bad = list(csv.DictReader(io.StringIO(foreign.bulk2.Account.get_failed_records(result["job_id"]))))
    assert {row["sf__Created"] for row in good} == {"true", "false"}
    assert [row["sf__Error"].split(":")[0] for row in bad] == ["REQUIRED_FIELD_MISSING"]
    names = foreign.query_all("SELECT Name FROM Account WHERE External_Id__c LIKE 'SDK-%' ORDER BY Name")
    assert [r["Name"] for r in names["records"]] == ["Again", "Second"]
    for row in good:
        assert foreign.Account.delete(row["sf__Id"]) == 204


def test_the_sdk_signs_in_by_jwt_and_by_client_credentials(
    sandbox: Sandbox, session: requests.Session
) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain).decode()
    public = key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    control(sandbox, action="register", client_id="sdk", public_key=public.decode())
    by_key = Salesforce(
        username=USER, consumer_key="sdk", privatekey=private, session=session, version="68.0"
    )
    by_app = Salesforce(
        consumer_key=CLIENT_ID,
        consumer_secret=sandbox.token,
        domain="acme.my",
        session=session,
        version="68.0",
    )
    for signed_in in (by_key, by_app):
        assert signed_in.query("SELECT COUNT() FROM User")["totalSize"] == 5
    with pytest.raises(SalesforceAuthenticationFailed, match="invalid_client"):
        Salesforce(consumer_key=CLIENT_ID, consumer_secret="wrong", domain="acme.my", session=session)
    control(sandbox, action="expire")
    # The client renews the session by itself, once.
    assert by_key.query("SELECT COUNT() FROM User")["totalSize"] == 5


def test_the_sdk_without_a_login_is_told_that_its_session_ended(
    sandbox: Sandbox, session: requests.Session
) -> None:
    foreign = Salesforce(session_id="other", instance_url=sandbox.url, version="68.0", session=session)
    with pytest.raises((SalesforceExpiredSession, RuntimeError)):
        foreign.query("SELECT Id FROM User")
