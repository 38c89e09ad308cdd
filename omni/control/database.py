"""Opening the control database: one engine a process, migrated before its first use."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column

from omni.errors import StorageError
from omni.files import private_folder
from omni.settings import settings

MIGRATIONS = Path(__file__).parent / "migrations"


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
    return settings().control_url or f"sqlite:///{(settings().home / 'control.db').resolve()}"


def engine() -> sa.Engine:
    """The process's engine, the database migrated to what this version needs.

    Raises:
        StorageError: it cannot be opened.
    """
    address = url()
    with _lock:
        if address not in _engines:
            _engines[address] = _opened(address)
        return _engines[address]


def _opened(address: str) -> sa.Engine:
    from omni.control.migrate import upgrade

    if address.startswith("sqlite"):
        private_folder(settings().home)
    made = sa.create_engine(address, pool_pre_ping=True)
    if made.dialect.name == "sqlite":
        sa.event.listen(made, "connect", _sqlite_ways)
        sa.event.listen(made, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        upgrade(made)
    except sa.exc.SQLAlchemyError as error:
        made.dispose()
        shown = made.url.render_as_string(hide_password=True)
        raise StorageError(
            f"Cannot open the control database {shown}: {type(error).__name__}. Check OMNI_CONTROL_URL, or "
            "that the state folder can be written."
        ) from None
    return made


def _sqlite_ways(connection: Any, _record: Any) -> None:
    """WAL for readers beside one writer; transactions begin when SQLAlchemy says so, at once for writing."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


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
