"""One writer, clear refusals, readers that are never in the way."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import pytest

from omni.errors import ConfigError, StorageError, WarehouseLocked
from omni.settings import settings
from omni.warehouse.catalog import exists
from omni.warehouse.database import open_warehouse, path_of
from omni.warehouse.publish import open_snapshot, publish, snapshot_path
from omni.warehouse.versions import record_change

HOLD = """
import sys, duckdb
con = duckdb.connect(sys.argv[1]); print("held", flush=True); sys.stdin.read()
"""


@pytest.fixture
def holder(home, tenant):
    """Another process that has the warehouse open, until told otherwise."""
    path_of(tenant).parent.mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path_of(tenant))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_locked_warehouse_names_the_holder(holder, tenant):
    with (
        pytest.raises(WarehouseLocked, match=rf"held by process {holder.pid}.*OMNI_LOCK_TIMEOUT"),
        open_warehouse(tenant, timeout=0.1),
    ):
        pass


def test_it_opens_as_soon_as_a_killed_holder_is_gone(holder, tenant):
    killer = threading.Timer(0.2, holder.kill)
    killer.start()
    with open_warehouse(tenant, timeout=30) as warehouse:
        assert warehouse.cursor().execute("SELECT 1").fetchone() == (1,)
    killer.join()


def test_a_foreign_file_is_refused(home, tenant):
    path_of(tenant).parent.mkdir(parents=True)
    path_of(tenant).write_text("not a database" * 1000)
    with pytest.raises(StorageError, match="Is it a DuckDB file"), open_warehouse(tenant):
        pass


def test_an_unusable_folder_is_named(tenant, monkeypatch):
    monkeypatch.setenv("OMNI_HOME", "/dev/null/state")
    settings.cache_clear()
    with pytest.raises(StorageError, match="Set OMNI_HOME to a writable folder"), open_warehouse(tenant):
        pass
    settings.cache_clear()


FILL = """
import resource, sys
from omni.tenancy import Tenant
from omni.warehouse.database import open_warehouse
from omni.errors import StorageError
tenant = Tenant(tenant="acme", title="A", timezone="UTC", currency="EUR", company="demo", sources={})
with open_warehouse(tenant) as warehouse:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))
    try:
        with warehouse.transaction() as con:
            con.execute("CREATE TABLE core.big AS SELECT hash(i) AS h FROM range(4_000_000) t(i)")
    except StorageError as error:
        print("StorageError:", error)
"""


@pytest.mark.slow
def test_a_full_disk_is_said_and_keeps_the_old_state(home, tenant):
    with open_warehouse(tenant) as warehouse, warehouse.transaction() as con:
        con.execute("CREATE TABLE core.small AS SELECT 1 AS x")
    done = subprocess.run([sys.executable, "-c", FILL], capture_output=True, text=True, timeout=120)
    assert "Free space and run again" in done.stdout, done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    with open_warehouse(tenant) as warehouse:
        tables = warehouse.cursor().execute(
            "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'core'"
        )
        assert tables.fetchall() == [("small",)]


def test_a_failed_transaction_leaves_nothing(either_warehouse, tenant):
    with open_warehouse(tenant) as warehouse:
        with pytest.raises(duckdb.ConversionException), warehouse.transaction() as con:
            con.execute("CREATE TABLE core.half AS SELECT 1 AS x; SELECT 'x'::INTEGER")
        assert not exists(warehouse.cursor(), "core.half")


def test_a_contract_that_contradicts_the_stored_table_is_refused(either_warehouse, tenant):
    with open_warehouse(tenant) as warehouse, warehouse.transaction() as con:
        con.execute("ALTER TABLE raw.hubspot__deals ALTER amount TYPE VARCHAR")
    with (
        pytest.raises(ConfigError, match=r"raw\.hubspot__deals\.amount is stored as VARCHAR.*DECIMAL"),
        open_warehouse(tenant),
    ):
        pass


def test_threads_share_one_warehouse(either_warehouse, tenant):
    def add(warehouse, number: int) -> None:
        with open_warehouse(tenant) as again, again.transaction() as con:
            con.execute("INSERT INTO core.counted VALUES ($1)", [number])
            record_change(con, "core.counted", None, run_id="r")

    with open_warehouse(tenant) as warehouse:
        warehouse.cursor().execute("CREATE TABLE core.counted (n INTEGER)")
        threads = [threading.Thread(target=add, args=(warehouse, n)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        query = "SELECT count(DISTINCT n), (SELECT count(*) FROM ops.changes) FROM core.counted"
        assert warehouse.cursor().execute(query).fetchone() == (12, 12)


def test_readers_keep_their_snapshot_and_new_ones_get_the_next(either_warehouse, tenant):
    with open_warehouse(tenant) as warehouse:
        with warehouse.transaction() as con:
            con.execute("CREATE TABLE core.t AS SELECT 1 AS x")
            record_change(con, "core.t", None, run_id="r")
        assert publish(warehouse).rewritten
        with open_snapshot(tenant) as reader:
            with warehouse.transaction() as con:
                con.execute("UPDATE core.t SET x = 2")
                record_change(con, "core.t", None, run_id="r")
            assert publish(warehouse).rewritten
            assert reader.execute("SELECT x FROM core.t").fetchone() == (1,)
        with open_snapshot(tenant) as reader:
            assert reader.execute("SELECT x FROM core.t").fetchone() == (2,)
        assert not publish(warehouse).rewritten


def test_a_snapshot_holds_no_raw_rows_and_reaches_no_files(either_warehouse, tenant):
    with open_warehouse(tenant) as warehouse:
        publish(warehouse)
    with open_snapshot(tenant) as reader:
        raw = reader.execute(
            "SELECT count(*) FROM duckdb_tables() WHERE schema_name IN ('raw', 'staging')"
        ).fetchone()
        assert raw == (0,)
        for attack in (
            "FROM read_text('/etc/passwd')",
            "SET enable_external_access = true",
            "CREATE TABLE core.x (i INT)",
        ):
            with pytest.raises(duckdb.Error):
                reader.execute(attack)


def test_nothing_published_says_how_to(home, tenant):
    with pytest.raises(ConfigError, match="omni nightly --company acme"), open_snapshot(tenant):
        pass


def test_a_failure_while_publishing_keeps_the_old_snapshot(home, tenant):
    with open_warehouse(tenant) as warehouse:
        publish(warehouse)
        before = Path(snapshot_path(tenant)).read_bytes()
        warehouse.cursor().execute("CREATE TABLE core.t AS SELECT 1 AS x")
        warehouse.cursor().execute("ATTACH ':memory:' AS published")
        with pytest.raises(duckdb.Error):
            publish(warehouse)
    assert snapshot_path(tenant).read_bytes() == before
    assert [p.name for p in snapshot_path(tenant).parent.glob(".*")] == []
