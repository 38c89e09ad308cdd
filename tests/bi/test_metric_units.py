"""Experiments that name a metric: every unit's own value in its own days, compared between the arms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from pydantic import ValidationError

from omni.bi.metrics import Metric
from omni.bi.units import compile_units
from omni.errors import ConfigError
from omni.experiments.analysis import analyse
from omni.experiments.declaration import Experiment

METRIC = {
    "name": "revenue", "title": "t", "description": "d", "owner": "a@demo.example", "unit": "currency",
    "model": "core.orders", "measure": {"agg": "sum", "column": "amount"}, "filter": "NOT is_void",
    "time_column": "order_date",
}  # fmt: skip
EXPERIMENT: dict[str, Any] = {
    "name": "mail", "title": "t", "owner": "a@demo.example", "table": "marts.units", "control": "plain",
    "shares": {"plain": 0.5, "new": 0.5},
    "outcomes": [{"name": "spend", "kind": "mean", "metric": "revenue", "key": "customer", "days": 2}],
}  # fmt: skip
UNITS = """
    ('mail', 'u1', 'new', TIMESTAMPTZ '2026-03-01 23:30:00+00', 'a'),
    ('mail', 'u2', 'new', TIMESTAMPTZ '2026-03-02 10:00:00+00', 'b'),
    ('mail', 'u3', 'plain', TIMESTAMPTZ '2026-03-02 10:00:00+00', 'c'),
    ('mail', 'u4', 'plain', TIMESTAMPTZ '2026-03-02 10:00:00+00', NULL)"""
ORDERS = """
    ('a', DATE '2026-03-01', 1000, false), -- before: in Berlin u1 was asked on 2 March
    ('a', DATE '2026-03-02', 1, false), ('a', DATE '2026-03-03', 2, false),
    ('a', DATE '2026-03-04', 1000, false), -- too late
    ('b', DATE '2026-03-02', 1000, true), -- void
    ('c', DATE '2026-03-03', 6, false), (NULL, DATE '2026-03-03', 1000, false)"""


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("CREATE SCHEMA core; CREATE SCHEMA marts; SET TimeZone = 'UTC'")
        connection.execute(
            "CREATE TABLE marts.units AS FROM (VALUES "
            f"{UNITS}) AS t(experiment, unit_id, variant, sent_at, customer)"
        )
        connection.execute(
            f"CREATE TABLE core.orders AS FROM (VALUES {ORDERS}) AS t(customer, order_date, amount, is_void)"
        )
        yield connection


def test_each_unit_has_its_own_days_and_nothing_is_zero(con: duckdb.DuckDBPyConnection) -> None:
    experiment = Experiment.model_validate(EXPERIMENT)
    sql = compile_units(
        "marts.units", {"spend": (Metric.model_validate(METRIC), "customer", 2)}, "Europe/Berlin"
    )
    rows = con.execute(f"SELECT unit_id, spend FROM ({sql}) ORDER BY 1").fetchall()
    assert rows == [("u1", 3), ("u2", 0), ("u3", 6), ("u4", 0)]
    result = analyse(con, experiment, sql).row(0, named=True)
    assert (result["mean"], result["mean_control"], result["effect"]) == (1.5, 3.0, -1.5)


def test_a_metric_without_a_units_value_is_refused() -> None:
    mean = Metric.model_validate(METRIC | {"measure": {"agg": "average", "column": "amount"}})
    with pytest.raises(ConfigError, match="revenue is average; of units there are sums"):
        compile_units("marts.units", {"spend": (mean, "customer", 2)}, "UTC")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"column": "spend"}, "a metric or a column, not both"),
        ({"days": None}, "metric, key and days go together"),
        ({"kind": "proportion"}, "kind mean"),
    ],
)
def test_an_outcome_is_a_column_or_a_whole_metric(changed: dict[str, Any], message: str) -> None:
    outcome = EXPERIMENT["outcomes"][0] | changed
    with pytest.raises(ValidationError, match=message):
        Experiment.model_validate(EXPERIMENT | {"outcomes": [outcome]})
