"""A whole night with the warehouse in PostgreSQL ends in the tables of a night in DuckDB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

pytestmark = pytest.mark.slow

OF_THE_RUN = {"run_id", "_run_id", "_loaded_at"}


def content(home: Path) -> dict[str, list[str]]:
    """Rows of every published table and view but the warehouse's own records; doubles to ten digits."""
    found = {}
    with duckdb.connect(home / "tenants/demo/published/warehouse.duckdb", read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        names = con.execute(
            "SELECT table_schema || '.' || table_name FROM information_schema.tables "
            "WHERE table_schema <> 'ops'"
        ).fetchall()
        for (name,) in names:
            described = con.execute(f"DESCRIBE {name}").fetchall()
            kept = ", ".join(f'"{column}"' for column, *_ in described if column not in OF_THE_RUN)
            rows = con.execute(f"SELECT {kept} FROM {name}").fetchall()
            found[name] = sorted(repr([_plain(value) for value in row]) for row in rows)
    return found


def _plain(value: Any) -> Any:
    return float(f"{value:.10g}") if isinstance(value, float) else str(value)


def test_a_night_in_postgresql_equals_one_in_duckdb(undisturbed, night, warehouse_server, tmp_path):
    with warehouse_server.database() as name:
        ended = night(tmp_path / "state", OMNI_WAREHOUSE_URL=warehouse_server.url(name))
        assert ended.returncode == 0, ended.output
        with warehouse_server.connect(name) as owner:
            owner.execute("SET omni.tenant = 'demo'")
            orders = owner.execute("SELECT count(*) FROM demo_core.orders").fetchone()
    assert {stage["status"] for stage in ended.summary["stages"].values()} == {"done"}
    expected, published = content(undisturbed.home), content(tmp_path / "state")
    assert set(published) == set(expected)
    assert {table for table in expected if published[table] != expected[table]} == set()
    assert orders == (len(expected["core.orders"]),)
    assert not (tmp_path / "state/tenants/demo/warehouse.duckdb").exists()
