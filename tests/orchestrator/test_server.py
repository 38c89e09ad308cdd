"""A real Prefect server: shared by processes, ephemeral for one run, and one that cannot start."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from omni.errors import TransientError
from omni.orchestrator import api, process, server

pytestmark = pytest.mark.slow

TASKS = 120

FLOW = """
import json, logging, os, sys
from omni.orchestrator.environment import apply_environment
from omni.orchestrator.server import server
apply_environment()
with server(ephemeral=sys.argv[1] == "ephemeral") as running:
    os.environ["PREFECT_API_URL"] = running.url
    from prefect import flow, task
    from prefect.context import FlowRunContext
    from prefect.states import Completed
    log = logging.getLogger("omni.test")

    @task
    def number(i):
        log.warning("number %d", i)
        return i

    @task
    def broken():
        raise ValueError("on purpose")

    @task
    def blocked(value):
        return value

    @flow(name="many")
    def many(tenant):
        futures = [number.submit(i) for i in range(int(sys.argv[2]))]
        failed = broken.submit()
        futures += [failed, blocked.submit(failed)]
        for future in futures:
            future.wait()
        return Completed(message=str(FlowRunContext.get().flow_run.id))

    state = many("acme", return_state=True)
    running.expect(state.message, int(sys.argv[2]) + 2)
    print(json.dumps({"url": running.url, "id": state.message, "started": running.started}))
"""


def run_flow(variables: dict[str, str], way: str) -> dict[str, Any]:
    finished = subprocess.run(
        [sys.executable, "-c", FLOW, way, str(TASKS)],
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "were written within" not in finished.stderr
    answer: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return answer


def test_two_starters_make_one_server(local: Any) -> None:
    assert sorted(said.split(":")[0] for said in local.said) == ["Already running", "Started"]
    found = server.status()
    assert (found.origin, found.url, found.answers) == ("local", local.url, True)
    with server.server(ephemeral=False) as running:
        assert (running.url, running.started) == (local.url, False)


def test_a_run_is_read_back_whole(local: Any) -> None:
    ran = run_flow(local.variables(), "shared")
    assert (ran["url"], ran["started"]) == (local.url, False)
    assert api.drain(local.url, ran["id"], TASKS + 2).complete
    newest = api.recent_runs(local.url, 5)[0]
    assert (newest.id, newest.flow, newest.state, newest.tenant) == (ran["id"], "many", "Completed", "acme")
    assert newest.started_at is not None
    assert newest.started_at.utcoffset().total_seconds() == 0


def test_the_users_server_comes_first(local: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", local.url + "/")
    assert server.status().origin == "PREFECT_API_URL"
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{process.free_port(0)}/api")
    with server.server(ephemeral=False) as running:
        assert running.url == local.url
        assert "does not answer" in running.note


def test_an_ephemeral_server_loses_no_record(local: Any) -> None:
    """Counted in the database it leaves behind, while another server runs in the same state folder."""
    ran = run_flow(local.variables(), "ephemeral")
    assert ran["url"] != local.url
    assert not api.healthy(ran["url"], 2.0)
    seat = process.Seat(local.home / "prefect" / "ephemeral" / "1")
    assert not process.alive(seat)
    database = sqlite3.connect(seat.folder / "prefect.db")
    states = dict(database.execute("SELECT state_name, count(*) FROM task_run GROUP BY 1").fetchall())
    lines = database.execute("SELECT count(*) FROM log WHERE name = 'omni.test'").fetchone()
    database.close()
    assert states == {"Completed": TASKS, "Failed": 1, "NotReady": 1}
    assert lines == (TASKS,)


def test_a_server_that_cannot_start_says_why(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_LOGGING_LEVEL", "nonsense")
    with (
        pytest.raises(TransientError, match=r"(?s)ended while starting.*logging_level"),
        server.server(ephemeral=False),
    ):
        pytest.fail("no server can start with that level")
    assert not process.alive(process.Seat(isolated / "prefect"))
