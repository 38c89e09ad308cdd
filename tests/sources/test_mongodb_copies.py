"""A published table's copy in MongoDB: only the columns named, once per version."""

from __future__ import annotations

import importlib.util
import sys

import pytest
from pydantic import SecretStr

from omni.destinations.copies import copy_table
from omni.errors import ConfigError
from omni.settings import PROJECT
from omni.sources.connection import Connection
from omni.warehouse.database import open_warehouse
from omni.warehouse.publish import publish
from omni.warehouse.versions import record_change

pytestmark = pytest.mark.slow


@pytest.fixture
def mongod():
    path = PROJECT / "tests" / "support" / "mongod.py"
    spec = importlib.util.spec_from_file_location("support_mongod_copies", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    with module.mongod_running() as server:
        yield server


def made(tenant, rows):
    with open_warehouse(tenant) as warehouse:
        with warehouse.transaction() as con:
            con.execute(
                "CREATE OR REPLACE TABLE marts.scores AS "
                f"SELECT 'c' || i AS contact, i AS score, 'x' AS secret FROM range({rows}) r(i)"
            )
            record_change(con, "marts.scores", None, run_id="r")
        publish(warehouse)


def test_a_copy_follows_the_published_table(mongod, home, tenant):
    connection = Connection("mongodb", mongod.url, SecretStr(""), timeout=2)
    columns = {"columns": ["contact", "score"], "key": ["contact"]}
    with pytest.raises(ConfigError, match="published"):
        copy_table(tenant, connection, "marts.scores", **columns)
    made(tenant, 6_000)
    assert copy_table(tenant, connection, "marts.scores", **columns) == 6_000
    assert mongod.rows("marts__scores")[7] == {"_id": "c7", "contact": "c7", "score": 7}
    assert copy_table(tenant, connection, "marts.scores", **columns) is None
    made(tenant, 10)
    assert copy_table(tenant, connection, "marts.scores", **columns) == 10
    assert {row["_id"] for row in mongod.rows("marts__scores")} == {f"c{n}" for n in range(10)}


@pytest.mark.parametrize(
    ("table", "columns", "key", "said"),
    [
        ("raw.hubspot__contacts", ["id"], ["id"], "not a published table"),
        ("marts.none", ["id"], ["id"], "not a published table"),
        ("marts.scores", ["contact", "no"], ["contact"], "no column no; it has contact, score, secret"),
        ("marts.scores", ["score"], ["contact"], "the key contact must be among the columns"),
    ],
)
def test_what_cannot_be_copied_is_named(mongod, home, tenant, table, columns, key, said):
    made(tenant, 1)
    connection = Connection("mongodb", mongod.url, SecretStr(""), timeout=2)
    with pytest.raises(ConfigError, match=said):
        copy_table(tenant, connection, table, columns=columns, key=key)
    assert mongod.data == {}


def test_only_databases_take_copies(home, tenant):
    made(tenant, 1)
    with pytest.raises(ConfigError, match="not to hubspot"):
        copy_table(
            tenant,
            Connection("hubspot", "x", SecretStr("")),
            "marts.scores",
            columns=["score"],
            key=["score"],
        )
