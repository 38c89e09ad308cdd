"""The page in a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from omni.bi.dashboards import publish
from omni.bi.metrics import Metric
from omni.tenancy import Tenant

pytestmark = pytest.mark.slow


def test_page_draws_itself_without_network_errors_or_delay(
    snapshot: duckdb.DuckDBPyConnection,
    tenant: Tenant,
    metrics: dict[str, Metric],
    browser: Any,
    tmp_path: Path,
) -> None:
    made = publish(snapshot, tenant, tmp_path / "out", metrics=metrics)
    address = made.path.resolve().as_uri()
    with browser.page() as page:
        page.size(1320)
        ready = page.open(address)
        page.screenshot(tmp_path / "page.png")
        print("READY", ready, made.bytes, tmp_path)
        drawn = page.value("document.querySelectorAll('.chart svg').length")
        expected = page.value("document.querySelectorAll('.chart').length")
        assert page.errors == []
        assert drawn == expected > 0
        page.scheme("dark"); page.value("new Promise(r => setTimeout(r, 1500))")
        page.screenshot(tmp_path / "dark.png")
        page.size(420); page.value("new Promise(r => setTimeout(r, 1500))"); print(page.value("document.documentElement.scrollWidth"), page.value("JSON.stringify([...document.querySelectorAll('.chart')].map(e=>[e.id,e.clientWidth,e.querySelector('svg').getBoundingClientRect().width,e.parentElement.clientWidth, e.querySelector('svg').style.width]))"))
        page.screenshot(tmp_path / "small.png")
    assert [r for r in page.requests if r != address] == []
