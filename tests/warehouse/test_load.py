"""Loading: what arrived is there, once, with its cursor; what did not change is not touched."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omni.warehouse.contracts import contracts
from omni.warehouse.database import open_warehouse
from omni.warehouse.load import cursor_of, load
from omni.warehouse.staged import REJECTED, Staged

START = datetime(2026, 1, 1, 23, 30, tzinfo=UTC)
ORDERS, LINES = "raw.shopify__orders", "raw.shopify__order_lines"


@pytest.fixture
def warehouse(either_warehouse, tenant):
    with open_warehouse(tenant) as opened:
        yield opened


def order(identity: str, *, total: str = "10.00", created: datetime = START, lines: int = 1) -> dict:
    return {"id": identity, "total": total, "created": created, "lines": lines}


def stage(
    folder: Path,
    orders: list[dict],
    *,
    run: str = "r1",
    since: datetime | None = None,
    rejected: list[dict] = (),
) -> Staged:
    """A staged folder as extraction writes it, from a few facts about each order."""
    folder.mkdir(parents=True)
    rows = [
        {"id": o["id"], "created_at": o["created"], "currency": "EUR", "total": o["total"]} for o in orders
    ]
    lines = [
        {"id": f"{o['id']}-{n}", "order_id": o["id"], "quantity": n, "unit_price": "1.00"}
        for o in orders
        for n in range(1, o["lines"] + 1)
    ]
    for table, records in ((ORDERS, rows), (LINES, lines)):
        schema = {
            name: pl.Datetime("us", "UTC")
            if c.type == "timestamp"
            else pl.String
            if c.type != "integer"
            else pl.Int64
            for name, c in contracts()[table].columns.items()
        }
        pl.DataFrame(records, schema=schema).write_parquet(folder / f"{table}.parquet")
    (folder / REJECTED).write_text("\n".join(json.dumps(letter) for letter in rejected))
    return Staged(
        tenant="acme",
        vendor="shopify",
        stream="orders",
        run_id=run,
        folder=folder,
        tables={ORDERS: [f"{ORDERS}.parquet"], LINES: [f"{LINES}.parquet"]},
        rows={ORDERS: len(rows), LINES: len(lines)},
        rejected=len(rejected),
        source_rows=len(rows) + len(rejected),
        since=since,
        until=START + timedelta(days=1),
    ).save()


def ids(warehouse, table: str) -> list[str]:
    return [row[0] for row in warehouse.cursor().execute(f"SELECT id FROM {table} ORDER BY 1").fetchall()]


def test_rows_children_and_cursor_arrive_together(warehouse, tmp_path):
    staged = stage(tmp_path / "s", [order("a", lines=2), order("b")])
    loaded = load(warehouse, Staged.load(staged.folder))
    assert [(r.table, r.inserted) for r in loaded] == [(ORDERS, 2), (LINES, 3)]
    assert cursor_of(warehouse.cursor(), "shopify", "orders") == staged.until


def test_loading_twice_changes_nothing(warehouse, tmp_path):
    staged = stage(tmp_path / "s", [order("a", lines=2)])
    load(warehouse, staged)
    assert [r.changed for r in load(warehouse, staged)] == [0, 0]
    versions = warehouse.cursor().execute("SELECT count(*) FROM ops.changes").fetchone()
    assert versions == (2,)


def test_touched_days_are_the_old_and_the_new_in_the_tenants_zone(warehouse, tmp_path):
    load(warehouse, stage(tmp_path / "s1", [order("a")]))
    later = START + timedelta(days=3)
    load(warehouse, stage(tmp_path / "s2", [order("a", created=later)], since=START))
    days = warehouse.cursor().execute(
        "SELECT day FROM ops.changes WHERE table_name = $1 AND version = "
        "(SELECT version FROM ops.tables WHERE table_name = $1) ORDER BY 1",
        [ORDERS],
    )
    assert days.fetchall() == [(date(2026, 1, 2),), (date(2026, 1, 5),)]


def test_children_follow_their_parent(warehouse, tmp_path):
    load(warehouse, stage(tmp_path / "s1", [order("a", lines=3), order("b", lines=2)]))
    load(warehouse, stage(tmp_path / "s2", [order("a", lines=1)], since=START))
    assert ids(warehouse, LINES) == ["a-1", "b-1", "b-2"]


def test_a_full_read_removes_what_the_source_no_longer_has(warehouse, tmp_path):
    load(warehouse, stage(tmp_path / "s1", [order("a"), order("b")]))
    load(warehouse, stage(tmp_path / "s2", [order("b")]))
    assert (ids(warehouse, ORDERS), ids(warehouse, LINES)) == (["b"], ["b-1"])


def test_a_rejected_row_keeps_its_last_good_version(warehouse, tmp_path):
    load(warehouse, stage(tmp_path / "s1", [order("a"), order("b")]))
    letter = {"table": ORDERS, "key": "a", "column": "total", "reason": "not a number"}
    load(warehouse, stage(tmp_path / "s2", [order("b")], rejected=[letter]))
    assert (ids(warehouse, ORDERS), ids(warehouse, LINES)) == (["a", "b"], ["a-1", "b-1"])
    stored = warehouse.cursor().execute("SELECT record_key, reason FROM ops.dead_letters").fetchall()
    assert stored == [("a", "not a number")]


def test_a_failing_load_leaves_no_trace(warehouse, tmp_path):
    staged = stage(tmp_path / "s", [order("a")])
    (staged.folder / f"{LINES}.parquet").write_bytes(b"not a parquet file")
    with pytest.raises(Exception, match="parquet"):
        load(warehouse, staged)
    assert ids(warehouse, ORDERS) == []
    assert cursor_of(warehouse.cursor(), "shopify", "orders") is None


batches = st.lists(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(0, 3), st.integers(0, 2)),
        max_size=6,
        unique_by=lambda t: t[0],
    ),
    max_size=6,
)


@pytest.mark.slow
@given(batches)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_incremental_loads_equals_last_write_wins(warehouse, tmp_path_factory, sequence):
    with warehouse.transaction() as con:
        for table in (ORDERS, LINES, "ops.cursors"):
            con.execute(f"DELETE FROM {table}")
    expected: dict[str, tuple[int, int]] = {}
    for number, batch in enumerate(sequence):
        orders = [order(key, total=f"{total}.00", lines=lines) for key, total, lines in batch]
        expected |= {key: (total, lines) for key, total, lines in batch}
        load(
            warehouse, stage(tmp_path_factory.mktemp("s") / str(number), orders, run=str(number), since=START)
        )
    rows = warehouse.cursor().execute(
        f"SELECT o.id, o.total::INT, count(l.id) FROM {ORDERS} o "
        f"LEFT JOIN {LINES} l ON l.order_id = o.id GROUP BY ALL"
    )
    assert {key: (total, lines) for key, total, lines in rows.fetchall()} == expected
