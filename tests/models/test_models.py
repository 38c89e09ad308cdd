"""Models run on given rows and must yield the stated rows: `<schema>.<name>/<case>.yml` beside this file.

A case has `inputs` (table: rows), `outputs` (rows) and, if it needs other than Berlin and EUR, `parameters`.
Columns a case leaves out are null in inputs and not compared in outputs; tables it leaves out are empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlglot
import yaml
from sqlglot import exp

from omni.settings import settings
from omni.tenancy import Tenant
from omni.warehouse.checks import Check, run_checks
from omni.warehouse.contracts import HISTORY, contracts
from omni.warehouse.models import Model, cached_models, in_order

HERE = Path(__file__).parent
MODELS = cached_models(settings().data / "models")
CASES = sorted(HERE.glob("*/*.yml"))
SCHEMAS = ("raw", "staging", "core", "marts")

Rows = list[dict[str, Any]]
Types = dict[str, dict[str, str]]


def tenant_with(timezone: str = "Europe/Berlin", currency: str = "EUR") -> Tenant:
    return Tenant(tenant="acme", title="Acme", timezone=timezone, currency=currency, sources={})


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        for schema in SCHEMAS:
            connection.execute(f"CREATE SCHEMA {schema}")
        yield connection


def build_all(con: duckdb.DuckDBPyConnection, tenant: Tenant) -> None:
    for contract in contracts().values():
        if contract.schema_name in SCHEMAS:
            con.execute(contract.ddl())
    for model in in_order(MODELS, contracts()):
        kind = "VIEW" if model.header.kind == "view" else "TABLE"
        con.execute(f"CREATE {kind} {model.name} AS {model.bound(tenant)}")


@pytest.fixture(scope="module")
def types() -> Types:
    """Columns and types of every table, from building all models on empty raw tables."""
    with duckdb.connect() as con:
        for schema in SCHEMAS:
            con.execute(f"CREATE SCHEMA {schema}")
        build_all(con, tenant_with())
        tables = [*MODELS, *(t for t, c in contracts().items() if c.schema_name in SCHEMAS)]
        return {t: {row[0]: row[1] for row in con.execute(f"DESCRIBE {t}").fetchall()} for t in tables}


def fill(con: duckdb.DuckDBPyConnection, table: str, columns: dict[str, str], rows: Rows) -> None:
    listed = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
    con.execute(f"CREATE OR REPLACE TABLE {table} ({listed})")
    for row in rows:
        assert not (unknown := set(row) - set(columns)), f"{table} has no column {', '.join(sorted(unknown))}"
        names = ", ".join(f'"{column}"' for column in row)
        values = ", ".join(f"CAST(? AS {columns[column]})" for column in row)
        given = [None if value is None else str(value) for value in row.values()]
        con.execute(f"INSERT INTO {table} ({names}) VALUES ({values})", given)


def run(
    con: duckdb.DuckDBPyConnection, model: Model, tenant: Tenant, types: Types, inputs: dict[str, Rows]
) -> None:
    """Create the model's parents from `inputs` and its rows as table `actual`."""
    assert not (strange := set(inputs) - set(model.parents)), f"{model.name} does not read {strange}"
    for parent in model.parents:
        fill(con, parent, types[parent], inputs.get(parent, []))
    con.execute(f"CREATE OR REPLACE TABLE actual AS {model.bound(tenant)}")


def rows_of(con: duckdb.DuckDBPyConnection, table: str, columns: str) -> list[tuple[Any, ...]]:
    return con.execute(f"SELECT {columns} FROM {table} ORDER BY ALL").fetchall()


@pytest.mark.parametrize("session_zone", ["UTC", "Pacific/Auckland"])
@pytest.mark.parametrize("case", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_model_yields_the_stated_rows(
    case: Path, session_zone: str, types: Types, con: duckdb.DuckDBPyConnection
) -> None:
    """In any session time zone: only the company's zone may decide what day it is."""
    stated = yaml.safe_load(case.read_text(encoding="utf-8"))
    assert set(stated) <= {"inputs", "outputs", "parameters"}
    model = MODELS[case.parent.name]
    con.execute(f"SET TimeZone = '{session_zone}'")
    run(con, model, tenant_with(**stated.get("parameters", {})), types, stated["inputs"])
    named = {tuple(row) for row in stated["outputs"]}
    assert len(named) <= 1, "all output rows name the same columns in the same order"
    columns = ", ".join(f'"{column}"' for column in (named.pop() if named else types[model.name]))
    fill(con, "expected", types[model.name], stated["outputs"])
    assert rows_of(con, "actual", columns) == rows_of(con, "expected", columns)
    grain = Check(unique=model.header.grain)
    assert [str(result) for result in run_checks(con, "actual", [grain]) if not result.passed] == []


def test_all_models_build_on_empty_tables_and_their_checks_run(con: duckdb.DuckDBPyConnection) -> None:
    build_all(con, tenant_with())
    for model in MODELS.values():
        columns = {row[0]: row[1] for row in con.execute(f"DESCRIBE {model.name}").fetchall()}
        assert set(model.header.grain) <= set(columns), model.name
        assert model.header.time_column is None or columns[model.header.time_column] == "DATE", model.name
        assert all(result.passed for result in run_checks(con, model.name, model.header.checks)), model.name


def test_every_raw_table_has_a_staging_view_and_only_staging_reads_raw() -> None:
    raw = {t for t, c in contracts().items() if c.schema_name == "raw" and not t.endswith(HISTORY)}
    read = {parent: name for name, model in MODELS.items() for parent in model.parents if parent in raw}
    assert read == {table: table.replace("raw.", "staging.", 1) for table in raw}
    staging = {m.name for m in MODELS.values() if m.name.startswith("staging.")}
    assert staging == set(read.values())
    assert all(MODELS[name].header.kind == "view" for name in staging)


def test_no_column_carries_what_the_contracts_drop(types: Types) -> None:
    dropped = {
        column
        for contract in contracts().values()
        for column, declared in contract.personal_columns.items()
        if declared.personal and declared.personal.protect == "drop"
    }
    for name in MODELS:
        assert not dropped & set(types[name]), name


INCREMENTAL = [m for m in MODELS.values() if m.header.kind == "incremental_by_time"]


@pytest.mark.parametrize("model", INCREMENTAL, ids=lambda model: model.name)
def test_rows_of_a_day_depend_on_that_day_only(
    model: Model, types: Types, con: duckdb.DuckDBPyConnection
) -> None:
    """What makes it right to rebuild only the days that changed."""
    cases = [case for case in CASES if case.parent.name == model.name]
    assert cases, f"{model.name} needs a case with several days"
    day_column = model.header.time_column
    for case in cases:
        stated = yaml.safe_load(case.read_text(encoding="utf-8"))
        tenant = tenant_with(**stated.get("parameters", {}))
        run(con, model, tenant, types, stated["inputs"])
        con.execute("CREATE OR REPLACE TABLE whole AS SELECT * FROM actual")
        for (day,) in con.execute(f"SELECT DISTINCT {day_column} FROM whole").fetchall():
            run(con, model, tenant, types, stated["inputs"])
            for parent in model.parents:
                parents_day = MODELS[parent].header.time_column
                con.execute(f"DELETE FROM {parent} WHERE {parents_day} <> ?", [day])
            con.execute(f"CREATE OR REPLACE TABLE actual AS {model.bound(tenant)}")
            con.execute(
                f"CREATE OR REPLACE TABLE expected AS SELECT * FROM whole WHERE {day_column} = ?", [day]
            )
            assert rows_of(con, "actual", "*") == rows_of(con, "expected", "*")


FORBIDDEN = ("time_bucket", "arg_max", "arg_min", "approx_count_distinct", "now", "current_date", "random")


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_model_keeps_to_the_portable_subset(model: Model) -> None:
    """Runs on PostgreSQL too, and gives the same tables for the same data whenever it runs."""
    assert len(Path(model.origin).read_text(encoding="utf-8").splitlines()) <= 60
    query = model.query
    sqlglot.transpile(
        model.bound(tenant_with()),
        read="duckdb",
        write="postgres",
        unsupported_level=sqlglot.ErrorLevel.RAISE,
    )
    odd: list[Callable[[exp.Expression], bool]] = [
        lambda node: isinstance(node, exp.Pivot | exp.ArgMax | exp.ArgMin | exp.ApproxDistinct),
        lambda node: isinstance(node, exp.CurrentDate | exp.CurrentTimestamp | exp.Rand),
        lambda node: (
            isinstance(node, exp.Star) and bool(node.args.get("except_") or node.args.get("replace"))
        ),
        lambda node: isinstance(node, exp.Join) and node.method.upper() == "ASOF",
        lambda node: isinstance(node, exp.Order) and node.sql("duckdb").upper().endswith("ORDER BY ALL"),
        lambda node: isinstance(node, exp.Anonymous) and node.name.lower() in FORBIDDEN,
    ]
    found = [node.sql("duckdb") for node in query.walk() if any(test(node) for test in odd)]
    assert found == []
