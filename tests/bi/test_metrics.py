"""Metric declarations: the project's own are right, wrong ones are refused with file and field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from omni.bi.daily import rollup_models
from omni.bi.metrics import Metric, adds_up, dimensions_of, in_order, load_metrics, metrics, validate
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
    "percentile without p": (
        REVENUE | {"measure": {"agg": "percentile", "column": "revenue"}},
        "takes column, p",
    ),
    "percentile above one": (
        REVENUE | {"measure": {"agg": "percentile", "column": "revenue", "p": 95}},
        "measure.p",
    ),
    "cumulative with a model": (
        REVENUE | {"measure": {"agg": "cumulative", "metric": "orders"}},
        "model, time_column, dimensions from its parts",
    ),
    "cumulative of a window per year": (
        RATIO | {"measure": {"agg": "cumulative", "metric": "orders", "window": "7d", "per": "year"}},
        "not both",
    ),
    "change by an unknown unit": (
        RATIO | {"measure": {"agg": "change", "metric": "orders", "offset": "1h"}},
        "measure.offset",
    ),
    "state that is a distinct count": (
        REVENUE | {"measure": {"agg": "count_distinct", "column": "x"}, "semi_additive": {"take": "last"}},
        "semi_additive belongs to sums and counts",
    ),
    "derived with a function": (
        RATIO | {"measure": {"agg": "derived", "expression": "sum(revenue) - orders"}},
        "measure: .*'SUM.revenue.' is not allowed",
    ),
    "derived with a text": (
        RATIO | {"measure": {"agg": "derived", "expression": "revenue - 'x'"}},
        "measure: .*is not allowed",
    ),
    "derived of nothing": (
        RATIO | {"measure": {"agg": "derived", "expression": "1 + 1"}},
        "names no metric",
    ),
    "conversion without its second step": (
        REVENUE | {"measure": {"agg": "conversion", "column": "x", "first": "is_seen", "within": "7d"}},
        "takes column, first, then, within",
    ),
    "name of stored cells": (REVENUE | {"name": "revenue__day"}, "names with __"),
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


MADE_WRONG = {
    "running total of distinct counts": (
        {"agg": "cumulative", "metric": "buyers"},
        r"measure\.metric: days of buyers \(count_distinct\) do not add up",
    ),
    "running total of a state": (
        {"agg": "cumulative", "metric": "stock"},
        r"days of stock \(semi-additive\) do not add up",
    ),
    "running total of a ratio": ({"agg": "cumulative", "metric": "basket"}, r"days of basket \(ratio\)"),
    "running total of a product": (
        {"agg": "cumulative", "metric": "product"},
        r"days of product \(derived\) do not add up",
    ),
    "arithmetic on a ratio": ({"agg": "derived", "expression": "basket * 2"}, "basket is itself a ratio"),
    "arithmetic on nothing known": (
        {"agg": "derived", "expression": "revenu - orders"},
        r"measure\.expression: no metric 'revenu'; did you mean revenue\?",
    ),
    "change of a change": ({"agg": "change", "metric": "growth", "offset": "1y"}, "itself a change"),
}


@pytest.mark.parametrize(("measure", "message"), MADE_WRONG.values(), ids=MADE_WRONG)
def test_what_a_metric_cannot_be_made_of_is_refused(
    measure: dict[str, Any], message: str, tmp_path: Path
) -> None:
    written(
        tmp_path,
        REVENUE, ORDERS, RATIO,
        REVENUE | {"name": "buyers", "measure": {"agg": "count_distinct", "column": "customer_id"}},
        REVENUE | {"name": "stock", "semi_additive": {"over": "time", "take": "last"}},
        RATIO | {"name": "product", "measure": {"agg": "derived", "expression": "revenue * orders"}},
        RATIO | {"name": "growth", "measure": {"agg": "change", "metric": "revenue", "offset": "1y"}},
        RATIO | {"name": "wrong", "measure": measure},
    )  # fmt: skip
    with pytest.raises(ConfigError, match=rf"wrong\.yml: .*{message}"):
        load_metrics(tmp_path)


def test_sums_of_sums_add_up_and_products_do_not(tmp_path: Path) -> None:
    def derived(name: str, expression: str) -> dict[str, Any]:
        return RATIO | {"name": name, "measure": {"agg": "derived", "expression": expression}}

    written(
        tmp_path, REVENUE, ORDERS,
        derived("profit", "revenue - 2 * orders"), derived("tax", "(revenue - orders) / 5"),
        derived("offset", "revenue - 5"), derived("product", "revenue * orders"),
        derived("quotient", "5 / revenue"),
    )  # fmt: skip
    found = load_metrics(tmp_path)
    assert {name for name, m in found.items() if adds_up(m, found)} == {"revenue", "orders", "profit", "tax"}


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


TYPES = {
    "core.orders": {"order_date": "DATE", "placed_at": "TIMESTAMPTZ", "channel": "VARCHAR", "sku": "VARCHAR",
                    "customer_id": "VARCHAR", "revenue": "DECIMAL(18,2)"},
    "core.customers": {"customer_id": "VARCHAR", "country": "VARCHAR"},
    "core.lines": {"order_id": "VARCHAR", "sku": "VARCHAR", "color": "VARCHAR"},
}  # fmt: skip
KEYS = {"core.customers": ["customer_id"], "core.lines": ["order_id", "sku"]}


def joined(**join: Any) -> dict[str, Any]:
    return REVENUE | {"joins": {"other": join}}


TYPED = {
    "sum of a text": (
        REVENUE | {"measure": {"agg": "sum", "column": "channel"}},
        r"measure\.column: core\.orders\.channel is VARCHAR; sum needs a number",
    ),
    "time that is no day": (
        REVENUE | {"time_column": "placed_at"},
        r"time_column: core\.orders\.placed_at is TIMESTAMPTZ; it must be a DATE",
    ),
    "fan-out": (
        joined(model="core.lines", key="sku", dimensions=["color"]),
        r"joins\.other: rows of core\.lines are told apart by order_id, sku, not by sku alone",
    ),
    "join of no table": (
        joined(model="core.customer", key="customer_id", dimensions=["country"]),
        r"joins\.other: no table core\.customer; did you mean core\.customers",
    ),
    "join of no column": (
        joined(model="core.customers", key="customer_id", dimensions=["land"]),
        r"joins\.other: core\.customers has no column 'land'",
    ),
    "join by no column": (
        joined(model="core.customers", key="customer", to="customer_id", dimensions=["country"]),
        r"joins: core\.orders has no column 'customer'",
    ),
}


@pytest.mark.parametrize(("declaration", "message"), TYPED.values(), ids=TYPED)
def test_types_and_joins_are_checked(declaration: dict[str, Any], message: str) -> None:
    metric = Metric.model_validate(declaration)
    with pytest.raises(ConfigError, match=f"metric revenue: {message}"):
        validate({"revenue": metric}, TYPES, KEYS)


def test_a_join_to_one_row_is_allowed() -> None:
    one = Metric.model_validate(joined(model="core.customers", key="customer_id", dimensions=["country"]))
    validate({"revenue": one}, TYPES, KEYS)
    assert dimensions_of(one, {}) == ["channel", "other.country"]
