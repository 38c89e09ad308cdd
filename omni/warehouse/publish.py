"""The published snapshot: a compact copy for readers, replaced whole.

The live file belongs to its writer. Portal, notebooks, exports, dashboards and questions read this
copy; a reader that has it open keeps the version it opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from omni.errors import ConfigError
from omni.files import replacing, write_atomic
from omni.tenancy import Tenant
from omni.warehouse.catalog import stored_tables, views_of
from omni.warehouse.connection import Connection
from omni.warehouse.database import Warehouse, configuration, storage_errors
from omni.warehouse.layers import PUBLISHED
from omni.warehouse.postgres_connection import PostgresConnection
from omni.warehouse.postgres_publish import copy_tables

SCHEMAS = PUBLISHED


@dataclass(frozen=True)
class Published:
    """A snapshot: where, how many tables, and whether it was written anew."""

    path: Path
    tables: int
    rewritten: bool


def snapshot_path(tenant: Tenant) -> Path:
    """Where the tenant's snapshot lies."""
    return tenant.home / "published" / "warehouse.duckdb"


def publish(warehouse: Warehouse) -> Published:
    """Write the snapshot if anything changed since the last one."""
    target = snapshot_path(warehouse.tenant)
    marker = target.with_suffix(".json")
    with warehouse.cursor() as con:
        tables = [(schema, table) for schema, table in stored_tables(con) if schema in SCHEMAS]
        views = views_of(con, "metrics")
        state = json.dumps([_state(con), tables])
        if target.exists() and marker.exists() and marker.read_text(encoding="utf-8") == state:
            return Published(target, len(tables), rewritten=False)
        marker.unlink(missing_ok=True)
        with replacing(target) as fresh, storage_errors(target):
            fresh.unlink()
            _copy(con, fresh, tables)
            with duckdb.connect(fresh, config=configuration()) as copy:
                _create_views(copy, views)
        write_atomic(marker, state)
    return Published(target, len(tables), rewritten=True)


def _create_views(copy: duckdb.DuckDBPyConnection, views: dict[str, str]) -> None:
    """Make the views; one that reads another that is not there yet (it was replaced) waits for its turn."""
    waiting = views
    while waiting:
        left = {}
        for name, select in waiting.items():
            try:
                copy.execute(f'CREATE VIEW metrics."{name}" AS {select}')
            except duckdb.CatalogException:
                if len(waiting) == 1:
                    raise
                left[name] = select
        # If none can be made, let the database say why.
        waiting = dict([left.popitem()]) if len(left) == len(waiting) else left


def _state(con: Connection) -> list[list[str]]:
    versions = con.execute("SELECT table_name, version FROM ops.tables ORDER BY 1").fetchall()
    steps = con.execute("SELECT step, fingerprint FROM ops.steps ORDER BY 1").fetchall()
    runs = con.execute("SELECT run_id, coalesce(status, '') FROM ops.runs ORDER BY 1").fetchall()
    models = con.execute("SELECT model, fingerprint FROM ops.models ORDER BY 1").fetchall()
    return [[str(value) for value in row] for row in [*versions, *steps, *runs, *models]]


def _copy(con: Connection, fresh: Path, tables: list[tuple[str, str]]) -> None:
    if isinstance(con, PostgresConnection):
        with duckdb.connect(fresh, config=configuration()) as copy:
            copy.execute("SET TimeZone = 'UTC'")
            for schema in SCHEMAS:
                copy.execute(f"CREATE SCHEMA {schema}")
            copy_tables(con, copy, tables, fresh.parent)
        return
    quoted = str(fresh).replace("'", "''")
    con.execute(f"ATTACH '{quoted}' AS published")
    try:
        for schema in SCHEMAS:
            con.execute(f"CREATE SCHEMA published.{schema}")
        con.begin()
        for schema, table in tables:
            con.execute(f'CREATE TABLE published.{schema}."{table}" AS FROM {schema}."{table}"')
        con.commit()
    finally:
        con.execute("DETACH published")


@contextmanager
def open_snapshot(tenant: Tenant) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection to the snapshot that cannot reach files or change settings.

    Raises:
        ConfigError: nothing is published yet.
    """
    path = snapshot_path(tenant)
    if not path.exists():
        raise ConfigError(
            f"Nothing is published for tenant {tenant.tenant!r} yet. "
            f"Run `omni nightly --company {tenant.tenant}`."
        )
    con = duckdb.connect(path, read_only=True, config=configuration())
    try:
        con.execute("SET TimeZone = 'UTC'")
        con.execute("SET enable_external_access = false")
        con.execute("SET lock_configuration = true")
        yield con
    finally:
        con.close()
