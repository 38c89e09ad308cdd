"""The sandbox as a process of its own: it starts, serves, and never outlives its parent."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest

from omni.errors import ConfigError
from omni.sandbox.company import Company
from omni.sandbox.process import Sandbox, running
from omni.settings import settings

pytestmark = pytest.mark.slow
DEALS = "/crm/objects/2026-09/deals"


def client_of(sandbox: Sandbox) -> httpx.Client:
    headers = {"Authorization": f"Bearer {sandbox.token}", "X-Shopify-Access-Token": sandbox.token}
    return httpx.Client(base_url=sandbox.url, headers=headers, timeout=20)


def read_through_faults(client: httpx.Client, path: str) -> list[dict[str, Any]]:
    """Read every page, asking again whatever happens, a bounded number of times."""
    rows: list[dict[str, Any]] = []
    after: str | None = None
    for _ in range(500):
        try:
            answer = client.get(path, params={"limit": 100, **({"after": after} if after else {})})
        except httpx.TransportError:
            continue
        if answer.status_code != 200:
            continue
        rows += answer.json()["results"]
        after = answer.json().get("paging", {}).get("next", {}).get("after")
        if after is None:
            return rows
    raise AssertionError("did not come to an end")


def test_a_reader_gets_everything_through_random_faults(demo: Company) -> None:
    with running("demo", faults=0.2, seed=7, hubspot_per_10s=10_000) as sandbox, client_of(sandbox) as client:
        assert sandbox.token not in repr(sandbox)
        rows = read_through_faults(client, "/crm/objects/2026-09/web_events")
        assert [r["id"] for r in rows] == [r.id for r in demo.crm["web_events"].records]
        stats = client.get("/_sandbox/stats").json()
        assert sum(stats["faults"].values()) > 5
        assert stats["requests"]["hubspot list web_events"] > 70
        url = sandbox.url
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/_sandbox/health")


def test_one_process_shows_cut_bodies_and_a_day_of_the_past(demo: Company) -> None:
    with running("demo", until=date(2025, 6, 30), plan="standard") as sandbox, client_of(sandbox) as client:
        client.post("/_sandbox/fault", json={"kind": "cut_body", "path": "deals"})
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(DEALS, params={"limit": 100})
        assert client.get(DEALS, params={"limit": 100}).status_code == 200
        shop = client.post(
            "/admin/api/2026-10/graphql.json",
            json={
                "query": "{ orders(first: 1, sortKey: UPDATED_AT, reverse: true) { nodes { updatedAt } } }"
            },
        ).json()
        assert "2025-06-30" <= shop["data"]["orders"]["nodes"][0]["updatedAt"] < "2025-07-01"
        assert shop["extensions"]["cost"]["throttleStatus"]["restoreRate"] == 100


def test_another_process_serves_the_same_bytes(demo: Company) -> None:
    with running("demo") as sandbox, client_of(sandbox) as client:
        page = client.get(
            "/crm/objects/2026-09/contacts", params={"limit": 100, "properties": "email,job_level"}
        )
    records = [r for r in demo.crm["contacts"].records if r.archived_ms is None][:100]
    assert [r["properties"]["email"] for r in page.json()["results"]] == [
        r.properties["email"] for r in records
    ]
    assert [r["updatedAt"] for r in page.json()["results"]] == [
        r.properties["lastmodifieddate"] for r in records
    ]


PARENT = """
import os, signal, httpx
from omni.sandbox.process import running
with running("demo") as sandbox:
    print(sandbox.url, httpx.get(sandbox.url + "/_sandbox/health").json()["pid"], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="needs Linux's pidfd to wait for a process not ours"
)
def test_the_child_dies_with_its_parent() -> None:
    parent = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True, timeout=60)
    assert parent.returncode == -9
    url, pid = parent.stdout.split()
    try:
        handle = os.pidfd_open(int(pid))
    except ProcessLookupError:
        handle = None
    if handle is not None:
        ended, _, _ = select.select([handle], [], [], 10)
        os.close(handle)
        assert ended, "the sandbox outlived its parent by ten seconds"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/_sandbox/health")


def test_the_command_prints_one_line_when_ready_and_stops_on_request() -> None:
    command = [sys.executable, "-m", "omni.sandbox", "--company", "demo", "--until", "2025-01-31"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None
        ready = json.loads(child.stdout.readline())
        assert httpx.get(f"{ready['url']}/_sandbox/health").json()["status"] == "ok"
        child.terminate()
        assert child.wait(timeout=10) in (0, -15)


def test_wrong_companies_and_absent_data_are_told_apart_from_crashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="Known ones: demo, olist"), running("acme"):
        pass
    monkeypatch.setenv("OMNI_REAL_DATA", str(tmp_path))
    settings.cache_clear()
    with pytest.raises(ConfigError, match="OMNI_REAL_DATA"), running("olist"):
        pass
    settings.cache_clear()
