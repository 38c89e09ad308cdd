"""Metric declarations: the project's own are right, wrong ones are refused with file and field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from omni.bi.daily import rollup_models
from omni.bi.metrics import Metric, dimensions_of, in_order, load_metrics, metrics, validate
from omni.bi.queries import compile_query
from omni.errors import ConfigError
from omni.settings import settings
from omni.tenancy import Tenant
from omni.warehouse import models as sql_models
from omni.warehouse.contracts import contracts

REVENUE = {
    "name": "revenue",
    "title": "Revenue",
    "description": "What orders earned.",
    "owner": "shop@demo.example",
    "model": "core.orders",
    "measure": {"agg": "sum", "column": "revenue"},
    "time_column": "order_date",
    "dimensions": ["channel"],
    "unit": "currency",
}
ORDERS = REVENUE | {"name": "orders", "measure": {"agg": "count"}, "unit": "count"}
RATIO = {
    "name": "basket",
    "title": "Basket",
    "description": "Revenue per order.",
    "owner": "shop@demo.example",
    "measure": {"agg": "ratio", "numerator": "revenue", "denominator": "orders"},
    "unit": "currency",
}
COLUMNS = {"core.orders": ["order_date", "channel", "country", "revenue", "is_cancelled"]}


def without(declaration: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in declaration.items() if k != key}


def written(folder: Path, *declarations: dict[str, Any]) -> Path:
    for declaration in declarations:
        text = yaml.safe_dump(declaration, sort_keys=False)
        (folder / f"{declaration['name']}.yml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def warehouse() -> Iterator[duckdb.DuckDBPyConnection]:
    """All of the project's models, built on empty tables."""
    tenant = Tenant(tenant="acme", title="Acme", timezone="Europe/Berlin", currency="EUR", sources={})
    models = sql_models.cached_models(settings().data / "models")
    with duckdb.connect() as con:
        for schema in ("raw", "seeds", "staging", "core", "marts", "metrics"):
            con.execute(f"CREATE SCHEMA {schema}")
        raw = {t: c for t, c in contracts().items() if c.schema_name == "raw"}
        for contract in raw.values():
            con.execute(contract.ddl())
        for model in sql_models.in_order(models, contracts()):
            con.execute(f"CREATE TABLE {model.name} AS {model.bound(tenant)}")
        yield con


def test_every_metric_of_the_project_names_what_exists(warehouse: duckdb.DuckDBPyConnection) -> None:
    columns: dict[str, list[str]] = {}
    for schema, table, column in warehouse.execute(
        "SELECT table_schema, table_name, column_name FROM information_schema.columns"
    ).fetchall():
        columns.setdefault(f"{schema}.{table}", []).append(column)
    validate(metrics(), columns)


def test_every_rollup_runs_and_is_a_model_of_its_own(warehouse: duckdb.DuckDBPyConnection) -> None:
    """On empty tables each yields no rows, in the columns that metrics.daily has."""
    expected = [
        ("metric", "VARCHAR"), ("dimension", "VARCHAR"), ("member", "VARCHAR"),
        ("day", "DATE"), ("value", "DOUBLE"),
    ]  # fmt: skip
    rollups = rollup_models(settings().data / "metrics")
    assert {metric.table for metric in metrics().values()} < set(rollups)
    for model in rollups.values():
        what = "VIEW" if model.header.kind == "view" else "TABLE"
        warehouse.execute(f"CREATE OR REPLACE {what} {model.name} AS {model.sql}")
        if what == "VIEW":
            described = warehouse.execute(f"DESCRIBE {model.name}").fetchall()
            assert [(row[0], row[1]) for row in described] == expected, model.name
        assert warehouse.execute(f"SELECT count(*) FROM {model.name}").fetchone() == (0,), model.name


def test_every_metric_compiles_at_every_grain(warehouse: duckdb.DuckDBPyConnection) -> None:
    for metric in metrics().values():
        for dimension in dimensions_of(metric, metrics()):
            sql = compile_query(metric, metrics(), grain="year", by=[dimension], source="model")
            assert warehouse.execute(sql).fetchall() == [], metric.name


def test_additivity_follows_from_the_measure() -> None:
    additive = {m.name for m in metrics().values() if m.additivity == "additive"}
    assert {"revenue", "orders", "refund_amount"} <= additive
    assert not {"active_customers", "review_score", "average_order_value", "refund_rate"} & additive


def test_a_ratio_splits_by_what_both_parts_have(tmp_path: Path) -> None:
    wide = REVENUE | {"dimensions": ["country", "channel"]}
    found = load_metrics(written(tmp_path, wide, ORDERS, RATIO))
    assert dimensions_of(found["basket"], found) == ["channel"]
    assert [m.name for m in in_order(found)] == ["orders", "revenue", "basket"]


WRONG = {
    "misspelt field": (REVENUE | {"dimension": ["channel"]}, "dimension"),
    "unknown aggregate": (REVENUE | {"measure": {"agg": "median", "column": "revenue"}}, "measure.agg"),
    "sum without column": (REVENUE | {"measure": {"agg": "sum"}}, "measure: .*takes column"),
    "count with column": (REVENUE | {"measure": {"agg": "count", "column": "x"}}, "takes nothing else"),
    "ratio with a model": (RATIO | {"model": "core.orders", "dimensions": ["x"]}, "model, dimensions"),
    "ratio without denominator": (
        RATIO | {"measure": {"agg": "ratio", "numerator": "revenue"}},
        "denominator",
    ),
    "no model": (without(REVENUE, "model"), "model missing"),
    "no time column": (without(REVENUE, "time_column"), "time_column missing"),
    "no unit": (without(REVENUE, "unit"), "unit"),
    "unknown unit": (REVENUE | {"unit": "euro"}, "unit"),
    "name with capitals": (REVENUE | {"name": "Revenue"}, "name"),
    "name of the table of all": (REVENUE | {"name": "daily"}, "name"),
    "reserved dimension": (REVENUE | {"dimensions": ["day"]}, "dimensions: day is a reserved"),
    "dimension twice": (REVENUE | {"dimensions": ["channel", "channel"]}, "dimensions"),
    "model without schema": (REVENUE | {"model": "orders"}, "model"),
    "filter that is no condition": (REVENUE | {"filter": "is_cancelled ="}, "filter"),
    "filter that ends the statement": (REVENUE | {"filter": "TRUE; DROP TABLE core.orders"}, "filter"),
    "filter that closes the parenthesis": (REVENUE | {"filter": "TRUE) OR (TRUE"}, "filter"),
    "filter with a subquery": (REVENUE | {"filter": "channel IN (SELECT x FROM core.y)"}, "filter"),
    "filter with an aggregate": (REVENUE | {"filter": "sum(revenue) > 1"}, "filter"),
    "filter with a parameter": (REVENUE | {"filter": "channel = :tenant"}, "filter"),
    "filter with a table": (REVENUE | {"filter": "orders.channel = 'web'"}, "filter"),
}


@pytest.mark.parametrize(("declaration", "field"), WRONG.values(), ids=WRONG)
def test_wrong_declaration_names_file_and_field(
    declaration: dict[str, Any], field: str, tmp_path: Path
) -> None:
    written(tmp_path, declaration)
    with pytest.raises(ConfigError, match=rf"{declaration['name']}\.yml: .*{field}"):
        load_metrics(tmp_path)


def test_file_is_named_after_its_metric(tmp_path: Path) -> None:
    (tmp_path / "sales.yml").write_text(yaml.safe_dump(REVENUE), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"sales\.yml: name: is 'revenue'"):
        load_metrics(tmp_path)


def test_metric_is_declared_once(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    written(tmp_path, REVENUE)
    written(tmp_path / "more", REVENUE)
    with pytest.raises(ConfigError, match="also declared in"):
        load_metrics(tmp_path)


def test_part_of_a_ratio_exists_and_is_no_ratio(tmp_path: Path) -> None:
    written(tmp_path, REVENUE, RATIO | {"measure": RATIO["measure"] | {"denominator": "revenu"}})  # type: ignore[operator]
    with pytest.raises(ConfigError, match=r"basket\.yml: measure\.denominator: .*did you mean revenue\?"):
        load_metrics(tmp_path)
    nested = RATIO | {"name": "nested", "measure": RATIO["measure"] | {"numerator": "basket"}}  # type: ignore[operator]
    written(tmp_path, ORDERS, RATIO, nested)
    with pytest.raises(ConfigError, match=r"nested\.yml: measure\.numerator: basket is itself a ratio"):
        load_metrics(tmp_path)


MISSING = {
    "table": (REVENUE | {"model": "core.order"}, r"model: no table core\.order; did you mean core\.orders\?"),
    "measure": (REVENUE | {"measure": {"agg": "sum", "column": "revenu"}}, r"measure\.column: .*'revenu'"),
    "time column": (REVENUE | {"time_column": "ordered_on"}, "time_column: .*'ordered_on'"),
    "dimension": (REVENUE | {"dimensions": ["chanel"]}, "dimensions: .*did you mean channel"),
    "filter": (REVENUE | {"filter": "NOT is_canceled"}, "filter: .*did you mean is_cancelled"),
}


@pytest.mark.parametrize(("declaration", "message"), MISSING.values(), ids=MISSING)
def test_what_the_warehouse_lacks_is_named(declaration: dict[str, Any], message: str) -> None:
    metric = Metric.model_validate(declaration)
    with pytest.raises(ConfigError, match=f"metric revenue: {message}"):
        validate({"revenue": metric}, COLUMNS)


def test_all_wrong_names_are_reported_at_once() -> None:
    wrong = Metric.model_validate(REVENUE | {"time_column": "when", "filter": "gone"})
    other = Metric.model_validate(ORDERS | {"model": "core.nothing"})
    with pytest.raises(ConfigError) as caught:
        validate({"revenue": wrong, "orders": other}, COLUMNS)
    assert len(str(caught.value).splitlines()) == 3
