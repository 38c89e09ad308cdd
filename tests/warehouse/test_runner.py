"""Models are built when they must be, all at once or not at all."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from omni.errors import CheckFailed, ConfigError, SchemaError
from omni.tenancy import Tenant
from omni.warehouse.catalog import exists
from omni.warehouse.database import Warehouse, open_warehouse
from omni.warehouse.models import Model, in_order, load_models
from omni.warehouse.runner import Built, build
from omni.warehouse.versions import forget_seen_changes, record_change

ORDERS = """/*
kind: full
owner: shop@demo.example
description: Orders.
grain: [order_id]
time_column: order_date
checks:
  - unique: [order_id]
*/
SELECT id AS order_id, CAST(placed AT TIME ZONE :timezone AS DATE) AS order_date, amount FROM raw.source
"""
VIEW = """/*
kind: view
owner: shop@demo.example
description: Renamed.
grain: [order_id]
*/
SELECT * FROM core.orders
"""
DAILY = """/*
kind: incremental_by_time
owner: shop@demo.example
description: Sales by day.
grain: [order_date]
time_column: order_date
lookback: {lookback}
*/
SELECT order_date, sum(amount) AS revenue, count(*) AS orders FROM staging.orders GROUP BY 1
"""


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Model]:
    return write_models(tmp_path / "models", lookback=0)


def write_models(folder: Path, *, lookback: int = 0, orders: str = ORDERS) -> dict[str, Model]:
    for name, sql in {
        "core/orders": orders, "staging/orders": VIEW, "marts/daily": DAILY.format(lookback=lookback)
    }.items():  # fmt: skip
        path = folder / f"{name}.sql"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(sql)
    return load_models(folder)


@pytest.fixture
def warehouse(either_warehouse: str, tenant: Tenant):
    with open_warehouse(tenant) as opened:
        with opened.transaction() as con:
            con.execute("CREATE TABLE raw.source (id INTEGER, placed TIMESTAMPTZ, amount DECIMAL(18,2))")
        write_rows(
            opened, "(1, '2026-01-01 10:00:00+00', 5), (2, '2026-01-01 23:30:00+00', 7)", [date(2026, 1, 1)]
        )
        yield opened


def write_rows(warehouse: Warehouse, values: str, days: list[date] | None) -> None:
    with warehouse.transaction() as con:
        con.execute(f"INSERT INTO raw.source VALUES {values}")
        record_change(con, "raw.source", days, run_id="r")


def run_all(warehouse: Warehouse, models: dict[str, Model]) -> dict[str, Built]:
    return {m.name: build(warehouse, m, models, "r") for m in in_order(models, ["raw.source"])}


def rows(warehouse: Warehouse, table: str) -> list[tuple]:
    return warehouse.cursor().execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()


def test_days_follow_the_tenants_zone(warehouse, models):
    run_all(warehouse, models)
    assert [(day, n) for day, _, n in rows(warehouse, "marts.daily")] == [
        (date(2026, 1, 1), 1),
        (date(2026, 1, 2), 1),
    ]


def test_second_run_does_nothing(warehouse, models):
    run_all(warehouse, models)
    again = run_all(warehouse, models)
    assert {built.action for built in again.values()} == {"skip"}
    assert not any(built.changed for built in again.values())


def test_only_changed_days_are_rebuilt(warehouse, models):
    run_all(warehouse, models)
    write_rows(warehouse, "(3, '2026-01-05 10:00:00+00', 1)", [date(2026, 1, 5)])
    built = run_all(warehouse, models)
    assert built["marts.daily"].action == "days"
    assert built["marts.daily"].reason == "1 days changed in core.orders"
    assert len(rows(warehouse, "marts.daily")) == 3


def test_lookback_rebuilds_the_days_after(warehouse, tmp_path):
    models = write_models(tmp_path / "lookback", lookback=2)
    run_all(warehouse, models)
    write_rows(warehouse, "(3, '2026-01-05 10:00:00+00', 1)", [date(2026, 1, 5)])
    assert run_all(warehouse, models)["marts.daily"].reason.startswith("3 days")


def test_equal_result_stops_the_rebuild(warehouse, models):
    run_all(warehouse, models)
    with warehouse.transaction() as con:
        record_change(con, "raw.source", None, run_id="r")
    built = run_all(warehouse, models)
    assert (built["core.orders"].action, built["core.orders"].changed) == ("full", False)
    assert built["marts.daily"].action == "skip"


def test_a_day_that_empties_disappears_downstream(warehouse, models):
    run_all(warehouse, models)
    with warehouse.transaction() as con:
        con.execute("DELETE FROM raw.source WHERE id = 2")
        record_change(con, "raw.source", [date(2026, 1, 2)], run_id="r")
    run_all(warehouse, models)
    assert [row[0] for row in rows(warehouse, "marts.daily")] == [date(2026, 1, 1)]


def test_changed_sql_rebuilds_whole(warehouse, models, tmp_path):
    run_all(warehouse, models)
    changed = write_models(
        tmp_path / "changed", orders=ORDERS.replace("amount FROM", "amount * 2 AS amount FROM")
    )
    built = run_all(warehouse, changed)
    assert built["core.orders"].reason == "its SQL or that of a view it reads changed"
    assert [float(row[1]) for row in rows(warehouse, "marts.daily")] == [10.0, 14.0]


def test_changes_are_forgotten_once_every_reader_has_seen_them(warehouse, models):
    def forget() -> int:
        with warehouse.transaction() as con:
            forget_seen_changes(con)
            return con.execute("SELECT count(*) FROM ops.changes").fetchone()[0]

    run_all(warehouse, models)
    assert forget() == 0
    write_rows(warehouse, "(3, '2026-01-05 10:00:00+00', 1)", [date(2026, 1, 5)])
    assert forget() == 1
    assert run_all(warehouse, models)["marts.daily"].action == "days"
    assert forget() == 0


def test_a_changed_view_rebuilds_what_reads_through_it(warehouse, models, tmp_path):
    run_all(warehouse, models)
    folder = tmp_path / "changed"
    write_models(folder)
    (folder / "staging" / "orders.sql").write_text(
        VIEW.replace("FROM core.orders", "FROM core.orders WHERE amount > 5")
    )
    built = run_all(warehouse, load_models(folder))
    assert (built["core.orders"].action, built["staging.orders"].action) == ("skip", "view")
    assert [float(row[1]) for row in rows(warehouse, "marts.daily")] == [7.0]


def test_another_time_zone_rebuilds_what_depends_on_it(home, tenant, warehouse, models):
    run_all(warehouse, models)
    moved = Warehouse(tenant.model_copy(update={"timezone": "UTC"}), warehouse.path, warehouse._shared)
    assert run_all(moved, models)["core.orders"].action == "full"
    assert [row[0] for row in rows(warehouse, "marts.daily")] == [date(2026, 1, 1)]


def test_failed_check_keeps_the_old_table(warehouse, models):
    run_all(warehouse, models)
    before = rows(warehouse, "core.orders")
    write_rows(warehouse, "(1, '2026-01-03 10:00:00+00', 9)", [date(2026, 1, 3)])
    with pytest.raises(CheckFailed, match=r"core\.orders unique:order_id: 1 of 3.*keeps its old rows"):
        run_all(warehouse, models)
    assert rows(warehouse, "core.orders") == before
    assert not exists(warehouse.cursor(), "core.__new_orders")


def test_missing_column_names_the_file(warehouse, tmp_path):
    models = write_models(tmp_path / "wrong", orders=ORDERS.replace("amount FROM", "amuont FROM"))
    with pytest.raises(SchemaError, match=r"core/orders\.sql.*amuont"):
        run_all(warehouse, models)


def test_missing_table_is_named_with_a_guess(tmp_path):
    models = write_models(tmp_path / "wrong", orders=ORDERS.replace("raw.source", "raw.sorce"))
    with pytest.raises(ConfigError, match=r"reads raw\.sorce.*did you mean raw\.source"):
        in_order(models, ["raw.source"])


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT 1", "begins with"),
        (ORDERS.replace("kind: full", "kind: fulll"), "kind"),
        (ORDERS.replace("owner: shop@demo.example", "ownr: x"), "owner"),
        (ORDERS + "; SELECT 2", "exactly one SELECT"),
        (ORDERS.replace("raw.source", "source"), "needs its schema"),
        (ORDERS.replace("FROM raw.source", "FRM raw.source WHERE ("), "does not parse"),
        (
            ORDERS.replace("kind: full", "kind: incremental_by_time").replace(
                "time_column: order_date\n", ""
            ),
            "needs a",
        ),
    ],
)
def test_wrong_model_files_are_refused(tmp_path, sql, message):
    with pytest.raises(ConfigError, match=message):
        write_models(tmp_path / "wrong", orders=sql)


def test_unknown_parameter(warehouse, tmp_path):
    models = write_models(tmp_path / "wrong", orders=ORDERS.replace(":timezone", ":tz"))
    with pytest.raises(ConfigError, match="unknown parameter :tz"):
        run_all(warehouse, models)
