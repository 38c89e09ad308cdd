"""`ingest_crm` of a MongoDB that is followed: deletions arrive in the same run, also after a kill."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb
import pytest

pytestmark = pytest.mark.slow

CONTRACT = """
table: raw.mongodb__orders
description: Orders.
owner: shop@acme.example
grain: one row per order
key: [id]
columns:
  id: {type: string, nullable: false}
  name: {type: string}
  changed: {type: timestamp}
source: {vendor: mongodb, object: orders, cursor: changed}
"""
TENANT = """
tenant: demo
title: Demo
timezone: Europe/Berlin
currency: EUR
company: demo
sources: {mongodb: [orders]}
"""


@pytest.fixture
def ingested(mongod, night, tmp_path):
    for name, text in (("contracts/mongodb__orders.yml", CONTRACT), ("tenants/demo.yml", TENANT)):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(text)

    def run(kill=""):
        return night(
            tmp_path / "home",
            flow="ingest_crm",
            kill=kill,
            OMNI_DATA=str(tmp_path / "data"),
            OMNI_MONGODB__BASE_URL=mongod.url,
            OMNI_MONGODB__CHANGE_STREAM="true",
        )

    return run


def test_deletions_arrive_in_the_run_and_after_a_kill_before_they_are_loaded(mongod, ingested, tmp_path):
    def put(*identities, name="x"):
        ago = datetime.now(UTC) - timedelta(hours=1)
        mongod.put("orders", *({"_id": n, "name": name, "changed": ago} for n in identities))

    def compare():
        with duckdb.connect(tmp_path / "home" / "tenants" / "demo" / "warehouse.duckdb", read_only=True) as c:
            loaded = dict(c.execute("SELECT id, name FROM raw.mongodb__orders").fetchall())
        assert loaded == {str(row["_id"]): row["name"] for row in mongod.rows("orders")}

    put(*range(50))
    first = ingested()
    assert first.returncode == 0, first.output
    mongod.remove("orders", 1)
    put(2, 60, name="behind the cursor")
    killed = ingested(kill="ingest|load mongodb orders changes|running")
    assert killed.killed, killed.output
    mongod.remove("orders", 3)
    again = ingested()
    assert again.returncode == 0, again.output
    compare()
    loaded = again.summary["stages"]["ingest"]["steps"]["load mongodb orders changes"]
    assert loaded["tables"]["raw.mongodb__orders"] == {"inserted": 1, "updated": 1, "deleted": 2}
