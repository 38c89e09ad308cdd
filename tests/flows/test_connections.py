"""Which account a flow reads: a saved block of the tenant's name comes before the sandbox of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date

import httpx
import pytest

from omni.sandbox.process import Sandbox, running
from omni.settings import PROJECT

pytestmark = pytest.mark.slow

SAVE = """
import json, sys
from blocks.hubspot import HubSpot
from blocks.shopify import Shopify
account = json.loads(sys.stdin.read())
for block in (HubSpot, Shopify):
    block(base_url=account["url"], token=account["token"]).save("demo", overwrite=True)
"""
FORGET = """
from blocks.hubspot import HubSpot
from blocks.shopify import Shopify
for block in (HubSpot, Shopify):
    block.delete("demo")
"""


@pytest.fixture
def account(prefect_server, until) -> Iterator[Sandbox]:
    """Accounts of the demo company's own, saved as blocks of its name."""

    variables = os.environ | {"PREFECT_API_URL": prefect_server.url}

    def python(code: str, given: str = "") -> None:
        subprocess.run(
            [sys.executable, "-c", code],
            input=given,
            env=variables,
            cwd=PROJECT,
            check=True,
            text=True,
            timeout=120,
        )

    with running("demo", until=date.fromisoformat(until), hubspot_per_10s=5_000) as sandbox:
        python(SAVE, json.dumps({"url": sandbox.url, "token": sandbox.token}))
        try:
            yield sandbox
        finally:
            python(FORGET)


def test_a_saved_block_is_used(account, night, tmp_path):
    ended = night(tmp_path, flow="ingest_crm")
    assert ended.returncode == 0, ended.output
    served = httpx.get(f"{account.url}/_sandbox/stats", timeout=10).json()
    assert sum(served["requests"].values()) > 20
    assert account.token not in ended.output
