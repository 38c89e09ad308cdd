"""The warehouse in PostgreSQL: schemas of the tenant's own, one writing process, sessions for its threads.

An advisory lock, held by a session that does nothing else, is the single-writer rule: it is exact, and the
server frees it when the process dies. Connect directly or through a pooler in session mode.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from omni.errors import ConfigError, StorageError, TransientError, WarehouseLocked
from omni.settings import settings
from omni.tenancy import Tenant
from omni.warehouse import postgres_security as security
from omni.warehouse.layers import PUBLISHED, SCHEMAS
from omni.warehouse.postgres_connection import PostgresConnection, database_errors

if TYPE_CHECKING:
    import psycopg

CONNECT_SECONDS = 10
LOCK_SECONDS = 60
"""How long a statement waits for another session's lock on a table."""
KEPT_SESSIONS = 8
_REFUSED = re.compile(r"authentication|does not exist|not permitted|pg_hba|no password", re.I)
LONGEST_NAME = 63 - len("_experiments")


@dataclass
class PostgresShared:
    """What the threads of this process share: the lock's session, and sessions to take turns with."""

    tenant: str
    prefix: str
    lock: psycopg.Connection[Any]
    writing: threading.RLock = field(default_factory=threading.RLock)
    users: int = 0
    _kept: list[psycopg.Connection[Any]] = field(default_factory=list)
    _keeping: threading.Lock = field(default_factory=threading.Lock)
    _closed: bool = False

    def cursor(self) -> PostgresConnection:
        """A session of the calling thread's own."""
        with self._keeping:
            session = self._kept.pop() if self._kept else None
        if session is None:
            session = connect(self.tenant)
        return PostgresConnection(session, self.tenant, self.prefix, self._give_back)

    def _give_back(self, session: psycopg.Connection[Any], *, temporary: bool) -> None:
        import psycopg

        try:
            if session.info.transaction_status.name != "IDLE":
                session.rollback()
            if temporary:
                session.execute("DISCARD TEMP")
        except psycopg.Error:
            session.close()
            return
        with self._keeping:
            if not self._closed and len(self._kept) < KEPT_SESSIONS:
                self._kept.append(session)
                return
        session.close()

    def one_thread(self) -> Any:
        """Nothing to spare: the server works elsewhere."""
        return nullcontext()

    def still_held(self) -> None:
        """Make sure that no other process may be writing.

        Raises:
            TransientError: the session that holds the lock is gone, and the lock with it.
        """
        import psycopg

        try:
            self.lock.execute("SELECT 1")
        except psycopg.Error:
            raise TransientError(
                "The connection that held the warehouse's lock was lost; nothing of this step was kept."
            ) from None

    def close(self) -> None:
        """Close every session; the lock is free from then on."""
        with self._keeping:
            self._closed = True
            kept, self._kept = self._kept, []
        for session in [*kept, self.lock]:
            with suppress(Exception):
                session.close()


def schema_prefix(tenant: Tenant) -> str:
    """How the names of the tenant's schemas begin: `acme_` in `acme_core.orders`.

    Raises:
        ConfigError: the tenant's name is too long for PostgreSQL.
    """
    if len(tenant.tenant) > LONGEST_NAME:
        raise ConfigError(
            f"Tenant {tenant.tenant!r}: PostgreSQL's names hold {LONGEST_NAME} characters of a tenant's."
        )
    # Tenants' names have no underscore, so no two become one.
    return tenant.tenant.replace("-", "_") + "_"


def opened(tenant: Tenant, timeout: float) -> PostgresShared:
    """Connect and take the tenant's lock.

    Args:
        tenant: whose warehouse.
        timeout: seconds to wait for another process.

    Raises:
        ConfigError: the driver is missing, or the role is above row security.
        StorageError: the server refuses the role, or has no such database.
        TransientError: the server cannot be reached.
        WarehouseLocked: another process holds the lock.
    """
    prefix = schema_prefix(tenant)
    session = connect(tenant.tenant)
    try:
        with database_errors():
            security.role(session).refuse_unsafe()
            _take(session, tenant, timeout)
    except BaseException:
        session.close()
        raise
    return PostgresShared(tenant.tenant, prefix, session)


def connect(tenant: str) -> psycopg.Connection[Any]:
    """A session with the ways that the rest counts on: UTC, bounded waits, the tenant named.

    Raises:
        ConfigError: psycopg is not installed.
        StorageError: the server refuses the role, or has no such database.
        TransientError: the server cannot be reached.
    """
    try:
        import psycopg
        from psycopg.types.string import TextLoader
    except ImportError:
        raise ConfigError(
            "OMNI_WAREHOUSE_URL names PostgreSQL, but psycopg is not installed. Install "
            "omni-pipelines[postgres]."
        ) from None
    address = settings().warehouse_url
    assert address is not None
    try:
        session = psycopg.connect(
            _conninfo(address.get_secret_value()),
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=CONNECT_SECONDS,
            application_name=f"omni {tenant} {os.getpid()}",
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=3,
        )
    except psycopg.Error as error:
        reason = str(error).strip().splitlines()[-1]
        trouble = StorageError if _REFUSED.search(reason) else TransientError
        raise trouble(
            f"Cannot connect to the warehouse in PostgreSQL: {reason}. Check OMNI_WAREHOUSE_URL and that the "
            "server is up."
        ) from None
    for kind in ("json", "jsonb"):
        session.adapters.register_loader(kind, TextLoader)
    with database_errors():
        _ways(session, tenant)
    return session


def _conninfo(address: str) -> str:
    scheme, mark, rest = address.partition("://")
    return f"{scheme.partition('+')[0]}{mark}{rest}"


def _ways(session: psycopg.Connection[Any], tenant: str) -> None:
    import psycopg
    from psycopg import sql

    ways = {
        "TimeZone": "UTC",
        "DateStyle": "ISO, YMD",
        "IntervalStyle": "postgres",
        "extra_float_digits": "1",
        "search_path": "pg_temp",
        "jit": "off",
        "client_min_messages": "warning",
        "statement_timeout": f"{int(settings().warehouse_timeout * 1000)}",
        "lock_timeout": f"{LOCK_SECONDS * 1000}",
        "idle_in_transaction_session_timeout": f"{int(settings().warehouse_timeout * 1000)}",
        security.SETTING: tenant,
    }
    setting = sql.SQL("SET {} = {}")
    names = {name: sql.SQL(".").join(map(sql.Identifier, name.split("."))) for name in ways}
    script = [setting.format(names[name], sql.Literal(value)) for name, value in ways.items()]
    session.execute(sql.SQL("; ").join(script))
    with suppress(psycopg.Error):
        # A statement of a process that died must not go on; not every platform can tell.
        session.execute("SET client_connection_check_interval = '1s'")


def _take(session: psycopg.Connection[Any], tenant: Tenant, timeout: float) -> None:
    number = lock_number(tenant)
    deadline = time.monotonic() + timeout
    wait = 0.05
    while True:
        row = session.execute("SELECT pg_try_advisory_lock(%s)", [number]).fetchone()
        if row and row[0]:
            return
        if time.monotonic() >= deadline:
            raise WarehouseLocked(
                f"The warehouse of {tenant.tenant} is held by {_holder(session, number)}; waited "
                f"{timeout:g} s. Let that run finish or stop it; OMNI_LOCK_TIMEOUT sets how long to wait."
            )
        time.sleep(min(wait, max(0.0, deadline - time.monotonic())))
        wait = min(wait * 2, 2.0)


def lock_number(tenant: Tenant) -> int:
    """The advisory lock of the tenant's writer."""
    digest = hashlib.sha256(f"omni warehouse {tenant.tenant}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _holder(session: psycopg.Connection[Any], number: int) -> str:
    row = session.execute(
        "SELECT a.application_name, a.pid, coalesce(a.client_addr::text, 'this machine') FROM pg_locks AS l "
        "JOIN pg_stat_activity AS a USING (pid) WHERE l.locktype = 'advisory' AND l.granted "
        "AND l.objsubid = 1 AND l.classid::bigint = (%(n)s >> 32) & 4294967295 "
        "AND l.objid::bigint = %(n)s & 4294967295",
        {"n": number},
    ).fetchone()
    return f"{row[0] or 'a session'} (server process {row[1]}, from {row[2]})" if row else "another session"


@dataclass(frozen=True)
class Standing:
    """What a tenant's warehouse in PostgreSQL looks like from outside.

    Attributes:
        role: who we are there.
        database: its name.
        prefix: of the tenant's schemas.
        schemas: how many there are.
        size: bytes of their tables.
        holder: who writes now, or empty.
        unprotected: tables without row security.
    """

    role: security.Role
    database: str
    prefix: str
    schemas: int
    size: int
    holder: str
    unprotected: tuple[str, ...]


def standing(session: psycopg.Connection[Any], tenant: Tenant) -> Standing:
    """Look at a tenant's schemas without changing or locking anything."""
    prefix, number = schema_prefix(tenant), lock_number(tenant)
    names = [prefix + layer for layer in SCHEMAS]
    row = session.execute(
        "SELECT current_database(), count(DISTINCT n.oid), "
        "coalesce(sum(pg_total_relation_size(c.oid)) FILTER (WHERE c.relkind = 'r'), 0)::bigint "
        "FROM pg_namespace AS n LEFT JOIN pg_class AS c ON c.relnamespace = n.oid WHERE n.nspname = ANY(%s)",
        [names],
    ).fetchone()
    assert row is not None
    held = session.execute(
        "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
        "AND classid::bigint = (%(n)s >> 32) & 4294967295 AND objid::bigint = %(n)s & 4294967295)",
        {"n": number},
    ).fetchone()
    return Standing(
        role=security.role(session),
        database=row[0],
        prefix=prefix,
        schemas=row[1],
        size=row[2],
        holder=_holder(session, number) if held and held[0] else "",
        unprotected=tuple(".".join(found) for found in security.unprotected(session, names)),
    )


@contextmanager
def looking(tenant: Tenant) -> Iterator[psycopg.Connection[Any]]:
    """A session that takes no lock, to look at the server."""
    session = connect(tenant.tenant)
    try:
        with database_errors():
            yield session
    finally:
        session.close()


def finish_layout(con: PostgresConnection, tenant: Tenant) -> None:
    """Row security on every table, and the readers' rights; nothing that is as it should be is touched."""
    schemas = [con.prefix + layer for layer in PUBLISHED]
    with database_errors():
        security.protect_all(con.session, con.schemas(), tenant.tenant)
        if reader := settings().warehouse_reader:
            name = reader.replace("{tenant}", tenant.tenant.replace("-", "_"))
            security.grant_readers(con.session, schemas, name)
