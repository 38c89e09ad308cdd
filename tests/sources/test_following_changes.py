"""Following a change stream beside windows: after each run the table equals the collection."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from omni.errors import SourceError
from omni.settings import settings
from omni.sources.connection import Connection
from omni.sources.extract import extract, tables
from omni.sources.following import follow
from omni.tenancy import Tenant
from omni.warehouse.contracts import _cached as contracts_of
from omni.warehouse.database import open_warehouse
from omni.warehouse.load import cursor_of, load, token_of

pytestmark = pytest.mark.slow

START = datetime(2026, 5, 1, 12, tzinfo=UTC)
CONTRACT = """
table: raw.mongodb__orders
description: Orders.
owner: shop@acme.example
grain: one row per order
key: [id]
columns:
  id: {type: string, nullable: false}
  name: {type: string}
  changed: {type: timestamp, optional: true}
source: {vendor: mongodb, object: orders, cursor: changed}
"""


@pytest.fixture
def declared(home, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    (folder / "contracts").mkdir(parents=True)
    (folder / "contracts" / "mongodb__orders.yml").write_text(CONTRACT)
    monkeypatch.setenv("OMNI_DATA", str(folder))
    settings.cache_clear()
    yield folder
    contracts_of.cache_clear()


class Account:
    """A tenant that reads the server's orders; `window` and `run` as a run of the flow does them."""

    def __init__(self, mongod, tenant: Tenant, folder, **options: str) -> None:
        self.mongod, self.tenant, self.folder, self.hours = mongod, tenant, folder, 0
        chosen = {"change_stream": "true"} | options
        self.connection = Connection("mongodb", mongod.url, SecretStr(""), timeout=2, options=chosen)

    def put(self, *identities, name="x") -> None:
        for identity in identities:
            self.mongod.put("orders", {"_id": identity, "name": name, "changed": self.now})

    @property
    def now(self) -> datetime:
        return START + timedelta(hours=self.hours)

    def load(self, staged) -> None:
        with open_warehouse(self.tenant) as warehouse:
            load(warehouse, staged)

    def window(self, run: str, *, full=False) -> None:
        self.hours += 1
        with open_warehouse(self.tenant) as warehouse, warehouse.cursor() as con:
            since = None if full else cursor_of(con, "mongodb", "orders", tables("mongodb", "orders"))
        self.load(
            extract(
                self.tenant, "mongodb", "orders", self.connection,
                since=since, until=self.now, run_id=run, folder=self.folder / "window",
            )
        )  # fmt: skip

    def followed(self, run: str):
        with open_warehouse(self.tenant) as warehouse, warehouse.cursor() as con:
            token = token_of(con, "mongodb", "orders")
        return follow(
            self.tenant, "mongodb", "orders", self.connection, token,
            until=self.now, run_id=run, folder=self.folder / "changes",
        )  # fmt: skip

    def run(self, run: str) -> None:
        self.window(run)
        self.load(self.followed(run))

    def loaded(self):
        with open_warehouse(self.tenant) as warehouse, warehouse.cursor() as con:
            return dict(con.execute("SELECT id, name FROM raw.mongodb__orders ORDER BY 1").fetchall())

    def there(self):
        return {str(row["_id"]): row["name"] for row in self.mongod.rows("orders")}


@pytest.fixture
def account(mongod, declared, tenant, tmp_path):
    made = Account(mongod, tenant, tmp_path / "staged")
    made.put(*range(1_200))
    made.run("r1")
    return made


def test_inserts_updates_and_deletions_between_runs_arrive(account):
    assert account.loaded() == account.there()
    account.put(3, 4, 5_000, name="new")
    account.mongod.put("orders", {"_id": 6_000, "name": "no time of change"})
    account.mongod.put("orders", {"_id": 7, "name": "changed without its time", "changed": START})
    for gone in (1, 2, 5_000):
        account.mongod.remove("orders", gone)
    account.run("r2")
    assert account.loaded() == account.there()
    assert not {"1", "2", "5000"} & account.loaded().keys()


def test_what_changes_while_the_first_reading_goes_on_is_not_lost(mongod, declared, tenant, tmp_path):
    account = Account(mongod, tenant, tmp_path / "staged")
    account.put(*range(10))
    account.window("r1")
    mongod.remove("orders", 3)
    account.put(11)
    account.load(account.followed("r1"))
    assert account.loaded() == account.there()


def test_a_crash_between_reading_again_and_loading_loses_nothing(account):
    account.mongod.remove("orders", 1)
    account.window("r2")
    account.followed("r2")
    assert "1" in account.loaded()
    account.mongod.remove("orders", 2)
    account.put(1, name="back")
    account.run("r3")
    assert account.loaded() == account.there()


def test_more_changes_than_one_answer_holds(account):
    for turn in range(1_000):
        account.put(*range(15), name=f"turn {turn}")
    account.mongod.remove("orders", 14)
    account.run("r2")
    assert account.loaded() == account.there()
    assert account.followed("r3").asked == ()


@pytest.mark.parametrize("how", ["forgotten", "dropped", "never followed"])
def test_where_there_is_nothing_to_go_on_from_everything_is_read(account, how, caplog):
    account.mongod.remove("orders", 1)
    if how == "forgotten":
        account.mongod.first_known = len(account.mongod.log)
    elif how == "dropped":
        account.mongod.data["orders"].clear()
        account.mongod._tell("drop", "orders")
        account.put(8, 9)
    else:
        with open_warehouse(account.tenant) as warehouse, warehouse.transaction() as con:
            con.execute("UPDATE ops.cursors SET token = NULL")
    account.run("r2")
    assert account.loaded() == account.there()
    assert "reading everything" in caplog.text
    account.mongod.remove("orders", 9)
    account.run("r3")
    assert account.loaded() == account.there()
    assert caplog.text.count("reading everything") == 1


def test_without_the_option_no_change_stream_is_asked_for(mongod, declared, tenant, tmp_path):
    account = Account(mongod, tenant, tmp_path / "staged", change_stream="false")
    account.put(1)
    account.window("r1")
    assert not [c for c in mongod.asked if "$changeStream" in str(c.get("pipeline"))]
    with open_warehouse(tenant) as warehouse, warehouse.cursor() as con:
        assert token_of(con, "mongodb", "orders") is None


def test_vendors_without_such_a_record_say_so(tenant, home, tmp_path):
    connection = Connection("stripe", "http://127.0.0.1:9", SecretStr("t"), options={"change_stream": "true"})
    with pytest.raises(SourceError, match="Stripe keeps no record of changes"):
        follow(tenant, "stripe", "charges", connection, None, until=START, run_id="r", folder=tmp_path / "f")
