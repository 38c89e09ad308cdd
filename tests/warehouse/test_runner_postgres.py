"""Every kind of model on PostgreSQL: the same rows at each step as on DuckDB."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from omni.tenancy import Tenant
from omni.warehouse.build import build_models
from omni.warehouse.database import Warehouse, open_warehouse
from omni.warehouse.models import Model, load_models
from omni.warehouse.postgres_connection import PostgresConnection
from omni.warehouse.versions import record_change

pytestmark = pytest.mark.slow

HEADER = "/*\n{fields}\nowner: shop@demo.example\ndescription: Something.\n*/\n"
DAY = "CAST(placed AT TIME ZONE :timezone AS DATE)"
FILES = {
    "models/staging/orders.sql": (
        "kind: view\ngrain: [id]",
        f"SELECT id, buyer, amount, {DAY} AS order_date FROM raw.source",
    ),
    "models/marts/weekly.sql": (
        "kind: incremental_by_time\ngrain: [week]\ntime_column: week\nwindow: week",
        ("SELECT CAST(date_trunc('week', order_date) AS DATE) AS week, count(DISTINCT buyer) AS buyers "
        "FROM staging.orders GROUP BY CAST(date_trunc('week', order_date) AS DATE)"),
    ),
    "models/marts/daily.sql": (
        "kind: incremental_by_time\ngrain: [d]\ntime_column: d",
        f"SELECT {DAY} AS d, CAST(sum(amount) AS BIGINT) AS revenue FROM raw.source GROUP BY {DAY}",
    ),
    "models/marts/buyers.sql": (
        "kind: incremental_by_key\ngrain: [buyer]",
        "SELECT buyer, CAST(sum(amount) AS BIGINT) AS revenue FROM staging.orders GROUP BY buyer",
    ),
    "models/marts/history.sql": (
        "kind: snapshot\ngrain: [buyer]",
        "SELECT buyer, revenue, label FROM marts.buyers LEFT JOIN seeds.labels ON code = buyer",
    ),
}  # fmt: skip
SEED = (
    "description: Labels.\nowner: a@demo.example\ngrain: [code]\n"
    "columns: {code: {type: string}, label: {type: string}}\n"
)
STEPS: list[tuple[str, list[date] | None]] = [
    (
        (
            "INSERT INTO raw.source VALUES (1, 'a', TIMESTAMPTZ '2026-06-01 10:00:00+00', 5), "
            "(2, 'b', TIMESTAMPTZ '2026-06-09 22:30:00+00', 7)"
        ),
        [date(2026, 6, 1), date(2026, 6, 10)],
    ),
    (
        "INSERT INTO raw.source VALUES (3, 'a', TIMESTAMPTZ '2026-06-10 10:00:00+00', 2)",
        [date(2026, 6, 10)],
    ),
    ("DELETE FROM raw.source WHERE buyer = 'b'", [date(2026, 6, 10)]),
    ("UPDATE raw.source SET amount = amount + 1", None),
]


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Model]:
    for name, (fields, sql) in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEADER.format(fields=fields) + sql + "\n")
    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds" / "labels.yml").write_text(SEED)
    (tmp_path / "seeds" / "labels.csv").write_text("code,label\na,Ada\nb,\n")
    return load_models(tmp_path / "models")


def states(warehouse: Warehouse, models: dict[str, Model]) -> list[Any]:
    """What each step makes of every table, how it was done, and at last a range asked for."""
    with warehouse.transaction() as con:
        con.execute("CREATE TABLE raw.source (id INTEGER, buyer VARCHAR, placed TIMESTAMPTZ, amount INTEGER)")
    found: list[Any] = []
    for sql, days in STEPS:
        with warehouse.transaction() as con:
            con.execute(sql)
            record_change(con, "raw.source", days, run_id="r")
        outcomes = build_models(warehouse, models, run_id="r")
        found.append([(o.model, o.status, o.reason, o.built and o.built.action) for o in outcomes])
        with warehouse.cursor() as con:
            tables = ("marts.weekly", "marts.daily", "marts.buyers")
            found += [con.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in tables]
            history = "SELECT buyer, revenue, label, is_current, valid_to IS NULL FROM marts.history"
            found.append(con.execute(f"{history} ORDER BY buyer, valid_from").fetchall())
    asked = build_models(
        warehouse,
        models,
        select=["marts.weekly"],
        since=date(2026, 6, 1),
        until=date(2026, 6, 30),
        run_id="b",
    )
    with warehouse.cursor() as con:
        windows = con.execute("SELECT model, window_start, rows FROM ops.windows ORDER BY 1, 2").fetchall()
    return [*found, [(o.model, o.built and o.built.reason) for o in asked], windows]


def test_every_kind_goes_the_same_way_on_both(
    home: Path, tenant: Tenant, models: dict[str, Model], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with open_warehouse(tenant) as warehouse:
        on_duckdb = states(warehouse, models)
    request.getfixturevalue("postgres_warehouse")
    with open_warehouse(tenant) as warehouse:
        with warehouse.cursor() as con:
            assert isinstance(con, PostgresConnection)
        on_postgres = states(warehouse, models)
    assert on_postgres == on_duckdb
    assert on_duckdb[-1], "the ledger of windows is not empty"
