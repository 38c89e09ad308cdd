"""What the code that runs SQL needs of a database connection.

DuckDB's own connection is one; `omni.warehouse.postgres` puts PostgreSQL behind the same face. SQL is
written once, in DuckDB's dialect, with `$1` for parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, Self

import duckdb

from omni.errors import SchemaError

if TYPE_CHECKING:
    import polars as pl


class Connection(Protocol):
    """A connection of one thread; results are read from the connection that executed."""

    @property
    def description(self) -> Sequence[Sequence[Any]]:
        """The columns of the last result: name first, then its type."""

    def execute(self, query: str, parameters: object = None) -> Connection:
        """Run one statement; `$1` … stand for the parameters in order."""

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row."""

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The rows that are left."""

    def pl(self) -> pl.DataFrame:
        """The rows that are left as a frame."""

    def register(self, view_name: str, python_object: object) -> Connection:
        """Make an Arrow table readable under a name, until `unregister`."""

    def unregister(self, view_name: str) -> Connection:
        """Forget a registered table."""

    def begin(self) -> Connection:
        """Begin a transaction."""

    def commit(self) -> Connection:
        """Keep what the transaction did."""

    def rollback(self) -> Connection:
        """Undo what the transaction did."""

    def close(self) -> None:
        """Give the connection back."""

    def __enter__(self) -> Self:
        """Itself."""

    def __exit__(self, exc_type: object, exc: object, traceback: object) -> None:
        """Close it."""


@contextmanager
def schema_errors(origin: str) -> Iterator[None]:
    """Turn the database's refusal of a SELECT (unknown table or column, wrong type) into a SchemaError."""
    try:
        yield
    except (duckdb.BinderException, duckdb.CatalogException, duckdb.ConversionException) as error:
        said = str(error).splitlines()[0]
        if isinstance(error, duckdb.ConversionException):
            # It quotes the value, which may be anybody's.
            said = re.sub(r"(['\"]).*\1", "'…'", said)
        raise SchemaError(f"{origin}: {said}") from None
