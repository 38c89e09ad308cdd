"""MongoDB through its own client against `tests/support/mongod.py`: windows, ties, types, changes, faults."""

from __future__ import annotations

import importlib.util
import json
import sys
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from bson import Binary, Int64, ObjectId
from bson.decimal128 import Decimal128
from pydantic import SecretStr

from omni.destinations import mongodb as destination
from omni.errors import AuthError, ConfigError, CountMismatch, SchemaError, SourceError, TransientError
from omni.settings import PROJECT
from omni.sources.connection import Connection
from omni.sources.mongodb import VENDOR, changes, opened
from omni.sources.vendor import Window
from omni.warehouse.contracts import Column, Contract, Source

pytestmark = pytest.mark.slow

START = datetime(2026, 5, 1, 12, tzinfo=UTC)
EVER = Window(None, datetime(2100, 1, 1, tzinfo=UTC))


def _support():
    spec = importlib.util.spec_from_file_location(
        "support_mongod", PROJECT / "tests" / "support" / "mongod.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


mongod_running = _support().mongod_running

TABLES = [
    Contract(
        table="raw.mongodb__orders",
        description="d",
        owner="o",
        grain="g",
        key=["id"],
        columns={
            "id": Column(type="string"),
            "name": Column(type="string"),
            "changed": Column(type="timestamp", path="meta.changed"),
        },
        source=Source(vendor="mongodb", object="orders", cursor="changed"),
    )
]


@pytest.fixture
def mongod():
    with mongod_running() as server:
        yield server


def connected(server, **changes):
    options = {"token": SecretStr("")} | changes
    return Connection(
        "mongodb", options.pop("base_url", server.url), options.pop("token"), timeout=2, **options
    )


def order(identity, minutes, name="x", **more):
    return {"_id": identity, "name": name, "meta": {"changed": START + timedelta(minutes=minutes)}} | more


def everything(server, window=EVER, resume=None):
    with opened(connected(server)) as database:
        VENDOR.check(database, TABLES)
        return VENDOR.count(database, TABLES, window), list(VENDOR.read(database, TABLES, window, resume))


def ids(pages):
    return [record["id"] for page in pages for record in page.records]


def test_a_window_holds_what_changed_in_it(mongod):
    mongod.put("orders", *(order(n, n) for n in range(10)))
    window = Window(START + timedelta(minutes=3), START + timedelta(minutes=6))
    assert (everything(mongod, window)[0], ids(everything(mongod, window)[1])) == (3, ["3", "4", "5"])
    assert everything(mongod)[0] == len(ids(everything(mongod)[1])) == 10


@pytest.mark.parametrize("window", [EVER, Window(START, START + timedelta(days=1))], ids=["full", "window"])
def test_thousands_of_one_moment_with_keys_of_all_types_go_on_behind_any_page(mongod, window):
    kinds = [
        lambda n: n,
        lambda n: f"{n:05d}",
        lambda n: ObjectId(f"{n:024x}"),
        lambda n: {"a": n, "b": str(n)},
    ]
    mongod.put("orders", *(order(kinds[n % 4](n), n % 3) for n in range(4_500)))
    expected, pages = everything(mongod, window)
    found = ids(pages)
    assert expected == len(found) == len(set(found)) == 4_500
    assert len(pages) == 5
    for index, page in enumerate(pages):
        before = {record["id"] for earlier in pages[: index + 1] for record in earlier.records}
        rest = ids(everything(mongod, window, json.loads(json.dumps(page.resume)))[1])
        assert before | set(rest) == set(found)


def test_every_type_arrives_as_json_has_it(mongod):
    mongod.put(
        "orders",
        order(
            ObjectId("65f000000000000000000001"),
            0,
            id=77,
            price=Decimal128("12.340"),
            big=Int64(2**60),
            ratio=0.5,
            raw=b"\x00\x01",
            uid=Binary.from_uuid(uuid.UUID(int=5)),
            lines=[{"at": START, "of": ObjectId(b"a" * 12)}],
            none=None,
            yes=True,
        ),
    )
    (record,) = everything(mongod)[1][0].records
    assert json.loads(json.dumps(record)) == record
    assert record["id"] == record["_id"] == "65f000000000000000000001"
    assert record["_row"] == {"id": 77}
    assert (record["price"], record["big"], record["ratio"], record["yes"]) == ("12.340", 2**60, 0.5, True)
    assert record["raw"] == "AAE="
    assert record["uid"] == "00000000-0000-0000-0000-000000000005"
    assert record["lines"] == [{"at": "2026-05-01T12:00:00+00:00", "of": "616161616161616161616161"}]
    assert record["meta"]["changed"] == "2026-05-01T12:00:00+00:00"


def test_documents_that_cannot_be_told_changed_are_reported_or_refused(mongod):
    mongod.put("orders", order(1, 0), {"_id": 2, "name": "y", "meta": {}})
    with opened(connected(mongod)) as database:
        (notice,) = VENDOR.check(database, TABLES)
        assert "1 documents have no meta.changed" in notice
        mongod.put("orders", {"_id": 3, "name": "z", "meta": {"changed": "yesterday"}})
        with pytest.raises(SchemaError, match=r"meta\.changed is no date"):
            VENDOR.check(database, TABLES)


def test_a_field_no_document_has_is_named(mongod):
    mongod.put("orders", {"_id": 1, "meta": {"changed": START}})
    with pytest.raises(SchemaError, match="none of the newest documents has 'name'"):
        everything(mongod)


def test_changes_and_deletions_are_told_once_and_read_again(mongod):
    with opened(connected(mongod)) as database:
        begun = changes(database, TABLES, None, seconds=0.1)
        assert begun.ids == []
        mongod.put("orders", order(1, 0), order("b", 1), order(ObjectId(b"c" * 12), 1))
        mongod.put("others", order(9, 0))
        mongod.put("orders", order(1, 5, name="new"))
        mongod.remove("orders", "b")
        told = changes(database, TABLES, begun.resume, seconds=2)
        assert told.ids == ["1", "b", "63" * 12]
        again = [record for page in VENDOR.reread(database, TABLES, told.ids) for record in page.records]
        assert {record["id"]: record["name"] for record in again} == {"1": "new", "63" * 12: "x"}
        assert changes(database, TABLES, told.resume, seconds=0.1).ids == []
        few = changes(database, TABLES, begun.resume, seconds=2, most=1)
        assert few.ids == ["1"]
        assert changes(database, TABLES, few.resume, seconds=2).ids == ["b", "63" * 12, "1"]


def test_changes_that_are_forgotten_ask_for_a_full_read(mongod):
    with opened(connected(mongod)) as database:
        begun = changes(database, TABLES, None, seconds=0.1)
        mongod.put("orders", order(1, 0))
        mongod.first_known = 5
        with pytest.raises(SourceError, match="--full"):
            changes(database, TABLES, begun.resume, seconds=0.1)
        mongod.first_known = 0
        database.drop_collection("orders")
        with pytest.raises(SourceError, match=r"dropped or renamed.*--full"):
            changes(database, TABLES, begun.resume, seconds=1)


def test_a_single_server_has_no_changes_to_follow():
    with (
        mongod_running(replica_set=False) as server,
        opened(connected(server)) as database,
        pytest.raises(ConfigError, match="need a replica set"),
    ):
        changes(database, TABLES, None, seconds=0.1)


@pytest.mark.parametrize(
    ("code", "name", "times", "kind", "said"),
    [
        (13, "Unauthorized", 9, AuthError, "OMNI_MONGODB__TOKEN"),
        (43, "CursorNotFound", 9, TransientError, "Run again|43"),
        (8000, "AtlasError", 9, SourceError, "8000 AtlasError"),
    ],
)
def test_what_the_server_refuses_is_told_without_its_words(mongod, code, name, times, kind, said):
    mongod.put("orders", *(order(n, 0) for n in range(3)))
    mongod.failing["find"] = [code, name, times]
    with pytest.raises(kind, match=said) as error:
        everything(mongod)
    assert "secret words" not in str(error.value)


def test_a_connection_cut_in_the_middle_passes_or_is_transient(mongod):
    mongod.put("orders", *(order(n, 0) for n in range(2_500)))
    mongod.failing["getMore"] = [0, "cut", 1]
    with pytest.raises(TransientError, match="no answer"):
        everything(mongod)
    assert everything(mongod)[0] == 2_500


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mongodb://me:pw@db.example/shop", "no user or password"),
        ("mongodb://db.example", "servers and a database"),
        ("https://db.example/shop", "servers and a database"),
    ],
)
def test_an_address_that_cannot_be_is_explained_without_its_password(url, said):
    with pytest.raises(ConfigError, match=said) as error, opened(Connection("mongodb", url, SecretStr(""))):
        pass
    assert "pw" not in str(error.value).replace("password", "")


def test_no_server_is_transient():
    connection = Connection("mongodb", "mongodb://127.0.0.1:9/shop", SecretStr(""), timeout=0.2)
    with opened(connection) as database, pytest.raises(TransientError, match="no answer"):
        VENDOR.count(database, TABLES, EVER)


FRAME = pl.DataFrame(
    {
        "region": ["north", "south", "east"],
        "day": [date(2026, 1, 1), date(2026, 1, 2), None],
        "revenue": [Decimal("1.10"), Decimal("-2.25"), None],
        "seen": [START, None, START],
        "orders": [1, 2, 3],
    },
    schema_overrides={"revenue": pl.Decimal(18, 2)},
)


def published(mongod, frame, version="v1", key=("region",), owner="acme"):
    with opened(connected(mongod)) as database:
        return destination.publish(database, "sales", [frame], list(key), version=version, owner=owner)


def test_a_published_table_replaces_the_old_one_whole(mongod):
    assert published(mongod, FRAME.head(1).with_columns(region=pl.lit("gone")), "v0") == 1
    mongod.indexes["sales"] = [{"v": 2, "key": {"day": 1}, "name": "by_day", "unique": False}]
    assert published(mongod, FRAME) == 3
    rows = {row["_id"]: row for row in mongod.rows("sales")}
    assert set(rows) == {"north", "south", "east"}
    assert rows["north"] == {
        "_id": "north",
        "region": "north",
        "day": datetime(2026, 1, 1, tzinfo=UTC),
        "revenue": Decimal128("1.10"),
        "seen": START,
        "orders": 1,
    }
    assert [index["name"] for index in mongod.indexes["sales"]] == ["by_day"]
    assert set(mongod.data) == {"sales", "omni_published"}


def test_a_collection_of_somebody_elses_is_never_replaced(mongod):
    mongod.put("sales", {"_id": 1, "theirs": True})
    with pytest.raises(ConfigError, match="documents that Omni did not copy"):
        published(mongod, FRAME)
    assert mongod.rows("sales") == [{"_id": 1, "theirs": True}]
    mongod.remove("sales", 1)
    assert published(mongod, FRAME) == 3
    with pytest.raises(ConfigError, match="tenant 'acme'"):
        published(mongod, FRAME, "v2", owner="other")


def test_a_first_publication_that_was_killed_before_its_note_is_known_as_ours(mongod):
    assert published(mongod, FRAME) == 3
    mongod.put("omni_published", {"_id": "sales", "owner": "acme"})
    assert published(mongod, FRAME) == 3
    assert published(mongod, FRAME) is None


def test_publishing_again_writes_nothing_and_a_new_version_only_once(mongod):
    assert published(mongod, FRAME) == 3
    asked = len([c for c in mongod.asked if "update" in c])
    assert published(mongod, FRAME) is None
    assert len([c for c in mongod.asked if "update" in c]) == asked
    assert published(mongod, FRAME.head(1), "v2") == 1
    assert [row["_id"] for row in mongod.rows("sales")] == ["north"]


def test_a_publication_that_fails_leaves_the_old_rows_and_the_next_one_mends(mongod):
    published(mongod, FRAME)
    mongod.failing["renameCollection"] = [91, "ShutdownInProgress", 1]
    with pytest.raises(TransientError, match="Run again later"):
        published(mongod, FRAME.head(2), "v2")
    assert len(mongod.rows("sales")) == 3
    assert published(mongod, FRAME.head(2), "v2") == 2
    assert set(mongod.data) == {"sales", "omni_published"}


def test_rows_that_share_a_key_or_have_none_are_refused(mongod):
    published(mongod, FRAME)
    with pytest.raises(CountMismatch, match="rows share the key region"):
        published(mongod, pl.concat([FRAME, FRAME]), "v2")
    with pytest.raises(ConfigError, match="no value in its key region, day"):
        published(mongod, FRAME, "v3", key=("region", "day"))
    with pytest.raises(ConfigError, match="cannot be a field"):
        published(mongod, FRAME.rename({"orders": "a.b"}), "v4")
    assert published(mongod, FRAME.head(2), "v5", key=("region", "day")) == 2
    assert mongod.rows("sales")[0]["_id"] == {"region": "north", "day": datetime(2026, 1, 1, tzinfo=UTC)}
