"""The catalogue in a real browser: drawn at once, from nowhere else, and things can be found in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omni.catalogue.content import catalogue_content
from omni.catalogue.pages import publish_catalogue
from omni.catalogue.project import load_project
from omni.tenancy import get
from omni.warehouse.database import open_warehouse
from omni.warehouse.publish import publish
from omni.warehouse.versions import record_change

pytestmark = pytest.mark.slow


def test_it_finds_tables_and_follows_columns_without_a_request(home: Path, browser: Any) -> None:
    with open_warehouse(get("demo")) as warehouse:
        with warehouse.transaction() as con:
            con.execute("CREATE TABLE core.orders AS SELECT 1 AS order_id")
            record_change(con, "core.orders", None, run_id="r")
            con.execute(
                "INSERT INTO ops.check_results (run_id, table_name, check_name, severity, rows, failing, "
                "passed, checked_at) SELECT 'r', 'core.orders', 'unique:order_id', 'error', 10, i, i = 0, "
                "TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_days(CAST(i AS INTEGER)) FROM range(3) AS t(i)"
            )
        publish(warehouse)
    path = publish_catalogue("demo")
    assert path == get("demo").home / "catalogue" / "index.html"
    with browser.page() as page:
        page.size(1280)
        assert page.open(path.as_uri()) < 3
        assert "core.orders" in page.value("document.querySelector('main').innerText"), "a failing check"
        page.value(
            "(() => { const s = document.getElementById('search'); s.value = 'total_amount'; "
            "s.dispatchEvent(new Event('input')); })()"
        )
        found = page.value("[...document.querySelectorAll('nav a')].map((a) => a.getAttribute('href'))")
        assert "#core.orders" in found
        assert "#core.companies" not in found
        page.open(f"{path.as_uri()}#core.orders.revenue", "document.querySelector('svg path.on')")
        text = page.value("document.querySelector('main').innerText")
        assert "2 of 10" in text
        assert page.value("document.querySelectorAll('svg.spark rect').length") == 3
        assert page.value("document.querySelectorAll('.graph g.node').length") > 10
        page.size(390)
        page.open(f"{path.as_uri()}#marts.daily_sales", "document.querySelector('main .title')")
        assert page.value("document.documentElement.scrollWidth") <= 390
        assert page.errors == []
        assert {url.split("#")[0].split("?")[0] for url in page.requests} <= {path.as_uri(), "data:,"}


def test_columns_inherit_words_and_personal_marks(home: Path) -> None:
    content = catalogue_content(load_project(), get("demo"))
    tables = {table["name"]: table for table in content["tables"]}
    columns = {c["name"]: c for c in tables["core.orders"]["columns"]}
    assert columns["email_hash"]["personal"]["protect"] == "hash"
    raw = {c["name"]: c for c in tables["raw.shopify__orders"]["columns"]}
    staged = {c["name"]: c for c in tables["staging.shopify__orders"]["columns"]}
    assert raw["source_name"]["text"]
    assert staged["channel"]["text"] == raw["source_name"]["text"]
    assert staged["channel"]["text_from"] == "raw.shopify__orders"
    assert content["as_of"] is None
    assert any(use["name"] == "revenue" for use in tables["core.orders"]["uses"])
