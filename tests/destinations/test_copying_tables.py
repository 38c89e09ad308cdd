"""Copies of published tables: what may be declared and may leave, and each version copied once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from datetime import date
from decimal import Decimal

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from omni.cli import app
from omni.declarations import check_leaving
from omni.destinations.copies import copy, noted, planned
from omni.destinations.copy_declaration import Copy, validate
from omni.destinations.firestore import current
from omni.errors import ConfigError, CountMismatch
from omni.settings import settings
from omni.sources.connection import Connection
from omni.sources.firestore import opened
from omni.tenancy import Tenant, get
from omni.warehouse.database import open_warehouse
from omni.warehouse.publish import publish
from omni.warehouse.versions import record_change

pytestmark = pytest.mark.slow

CODE = "from omni.cli import app; app()"
COLUMNS = {"marts.scores": ["contact", "score", "secret"], "raw.orders": ["id"]}


def declared(**changes):
    base = {
        "name": "scores",
        "title": "Scores",
        "owner": "crm@acme.example",
        "table": "marts.scores",
        "columns": ["contact", "score"],
        "key": ["contact"],
        "destination": "mongodb",
    }
    return Copy.model_validate(base | changes)


@pytest.fixture
def put(control, tenant):
    """Publish `marts.scores` of so many rows."""

    def make(rows, owner: Tenant = tenant):
        with open_warehouse(owner) as warehouse:
            with warehouse.transaction() as con:
                con.execute(
                    "CREATE OR REPLACE TABLE marts.scores AS "
                    f"SELECT 'c' || i AS contact, i AS score, 'x' AS secret FROM range({rows}) r(i)"
                )
                record_change(con, "marts.scores", None, run_id="r")
            publish(warehouse)

    return make


@pytest.fixture
def to(mongod, tenant):
    """Copy to the MongoDB server: `to(declaration)`."""
    connection = Connection("mongodb", mongod.url, SecretStr(""), timeout=2)
    return lambda one, owner=tenant: copy(owner, one, connection, run_id="run-1")


def test_a_copy_follows_the_published_table_and_is_made_once_a_version(mongod, put, to, tenant):
    with pytest.raises(ConfigError, match="published"):
        to(declared())
    put(6_000)
    assert (planned(tenant, declared()).rows, planned(tenant, declared()).changed) == (6_000, True)
    assert to(declared()) == 6_000
    assert mongod.rows("marts__scores")[7] == {"_id": "c7", "contact": "c7", "score": 7}
    assert planned(tenant, declared()).changed is False
    assert to(declared()) is None
    put(10)
    assert to(declared()) == 10
    assert {row["_id"] for row in mongod.rows("marts__scores")} == {f"c{n}" for n in range(10)}
    assert noted(tenant, declared()).rows == 10


def test_another_way_of_copying_is_another_version(mongod, put, to):
    put(10)
    assert to(declared(collection="app_scores")) == 10
    assert to(declared(collection="app_scores", where="score >= 4 -- not more")) == 6
    assert to(declared(collection="app_scores", columns=["contact"], where="score >= 4")) == 6
    assert mongod.rows("app_scores")[0] == {"_id": "c4", "contact": "c4"}
    assert set(mongod.data) == {"app_scores", "omni_published"}


def test_a_copy_that_somebody_dropped_is_made_again(mongod, put, to):
    put(3)
    assert to(declared()) == 3
    mongod.data.pop("marts__scores")
    assert to(declared()) == 3


def test_a_note_that_a_crash_kept_from_us_is_made_up_for(put, to, tenant, control):
    put(3)
    to(declared())
    (settings().home / "control.db").unlink()
    from omni.control import database

    database.close()
    assert noted(tenant, declared()) is None
    assert to(declared()) is None
    assert noted(tenant, declared()).rows == 3


def test_another_tenants_copy_and_somebody_elses_documents_stay(mongod, put, to, tenant):
    other = tenant.model_copy(update={"tenant": "other"})
    put(3)
    put(2, other)
    assert to(declared()) == 3
    with pytest.raises(ConfigError, match=r"copy of tenant 'acme'.*block"):
        to(declared(), other)
    mongod.put("orders", {"_id": 1})
    with pytest.raises(ConfigError, match="Name another collection"):
        to(declared(collection="orders"))
    assert (len(mongod.rows("marts__scores")), len(mongod.rows("orders"))) == (3, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"table": "raw.hubspot__contacts"}, "not a published table"),
        ({"table": "marts.none"}, "not a published table"),
        ({"columns": ["contact", "no"]}, "no column no; it has contact, score, secret"),
        ({"where": "nothing > 1"}, "nothing"),
        ({"where": "1 = 1) UNION SELECT"}, "no SQL condition"),
        ({"destination": "firestore"}, "not to mongodb"),
    ],
)
def test_what_cannot_be_copied_is_named(mongod, put, to, changes, said):
    put(1)
    with pytest.raises(ConfigError, match=said):
        to(declared(**changes))
    assert "marts__scores" not in mongod.data


def test_rows_that_share_a_key_leave_the_old_copy(mongod, put, to):
    put(2)
    assert to(declared(columns=["contact", "secret"])) == 2
    with pytest.raises(CountMismatch, match="share the key secret"):
        to(declared(columns=["contact", "secret"], key=["secret"]))
    assert len(mongod.rows("marts__scores")) == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key": ["secret"]}, "must be among the columns"),
        ({"columns": ["contact", "contact"]}, "twice"),
        ({"personal": {"secret": "why"}}, "no column of this copy"),
        ({"collection": "omni_published"}, "kept for the house"),
        ({"collection": "a.b"}, "pattern"),
        ({"destination": "hubspot"}, "mongodb"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        declared(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"table": "raw.orders", "columns": ["id"], "key": ["id"]}, "not published"),
        ({"table": "marts.none"}, "declares marts.none"),
        ({"columns": ["contact", "no"]}, "no column no"),
        ({"where": "no > 1"}, "no column no"),
        ({"where": "score > (SELECT max(x) FROM marts.y)"}, "its own columns|own columns"),
        ({"tenants": ["nobody"]}, "unknown tenant nobody"),
    ],
)
def test_a_declaration_that_fits_nothing_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        validate({"scores": declared(**changes)}, COLUMNS, ["acme"])


def test_two_copies_to_one_collection_are_refused():
    two = {"scores": declared(), "more": declared(name="more", collection="marts__scores")}
    with pytest.raises(ConfigError, match="copy scores goes to mongodb's collection marts__scores already"):
        validate(two, COLUMNS, ["acme"])
    validate({**two, "more": declared(name="more", destination="firestore")}, COLUMNS, ["acme"])


def test_personal_columns_leave_only_with_a_reason_and_hashed_ones_never():
    base = {"table": "core.customers", "columns": ["created_at", "city"], "key": ["created_at"]}
    with pytest.raises(ConfigError, match=r"core\.customers\.city holds personal data; .* say why"):
        check_leaving(declared(**base))
    check_leaving(declared(**base, personal={"city": "Deliveries are planned by it."}))
    with pytest.raises(ConfigError, match=r"email_hash .* stays in the house"):
        check_leaving(
            declared(**base | {"columns": ["created_at", "email_hash"], "personal": {"email_hash": "x"}})
        )


def test_a_copy_in_firestore_is_made_once_a_version(firestore_emulator, put, tenant, monkeypatch):
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", firestore_emulator)
    connection = Connection("firestore", f"firestore://p-{uuid.uuid4().hex[:12]}", SecretStr(""), timeout=10)
    one = declared(destination="firestore", where="score < 700")
    put(1_000)
    assert copy(tenant, one, connection, run_id="r") == 700
    assert copy(tenant, one, connection, run_id="r") is None
    put(5)
    assert copy(tenant, one, connection, run_id="r") == 5
    with opened(connection) as store:
        rows = {row.id: row.to_dict() for row in current(store, "marts__scores").stream()}
    assert rows == {f"c{n}": {"contact": f"c{n}", "score": n} for n in range(5)}


@pytest.fixture
def sold(control, home):
    """The demo company with two days' sales published."""
    with open_warehouse(get("demo")) as warehouse:
        with warehouse.transaction() as con:
            con.execute(
                "CREATE TABLE marts.daily_sales AS SELECT day::DATE AS order_date, 'web' AS channel, "
                "'DE' AS country, 3::BIGINT AS orders, 4::BIGINT AS items, 5.5::DECIMAL(18, 2) AS revenue, "
                "0 AS cancelled_orders FROM (VALUES ('2026-01-01'), ('2026-01-02')) v(day)"
            )
            record_change(con, "marts.daily_sales", None, run_id="r")
        publish(warehouse)


def omni(*arguments):
    return CliRunner().invoke(app, ["copy", *arguments])


def test_the_command_lists_plans_and_refuses(sold, monkeypatch):
    assert "marts.daily_sales -> mongodb/marts__daily_sales" in omni().output
    planned_ = omni("daily_sales", "--dry-run")
    assert "2 rows of order_date, channel" in planned_.output
    assert "not copied so far" in planned_.output
    assert json.loads(omni("daily_sales", "--dry-run", "--json").output)["before"] is None
    unknown = omni("sales", "--dry-run")
    assert unknown.exit_code == 2
    assert "There is no copy 'sales'. Known: daily_sales" in " ".join(unknown.output.split())
    assert "copy daily_sales is for demo, not olist" in " ".join(
        omni("daily_sales", "-c", "olist").output.split()
    )


def test_a_run_through_the_flow_copies_and_its_rerun_does_not(sold, mongod):
    def run(**variables):
        command = [sys.executable, "-c", CODE, "copy", "daily_sales", "--ephemeral", "--json"]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=240, env=os.environ | variables, check=False
        )

    def step(done):
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["stages"]["copies"]["steps"]["daily_sales"]

    first, second = (step(run(OMNI_MONGODB__BASE_URL=mongod.url)) for _ in range(2))
    assert (first["written"], first["unchanged"]) == (2, False)
    assert (second["written"], second["unchanged"]) == (0, True)
    rows = mongod.rows("marts__daily_sales")
    assert len(rows) == 2
    assert rows[0]["_id"]["order_date"].date() == date(2026, 1, 1)
    assert rows[0]["revenue"].to_decimal() == Decimal("5.50")
    assert "cancelled_orders" not in rows[0]
    assert "nothing changed since" in omni("daily_sales", "--dry-run").output
