"""The tenant's warehouse: one DuckDB file, one writing process, any number of threads in it.

With `OMNI_WAREHOUSE_URL` it is schemas in PostgreSQL instead (`omni.warehouse.postgres`), used alike.

DuckDB locks the file for the process that opens it. That lock is the single-writer rule: it is exact,
and a crash frees it at once. A second process waits for it, then gives up with the holder's number.
Within the process, threads work on cursors of one shared connection, build what they like in tables of
their own, and take turns for the short transactions that make results visible (`transaction`).
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from omni.errors import ConfigError, StorageError, WarehouseLocked
from omni.files import private_folder
from omni.settings import settings
from omni.tenancy import Tenant
from omni.warehouse import postgres
from omni.warehouse.catalog import columns, declared_columns
from omni.warehouse.connection import Connection
from omni.warehouse.contracts import contracts
from omni.warehouse.layers import SCHEMAS
from omni.warehouse.postgres import PostgresShared
from omni.warehouse.postgres_connection import PostgresConnection

_OPS = """
CREATE SEQUENCE IF NOT EXISTS ops.version START 1;
CREATE TABLE IF NOT EXISTS ops.runs (run_id VARCHAR PRIMARY KEY, flow VARCHAR, started_at TIMESTAMPTZ,
    finished_at TIMESTAMPTZ, status VARCHAR, summary JSON);
CREATE TABLE IF NOT EXISTS ops.cursors (vendor VARCHAR, stream VARCHAR, cursor TIMESTAMPTZ, run_id VARCHAR,
    updated_at TIMESTAMPTZ, columns JSON, PRIMARY KEY (vendor, stream));
ALTER TABLE ops.cursors ADD COLUMN IF NOT EXISTS columns JSON;
ALTER TABLE ops.cursors ADD COLUMN IF NOT EXISTS token JSON;
CREATE TABLE IF NOT EXISTS ops.learned_columns (table_name VARCHAR, column_name VARCHAR, type VARCHAR,
    path VARCHAR, first_seen TIMESTAMPTZ, run_id VARCHAR, PRIMARY KEY (table_name, column_name));
CREATE TABLE IF NOT EXISTS ops.loads (run_id VARCHAR, vendor VARCHAR, stream VARCHAR, table_name VARCHAR,
    rows_read BIGINT, inserted BIGINT, updated BIGINT, deleted BIGINT, rejected BIGINT, source_rows BIGINT,
    loaded_at TIMESTAMPTZ);
CREATE TABLE IF NOT EXISTS ops.dead_letters (id VARCHAR PRIMARY KEY, run_id VARCHAR, vendor VARCHAR,
    stream VARCHAR, table_name VARCHAR, record_key VARCHAR, column_name VARCHAR, reason VARCHAR,
    first_seen TIMESTAMPTZ, replayed_at TIMESTAMPTZ, parent_key VARCHAR);
ALTER TABLE ops.dead_letters ADD COLUMN IF NOT EXISTS parent_key VARCHAR;
CREATE TABLE IF NOT EXISTS ops.tables (table_name VARCHAR PRIMARY KEY, version BIGINT, rows BIGINT,
    content_hash VARCHAR, changed_at TIMESTAMPTZ, run_id VARCHAR);
CREATE TABLE IF NOT EXISTS ops.changes (table_name VARCHAR, version BIGINT, day DATE);
CREATE TABLE IF NOT EXISTS ops.models (model VARCHAR PRIMARY KEY, fingerprint VARCHAR, inputs JSON,
    run_id VARCHAR, built_at TIMESTAMPTZ);
ALTER TABLE ops.models ADD COLUMN IF NOT EXISTS kind VARCHAR;
ALTER TABLE ops.models ADD COLUMN IF NOT EXISTS action VARCHAR;
ALTER TABLE ops.models ADD COLUMN IF NOT EXISTS reason VARCHAR;
ALTER TABLE ops.models ADD COLUMN IF NOT EXISTS rows BIGINT;
ALTER TABLE ops.models ADD COLUMN IF NOT EXISTS seconds DOUBLE;
CREATE TABLE IF NOT EXISTS ops.definitions (model VARCHAR PRIMARY KEY, definition VARCHAR);
CREATE TABLE IF NOT EXISTS ops.windows (model VARCHAR, window_start DATE, run_id VARCHAR, rows BIGINT,
    built_at TIMESTAMPTZ);
CREATE TABLE IF NOT EXISTS ops.check_results (run_id VARCHAR, table_name VARCHAR, check_name VARCHAR,
    severity VARCHAR, rows BIGINT, failing BIGINT, passed BOOLEAN, checked_at TIMESTAMPTZ);
ALTER TABLE ops.check_results ADD COLUMN IF NOT EXISTS detail VARCHAR;
CREATE TABLE IF NOT EXISTS ops.check_samples (run_id VARCHAR, table_name VARCHAR, check_name VARCHAR,
    samples JSON, taken_at TIMESTAMPTZ);
CREATE TABLE IF NOT EXISTS ops.steps (step VARCHAR PRIMARY KEY, fingerprint VARCHAR, run_id VARCHAR,
    finished_at TIMESTAMPTZ, summary JSON);
"""

_DISK_FULL = re.compile(r"no space left|disk full|file too large|failed to write|could not write", re.I)
_LOCKED = re.compile(r"could not set lock", re.I)
_HOLDER = re.compile(r"PID (\d+)")


@dataclass
class _Shared:
    connection: duckdb.DuckDBPyConnection
    writing: threading.RLock = field(default_factory=threading.RLock)
    users: int = 0
    sparing: int = 0

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of the calling thread's own."""
        return self.connection.cursor()

    @contextmanager
    def one_thread(self) -> Iterator[None]:
        """See `Warehouse.one_thread`."""
        with _opening:
            self.sparing += 1
            if self.sparing == 1:
                self.connection.cursor().execute("SET threads = 1")
        try:
            yield
        finally:
            with _opening:
                self.sparing -= 1
                if self.sparing == 0:
                    self.connection.cursor().execute("RESET threads")

    def still_held(self) -> None:
        """DuckDB's lock is the open file: it cannot be lost."""

    def close(self) -> None:
        """Close the file."""
        self.connection.close()


_open: dict[str, _Shared | PostgresShared] = {}
_opening = threading.Lock()


@dataclass(frozen=True)
class Warehouse:
    """An open warehouse. Threads take a `cursor` each; visible changes go through `transaction`."""

    tenant: Tenant
    path: Path
    _shared: _Shared | PostgresShared = field(repr=False)

    def cursor(self) -> Connection:
        """A connection of the calling thread's own; close it or let it go out of scope."""
        return self._shared.cursor()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """The one writing transaction of this process: commits on success, else leaves no trace."""
        with self._shared.writing, self.cursor() as con, storage_errors(self.path):
            con.begin()
            try:
                yield con
            except BaseException:
                con.rollback()
                raise
            self._shared.still_held()
            con.commit()

    def one_thread(self) -> AbstractContextManager[None]:
        """Let DuckDB work on one thread for a while: less than a million rows cost it half as much so."""
        return self._shared.one_thread()


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn DuckDB's "cannot write" into a StorageError that says what to do."""
    try:
        yield
    except (duckdb.IOException, duckdb.FatalException, OSError) as error:
        if _DISK_FULL.search(str(error)):
            raise StorageError(
                f"The disk of {path.parent} is full or refuses to grow {path.name}; nothing of this step was "
                "kept. Free space and run again."
            ) from error
        raise


def path_of(tenant: Tenant) -> Path:
    """The tenant's live file; only `open_warehouse` opens it."""
    return tenant.home / "warehouse.duckdb"


def configuration() -> dict[str, str | bool | int | float | list[str]]:
    """Settings of every connection: no extension is fetched, memory within the limit."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    if limit := settings().memory_limit:
        config["memory_limit"] = limit
    return config


def _connect(path: Path, timeout: float) -> duckdb.DuckDBPyConnection:
    deadline = time.monotonic() + timeout
    wait = 0.05
    while True:
        try:
            return duckdb.connect(path, config=configuration())
        except duckdb.IOException as error:
            if not _LOCKED.search(str(error)):
                raise StorageError(
                    f"Cannot open {path}: {error}. Is it a DuckDB file of this version?"
                ) from error
            if time.monotonic() >= deadline:
                holder = _HOLDER.search(str(error))
                raise WarehouseLocked(
                    f"{path} is held by process {holder.group(1) if holder else 'unknown'}; "
                    f"waited {timeout:g} s. "
                    "Let that run finish or stop it; OMNI_LOCK_TIMEOUT sets how long to wait."
                ) from error
            time.sleep(min(wait, max(0.0, deadline - time.monotonic())))
            wait = min(wait * 2, 2.0)


def _prepare(con: Connection) -> None:
    wanted = _wanted()
    if _remembered(con) == (wanted, _found(con)):
        return
    con.begin()
    for schema in SCHEMAS:
        con.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    con.execute(_OPS)
    for contract in contracts().values():
        con.execute(contract.ddl())
        _add_new_columns(con, contract.table, contract.column_types())
    con.execute(
        "CREATE OR REPLACE TABLE ops.layout AS SELECT $1 AS wanted, $2 AS found", [wanted, _found(con)]
    )
    con.commit()


def _wanted() -> str:
    """A digest of every table that the declarations ask for."""
    asked = [*SCHEMAS, _OPS, *(contract.ddl() for contract in contracts().values())]
    return hashlib.sha256("\n".join(asked).encode()).hexdigest()


def _found(con: Connection) -> str:
    """A digest of the declared tables as the warehouse holds them."""
    return hashlib.sha256(repr(declared_columns(con, sorted(contracts()))).encode()).hexdigest()


def _remembered(con: Connection) -> tuple[str, str] | None:
    """Both digests when it was last prepared: while they stay, there is nothing to do."""
    try:
        row = con.execute("SELECT wanted, found FROM ops.layout").fetchone()
    except duckdb.CatalogException:
        return None
    return (str(row[0]), str(row[1])) if row else None


def _add_new_columns(con: Connection, table: str, declared: dict[str, str]) -> None:
    present = columns(con, table)
    for name, kind in declared.items():
        if name not in present:
            con.execute(f'ALTER TABLE {table} ADD COLUMN "{name}" {kind}')
        elif present[name] != kind:
            raise ConfigError(
                f"{table}.{name} is stored as {present[name]}, but its contract now says {kind}. "
                f"Migrate the column, or drop {table} and reload it with `omni run ingest_crm --full`."
            )


@contextmanager
def open_warehouse(tenant: Tenant, *, timeout: float | None = None) -> Iterator[Warehouse]:
    """Open the tenant's warehouse for writing, waiting for another process to let go of it.

    Args:
        tenant: whose.
        timeout: seconds to wait; `OMNI_LOCK_TIMEOUT` by default.

    Raises:
        WarehouseLocked: still held after the wait.
        StorageError: the file cannot be opened or written.
        ConfigError: a contract contradicts the stored table.
    """
    path = path_of(tenant).resolve()
    address = settings().warehouse_url
    key = f"{path} {address.get_secret_value() if address else ''}"
    with _opening:
        shared = _open.get(key)
        if shared is None:
            shared = _open[key] = _opened(
                tenant, path, settings().lock_timeout if timeout is None else timeout
            )
        shared.users += 1
    try:
        yield Warehouse(tenant, path, shared)
    finally:
        with _opening:
            shared.users -= 1
            if shared.users == 0:
                del _open[key]
                shared.close()


def _opened(tenant: Tenant, path: Path, timeout: float) -> _Shared | PostgresShared:
    shared: _Shared | PostgresShared
    for folder in (settings().home, path.parent.parent, path.parent):
        private_folder(folder)
    if settings().warehouse_url is None:
        shared = _Shared(_connect(path, timeout))
    else:
        shared = postgres.opened(tenant, timeout)
    try:
        with storage_errors(path), shared.cursor() as con:
            if isinstance(con, PostgresConnection):
                _prepare(con)
                postgres.finish_layout(con, tenant)
            else:
                con.execute("SET GLOBAL TimeZone = 'UTC'")
                _prepare(con)
    except BaseException:
        shared.close()
        raise
    return shared
