"""`omni usage …` gives what the marts hold, in every format, and says what to do when there is nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from omni.bi.funnel_sql import funnel_models
from omni.cli import app
from omni.settings import settings
from omni.tenancy import get
from omni.warehouse.build import build_models
from omni.warehouse.database import open_warehouse
from omni.warehouse.models import cached_models
from omni.warehouse.publish import open_snapshot, publish
from omni.warehouse.selection import select_models
from omni.warehouse.versions import record_change

pytestmark = pytest.mark.slow


def omni(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["usage", *arguments])


@pytest.fixture
def published(home: Path) -> Path:
    """A demo company with a few web events, built and published."""
    models = cached_models(settings().data / "models") | funnel_models(settings().data / "funnels")
    wanted = select_models(models, ["+marts.usage_*", "+marts.funnel_*"])
    with open_warehouse(get("demo")) as warehouse:
        with warehouse.transaction() as con:
            for number, (visitor, event, moment) in enumerate(
                [
                    ("v", "page_view", "2026-01-05T10:00:00Z"),
                    ("v", "signup", "2026-01-05T10:02:00Z"),
                    ("w", "page_view", "2026-01-06T10:00:00Z"),
                    ("v", "page_view", "2026-01-07T10:00:00Z"),
                ]
            ):
                con.execute(
                    "INSERT INTO raw.hubspot__web_events (id, visitor_id, event, page, channel, occurred_at, "
                    "archived) VALUES ($1, $2, $3, '/', '=ads', CAST($4 AS TIMESTAMPTZ), false)",
                    [str(number), visitor, event, moment],
                )
            record_change(con, "raw.hubspot__web_events", None, run_id="load")
        outcomes = build_models(warehouse, models, select=wanted, run_id="r")
        assert {outcome.status for outcome in outcomes} == {"done"}
        publish(warehouse)
    return home


def test_answers_are_those_of_the_marts(published):
    with open_snapshot(get("demo")) as con:
        rows = con.execute(
            "SELECT step_name, CAST(sum(units) AS BIGINT) FROM marts.funnel_signup WHERE dimension = '' "
            "GROUP BY step_name ORDER BY 1"
        ).fetchall()
        cohorts = con.execute("SELECT count(*) FROM marts.usage_cohorts WHERE period = 'week'").fetchone()
    found = json.loads(omni("funnel", "signup", "--format", "json").output)
    assert [(r["step_name"], r["units"]) for r in found if not r["dimension"]] == rows
    assert rows == [("came", 2), ("signed_up", 1)]
    assert len(json.loads(omni("cohorts", "--format", "json").output)) == cohorts[0] == 1
    day = json.loads(omni("retention", "--format", "json", "--until", "2026-01-06").output)
    assert [(r["first_day"], r["actors"]) for r in day] == [(0, 1), (1, 0), (2, 1)]
    sticky = omni("stickiness", "--since", "2026-01-07", "--format", "csv").output.splitlines()
    assert sticky[1].startswith("2026-01-07,1,2,2,")
    paths = json.loads(omni("paths", "--from", "(start)", "--format", "json").output)
    assert [(r["to_step"], r["transitions"]) for r in paths] == [("/", 3)]
    weeks = json.loads(omni("sessions", "--grain", "week", "--by", "channel", "--format", "json").output)
    assert [(r["period"], r["channel"], r["sessions"]) for r in weeks] == [("2026-01-05", "=ads", 3)]
    assert "checkout" in omni("funnel").output
    assert "came" in omni("funnel", "signup", "--since", "2026-01-06", "--daily").output


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["funnel", "nope"], "There are: checkout, signup"),
        (["funnel", "signup", "--by", "actor_id"], "cannot be split"),
        (["sessions", "--by", "actor_id"], "cannot be split"),
        (["paths", "--since", "2026-01-02", "--until", "2026-01-01"], "is empty"),
    ],
)
def test_wrong_questions_say_what_would_be_right(home, arguments, hint):
    result = omni(*arguments)
    assert result.exit_code == 2
    assert hint in " ".join(result.output.split())


def test_without_usage_tables_it_says_so(home):
    with open_warehouse(get("demo")) as warehouse:
        publish(warehouse)
    result = omni("paths")
    assert result.exit_code == 2
    assert "has no usage tables yet" in " ".join(result.output.split())
