"""Tenants never meet in PostgreSQL: row security binds everyone, views included."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from omni.errors import ConfigError
from omni.settings import settings
from omni.warehouse.catalog import exists
from omni.warehouse.database import open_warehouse
from omni.warehouse.postgres_connection import PostgresConnection

pytestmark = pytest.mark.slow

OF_TENANT = """
SELECT n.nspname, c.relname, c.relkind FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname LIKE %s AND c.relkind IN ('r', 'v')
"""


@pytest.fixture
def two_tenants(postgres_warehouse, tenant):
    """Tenants `acme` and `acme-b`, each with a row in every kind of table and a view over one."""
    for name in ("acme", "acme-b"):
        owner = tenant.model_copy(update={"tenant": name})
        with open_warehouse(owner) as warehouse, warehouse.transaction() as con:
            con.execute("CREATE TABLE core.__new_t AS SELECT 1 AS x")
            con.execute('ALTER TABLE core.__new_t RENAME TO "t"')
            con.execute("CREATE OR REPLACE TABLE marts.replaced AS SELECT 2 AS x")
            con.execute("CREATE TABLE raw.loaded (x INTEGER)")
            con.execute("INSERT INTO raw.loaded VALUES (3)")
            con.execute("CREATE OR REPLACE VIEW staging.seen AS SELECT x FROM raw.loaded")
            con.execute("CREATE OR REPLACE VIEW marts.twice AS SELECT x FROM staging.seen")
    return postgres_warehouse


def rows(con: psycopg.Connection, schemas: str) -> dict[str, int]:
    """How many rows each table and view of some schemas shows."""
    found = {}
    for schema, name, _ in con.execute(OF_TENANT, [schemas]).fetchall():
        query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, name))
        found[f"{schema}.{name}"] = con.execute(query).fetchone()[0]
    return found


FILLED = {"core.t", "marts.replaced", "raw.loaded", "staging.seen", "marts.twice", "ops.layout"}


def test_a_session_that_says_no_tenant_sees_no_row_of_any_table_or_view(two_tenants):
    with two_tenants() as owner:
        seen = rows(owner, "acme%")
        assert len(seen) > 100
        assert set(seen.values()) == {0}


def test_a_tenants_session_sees_its_rows_and_none_of_the_others(two_tenants):
    with two_tenants() as owner:
        owner.execute("SET omni.tenant = 'acme'")
        mine = {name for name, n in rows(owner, "acme\\_%").items() if n and not name.startswith("acme_b_")}
        assert mine == {f"acme_{name}" for name in FILLED}
        assert set(rows(owner, "acme\\_b\\_%").values()) == {0}


def test_a_tenants_session_writes_no_row_of_another(two_tenants):
    with two_tenants() as owner:
        owner.execute("SET omni.tenant = 'acme'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            owner.execute("INSERT INTO acme_b_core.t VALUES (9)")
        assert owner.execute("UPDATE acme_b_core.t SET x = 9").rowcount == 0
        assert owner.execute("DELETE FROM acme_b_core.t").rowcount == 0


def test_readers_get_the_published_layers_of_their_tenant_and_tables_made_later(
    postgres_warehouse, warehouse_server, tenant, monkeypatch
):
    for role in ("reader_acme", "reader_acme_b"):
        warehouse_server.postgres.run(f"DROP ROLE IF EXISTS {role}", f"CREATE ROLE {role} LOGIN NOBYPASSRLS")
    monkeypatch.setenv("OMNI_WAREHOUSE_READER", "reader_{tenant}")
    settings.cache_clear()
    try:
        for name in ("acme", "acme-b"):
            with open_warehouse(tenant.model_copy(update={"tenant": name})) as warehouse:
                warehouse.cursor().execute("CREATE TABLE core.later AS SELECT 1 AS x")
        with postgres_warehouse("reader_acme") as reader:
            assert reader.execute("SELECT count(*) FROM acme_core.later").fetchone() == (0,)
            reader.execute("SET omni.tenant = 'acme'")
            assert reader.execute("SELECT x FROM acme_core.later").fetchone() == (1,)
            for refused in ("acme_raw.hubspot__deals", "acme_staging.hubspot__deals", "acme_b_core.later"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    reader.execute(f"SELECT * FROM {refused}")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute("DELETE FROM acme_core.later")
    finally:
        with postgres_warehouse("omni") as owner:
            owner.execute("DROP OWNED BY reader_acme, reader_acme_b")


@pytest.mark.parametrize("option", ["SUPERUSER", "BYPASSRLS"])
def test_a_role_above_row_security_is_refused(
    postgres_warehouse, warehouse_server, tenant, monkeypatch, option
):
    role = f"above_{option.lower()}"
    warehouse_server.postgres.run(f"DROP ROLE IF EXISTS {role}", f"CREATE ROLE {role} LOGIN {option}")
    address = settings().warehouse_url.get_secret_value().replace("omni_app", role)
    monkeypatch.setenv("OMNI_WAREHOUSE_URL", address)
    settings.cache_clear()
    refusal = r"tenants would not be kept apart\..*NOBYPASSRLS"
    with pytest.raises(ConfigError, match=refusal), open_warehouse(tenant):
        pass


def test_a_table_made_behind_our_back_is_bound_at_the_next_opening(postgres_warehouse, tenant):
    with postgres_warehouse() as owner:
        owner.execute("CREATE TABLE acme_core.foreign_made AS SELECT 1 AS x")
        with open_warehouse(tenant) as warehouse:
            assert warehouse.cursor().execute("SELECT x FROM core.foreign_made").fetchone() == (1,)
        assert owner.execute("SELECT count(*) FROM acme_core.foreign_made").fetchone() == (0,)


def test_views_survive_the_replacement_of_what_they_read(two_tenants, tenant):
    with open_warehouse(tenant) as warehouse:
        with warehouse.transaction() as con:
            con.execute("DROP TABLE raw.loaded")
            con.execute("CREATE TABLE raw.loaded AS SELECT 4 AS x, 5 AS y")
        con = warehouse.cursor()
        assert con.execute("SELECT x FROM marts.twice").fetchall() == [(4,)]
        con.execute("CREATE OR REPLACE VIEW staging.seen AS SELECT x + 1 AS x, y FROM raw.loaded")
        assert con.execute("SELECT x FROM marts.twice").fetchall() == [(5,)]
        assert isinstance(con, PostgresConnection)
        assert con.views_of("marts") == {"twice": "SELECT x FROM staging.seen"}
    with two_tenants() as owner:
        assert owner.execute("SELECT count(*) FROM acme_marts.twice").fetchone() == (0,)


def test_a_view_whose_columns_are_gone_goes_with_them(two_tenants, tenant):
    with open_warehouse(tenant) as warehouse:
        with warehouse.transaction() as con:
            con.execute("DROP TABLE raw.loaded")
            con.execute("CREATE TABLE raw.loaded AS SELECT 4 AS other")
        assert warehouse.cursor().execute("SELECT other FROM raw.loaded").fetchall() == [(4,)]
        assert not exists(warehouse.cursor(), "staging.seen")
