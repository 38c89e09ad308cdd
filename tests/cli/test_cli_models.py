"""`omni models`: quick to start, says what it would do, fails when a model or a case does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from omni.catalogue.impact import impact
from omni.catalogue.pages import render
from omni.catalogue.project import load_project
from omni.cli import app
from omni.declarations import validate_all
from omni.errors import ConfigError, SchemaError
from omni.settings import PROJECT
from omni.tenancy import get
from omni.warehouse.catalog import exists
from omni.warehouse.database import open_warehouse
from omni.warehouse.models import Header, Model
from omni.warehouse.runner import build

SELECT = ["--select", "marts.daily_sales"]


def omni(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["models", *arguments])


def said(result: Result) -> str:
    return re.sub(r"\s+", " ", result.output)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    shutil.copytree(PROJECT / "data", folder, ignore=shutil.ignore_patterns("var"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("models_run", {"prefect", "pandas", "polars", "altair", "pyarrow", "scipy"}),
        ("models_plan", {"prefect", "pandas", "altair", "pyarrow", "sklearn"}),
    ],
)
def test_nothing_heavy_is_loaded(module: str, heavy: set[str]) -> None:
    code = f"import sys, omni.cli.{module}; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["plan", "run", "test", "lineage", "docs", "drop", "list"])
def test_each_command_explains_itself_with_examples(command: str) -> None:
    result = omni(command, "--help")
    assert result.exit_code == 0
    assert f"omni models {command}" in said(result)


def test_text_that_looks_like_a_place_of_the_page_is_shown_as_text() -> None:
    page = render({"title": "[[CODE]]", "as_of": None, "metrics": [], "tables": [{"text": "see [[CODE]]"}]})
    assert "<title>Catalogue of [[CODE]]</title>" in page
    assert '{"text":"see [[CODE]]"}' in page
    assert page.count('"use strict"') == 1


@pytest.mark.slow
def test_plan_then_run_then_nothing_is_left_to_do(home: Path) -> None:
    planned = omni("plan", "--select", "+marts.daily_sales", "--json")
    assert planned.exit_code == 0, planned.output
    found = {one["model"]: one["action"] for one in json.loads(planned.output)["plan"]}
    assert found["marts.daily_sales"] == "full"
    dry = omni("run", "--dry-run", "--select", "+marts.daily_sales")
    assert f"{len(found)} of {len(found)} models would run" in said(dry)

    done = omni("run", "--select", "+marts.daily_sales", "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.output)
    assert (summary["status"], summary["models"]) == ("done", len(found))
    again = omni("run", "--select", "+marts.daily_sales")
    assert f"({len(found)} skip)" in said(again)
    full = omni("plan", *SELECT, "--full", "--json")
    assert json.loads(full.output)["plan"][0]["reason"] == "asked for with --full"


@pytest.mark.slow
def test_a_table_whose_model_is_gone_is_listed_and_dropped_when_told(home: Path) -> None:
    header = Header(kind="full", owner="a@b.example", description="x.", grain=["id"])
    gone = Model("core.gone", header, "SELECT 1 AS id", "gone.sql")
    with open_warehouse(get("demo")) as warehouse:
        build(warehouse, gone, {"core.gone": gone}, "run")
        with warehouse.transaction() as con:
            con.execute("CREATE TABLE core.by_hand (id INTEGER)")
    assert "core.gone no model makes it any more; `omni models drop core.gone" in said(omni("plan"))
    assert json.loads(omni("plan", "--json").output)["leftover"] == ["core.gone"]
    assert "Would drop core.gone of" in said(omni("drop", "core.gone", "--dry-run"))
    refused = CliRunner().invoke(app, ["models", "drop", "core.gone"], input="n\n")
    assert refused.exit_code == 2
    assert "those left over: core.gone" in said(omni("drop", "core.by_hand", "--yes"))
    assert json.loads(omni("plan", "--json").output)["leftover"] == ["core.gone"]

    assert "Dropped core.gone" in said(omni("drop", "core.gone", "--yes"))
    with open_warehouse(get("demo")) as warehouse, warehouse.cursor() as con:
        assert not exists(con, "core.gone")
        assert exists(con, "core.by_hand")
        assert con.execute("SELECT count(*) FROM ops.models").fetchone() == (0,)


@pytest.mark.slow
def test_a_failed_model_is_said_and_ends_with_status_1(home: Path) -> None:
    result = omni("run", *SELECT)  # what it reads was never built
    assert result.exit_code == 1
    assert "marts.daily_sales" in said(result)
    assert "failed: 1 models of" in said(result)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--since", "2026-01-01"), "needs both --since and --until"),
        (("run", "--since", "2026-01-02", "--until", "2026-01-02"), "is empty"),
        (("list", "--select", "core.order"), "did you mean core.orders?"),
        (("plan", "--without", "core.orders.revenu"), "did you mean revenue?"),
        (("plan", "--without", "revenue"), "schema.table.column"),
        (("drop", "core.orders", "--yes"), "is declared by"),
        (("drop", "raw.shopify__orders", "--yes"), "is declared by a contract"),
        (("drop", "core.nothing", "--yes"), "no table is left over"),
        (("lineage", "core.order"), "did you mean core.orders?"),
        (("lineage", "core.orders.revenu"), "did you mean revenue?"),
    ],
)
def test_wrong_words_are_answered_with_what_is_right(
    home: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = omni(*arguments)
    assert result.exit_code == 2
    assert message in said(result)


@pytest.mark.slow
def test_what_a_renamed_column_breaks_is_listed_all_at_once(home: Path) -> None:
    result = omni("plan", "--without", "core.orders.channel", "--json")
    assert result.exit_code == 1
    content = json.loads(result.output)
    breaks = content["breaks"]
    assert "SQL written in Python" in content["not_looked_at"]
    direct = {(b["kind"], b["name"]) for b in breaks if not b["because"]}
    resting = {(b["kind"], b["name"]) for b in breaks if b["because"]}
    assert {
        ("model", "core.order_items"), ("model", "marts.daily_sales"), ("metric", "revenue"),
        ("metric", "orders"), ("dashboard", "overview"),
    } <= direct  # fmt: skip
    assert {("metric", "average_order_value"), ("copy", "daily_sales"), ("export", "daily_sales")} <= resting
    assert all(Path(b["file"]).exists() for b in breaks)


@pytest.mark.slow
def test_what_only_passes_a_column_on_breaks_its_readers(data: Path) -> None:
    staging = data / "models" / "staging" / "passing__on.sql"
    header = "/*\nkind: {}\nowner: a@b.example\ndescription: x\ngrain: [order_id]\n*/\n"
    staging.write_text(header.format("view") + "SELECT o.* FROM core.orders AS o", encoding="utf-8")
    reader = data / "models" / "marts" / "reader.sql"
    reader.write_text(
        header.format("full")
        + "WITH p AS (SELECT * FROM staging.passing__on) SELECT order_id, channel FROM p",
        encoding="utf-8",
    )
    project = load_project(data)
    assert impact(project) == []
    broken = {(b.kind, b.name): b for b in impact(project, [("core.orders", "channel")]) if not b.because}
    assert ("model", "staging.passing__on") not in broken
    assert broken["model", "marts.reader"].table == "staging.passing__on"
    assert broken["model", "marts.reader"].file == str(reader)


@pytest.mark.slow
def test_checks_experiments_predictions_and_contracts_are_among_what_breaks() -> None:
    project = load_project()

    def kinds(table: str, column: str) -> set[tuple[str, str]]:
        return {(b.kind, b.name) for b in impact(project, [(table, column)])}

    assert ("model header", "core.orders") in kinds("core.customers", "customer_id"), "a relationship"
    assert ("experiment", "spring_mail") in kinds("marts.experiment_units", "spend_14d")
    assert ("prediction", "lead_scoring") in kinds("marts.lead_features", "converted")
    assert ("write-back", "lead_scores") in kinds("ml.lead_scores", "score")
    with pytest.raises(ConfigError, match=r"No contract and no model declares core\.nothing"):
        kinds("core.nothing", "x")


@pytest.mark.slow
def test_check_names_every_place_of_a_renamed_column(data: Path) -> None:
    orders = data / "models" / "core" / "shop_orders.sql"
    text = orders.read_text(encoding="utf-8")
    assert "total_amount" in text
    orders.write_text(text.replace("total_amount", "total_amont"), encoding="utf-8")
    with pytest.raises(SchemaError) as error:
        validate_all(data)
    message = str(error.value)
    assert "staging.shopify__orders has no column 'total_amont'; did you mean total_amount?" in message
    assert str(orders) in message
    assert len(message.splitlines()) > 1


@pytest.mark.slow
def test_lineage_reaches_vendors_fields_and_dashboards() -> None:
    result = omni("lineage", "core.orders.revenue", "--json")
    assert result.exit_code == 0
    found = json.loads(result.output)
    assert "shopify orders: totalPriceSet.shopMoney.amount" in found["fields"]
    assert "metric revenue" in found["used_by"]
    below = json.dumps(found["to"])
    assert "dashboard overview" in below
    assert "marts.daily_sales.revenue" in below
    text = omni("lineage", "core.orders.revenue")
    assert "raw.shopify__orders.total" in said(text)


@pytest.mark.slow
def test_cases_of_models_run_and_a_wrong_one_fails(tmp_path: Path) -> None:
    good = omni("test", "--select", "marts.daily_sales")
    assert good.exit_code == 0, good.output
    assert "1 cases passed" in said(good)
    case = tmp_path / "marts.daily_sales" / "wrong.yml"
    case.parent.mkdir()
    case.write_text("inputs: {}\noutputs: [{order_date: 2026-01-01, channel: web, country: DE, orders: 1}]\n")
    bad = omni("test", "--select", "marts.daily_sales", "--cases", str(tmp_path))
    assert bad.exit_code == 1
    assert "missing row: order_date=2026-01-01, channel=web" in said(bad)
    assert omni("test", "--select", "core.companies", "--cases", str(tmp_path)).exit_code == 2
