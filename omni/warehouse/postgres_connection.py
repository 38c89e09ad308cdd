"""PostgreSQL behind the face of a DuckDB connection.

It takes DuckDB's dialect with `$1` parameters, gives the values DuckDB would, and raises DuckDB's errors for
what is wrong with a statement: code that runs SQL knows one set of them. What is wrong with the server
becomes a StorageError or a TransientError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

import duckdb

from omni.errors import StorageError, TransientError
from omni.warehouse import postgres_security as security
from omni.warehouse import postgres_values as values
from omni.warehouse.layers import SCHEMAS

if TYPE_CHECKING:
    from types import ModuleType

    import polars as pl
    import psycopg

    from omni.warehouse.postgres_statements import Statement

_CHANGES = re.compile(r"^(INSERT|UPDATE|DELETE|SELECT|MERGE) ")


class PostgresConnection:
    """A session of one thread, see `omni.warehouse.connection.Connection`."""

    def __init__(
        self, session: psycopg.Connection[Any], tenant: str, prefix: str, give_back: Callable[..., None]
    ) -> None:
        self.session = session
        self.prefix = prefix
        self._tenant = tenant
        self._give_back: Callable[..., None] | None = give_back
        self._rows: list[tuple[Any, ...]] = []
        self._read = 0
        self._types: list[tuple[str, str]] = []
        self._temporary = False
        self._views: list[security.View] = []

    @property
    def description(self) -> Sequence[Sequence[Any]]:
        """The columns of the last result: name first, then its type in DuckDB's words."""
        return [(name, kind, None, None, None, None, None) for name, kind in self._types]

    def execute(self, query: str, parameters: object = None) -> Self:
        """Run a statement, or several without parameters; `$1` … stand for the parameters in order.

        Raises:
            duckdb.Error: the statement is wrong: CatalogException, BinderException, ConversionException …
            TransientError: the connection is lost, a lock or the time limit was reached.
            StorageError: the server's disk is full.
        """
        statements = _statements().translate(query, self.prefix)
        with database_errors():
            if self._status() == "IDLE" and any(s.kind == "drop" and s.target for s in statements):
                with self.session.transaction():
                    self._run_all(statements, parameters)
                    self._restore()
            else:
                self._run_all(statements, parameters)
        return self

    def _run_all(self, statements: tuple[Statement, ...], parameters: object) -> None:
        for statement in statements:
            self._run(statement, _given(statement, parameters))

    def _restore(self) -> None:
        dropped, self._views = self._views, []
        security.restore(self.session, dropped)

    def _run(self, statement: Statement, given: list[Any]) -> None:
        match statement.kind:
            case "by_name":
                assert statement.by_name is not None
                names = [name for name, _ in values.types_of(self._send(statement.by_name.probe, given))]
                self._keep(self._send(statement.by_name.insert(names), given))
            case "drop":
                self._drop(statement)
            case "create_table" | "create_view":
                self._create(statement, given)
            case "definition":
                self._keep(self._send(self._inline(statement.sql, given), []))
            case _:
                self._keep(self._send(statement.sql, given))

    def _send(self, sql: str, given: list[Any]) -> psycopg.RawCursor[Any]:
        import psycopg

        cursor = psycopg.RawCursor(self.session)
        cursor.execute(sql.encode(), given or None)
        return cursor

    def _keep(self, cursor: psycopg.RawCursor[Any]) -> None:
        """Keep a result; of a change the one row that DuckDB gives, how many rows it touched."""
        self._read = 0
        if cursor.description is not None:
            self._types = values.types_of(cursor)
            self._rows = values.as_duckdb_gives(cursor.fetchall(), self._types)
        elif _CHANGES.match(cursor.statusmessage or ""):
            self._types, self._rows = [("Count", "BIGINT")], [(cursor.rowcount,)]
        else:
            self._types, self._rows = [], []
        cursor.close()

    def _inline(self, sql: str, given: list[Any]) -> str:
        """A definition takes no parameters: their literals stand in it."""
        from psycopg import sql as composing

        if not given:
            return sql
        literals = [composing.Literal(value).as_string(self.session) for value in given]
        return str(_statements().bind_literals(sql, literals))

    def _create(self, statement: Statement, given: list[Any]) -> None:
        sql = self._inline(statement.sql, given)
        if statement.target is None:
            self._temporary = True
            self._keep(self._send(sql, []))
            return
        with self.session.transaction():
            made = self._send(sql, [])
            if statement.kind == "create_table":
                security.protect(self.session, *statement.target, self._tenant)
            else:
                security.remember_source(self.session, *statement.target, statement.source)
        self._keep(made)

    def _drop(self, statement: Statement) -> None:
        """Drop a table or view; views that read it come back when the transaction ends."""
        if statement.target is not None:
            self._views += security.take_dependents(self.session, *statement.target)
        self._keep(self._send(statement.sql, []))

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row."""
        if self._read >= len(self._rows):
            return None
        self._read += 1
        return self._rows[self._read - 1]

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The rows that are left."""
        rows = self._rows[self._read :] if self._read else self._rows
        self._rows, self._read = [], 0
        return rows

    def pl(self) -> pl.DataFrame:
        """The rows that are left as a frame."""
        return values.frame(self.fetchall(), self._types)

    def register(self, view_name: str, python_object: object) -> Self:
        """Make an Arrow table or a frame readable under a name, as a temporary table, until `unregister`."""
        with database_errors():
            reader = values.arrow_reader(python_object)
            self._send(f'DROP TABLE IF EXISTS pg_temp."{view_name}"', [])
            self._temporary = True
            values.copy_in(self.session, f'"{view_name}"', reader)
        return self

    def unregister(self, view_name: str) -> Self:
        """Forget a registered table; in a failed transaction its rollback does."""
        if not self._failed():
            with database_errors():
                self._send(f'DROP TABLE IF EXISTS pg_temp."{view_name}"', [])
        return self

    def begin(self) -> Self:
        """Begin a transaction."""
        with database_errors():
            self._send("BEGIN", [])
        return self

    def commit(self) -> Self:
        """Keep what the transaction did."""
        if self._failed():
            self.rollback()
            raise duckdb.TransactionException("The transaction failed before: nothing of it was kept.")
        with database_errors():
            self._restore()
            self._send("COMMIT", [])
        return self

    def rollback(self) -> Self:
        """Undo what the transaction did."""
        self._views = []
        with database_errors():
            self.session.rollback()
        return self

    def columns(self, relation: str) -> dict[str, str]:
        """Columns of a table, a view or a parenthesised SELECT, with DuckDB's names of their types."""
        (statement,) = _statements().translate(f"SELECT * FROM {relation} LIMIT 0", self.prefix)
        with database_errors():
            return dict(values.types_of(self._send(statement.sql, [])))

    def schemas(self) -> list[str]:
        """The tenant's schemas in PostgreSQL."""
        return [self.prefix + layer for layer in SCHEMAS]

    def stored_tables(self) -> list[tuple[str, str]]:
        """Layer and name of every stored table, in order; what is being built (`__…`) left out."""
        rows = self._catalog(
            "SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p') AND NOT starts_with(c.relname, '__') "
            'ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"',
            [self.schemas()],
        )
        return [(schema.removeprefix(self.prefix), name) for schema, name in rows]

    def views_of(self, layer: str) -> dict[str, str]:
        """The views of a layer by name, each with its SELECT in DuckDB's dialect, as they were made."""
        rows = self._catalog(
            "SELECT c.relname, obj_description(c.oid, 'pg_class') FROM pg_class AS c "
            "JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE n.nspname = $1 AND c.relkind = 'v' ORDER BY c.oid",
            [self.prefix + layer],
        )
        return {name: source for name, source in rows if source}

    def is_temporary_view(self, name: str) -> bool:
        """Whether a name is a temporary view of this session."""
        mine = "relkind = 'v' AND relnamespace = pg_my_temp_schema()"
        return bool(self._catalog(f"SELECT 1 FROM pg_class WHERE relname = $1 AND {mine}", [name]))

    def declared_columns(self, tables: Sequence[str]) -> list[tuple[str, str, str]]:
        """Table, column and PostgreSQL type of every column of some stored tables, in order."""
        rows = self._catalog(
            "SELECT n.nspname || '.' || c.relname AS name, a.attname, format_type(a.atttypid, a.atttypmod) "
            "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
            "WHERE n.nspname || '.' || c.relname = ANY($1) AND c.relkind IN ('r', 'p') "
            "ORDER BY n.nspname, c.relname, a.attname",
            [[self.prefix + table for table in tables]],
        )
        return [(table.removeprefix(self.prefix), column, kind) for table, column, kind in rows]

    def _catalog(self, sql: str, parameters: list[Any]) -> list[tuple[Any, ...]]:
        with database_errors(), self._send(sql, parameters) as cursor:
            return cursor.fetchall()

    def close(self) -> None:
        """Give the session back to its warehouse; what it had begun is undone."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back(self.session, temporary=self._temporary)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, exc_type: object, exc: object, traceback: object) -> None:
        """Close it."""
        self.close()

    def __del__(self) -> None:
        """A cursor that goes out of scope gives its session back."""
        with suppress(Exception):
            self.close()

    def _failed(self) -> bool:
        return self._status() == "INERROR"

    def _status(self) -> str:
        return str(self.session.info.transaction_status.name)


def _statements() -> ModuleType:
    """The translation, imported at its first use: a process whose warehouse is DuckDB's goes without."""
    from omni.warehouse import postgres_statements

    return postgres_statements


def _given(statement: Statement, parameters: object) -> list[Any]:
    if parameters is None:
        return []
    if isinstance(parameters, Mapping):
        return [parameters[name] for name in statement.parameters]
    listed = list(parameters) if isinstance(parameters, Sequence) else [parameters]
    return [listed[place] for place in statement.parameters if isinstance(place, int)]


@contextmanager
def database_errors() -> Iterator[None]:
    """Turn PostgreSQL's errors into those that the house knows.

    Only the primary message is passed on, without the value it quotes: details name rows.
    """
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise _known(error) from None


def _known(error: psycopg.Error) -> Exception:
    state = error.sqlstate or ""
    said = error.diag.message_primary or str(error).splitlines()[0]
    if state in ("53100", "58030"):
        return StorageError(
            f"PostgreSQL's disk is full or cannot be written ({said}); nothing of this step was kept. "
            "Free space there and run again."
        )
    if state in ("57014", "55P03", "25P03"):
        return TransientError(
            f"PostgreSQL gave up: {said}. Another session holds the table, or the statement takes longer "
            "than OMNI_WAREHOUSE_TIMEOUT allows."
        )
    if not state or state[:2] in ("08", "57", "53", "40"):
        return TransientError(f"PostgreSQL was lost or refused the work: {said}. Is the server up?")
    if state == "42501":
        return StorageError(
            f"PostgreSQL denies it: {said}. Does the role of OMNI_WAREHOUSE_URL own the schemas?"
        )
    if state in ("42P01", "3F000", "42883", "42P07", "42710"):
        return duckdb.CatalogException(said)
    if state in ("22P02", "22007", "22008", "22003", "22P03", "22018", "2201E"):
        return duckdb.ConversionException(f"Conversion Error: {said.partition(': ')[0]}")
    if state[:2] == "42":
        return duckdb.BinderException(said)
    if state[:2] == "23":
        return duckdb.ConstraintException(said)
    return duckdb.Error(f"{said} ({state})")
