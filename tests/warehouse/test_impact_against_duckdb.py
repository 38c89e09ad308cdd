"""What a lost column breaks is what DuckDB then refuses to bind, over the project's own models."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from omni.catalogue.graph import Graph, build_graph
from omni.catalogue.impact import impact
from omni.catalogue.project import Project, load_project
from omni.warehouse.connection import Connection
from omni.warehouse.lineage import read_columns
from omni.warehouse.unit_tests import build_empty, create_schemas, fill, sample_tenant, table_types

pytestmark = pytest.mark.slow
EVERY = 3
"""One in so many columns is taken away: all of them take 25 s."""


@pytest.fixture(scope="module")
def project() -> Project:
    return load_project()


@pytest.fixture(scope="module")
def graph(project: Project) -> Graph:
    return build_graph(project.contracts, project.models)


@pytest.fixture(scope="module")
def con(project: Project) -> Iterator[Connection]:
    """Every table and model of the project as an empty table."""
    with duckdb.connect() as opened:
        create_schemas(opened)
        build_empty(opened, project.models, project.contracts, sample_tenant())
        types = table_types(opened, project.models, project.contracts)
        for table, columns in types.items():
            fill(opened, table, columns, [])
        yield opened


def binds(con: Connection, project: Project, model: str, table: str, column: str) -> bool:
    """Whether a model still binds when a column of a table has another name."""
    con.execute("BEGIN")
    try:
        con.execute(f'ALTER TABLE {table} RENAME COLUMN "{column}" TO "it is gone"')
        con.execute("DESCRIBE " + project.models[model].bound(sample_tenant()))
    except duckdb.BinderException:
        return False
    finally:
        con.execute("ROLLBACK")
    return True


def test_a_missing_column_is_noticed_wherever_duckdb_misses_it(
    project: Project, graph: Graph, con: Connection
) -> None:
    reads = [
        (name, table, column)
        for name, reading in graph.readings.items()
        if project.models[name].header.kind != "seed"
        for table, columns in reading.read.items()
        for column in sorted(columns)
    ]
    assert len(reads) > 1000
    wrong = []
    for name, table, column in reads[::EVERY]:
        model = project.models[name]
        schema = {
            t: {c: "VARCHAR" for c in graph.columns[t] if (t, c) != (table, column)} for t in model.parents
        }
        noticed = (column, table) in {
            (lost, one) for lost, tables in read_columns(model.query, schema).missing for one in tables
        }
        if noticed == binds(con, project, name, table, column):
            wrong.append((name, table, column, noticed))
    assert wrong == []


@pytest.mark.parametrize(
    "column", [("core.orders", "discount_amount"), ("staging.shopify__order_lines", "seller")]
)
def test_impact_names_just_the_models_that_no_longer_bind(
    project: Project, graph: Graph, con: Connection, column: tuple[str, str]
) -> None:
    named = {one.name for one in impact(project, [column]) if one.kind == "model" and not one.because}
    readers = [
        name for name, reading in graph.readings.items() if column[1] in reading.read.get(column[0], ())
    ]
    refused = {name for name in readers if not binds(con, project, name, *column)}
    assert named == refused - {name for name in refused if name.startswith("metrics.")}
    assert named
