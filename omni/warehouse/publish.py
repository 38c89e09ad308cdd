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
from omni.warehouse.connection import Connection
from omni.warehouse.database import Warehouse, configuration, storage_errors

SCHEMAS = ("core", "marts", "metrics", "ml", "experiments", "anomaly", "rag", "ops")
"""What readers get. Raw and staging stay inside: they hold what the source sent, row by row."""


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
        tables = con.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = current_database() "
            "AND NOT temporary AND NOT starts_with(table_name, '__') ORDER BY ALL"
        ).fetchall()
        tables = [(schema, table) for schema, table in tables if schema in SCHEMAS]
        views = con.execute(
            "SELECT sql FROM duckdb_views() WHERE schema_name = 'metrics' AND NOT internal"
        ).fetchall()
        state = json.dumps([_state(con), tables])
        if target.exists() and marker.exists() and marker.read_text(encoding="utf-8") == state:
            return Published(target, len(tables), rewritten=False)
        marker.unlink(missing_ok=True)
        with replacing(target) as fresh, storage_errors(target):
            fresh.unlink()
            _copy(con, fresh, tables, [sql for (sql,) in views])
        write_atomic(marker, state)
    return Published(target, len(tables), rewritten=True)


def _state(con: Connection) -> list[list[str]]:
    versions = con.execute("SELECT table_name, version FROM ops.tables ORDER BY 1").fetchall()
    steps = con.execute("SELECT step, fingerprint FROM ops.steps ORDER BY 1").fetchall()
    runs = con.execute("SELECT run_id, coalesce(status, '') FROM ops.runs ORDER BY 1").fetchall()
    models = con.execute("SELECT model, fingerprint FROM ops.models ORDER BY 1").fetchall()
    return [[str(value) for value in row] for row in [*versions, *steps, *runs, *models]]


def _copy(con: Connection, fresh: Path, tables: list[tuple[str, str]], views: list[str]) -> None:
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
    with duckdb.connect(fresh, config=configuration()) as copy:
        for sql in views:
            copy.execute(sql)


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
