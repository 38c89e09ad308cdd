"""The warehouse in PostgreSQL: one writer, bounded waits, DuckDB's values and errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, date, datetime
from decimal import Decimal

import duckdb
import polars as pl
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as st

from omni.errors import ConfigError, SchemaError, StorageError, TransientError, WarehouseLocked
from omni.settings import PROJECT, settings
from omni.warehouse.catalog import exists
from omni.warehouse.connection import schema_errors
from omni.warehouse.database import open_warehouse
from omni.warehouse.publish import open_snapshot, publish

pytestmark = pytest.mark.slow

HOLD = """
import sys, time
from omni.tenancy import Tenant
from omni.warehouse.database import open_warehouse
tenant = Tenant(tenant="acme", title="Acme", timezone="Europe/Berlin", currency="EUR", sources={})
with open_warehouse(tenant) as warehouse, warehouse.transaction() as con:
    con.execute("CREATE TABLE core.half AS SELECT 1 AS x")
    print("holding", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(postgres_warehouse):
    """Another process in the middle of a transaction."""
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, cwd=PROJECT)
    assert process.stdout is not None
    assert process.stdout.readline() == "holding\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_held_warehouse_names_the_holder(holder, tenant):
    with (
        pytest.raises(WarehouseLocked, match=f"omni acme {holder.pid}.*OMNI_LOCK_TIMEOUT"),
        open_warehouse(tenant, timeout=0.1),
    ):
        pass


def test_tenants_do_not_wait_for_each_other(holder, tenant):
    with open_warehouse(tenant.model_copy(update={"tenant": "other"}), timeout=0.1) as warehouse:
        assert warehouse.cursor().execute("SELECT count(*) FROM ops.tables").fetchone() == (0,)


def test_it_opens_as_soon_as_a_killed_holder_is_gone_and_nothing_of_it_stays(holder, tenant):
    killer = threading.Timer(0.2, os.kill, (holder.pid, signal.SIGKILL))
    killer.start()
    with open_warehouse(tenant, timeout=30) as warehouse:
        assert not exists(warehouse.cursor(), "core.half")
    killer.join()


def test_a_writer_that_lost_its_lock_keeps_nothing(postgres_warehouse, warehouse_server, tenant):
    with open_warehouse(tenant) as warehouse, postgres_warehouse("omni") as owner:
        with pytest.raises(TransientError, match="lock was lost"), warehouse.transaction() as con:  # noqa: PT012
            con.execute("CREATE TABLE core.t AS SELECT 1 AS x")
            owner.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
        assert not exists(warehouse.cursor(), "core.t")


def test_a_lost_connection_is_transient_and_the_next_one_works(postgres_warehouse, tenant):
    with open_warehouse(tenant) as warehouse, postgres_warehouse("omni") as owner:
        con = warehouse.cursor()
        con.execute("SELECT 1")
        owner.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE query = 'SELECT 1' "
            "AND datname = current_database()"
        )
        with pytest.raises(TransientError, match="Is the server up"):
            con.execute("SELECT 2")
        con.close()
        assert warehouse.cursor().execute("SELECT 3").fetchone() == (3,)


def test_a_statement_and_a_wait_for_a_table_end(postgres_warehouse, tenant, monkeypatch):
    monkeypatch.setenv("OMNI_WAREHOUSE_TIMEOUT", "0.3")
    settings.cache_clear()
    with open_warehouse(tenant) as warehouse, postgres_warehouse() as other:
        con = warehouse.cursor()
        with pytest.raises(TransientError, match="OMNI_WAREHOUSE_TIMEOUT"):
            con.execute("SELECT pg_sleep(20)")
        other.execute("BEGIN")
        other.execute("LOCK TABLE acme_ops.tables IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TransientError, match="Another session holds the table"):
            con.execute("SELECT * FROM ops.tables")


def test_an_unreachable_server_is_named_without_its_password(home, tenant, monkeypatch):
    monkeypatch.setenv("OMNI_WAREHOUSE_URL", "postgresql://omni:hunter2@127.0.0.1:1/warehouse")
    settings.cache_clear()
    with pytest.raises(TransientError, match="Check OMNI_WAREHOUSE_URL") as caught, open_warehouse(tenant):
        pass
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(settings())


def test_a_database_that_is_not_there_is_no_matter_of_time(postgres_warehouse, tenant, monkeypatch):
    address = settings().warehouse_url.get_secret_value()
    monkeypatch.setenv("OMNI_WAREHOUSE_URL", address.replace("test_", "absent_"))
    settings.cache_clear()
    with pytest.raises(StorageError, match=r"absent_.* does not exist"), open_warehouse(tenant):
        pass


def test_a_name_too_long_for_postgresql_is_refused(postgres_warehouse, tenant):
    with (
        pytest.raises(ConfigError, match="51 characters"),
        open_warehouse(tenant.model_copy(update={"tenant": "a" * 52})),
    ):
        pass


QUERIES = [
    "SELECT 1 AS a, CAST(2 AS BIGINT) AS b, 3.5 AS c, 'x' AS d, true AS e, NULL AS f",
    "SELECT sum(x) AS s, count(*) AS n, avg(x) AS a FROM (VALUES (1), (2), (4)) AS t(x)",
    "SELECT sum(CAST(x AS DECIMAL(18, 2))) AS s FROM (VALUES (1.10), (2.25)) AS t(x)",
    "SELECT DATE '2026-02-03' AS d, TIMESTAMPTZ '2026-02-03 04:05:06.789+02' AS t",
    "SELECT TIMESTAMP '2026-02-03 04:05:06' AS t, CAST('{\"a\": 1}' AS JSON) AS j",
    "SELECT CAST(0.1 AS DOUBLE) + CAST(0.2 AS DOUBLE) AS f, CAST(7 AS DOUBLE) / 2 AS g",
    "SELECT DATE '2026-03-01' - DATE '2026-02-01' AS days",
]


@pytest.mark.parametrize("query", QUERIES)
def test_values_and_frames_are_those_of_duckdb(postgres_warehouse, tenant, query):
    with duckdb.connect() as local, open_warehouse(tenant) as warehouse:
        local.execute("SET TimeZone = 'UTC'")
        con = warehouse.cursor()
        mine, theirs = con.execute(query).fetchone(), local.execute(query).fetchone()
        assert mine == theirs
        assert [type(value) for value in mine] == [type(value) for value in theirs]
        assert con.execute(query).pl().rows() == local.execute(query).pl().rows()


def test_a_change_gives_the_number_of_its_rows(postgres_warehouse, tenant):
    with open_warehouse(tenant) as warehouse, warehouse.transaction() as con:
        con.execute("CREATE TEMP TABLE t AS SELECT i FROM generate_series(1, 5) AS s(i)")
        assert con.execute("UPDATE t SET i = i + 1 WHERE i > 3").fetchone() == (2,)
        assert con.execute("DELETE FROM t WHERE i > $1", [3]).fetchone() == (2,)
        assert con.execute("INSERT INTO t BY NAME SELECT 9 AS i").fetchone() == (1,)


def test_wrong_sql_is_a_schema_error_and_quotes_no_value(postgres_warehouse, tenant):
    with open_warehouse(tenant) as warehouse:
        con = warehouse.cursor()
        for wrong in ("SELECT * FROM core.missing", "SELECT missing FROM ops.tables"):
            with pytest.raises(SchemaError, match=r"core/x\.sql: .*missing"), schema_errors("core/x.sql"):
                con.execute(wrong)
        with pytest.raises(SchemaError) as caught, schema_errors("core/x.sql"):
            con.execute("SELECT CAST(name AS INTEGER) FROM (VALUES ('Ada Lovelace')) AS t(name)")
        assert "Ada" not in str(caught.value)


ROWS = st.fixed_dictionaries(
    {
        "text": st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        "whole": st.none() | st.integers(-(2**63), 2**63 - 1),
        "real": st.none() | st.floats(allow_nan=False),
        "money": st.none() | st.decimals(-(10**15), 10**15, places=2),
        "day": st.none() | st.dates(date(1, 1, 1)),
        "moment": st.none()
        | st.datetimes(datetime(1000, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
        "flag": st.none() | st.booleans(),
    }
)
SCHEMA = {
    "text": pl.String, "whole": pl.Int64, "real": pl.Float64, "money": pl.Decimal(18, 2), "day": pl.Date,
    "moment": pl.Datetime("us", "UTC"), "flag": pl.Boolean,
}  # fmt: skip


@how(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(ROWS, min_size=10, max_size=60))
def test_any_value_goes_in_and_comes_out_of_the_snapshot_as_it_was(postgres_warehouse, tenant, records):
    frame = pl.DataFrame(records, schema=SCHEMA)
    with open_warehouse(tenant) as warehouse:
        with warehouse.transaction() as con:
            con.register("given", frame.to_arrow())
            con.execute("CREATE OR REPLACE TABLE core.t AS SELECT * FROM given")
            con.execute("DELETE FROM ops.runs")
            con.execute("INSERT INTO ops.runs (run_id) VALUES ($1)", [os.urandom(8).hex()])
        stored = warehouse.cursor().execute("SELECT * FROM core.t").pl()
        assert stored.schema == frame.schema
        assert stored.equals(frame)
        assert publish(warehouse).rewritten
    with open_snapshot(tenant) as reader:
        published = reader.execute("SELECT * FROM core.t").pl()
    assert published.schema == frame.schema
    assert published.equals(frame)


def test_vectors_sums_and_nul_are_published(postgres_warehouse, tenant):
    with open_warehouse(tenant) as warehouse:
        with warehouse.transaction() as con:
            con.register("given", pl.DataFrame({"v": [[0.5, -1.25]], "s": ["a\0b"], "n": [1]}))
            con.execute(
                "CREATE TABLE core.t AS SELECT v, s, sum(n) OVER () AS n, sum(CAST(n AS DECIMAL(18, 2))) "
                "OVER () AS d FROM given"
            )
            con.execute("ALTER TABLE core.t ADD COLUMN u UBIGINT")
            con.execute("UPDATE core.t SET u = -1")
        publish(warehouse)
    with open_snapshot(tenant) as reader:
        row = reader.execute("SELECT v, s, n, d, u FROM core.t").fetchone()
        assert row == ([0.5, -1.25], "a\ufffdb", 1, Decimal("1.00"), 2**64 - 1)


def test_temporary_tables_of_one_cursor_are_gone_for_the_next(postgres_warehouse, tenant):
    with open_warehouse(tenant) as warehouse:
        with warehouse.cursor() as con:
            con.execute("CREATE TEMP TABLE mine AS SELECT 1 AS x")
        with warehouse.cursor() as con, pytest.raises(duckdb.CatalogException):
            con.execute("SELECT * FROM mine")


def test_many_threads_read_while_one_writes(postgres_warehouse, tenant):
    seen: list[int] = []

    def read(warehouse) -> None:
        for _ in range(10):
            with warehouse.cursor() as con:
                seen.append(con.execute("SELECT count(*) FROM core.t").fetchone()[0])

    with open_warehouse(tenant) as warehouse:
        warehouse.cursor().execute("CREATE TABLE core.t AS SELECT i FROM generate_series(1, 100) AS s(i)")
        threads = [threading.Thread(target=read, args=(warehouse,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            with warehouse.transaction() as con:
                con.execute("DELETE FROM core.t")
                con.execute("INSERT INTO core.t SELECT i FROM generate_series(1, 100) AS s(i)")
        for thread in threads:
            thread.join()
    assert set(seen) == {100}


def test_the_lock_is_free_after_closing(postgres_warehouse, tenant):
    with open_warehouse(tenant):
        pass
    with postgres_warehouse() as owner:
        assert owner.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)
