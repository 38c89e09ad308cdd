"""`omni write-back`: what it says, what it refuses, and one whole run through the flow."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from omni.cli import app
from omni.tenancy import get
from omni.warehouse.database import open_warehouse
from omni.warehouse.publish import publish

pytestmark = pytest.mark.slow

CODE = "from omni.cli import app; app()"


@pytest.fixture
def scored(control, home):
    """The demo company with a few lead scores published; the last lead is unknown to HubSpot."""
    with open_warehouse(get("demo")) as warehouse:
        with warehouse.transaction() as con:
            con.execute(
                "INSERT INTO ml.lead_scores (lead_id, score, decile, model, model_version) "
                "SELECT id, 0.75, 10, 'm', 1 FROM (VALUES ('20001'), ('20002'), ('7')) v(id)"
            )
        publish(warehouse)
    return home


def omni(*arguments):
    return CliRunner().invoke(app, ["write-back", *arguments])


def test_it_lists_and_refuses_what_there_is_not(scored):
    assert "lead_scores" in omni().output
    unknown = omni("scores", "--dry-run")
    assert unknown.exit_code == 2
    assert "There is no write-back 'scores'. Known: lead_scores" in " ".join(unknown.output.split())
    assert omni("scores").exit_code == 2


def test_a_dry_run_names_keys_and_columns_and_no_value(scored):
    said = omni("lead_scores", "--dry-run")
    assert said.exit_code == 0
    assert "3 new, 0 changed" in said.output
    assert "new 20001: omni_lead_score" in said.output
    assert "0.75" not in said.output
    found = json.loads(omni("lead_scores", "--dry-run", "--json").output)
    assert (found["new"], found["refused"]) == (3, None)
    assert found["examples"]["new"]["7"] == ["omni_lead_score"]


def test_a_run_through_the_flow_writes_and_its_rerun_does_not(scored):
    def run():
        command = [sys.executable, "-c", CODE, "write-back", "lead_scores", "--ephemeral", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=dict(os.environ))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["stages"]["write back"]["steps"]["lead_scores"]

    first, second = run(), run()
    assert (first["written"], first["rejected"]) == (2, 1)
    assert (second["written"], second["unchanged"], second["held"]) == (0, 2, 1)
    found = json.loads(omni("lead_scores", "--dry-run", "--json").output)
    assert found["dead_letters"] == {"7": "OBJECT_NOT_FOUND"}
