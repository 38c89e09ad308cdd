"""`omni doctor` with the warehouse in PostgreSQL: which server, who we are there, what is not bound."""

from __future__ import annotations

import pytest

from omni.cli.doctor import look_at_warehouse
from omni.settings import settings
from omni.tenancy import get
from omni.warehouse.database import open_warehouse

pytestmark = pytest.mark.slow


def said() -> str:
    return "\n".join(f"{'✓' if f.good else '✗'} {f.what}: {f.detail}" for f in look_at_warehouse("demo"))


def test_it_says_what_the_warehouse_is_and_that_row_security_binds_us(postgres_warehouse):
    assert "nothing of demo yet, `omni nightly` makes it" in (text := said())
    assert "✓ Warehouse role: omni_app, bound by row security" in text
    with open_warehouse(get("demo")):
        text = said()
        assert "✓ Warehouse: PostgreSQL 1" in text
        assert "schemas demo_*" in text
        assert "written by omni demo" in text
    with postgres_warehouse() as owner:
        owner.execute("CREATE TABLE demo_core.by_hand (x integer)")
    assert "✗ Row security: missing on demo_core.by_hand" in said()


def test_it_refuses_a_superuser(postgres_warehouse, monkeypatch):
    address = settings().warehouse_url.get_secret_value().replace("omni_app", "omni")
    monkeypatch.setenv("OMNI_WAREHOUSE_URL", address)
    settings.cache_clear()
    assert "✗ Warehouse role: The role omni of OMNI_WAREHOUSE_URL is a superuser" in said()
