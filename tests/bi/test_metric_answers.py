"""Asking metrics: the typed question, its answer, and the commands, on a small published company."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from omni import tenancy
from omni.bi.answers import MetricQuery, ask, find_metric, list_metrics
from omni.bi.daily import models_of
from omni.bi.metrics import Metric, metrics
from omni.cli.app import app
from omni.errors import ConfigError
from omni.settings import settings
from omni.warehouse.database import open_warehouse
from omni.warehouse.publish import publish

pytestmark = pytest.mark.slow

ORDERS = [
    ("2025-03-31", "web", "DE", "a", 100, False),
    ("2025-04-01", "web", "DE", "a", 10.5, False),
    ("2026-03-02", "web", "DE", "a", 50, False),
    ("2026-03-02", "shop", None, "b", 30, False),
    ("2026-03-30", "web", "AT", "a", 20, False),
    ("2026-03-31", "web", "AT", "c", 0, True),
    ("2026-04-01", "=shop", "DE", "b", 7, False),
]
SHOWN = ["revenue", "orders", "active_customers", "revenue_this_year", "revenue_growth", "cancelled_orders",
         "completed_orders", "average_order_value", "order_value"]  # fmt: skip


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder in which the demo company has published seven orders, loaded through 1 April 2026."""
    home = tmp_path_factory.mktemp("metrics")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNI_HOME", str(home))
        settings.cache_clear()
        with open_warehouse(tenancy.get("demo")) as warehouse:
            with warehouse.transaction() as con:
                con.execute(
                    "CREATE TABLE core.orders (order_date DATE, channel VARCHAR, country VARCHAR, "
                    "customer_id VARCHAR, revenue DECIMAL(18, 2), is_cancelled BOOLEAN, province VARCHAR, "
                    "is_home_currency BOOLEAN, total_amount DECIMAL(18, 2), total_amount_home DECIMAL(18, 2))"
                )
                for row in ORDERS:
                    con.execute(
                        "INSERT INTO core.orders VALUES ($1, $2, $3, $4, $5, $6, NULL, true, $5, $5)",
                        list(row),
                    )
                con.execute(
                    "CREATE TABLE core.customers AS FROM (VALUES ('a', 'DE', true), ('b', 'AT', NULL)) "
                    "AS t(customer_id, country, accepts_marketing)"
                )
                con.execute(
                    "INSERT INTO ops.cursors (vendor, stream, cursor) VALUES ('shopify', 'orders', $1)",
                    [datetime(2026, 4, 2, 3, tzinfo=UTC)],
                )
                for model in models_of({name: metrics()[name] for name in SHOWN}, {}).values():
                    what = "VIEW" if model.header.kind == "view" else "TABLE"
                    con.execute(f"CREATE {what} {model.name} AS {model.sql}")
            publish(warehouse)
    settings.cache_clear()
    return home


@pytest.fixture(autouse=True)
def at_home(state: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OMNI_HOME", str(state))
    settings.cache_clear()
    yield
    settings.cache_clear()


def asked(**query: Any) -> Any:
    return ask(tenancy.get("demo"), MetricQuery.model_validate(query))


def omni(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["metrics", *arguments])


def test_several_metrics_share_periods_and_dimensions() -> None:
    found = asked(metrics=["revenue", "orders", "active_customers"], by=["channel"], since="2026-03-01")
    assert found.rows == [
        (date(2026, 3, 1), "shop", 30, 1, 1),
        (date(2026, 3, 1), "web", 70, 3, 1),
        (date(2026, 4, 1), "=shop", 7, 1, 1),
        (date(2026, 4, 1), "shop", 0, 0, 0),
        (date(2026, 4, 1), "web", 0, 0, 0),
    ]
    assert found.complete == [True, True, False, False, False]
    assert found.complete_through == date(2026, 4, 1)
    assert "Active customers does not add up over periods or members." in found.notes


def test_a_metric_is_found_by_its_synonyms() -> None:
    assert find_metric("Turnover", metrics()).name == "revenue"
    assert asked(metrics=["sales", "revenue"]).query.metrics == ["revenue"]
    with pytest.raises(ConfigError, match="did you mean revenue"):
        find_metric("revenu", metrics())
    two = {n: metrics()["revenue"].model_copy(update={"name": n}) for n in ("gross", "net")}
    with pytest.raises(ConfigError, match="'sales' may be gross or net"):
        find_metric("sales", two)


def test_a_whole_range_ends_with_the_last_day_that_is_over() -> None:
    found = asked(metrics=["active_customers"], grain="all")
    assert found.rows == [(date(2025, 3, 31), 2)]
    assert (found.query.since, found.query.until) == (date(2025, 3, 31), date(2026, 4, 2))
    assert found.complete == [True]


def test_a_year_before_stands_beside_each_period() -> None:
    found = asked(metrics=["revenue"], since="2026-03-01", compare="last_year")
    assert found.rows == [(date(2026, 3, 1), 100, 100), (date(2026, 4, 1), 7, 10.5)]
    assert [column.kind for column in found.columns] == ["period", "value", "before"]


def test_what_cannot_be_answered_says_what_can() -> None:
    wrong = {
        r"active_customers cannot be split by 'province'; together .* have: channel, country": {
            "metrics": ["revenue", "active_customers"], "by": ["province"]},
        "cannot be split by 'colour'; it has: channel, country": {
            "metrics": ["active_customers"], "by": ["colour"]},
        "snapshot has no deals_won yet": {"metrics": ["deals_won"]},
        r"where: 'EXISTS\(SELECT 1\)' is not allowed": {"metrics": ["revenue"], "where": "exists(select 1)"},
    }  # fmt: skip
    for message, query in wrong.items():
        with pytest.raises(ConfigError, match=message):
            asked(**query)


def test_an_answer_is_plain_json_and_says_how_far_it_goes() -> None:
    plain = json.loads(json.dumps(asked(metrics=["revenue_growth"], since="2026-03-01").as_json()))
    assert plain["complete_through"] == "2026-04-01"
    assert plain["currency"] == "EUR"
    assert plain["rows"][0] == {"period": "2026-03-01", "revenue_growth": 0.0, "complete": True}
    assert plain["columns"][1]["unit"] == "percent"


def test_an_assistant_gets_names_synonyms_and_dimensions() -> None:
    listed = {one["name"]: one for one in json.loads(json.dumps(list_metrics(metrics())))}
    assert "turnover" in listed["revenue"]["synonyms"]
    assert {"channel", "customer.country"} <= set(listed["revenue"]["dimensions"])
    assert listed["active_customers"]["additivity"] == "non_additive"
    assert listed["average_order_value"]["made_of"] == ["revenue", "completed_orders"]


def test_an_estimate_is_marked_wherever_it_goes() -> None:
    about = metrics()["active_customers"].measure.model_copy(update={"agg": "distinct_approx"})
    rough: dict[str, Metric] = {"rough": metrics()["active_customers"].model_copy(
        update={"name": "rough", "measure": about})}  # fmt: skip
    assert list_metrics(rough)[0]["approximate"] is True
    assert "approx_count_distinct" in models_of(rough, {})["metrics.rough__day"].sql


def test_query_prints_a_table_with_changes() -> None:
    result = omni("query", "revenue,orders", "--since", "2026-03-01", "--compare", "last_year")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[1].split() == ["2026-03-01", "€100.00", "€100.00", "→", "0.0%", "4", "1", "▲", "300.0%"]
    assert "2026-04-01 …" in lines[2]
    assert lines[2].split()[-1] == "–", "a period that is not over is not compared"
    assert "Complete through 2026-04-01" in result.stdout


def test_query_prints_csv_that_no_spreadsheet_executes() -> None:
    result = omni("query", "revenue", "--by", "channel", "--since", "2026-04-01", "--format", "csv")
    rows = list(csv.reader(io.StringIO(result.stdout)))
    assert rows[0] == ["period", "channel", "revenue", "complete"]
    assert rows[1] == ["2026-04-01", "'=shop", "7.0", "false"]


def test_query_splits_by_a_joined_model_and_filters() -> None:
    result = omni(
        "query",
        "orders",
        "--by",
        "customer.country",
        "--grain",
        "year",
        "--where",
        "channel <> 'shop'",
        "-f",
        "json",
    )
    rows = json.loads(result.stdout)["rows"]
    assert [(r["period"], r["customer.country"], r["orders"]) for r in rows] == [
        ("2025-01-01", "DE", 2), ("2026-01-01", "(none)", 1), ("2026-01-01", "AT", 1),
        ("2026-01-01", "DE", 2),
    ]  # fmt: skip


def test_sql_is_what_was_run() -> None:
    result = omni("query", "revenue_this_year", "--grain", "week", "--sql")
    assert result.stdout.startswith("SELECT period")
    assert "metrics.revenue" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query", "revenu"], "did you mean revenue?"),
        (["query", "revenue", "--where", "revenue > 5"], "no dimension 'revenue'"),
        (["query", "revenue", "--since", "2026-04-01", "--until", "2026-04-01"], "is empty"),
        (["query", "revenue", "--company", "nobody"], "Unknown tenant"),
        (["show", "nothing"], "omni metrics list"),
    ],
)
def test_commands_fail_with_what_to_do(arguments: list[str], message: str) -> None:
    result = omni(*arguments)
    assert result.exit_code == 2
    assert message in result.output.replace("\n", " ")


def test_show_and_list_explain_a_metric() -> None:
    shown = omni("show", "basket size").stdout
    assert "revenue / completed_orders" in shown
    assert "neither days nor members add up" in shown
    listed = omni("list").stdout
    assert "running total of revenue per year" in listed
    names = {one["name"] for one in json.loads(omni("list", "--json").stdout)}
    assert names == set(metrics())
    assert json.loads(omni("show", "revenue", "--json").stdout)["stored"] == [
        "metrics.revenue",
        "metrics.revenue__day",
    ]


def test_definitions_are_exported_for_other_tools() -> None:
    result = omni("export", "--json")
    model = json.loads(result.stdout)["semantic_model"][0]
    told = {m["name"]: m["expression"]["dialects"][0]["expression"] for m in model["metrics"]}
    assert told["cancelled_orders"] == "COUNT(CASE WHEN core_orders.is_cancelled THEN 1 END)"
    assert told["average_order_value"].startswith("(SUM(core_orders.revenue)) / NULLIF(")
    assert "open_pipeline" not in told, "the sum of a state over days would be a wrong number"
    assert "open_pipeline" in result.stderr
    names = {dataset["name"] for dataset in model["datasets"]}
    assert {end for r in model["relationships"] for end in (r["from"], r["to"])} <= names
    assert yaml.safe_load(omni("export").stdout)["version"] == "0.2.0.dev0"
