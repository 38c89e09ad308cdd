"""Firestore through its own client against Google's emulator: windows, ties, types, publications.

The emulator is an apt package (google-cloud-cli-firestore-emulator) that needs Java; without it these skip.
"""

from __future__ import annotations

import json
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from google.cloud.firestore_v1 import GeoPoint
from pydantic import SecretStr

from omni.destinations import firestore as destination
from omni.errors import ConfigError, CountMismatch, SchemaError, TransientError
from omni.sources.connection import Connection
from omni.sources.firestore import VENDOR, opened
from omni.sources.vendor import Window
from omni.warehouse.contracts import Column, Contract, Source

pytestmark = pytest.mark.slow

START = datetime(2026, 5, 1, 12, tzinfo=UTC)
EVER = Window(None, datetime(2100, 1, 1, tzinfo=UTC))
TABLES = [
    Contract(
        table="raw.firestore__orders",
        description="d",
        owner="o",
        grain="g",
        key=["id"],
        columns={
            "id": Column(type="string"),
            "name": Column(type="string"),
            "changed": Column(type="timestamp", path="meta.changed"),
        },
        source=Source(vendor="firestore", object="orders", cursor="changed"),
    )
]


@pytest.fixture
def connection(firestore_emulator, monkeypatch):
    """A database of its own for each test, for an emulator makes projects as they are named."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", firestore_emulator)
    return Connection("firestore", f"firestore://p-{uuid.uuid4().hex[:12]}", SecretStr(""), timeout=10)


def put(connection, collection, documents):
    with opened(connection) as database:
        for start in range(0, len(documents), 500):
            batch = database.library.batch()
            for identity, document in documents[start : start + 500]:
                batch.set(database.library.collection(collection).document(identity), document)
            batch.commit()


def order(identity, minutes, name="x", **more):
    return identity, {"name": name, "meta": {"changed": START + timedelta(minutes=minutes)}} | more


def everything(connection, window=EVER, resume=None):
    with opened(connection) as database:
        VENDOR.check(database, TABLES)
        return VENDOR.count(database, TABLES, window), list(VENDOR.read(database, TABLES, window, resume))


def ids(pages):
    return [record["id"] for page in pages for record in page.records]


def test_a_window_holds_what_changed_in_it(connection):
    put(connection, "orders", [order(f"o{n}", n) for n in range(10)])
    window = Window(START + timedelta(minutes=3), START + timedelta(minutes=6))
    expected, pages = everything(connection, window)
    assert (expected, ids(pages)) == (3, ["o3", "o4", "o5"])
    expected, pages = everything(connection)
    assert expected == len(ids(pages)) == 10


@pytest.mark.parametrize("window", [EVER, Window(START, START + timedelta(days=1))], ids=["full", "window"])
def test_many_of_one_moment_come_once_and_go_on_behind_any_page(connection, window):
    put(connection, "orders", [order(f"{n:05d}", (n % 2) / 6e7) for n in range(1_700)])
    expected, pages = everything(connection, window)
    assert expected == len(ids(pages)) == len(set(ids(pages))) == 1_700
    assert len(pages) == 4
    for index, page in enumerate(pages):
        rest = everything(connection, window, json.loads(json.dumps(page.resume)))[1]
        assert rest == pages[index + 1 :]


def test_every_type_arrives_as_json_has_it(connection):
    with opened(connection) as database:
        reference = database.library.collection("people").document("ann")
    put(
        connection,
        "orders",
        [
            order(
                "a",
                0,
                id=7,
                raw=b"\x00\x01",
                at=GeoPoint(1, 2.5),
                who=reference,
                lines=[{"at": START}],
                no=None,
            )
        ],
    )
    (record,) = everything(connection)[1][0].records
    assert json.loads(json.dumps(record)) == record
    assert record == {
        "id": "a",
        "_row": {"id": 7},
        "name": "x",
        "meta": {"changed": "2026-05-01T12:00:00+00:00"},
        "raw": "AAE=",
        "at": {"latitude": 1, "longitude": 2.5},
        "who": "people/ann",
        "lines": [{"at": "2026-05-01T12:00:00+00:00"}],
        "no": None,
    }


def test_documents_that_cannot_be_told_changed_are_reported_or_refused(connection):
    put(connection, "orders", [order("a", 0), ("b", {"name": "y", "meta": {}})])
    with opened(connection) as database:
        (notice,) = VENDOR.check(database, TABLES)
        assert "1 documents have no meta.changed" in notice
        put(connection, "orders", [("c", {"name": "z", "meta": {"changed": "yesterday"}})])
        with pytest.raises(SchemaError, match=r"meta\.changed is no timestamp"):
            VENDOR.check(database, TABLES)


def test_a_field_no_document_has_is_named(connection):
    put(connection, "orders", [("a", {"meta": {"changed": START}})])
    with pytest.raises(SchemaError, match="none of the newest documents has 'name'"):
        everything(connection)


def test_reading_again_leaves_out_what_is_gone(connection):
    put(connection, "orders", [order("a", 0), order("b", 0)])
    with opened(connection) as database:
        again = ids(VENDOR.reread(database, TABLES, ["b", "gone", "no/id", ""]))
    assert again == ["b"]


@pytest.mark.parametrize("url", ["firestore://", "https://x/y", "firestore://p/d/more"])
def test_an_address_that_cannot_be_is_explained(url):
    with (
        pytest.raises(ConfigError, match="firestore://<project>"),
        opened(Connection("firestore", url, SecretStr(""))),
    ):
        pass


def test_a_key_that_is_none_is_refused_without_a_word_of_it(monkeypatch):
    monkeypatch.delenv("FIRESTORE_EMULATOR_HOST", raising=False)
    for token in ("secret-not-json", '{"type": "service_account", "private_key": "secret"}'):
        with (
            pytest.raises(ConfigError, match="service account's key") as error,
            opened(Connection("firestore", "firestore://p", SecretStr(token))),
        ):
            pass
        assert "secret" not in str(error.value)


def test_no_server_is_transient(monkeypatch):
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:9")
    with (
        opened(Connection("firestore", "firestore://p", SecretStr(""), timeout=0.5)) as database,
        pytest.raises(TransientError, match="no answer"),
    ):
        VENDOR.count(database, TABLES, EVER)


FRAME = pl.DataFrame(
    {
        "region": ["north/1", "..", "__x__"],
        "day": [date(2026, 1, 1), date(2026, 1, 2), None],
        "revenue": [Decimal("1.10"), Decimal("-2.25"), None],
        "seen": [START, None, START],
        "pairs": [[[1, 2]], [], None],
    },
    schema_overrides={"revenue": pl.Decimal(18, 2)},
)


def published(connection, frame, version, key=("region",), owner="acme"):
    with opened(connection) as database:
        return destination.publish(database, "sales", [frame], list(key), version=version, owner=owner)


def shown(connection):
    with opened(connection) as database:
        rows = destination.current(database, "sales")
        return None if rows is None else {one.to_dict()["region"]: one.to_dict() for one in rows.stream()}


def versions(connection):
    with opened(connection) as database:
        root = database.library.collection("omni_tables").document("sales")
        return sorted(one.id for one in root.collection("versions").list_documents())


def test_a_published_table_takes_the_place_of_the_one_before(connection):
    assert shown(connection) is None
    assert published(connection, FRAME, "v1") == 3
    assert shown(connection)["north/1"] == {
        "region": "north/1",
        "day": "2026-01-01",
        "revenue": "1.10",
        "seen": START,
        "pairs": [{"values": [1, 2]}],
    }
    assert set(shown(connection)) == {"north/1", "..", "__x__"}
    assert published(connection, FRAME, "v1") is None
    with pytest.raises(ConfigError, match="tenant 'acme'"):
        published(connection, FRAME, "v2", owner="other")
    assert published(connection, FRAME.head(1), "v2") == 1
    assert set(shown(connection)) == {"north/1"}
    assert published(connection, FRAME.head(2), "v3") == 2
    assert versions(connection) == ["v2", "v3"]


def test_a_publication_that_fails_leaves_the_old_one_current_and_the_next_one_mends(connection):
    published(connection, FRAME, "v1")
    with pytest.raises(CountMismatch, match="rows share the key region"):
        published(connection, pl.concat([FRAME, FRAME]), "v2")
    with pytest.raises(ConfigError, match="no value in its key"):
        published(connection, FRAME, "v2", key=("region", "day"))
    assert len(shown(connection)) == 3
    assert published(connection, FRAME.head(1), "v2") == 1
    assert set(shown(connection)) == {"north/1"}


def test_more_rows_than_one_commit_takes(connection):
    many = pl.DataFrame({"region": [f"r{n}" for n in range(1_203)]})
    assert published(connection, many, "v1") == 1_203
    assert len(shown(connection)) == 1_203
