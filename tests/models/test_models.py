"""Models run on given rows and must yield the stated rows: `<schema>.<name>/<case>.yml` beside this file.

What a case looks like: `omni.warehouse.unit_tests`, which `omni models test` runs too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from omni.settings import settings
from omni.tenancy import Tenant
from omni.warehouse.catalog import columns
from omni.warehouse.check_runs import run_checks
from omni.warehouse.connection import Connection
from omni.warehouse.contracts import HISTORY, contracts
from omni.warehouse.models import Model, cached_models
from omni.warehouse.portable import lint
from omni.warehouse.unit_tests import (
    Case,
    Types,
    build_empty,
    create_schemas,
    load_cases,
    make_actual,
    rows_of,
    run_case,
    run_model,
    sample_tenant,
    table_types,
)

HERE = Path(__file__).parent
MODELS = cached_models(settings().data / "models")
CASES = load_cases(HERE)


@pytest.fixture
def con() -> Iterator[Connection]:
    with duckdb.connect() as connection:
        create_schemas(connection)
        yield connection


@pytest.fixture(scope="module")
def types() -> Types:
    """Columns and types of every table, from building all models on empty raw tables."""
    with duckdb.connect() as con:
        create_schemas(con)
        build_empty(con, MODELS, contracts(), sample_tenant())
        return table_types(con, MODELS, contracts())


@pytest.mark.parametrize("session_zone", ["UTC", "Pacific/Auckland"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_model_yields_the_stated_rows(case: Case, session_zone: str, types: Types, con: Connection) -> None:
    """In any session time zone: only the company's zone may decide what day it is."""
    con.execute(f"SET TimeZone = '{session_zone}'")
    assert run_case(con, case, MODELS, types).problems == ()


def test_all_models_build_on_empty_tables_and_their_checks_run(con: Connection) -> None:
    build_empty(con, MODELS, contracts(), sample_tenant())
    for model in MODELS.values():
        found = columns(con, model.name)
        assert set(model.header.grain) <= set(found), model.name
        assert model.header.time_column is None or found[model.header.time_column] == "DATE", model.name
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


def day_of(table: str, tenant: Tenant) -> str:
    """The day a row belongs to: a model's time column, or that of the raw table a staging view shows."""
    if column := MODELS[table].header.time_column:
        return column
    moment = contracts()[table.replace("staging.", "raw.", 1)].time_column
    return f"CAST({moment} AT TIME ZONE '{tenant.timezone}' AS DATE)"


INCREMENTAL = [m for m in MODELS.values() if m.header.kind == "incremental_by_time"]


@pytest.mark.parametrize("model", INCREMENTAL, ids=lambda model: model.name)
def test_rows_of_a_window_depend_on_its_days_only(model: Model, types: Types, con: Connection) -> None:
    """What makes it right to rebuild only the windows that changed."""
    cases = [case for case in CASES if case.model == model.name]
    assert cases, f"{model.name} needs a case with several days"
    start, window = model.header.time_column, model.header.window
    for case in cases:
        run_model(con, model, case.tenant, types, case.stated.inputs)
        whole = rows_of(con, "actual")
        at = list(columns(con, "actual")).index(str(start))
        for first in {row[at] for row in whole}:
            run_model(con, model, case.tenant, types, case.stated.inputs)
            for parent in set(model.parents) - set(model.header.rebuild_on):
                day = f"CAST(date_trunc('{window}', {day_of(parent, case.tenant)}) AS DATE)"
                con.execute(f"DELETE FROM {parent} WHERE {day} <> $1", [first])
            make_actual(con, model, case.tenant)
            assert rows_of(con, "actual") == [row for row in whole if row[at] == first]


@pytest.mark.parametrize(
    "model", [m for m in MODELS.values() if m.header.kind != "seed"], ids=lambda model: model.name
)
def test_model_keeps_to_the_portable_subset(model: Model) -> None:
    """Runs on PostgreSQL too, and gives the same tables for the same data whenever it runs."""
    assert len(Path(model.origin).read_text(encoding="utf-8").splitlines()) <= 60
    assert lint(model) == []
