"""Every model yields on PostgreSQL what it yields on DuckDB: on the stated cases, and on a company's data.

Values are compared after normalising what only the drivers differ in; doubles to nine digits.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from omni import tenancy
from omni.catalogue.project import all_models
from omni.settings import settings
from omni.tenancy import Tenant
from omni.warehouse.contracts import contracts
from omni.warehouse.dialect import to_postgres
from omni.warehouse.models import Model, in_order


def _support(name: str) -> Any:
    path = Path(__file__).parents[1] / "support" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"support_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


twins = _support("twins")
psycopg = pytest.importorskip("psycopg", reason="PostgreSQL tests need psycopg (the extra postgres)")
pytestmark = pytest.mark.slow

MODELS = all_models()
ORDERED = in_order(MODELS, contracts())
CASES = sorted(Path(__file__).parent.glob("*/*.yml"))
SCHEMAS = sorted({name.partition(".")[0] for name in [*MODELS, *contracts()]} - {"ops"})
RAW = [table for table, contract in contracts().items() if table not in MODELS]
UNTIL = "2025-03-31"
"""Five months of the demo company: every stream has rows, and loading them takes five seconds."""

Row = tuple[Any, ...]


def company(timezone: str = "Europe/Berlin", currency: str = "EUR") -> Tenant:
    return Tenant(tenant="acme", title="Acme", timezone=timezone, currency=currency, sources={})


@pytest.fixture(scope="module")
def pg(postgres: Any) -> Iterator[Any]:
    """A connection to a database that knows all letters and sorts them by code point."""
    postgres.run(
        "CREATE DATABASE dialect TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'"
    )
    with psycopg.connect(host=str(postgres.folder), user="omni", dbname="dialect") as con:
        con.execute("SET TimeZone = 'UTC'")
        for schema in SCHEMAS:
            con.execute(f"CREATE SCHEMA {schema}")
        con.commit()
        yield con
    postgres.run("DROP DATABASE dialect WITH (FORCE)")


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for schema in SCHEMAS:
            connection.execute(f"CREATE SCHEMA {schema}")
        yield connection


@pytest.fixture(scope="module")
def types() -> dict[str, dict[str, str]]:
    """Columns and types of every table, from building all models on empty raw tables."""
    with duckdb.connect() as empty:
        for schema in SCHEMAS:
            empty.execute(f"CREATE SCHEMA {schema}")
        for table in RAW:
            empty.execute(contracts()[table].ddl())
        for model in ORDERED:
            empty.execute(f"CREATE TABLE {model.name} AS {model.stored(company())}")
        return {table: twins.columns_of(empty, table) for table in [*MODELS, *RAW]}


def fill(con: duckdb.DuckDBPyConnection, table: str, columns: dict[str, str], rows: list[dict]) -> None:
    listed = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
    con.execute(f"CREATE OR REPLACE TABLE {table} ({listed})")
    for row in rows:
        names = ", ".join(f'"{column}"' for column in row)
        values = ", ".join(f"CAST(? AS {columns[column]})" for column in row)
        given = [None if value is None else str(value) for value in row.values()]
        con.execute(f"INSERT INTO {table} ({names}) VALUES ({values})", given)


def copy(con: duckdb.DuckDBPyConnection, pg: Any, table: str) -> None:
    """Make a table of DuckDB's, with its rows, on PostgreSQL."""
    columns = twins.columns_of(con, table)
    listed = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
    pg.execute(to_postgres(f"CREATE TABLE {table} ({listed})"))
    texts = ", ".join(f'CAST("{column}" AS VARCHAR)' for column in columns)
    with pg.cursor().copy(f"COPY {table} FROM STDIN") as copying:
        for row in con.execute(f"SELECT {texts} FROM {table}").fetchall():
            copying.write_row(row)


def assert_same(con: duckdb.DuckDBPyConnection, pg: Any, table: str) -> int:
    """Both hold the same rows, with the same names of columns; returns how many."""
    columns = twins.columns_of(con, table)
    asked = ", ".join(f'"{column}"' for column in columns)
    cursor = pg.execute(f"SELECT * FROM {table}")
    assert [column.name for column in cursor.description] == list(columns)
    kinds = list(columns.values())
    actual = twins.rows_of(cursor.fetchall(), kinds)
    expected = twins.rows_of(con.execute(f"SELECT {asked} FROM {table}").fetchall(), kinds)
    assert actual == expected, table
    return len(actual)


@pytest.mark.parametrize("case", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_case_yields_the_same_rows_on_postgres(
    case: Path, types: dict[str, dict[str, str]], con: duckdb.DuckDBPyConnection, pg: Any
) -> None:
    """In another session zone as well: only the company's zone may decide what day it is."""
    stated = yaml.safe_load(case.read_text(encoding="utf-8"))
    model, tenant = MODELS[case.parent.name], company(**stated.get("parameters", {}))
    for parent in model.parents:
        fill(con, parent, types[parent], stated["inputs"].get(parent, []))
    con.execute(f"CREATE TABLE raw.actual AS {model.bound(tenant)}")
    try:
        for parent in model.parents:
            copy(con, pg, parent)
        pg.execute("SET LOCAL TimeZone = 'Pacific/Auckland'")
        pg.execute(to_postgres(f"CREATE TABLE raw.actual AS {model.bound(tenant)}"))
        assert_same(con, pg, "raw.actual")
    finally:
        pg.rollback()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The demo company's loaded warehouse, without its models."""
    crm, connections = (importlib.import_module(f"tasks.{name}") for name in ("crm", "connections"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNI_HOME", str(tmp_path_factory.mktemp("demo")))
        patch.setenv("OMNI_SECRET_KEY", "a key for tests, long enough to pass the minimum")
        patch.setenv("OMNI_SANDBOX_UNTIL", UNTIL)
        settings.cache_clear()
        tenant = tenancy.get("demo")
        with connections.connected(tenant):
            for vendor, streams in tenant.sources.items():
                for stream in streams:
                    read = crm.read_stream.fn("demo", vendor, stream, "r1", False)
                    crm.load_stream.fn("demo", vendor, stream, read)
        yield tenant.home / "warehouse.duckdb"
    settings.cache_clear()


@pytest.fixture(scope="module")
def built(demo: Path, pg: Any) -> Iterator[tuple[duckdb.DuckDBPyConnection, dict[str, str]]]:
    """All models built in order on both engines, and what PostgreSQL refused."""
    tenant, refused = company(), {}
    with duckdb.connect(demo) as con:
        con.execute("SET TimeZone = 'UTC'")
        for schema in SCHEMAS:
            con.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        twins.invent(con, RAW)
        for table in RAW:
            copy(con, pg, table)
        for model in ORDERED:
            kind = "VIEW" if model.header.kind == "view" else "TABLE"
            con.execute(f"CREATE {kind} {model.name} AS {model.stored(tenant)}")
            try:
                with pg.transaction():
                    pg.execute(to_postgres(f"CREATE {kind} {model.name} AS {model.stored(tenant)}"))
                    if kind == "TABLE":
                        pg.execute(f"ANALYZE {model.name}")
            except Exception as error:
                refused[model.name] = str(error).splitlines()[0]
        yield con, refused
        pg.rollback()


@pytest.mark.parametrize("model", ORDERED, ids=lambda model: model.name)
def test_model_of_the_demo_company_is_the_same_on_postgres(
    model: Model, built: tuple[duckdb.DuckDBPyConnection, dict[str, str]], pg: Any
) -> None:
    con, refused = built
    assert model.name not in refused, refused[model.name]
    assert_same(con, pg, model.name)


def test_the_demo_company_fills_the_marts(built: tuple[duckdb.DuckDBPyConnection, dict[str, str]]) -> None:
    """Else the comparison would say little."""
    con, _ = built
    counts = {m.name: con.execute(f"SELECT count(*) FROM {m.name}").fetchone()[0] for m in ORDERED}
    assert [
        name for name in ("core.orders", "marts.customer_value", "marts.daily_sales") if counts[name] < 50
    ] == []
    assert [name for name, count in counts.items() if count == 0] == []
