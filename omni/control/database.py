"""Opening the control database: one engine a process, migrated before its first use."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column

from omni.errors import ConfigError, StorageError
from omni.files import private_folder
from omni.settings import settings

MIGRATIONS = Path(__file__).parent / "migrations"
WAIT_SECONDS = 30
"""How long a transaction waits for another one's lock."""
CONNECT_SECONDS = 10
AT_ONCE = 500
"""Rows sent to the database in one go."""


class Utc(sa.TypeDecorator[datetime]):
    """A moment: stored without a zone, always UTC, always given back with it."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: sa.Dialect) -> datetime | None:
        """To UTC; a moment without a zone is a mistake."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment needs a time zone")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, _dialect: sa.Dialect) -> datetime | None:
        """As UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Base of every control table. Times are UTC."""

    type_annotation_map = {datetime: Utc(), dict[str, Any]: sa.JSON(), str: sa.String()}


def now() -> datetime:
    """The moment it is."""
    return datetime.now(UTC)


def identity() -> Any:
    """A column of ascending numbers."""
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return mapped_column(kind, primary_key=True, autoincrement=True)


_engines: dict[str, sa.Engine] = {}
_lock = threading.Lock()


def url() -> str:
    """Where it is: `OMNI_CONTROL_URL`, else a SQLite file in the state folder."""
    address = settings().control_url or f"sqlite:///{(settings().home / 'control.db').resolve()}"
    scheme, mark, rest = address.partition("://")
    return f"postgresql+psycopg{mark}{rest}" if scheme == "postgresql" else address


def engine() -> sa.Engine:
    """The process's engine, the database migrated to what this version needs.

    Raises:
        ConfigError: its driver is missing, or it is of a newer version than this.
        StorageError: it cannot be opened.
    """
    address = url()
    with _lock:
        if address not in _engines:
            _engines[address] = _opened(address)
        return _engines[address]


def _opened(address: str) -> sa.Engine:
    from omni.control.migrate import upgrade

    shown = "OMNI_CONTROL_URL"
    try:
        place = sa.make_url(address)
        shown = place.render_as_string(hide_password=True)
        made = unmigrated(place)
        try:
            upgrade(made)
        except BaseException:
            made.dispose()
            raise
    except sa.exc.SQLAlchemyError as error:
        raise StorageError(
            f"Cannot open the control database {shown}: {type(error).__name__}. Check OMNI_CONTROL_URL, or "
            "that the state folder can be written."
        ) from None
    return made


def unmigrated(place: sa.URL) -> sa.Engine:
    """An engine on the database as it is; raises ConfigError where its driver is missing."""
    if place.get_backend_name() == "sqlite":
        private_folder(settings().home)
        _private_file(place.database)
        made = sa.create_engine(place, pool_pre_ping=True)
        sa.event.listen(made, "connect", _sqlite_ways)
        sa.event.listen(made, "begin", _sqlite_begin)
        return made
    try:
        made = sa.create_engine(place, pool_pre_ping=True, connect_args={"connect_timeout": CONNECT_SECONDS})
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"OMNI_CONTROL_URL is {place.drivername}, but {error.name} is not installed. Install "
            "omni-pipelines[postgres] and write the address as postgresql+psycopg://…"
        ) from None
    sa.event.listen(made, "connect", _postgresql_ways)
    return made


def _private_file(name: str | None) -> None:
    """Make SQLite's file, if it is missing, so that only its owner may read it; its log becomes alike."""
    if name and name != ":memory:" and not name.startswith("file:"):
        # Where this fails SQLite cannot open it either, and says why.
        with suppress(OSError):
            os.close(os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _sqlite_ways(connection: Any, _record: Any) -> None:
    """WAL for readers beside one writer; transactions begin when SQLAlchemy says so, at once for writing."""
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={WAIT_SECONDS * 1000}")
    _use_wal(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _use_wal(cursor: Any) -> None:
    """Switch to the write-ahead log. SQLite does not wait for others here, whatever its busy timeout."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.02)


def _sqlite_begin(connection: sa.Connection) -> None:
    reads = connection.get_execution_options().get("reads")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _postgresql_ways(connection: Any, _record: Any) -> None:
    """No lock is waited for without end."""
    connection.execute(f"SET lock_timeout = '{WAIT_SECONDS}s'")
    connection.commit()


@contextmanager
def reading(made: sa.Engine) -> Iterator[sa.Connection]:
    """A connection that reads only, and so waits for no writer."""
    with made.connect() as connection:
        yield connection.execution_options(reads=True)


def alone(connection: sa.Connection, name: str) -> None:
    """Until this transaction ends, no other one that names the same gets past this.

    On SQLite nothing is to be done: transactions exclude each other anyway.
    """
    if connection.dialect.name == "postgresql":
        key = sa.func.hashtextextended(name, 0)
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))


def insert(dialect: str, table: type[Base]) -> Any:
    """An INSERT that can be told what to do about a row that is there already."""
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)


def insert_new(
    opened: Session, table: type[Base], keys: Sequence[str], rows: Iterable[dict[str, Any]]
) -> int:
    """Insert rows except those that are there already, by whichever process; returns how many were new.

    They go in the order of their keys: two processes that insert the same rows in different orders would
    each wait for the other.

    Args:
        opened: the transaction.
        table: where to.
        keys: the columns that make a row the same: the primary key's or a unique constraint's.
        rows: whole rows, all with the same columns.
    """
    ordered = sorted(rows, key=lambda row: [row[name] for name in keys])
    connection = opened.connection()
    adding = insert(connection.dialect.name, table).on_conflict_do_nothing(index_elements=list(keys))
    new = 0
    for start in range(0, len(ordered), AT_ONCE):
        part = ordered[start : start + AT_ONCE]
        new += connection.execute(adding, part, execution_options={"preserve_rowcount": True}).rowcount
    return new


@contextmanager
def session() -> Iterator[Session]:
    """A transaction: commits on success, else leaves no trace."""
    with Session(engine(), expire_on_commit=False) as opened, opened.begin():
        yield opened


def close() -> None:
    """Let go of every engine of this process."""
    with _lock:
        for opened in _engines.values():
            opened.dispose()
        _engines.clear()
