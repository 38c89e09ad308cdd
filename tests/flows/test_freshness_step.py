"""The night asks for freshness although nothing was built."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from omni import tenancy
from omni.errors import CheckFailed
from omni.settings import PROJECT, settings
from omni.warehouse.database import open_warehouse
from tasks.checks import check_freshness

MODEL = """/*
kind: full
owner: a@b.example
description: What was seen.
grain: [seen_id]
checks:
  - freshness: {column: seen_at, hours: 24}
*/
SELECT event_id AS seen_id, occurred_at AS seen_at FROM staging.usage__events
"""


def test_old_rows_fail_and_fresh_ones_pass(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(PROJECT / "data", tmp_path / "data", ignore=shutil.ignore_patterns("var"))
    (tmp_path / "data" / "models" / "core" / "seen.sql").write_text(MODEL)
    monkeypatch.setenv("OMNI_DATA", str(tmp_path / "data"))
    settings.cache_clear()

    def look(hours: int, run_id: str) -> dict[str, object]:
        with open_warehouse(tenancy.get("demo")) as warehouse, warehouse.transaction() as con:
            con.execute(
                "CREATE OR REPLACE TABLE core.seen AS "
                "SELECT '1' AS seen_id, CAST($1 AS TIMESTAMPTZ) AS seen_at",
                [datetime.now(UTC) - timedelta(hours=hours)],
            )
        return check_freshness.fn("demo", run_id)

    assert look(2, "r1") == {"rows": 0, "checked": 1, "failing": []}
    with pytest.raises(CheckFailed, match="the newest seen_at is 30 hours old; 24 are allowed"):
        look(30, "r2")
    with open_warehouse(tenancy.get("demo")) as warehouse, warehouse.cursor() as con:
        kept = con.execute("SELECT run_id, passed FROM ops.check_results ORDER BY 1").fetchall()
    assert kept == [("r1", True), ("r2", False)]
