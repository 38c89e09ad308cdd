"""The way of servers, as the runbook tells it: bootstrap, deploy, worker, run; and saved blocks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from omni.orchestrator import api
from omni.settings import PROJECT

pytestmark = pytest.mark.slow

FLOW = """
import json, os
from pathlib import Path
from prefect import flow
from prefect.settings import get_current_settings

@flow
def greet(tenant: str):
    seen = get_current_settings()
    Path("seen.json").write_text(json.dumps({
        "tenant": tenant, "folder": os.getcwd(), "no_cache": seen.tasks.default_no_cache,
        "serializer": seen.results.default_serializer, "loggers": seen.logging.extra_loggers}))
"""

DEPLOYMENTS = """
name: tiny
pull: [deployments.steps.enter_project: {variable: OMNI_PROJECT}]
deployments:
  - name: greet
    entrypoint: flows/greet.py:greet
    work_pool: {name: omni}
    concurrency_limit: {limit: 1, collision_strategy: ENQUEUE}
    schedules:
      - {cron: "0 2 * * *", timezone: Europe/Berlin, slug: greet-acme, parameters: {tenant: acme}}
"""

BLOCKS = """
import json
from pydantic import SecretStr
from blocks.hubspot import HubSpot
from blocks.lookup import saved
from blocks.shopify import Shopify
HubSpot(token=SecretStr("first")).save("acme")
HubSpot(token=SecretStr("second"), requests_per_10s=5).save("acme", overwrite=True)
found = saved(HubSpot, "acme").connection()
print(json.dumps({"token": found.token.get_secret_value(), "requests": found.requests_per_10s,
                  "other": saved(HubSpot, "nobody") is None, "shop": saved(Shopify, "acme") is None}))
"""

SPOILED = """
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from deployments.bootstrap import make_pool
from omni.errors import ConfigError
with get_client(sync_client=True) as client:
    client.create_work_pool(WorkPoolCreate(name="elsewhere", type="docker"))
    try:
        make_pool(client, "elsewhere")
    except ConfigError as error:
        print(error)
    pool = client.read_work_pool("omni")
    template = pool.base_job_template
    env = template["variables"]["properties"]["env"]
    env["default"] = {"OWN": "kept"}
    from prefect.client.schemas.actions import WorkPoolUpdate
    client.update_work_pool("omni", WorkPoolUpdate(base_job_template=template))
    print(make_pool(client, "omni"), make_pool(client, "omni"))
    print(client.read_work_pool("omni").base_job_template["variables"]["properties"]["env"]["default"]["OWN"])
"""


def run(variables: dict[str, str], folder: Path, *arguments: str) -> str:
    finished = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def test_bootstrap_deploy_work(local: Any, tmp_path: Path) -> None:
    """The worker is given neither prefect.toml nor its variables: the flow run gets them from the pool."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "greet.py").write_text(FLOW)
    (tmp_path / "prefect.yaml").write_text(DEPLOYMENTS)
    variables = local.variables(OMNI_PROJECT=str(tmp_path), PREFECT_HOME=str(tmp_path / "worker"))
    prepared = run(variables, PROJECT, "-m", "deployments.bootstrap")
    assert "work pool omni: created" in prepared
    assert "prefect --no-prompt deploy --all" in prepared
    run(variables, tmp_path, "-m", "prefect", "--no-prompt", "deploy", "--all")
    deployed = httpx.get(f"{local.url}/deployments/name/greet/greet").raise_for_status().json()
    order = {"parameters": {"tenant": "acme"}, "state": {"type": "SCHEDULED"}}
    httpx.post(f"{local.url}/deployments/{deployed['id']}/create_flow_run", json=order).raise_for_status()
    run(variables, tmp_path, "-m", "prefect", "worker", "start", "--pool", "omni", "--run-once")
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen == {
        "tenant": "acme",
        "folder": str(tmp_path),
        "no_cache": True,
        "serializer": "json",
        "loggers": ["omni"],
    }
    newest = next(found for found in api.recent_runs(local.url) if found.flow == "greet")
    assert (newest.state, newest.tenant) == ("Completed", "acme")
    spoiled = run(variables, tmp_path, "-c", SPOILED).splitlines()
    assert "of type 'docker'" in spoiled[0]
    assert spoiled[1:] == ["settings brought up to date as it should be", "kept"]


def test_blocks_are_found_by_tenant(local: Any, tmp_path: Path) -> None:
    answer = json.loads(run(local.variables(), tmp_path, "-c", BLOCKS).splitlines()[-1])
    assert answer == {"token": "second", "requests": 5, "other": True, "shop": True}
