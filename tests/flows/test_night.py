"""The whole night on the demo company, for real: a Prefect server, a sandbox, a warehouse."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import duckdb
import pytest

from omni.orchestrator import api
from omni.sandbox.company import load_company

pytestmark = pytest.mark.slow

STAGES = {"ingest", "models", "metrics", "attribution", "predictions", "experiments", "anomalies",
          "documents", "publish", "dashboards", "compliance"}  # fmt: skip


def test_every_stage_is_done(undisturbed):
    summary = undisturbed.summary
    assert {name: stage["status"] for name, stage in summary["stages"].items()} == dict.fromkeys(
        STAGES, "done"
    )
    assert (summary["status"], summary["state"]) == ("done", "Completed")


def test_no_task_record_is_lost(undisturbed, prefect_server):
    run_id, tasks = undisturbed.summary["run_id"], undisturbed.summary["tasks"]
    records = api.drain(prefect_server.url, run_id, tasks)
    assert (records.complete, api.count_task_runs(prefect_server.url, flow_run_id=run_id)) == (True, tasks)


def test_counts_equal_the_sources(undisturbed, until):
    company = load_company("demo", until=date.fromisoformat(until))
    with duckdb.connect(undisturbed.home / "tenants/demo/published/warehouse.duckdb", read_only=True) as con:

        def count(table: str) -> int:
            return con.execute(f"SELECT count(*) FROM {table}").fetchone()[0]

        assert count("core.orders") == len(company.shop.orders)
        assert count("core.products") == len(company.shop.products)
        assert count("core.customers") == len(company.shop.customers)
        deals = con.execute("SELECT sum(source_rows) FROM ops.loads WHERE table_name = 'raw.hubspot__deals'")
        assert deals.fetchone()[0] == count("core.deals")


def test_a_second_night_changes_no_table(undisturbed, night, tables_of, tmp_path):
    home = copied(undisturbed.home, tmp_path)
    before = tables_of(home)
    again = night(home)
    assert again.returncode == 0, again.output
    assert tables_of(home) == before
    stages = again.summary["stages"]
    assert sum(step.get("rows", 0) for step in stages["ingest"]["steps"].values()) == 0
    assert {step["action"] for step in stages["models"]["steps"].values()} == {"skip"}
    assert {step["action"] for step in stages["metrics"]["steps"].values()} == {"skip"}


@pytest.mark.parametrize(
    "moment",
    [
        "ingest|read shopify orders|running",
        "models|core.orders|running",
        "metrics|metrics.revenue|done",
        "predictions|lead_scoring|running",
        "documents|index|done",
        "publish|snapshot|running",
    ],
)
def test_a_killed_night_and_its_rerun_equal_an_undisturbed_one(
    moment, undisturbed, night, tables_of, tmp_path
):
    killed = night(tmp_path, kill=moment)
    assert killed.killed, killed.output
    rerun = night(tmp_path)
    assert rerun.returncode == 0, rerun.output
    assert tables_of(tmp_path) == tables_of(undisturbed.home)


def test_faults_of_the_vendors_change_nothing(undisturbed, night, tables_of, tmp_path):
    ended = night(tmp_path, OMNI_SANDBOX_FAULTS="0.05")
    assert ended.returncode == 0, ended.output
    assert tables_of(tmp_path) == tables_of(undisturbed.home)


def test_nights_in_turn_equal_one_whole_read(night, tables_of, tmp_path):
    def ingested_and_built(home: Path, until: str) -> None:
        for flow in ("ingest_crm", "build_models"):
            ended = night(home, flow=flow, OMNI_SANDBOX_UNTIL=until)
            assert ended.returncode == 0, ended.output

    ingested_and_built(tmp_path / "turns", "2025-02-28")
    ingested_and_built(tmp_path / "turns", "2025-04-30")
    ingested_and_built(tmp_path / "whole", "2025-04-30")
    assert tables_of(tmp_path / "turns") == tables_of(tmp_path / "whole")


def test_a_failed_stage_stops_only_what_needs_it(undisturbed, night, tmp_path):
    home = copied(undisturbed.home, tmp_path)
    data = tmp_path / "data"
    shutil.copytree(Path(__file__).parents[2] / "data", data, ignore=shutil.ignore_patterns("var"))
    model = data / "models" / "core" / "deals.sql"
    model.write_text(
        model.read_text().replace("checks:", "checks:\n  - expression: {sql: 1 = 0, name: never}", 1)
        + "\nLIMIT 1000000"
    )
    ended = night(home, OMNI_DATA=str(data))
    assert ended.returncode == 1
    stages = ended.summary["stages"]
    assert stages["models"]["status"] == "failed"
    assert stages["models"]["problems"]["core.deals"]["status"] == "failed"
    assert "never" in stages["models"]["problems"]["core.deals"]["reason"]
    assert stages["models"]["problems"]["marts.lead_features"] == {
        "status": "blocked", "reason": "needs models: core.deals"
    }  # fmt: skip
    assert stages["predictions"]["status"] == "blocked"
    assert {
        stages[name]["status"] for name in ("ingest", "documents", "experiments", "publish", "dashboards")
    } == {"done"}
    assert "core.deals" in ended.summary["message"]


def copied(home: Path, folder: Path) -> Path:
    target = folder / "home"
    shutil.copytree(home, target)
    return target
