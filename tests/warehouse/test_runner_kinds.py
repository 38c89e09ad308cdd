"""Kinds of models beside full and daily: by key, snapshots, seeds, wider windows, ranges asked for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import duckdb
import pytest

from omni.errors import ConfigError
from omni.tenancy import Tenant
from omni.warehouse.build import Outcome, build_models
from omni.warehouse.catalog import exists
from omni.warehouse.database import Warehouse, open_warehouse
from omni.warehouse.leftover import drop_leftover, leftovers
from omni.warehouse.models import Header, Model, in_order, load_models
from omni.warehouse.seeds import read_seed
from omni.warehouse.versions import forget_seen_changes, record_change
from omni.warehouse.windows import reopened

VIEW = """/*
kind: view
owner: shop@demo.example
description: Orders with their day.
grain: [id]
*/
SELECT id, customer, CAST(placed AT TIME ZONE :timezone AS DATE) AS order_date, amount, changed
FROM raw.source
"""


def model(kind: str, sql: str, **fields: object) -> str:
    header = {"kind": kind, "owner": "shop@demo.example", "description": "Something.", **fields}
    return "/*\n" + "\n".join(f"{key}: {value}" for key, value in header.items()) + f"\n*/\n{sql}\n"


WEEKLY = model(
    "incremental_by_time",
    "SELECT CAST(date_trunc('week', order_date) AS DATE) AS week, sum(amount) AS revenue\n"
    "FROM staging.orders GROUP BY CAST(date_trunc('week', order_date) AS DATE)",
    grain="[week]", time_column="week", window="week",
)  # fmt: skip
BY_KEY = model(
    "incremental_by_key",
    "SELECT customer, count(*) AS orders, sum(amount) AS revenue FROM staging.orders GROUP BY customer",
    grain="[customer]",
)
SNAPSHOT = model(
    "snapshot",
    "SELECT customer, max(changed) AS changed, CAST(sum(amount) AS BIGINT) AS revenue FROM staging.orders "
    "GROUP BY customer",
    grain="[customer]", updated_column="changed",
)  # fmt: skip
JUNE = (
    "(1, 'a', '2026-06-01 10:00:00+00', 5, '2026-06-01'), (2, 'b', '2026-06-09 10:00:00+00', 7, '2026-06-09')"
)


def write_models(folder: Path, **files: str) -> dict[str, Model]:
    for name, text in {"staging__orders": VIEW, **files}.items():
        path = folder / "models" / f"{name.replace('__', '/')}.sql"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return load_models(folder / "models")


@pytest.fixture
def warehouse(either_warehouse: str, tenant: Tenant) -> Iterator[Warehouse]:
    with open_warehouse(tenant) as opened:
        change(opened, "DROP TABLE IF EXISTS raw.source", None, record=False)
        change(
            opened,
            "CREATE TABLE raw.source (id INTEGER, customer VARCHAR, placed TIMESTAMPTZ, amount INTEGER, "
            "changed TIMESTAMPTZ)",
            None,
        )
        change(opened, f"INSERT INTO raw.source VALUES {JUNE}", [date(2026, 6, 1), date(2026, 6, 9)])
        yield opened


def change(warehouse: Warehouse, sql: str, days: list[date] | None, *, record: bool = True) -> None:
    with warehouse.transaction() as con:
        con.execute(sql)
        if record:
            record_change(con, "raw.source", days, run_id="r")


def build(warehouse: Warehouse, models: dict[str, Model], **options: object) -> dict[str, Outcome]:
    return {o.model: o for o in build_models(warehouse, models, run_id="r", **options)}  # type: ignore[arg-type]


def rows(warehouse: Warehouse, sql: str) -> list[tuple]:
    return warehouse.cursor().execute(sql).fetchall()


def test_a_week_is_rebuilt_by_any_of_its_days(warehouse, tmp_path):
    models = write_models(tmp_path, marts__weekly=WEEKLY)
    build(warehouse, models)
    change(
        warehouse,
        "INSERT INTO raw.source VALUES (3, 'a', '2026-06-12 10:00:00+00', 1, '2026-06-12')",
        [date(2026, 6, 12)],
    )
    built = build(warehouse, models)["marts.weekly"].built
    assert built
    assert (built.action, built.reason) == ("days", "1 weeks changed in raw.source")
    assert rows(warehouse, "FROM marts.weekly ORDER BY 1") == [(date(2026, 6, 1), 5), (date(2026, 6, 8), 8)]
    assert rows(warehouse, "SELECT window_start, rows FROM ops.windows ORDER BY 1") == [
        (date(2026, 6, 1), 1),
        (date(2026, 6, 8), 1),
    ]


def test_a_window_column_inside_the_window_is_refused(warehouse, tmp_path):
    models = write_models(
        tmp_path, marts__weekly=WEEKLY.replace("date_trunc('week', order_date)", "order_date")
    )
    failed = build(warehouse, models)["marts.weekly"]
    assert failed.status == "failed"
    assert "2026-06-09, which is not the first day of a week" in failed.reason


@pytest.mark.parametrize(
    ("header", "parent", "expected"),
    [
        ({"lookback": 2}, None, [10, 11, 12]),
        ({"lookback": [0, 1, 7]}, None, [10, 11, 17]),
        ({"lookback": [7]}, None, [10, 17]),
        ({"window": "week", "lookback": 7}, None, [8, 15]),
        ({}, {"window": "week"}, [10, 11, 12, 13, 14, 15, 16]),
    ],
)
def test_windows_that_a_changed_day_reopens(header, parent, expected):
    def made(fields):
        return Header(
            kind="incremental_by_time", owner="o", description="d", grain=["x"], time_column="x", **fields
        )

    found = reopened(made(header), [date(2026, 6, 10)], made(parent) if parent else None)
    assert sorted(found) == [date(2026, 6, day) for day in expected]


def test_by_key_touches_only_rows_that_differ(warehouse, tmp_path):
    models = write_models(tmp_path, marts__buyers=BY_KEY)
    build(warehouse, models)
    change(
        warehouse,
        "UPDATE raw.source SET customer = CASE id WHEN 2 THEN 'c' ELSE customer END",
        [date(2026, 6, 9)],
    )
    built = build(warehouse, models)["marts.buyers"].built
    assert built
    assert (built.action, built.changed) == ("merge", True)
    assert rows(warehouse, "FROM marts.buyers ORDER BY 1") == [("a", 1, 5), ("c", 1, 7)]
    change(warehouse, "UPDATE raw.source SET changed = now()", None)
    assert build(warehouse, models)["marts.buyers"].built.changed is False


def test_by_key_refuses_a_grain_that_repeats(warehouse, tmp_path):
    sql = "SELECT customer, amount FROM staging.orders UNION ALL SELECT customer, 0 FROM staging.orders"
    models = write_models(tmp_path, marts__buyers=model("incremental_by_key", sql, grain="[customer]"))
    failed = build(warehouse, models)["marts.buyers"]
    assert failed.status == "failed"
    assert "unique:customer: 2 of 4 rows fail" in failed.reason


def test_snapshot_keeps_every_version(warehouse, tmp_path):
    models = write_models(tmp_path, marts__buyers=SNAPSHOT)
    build(warehouse, models)
    change(
        warehouse,
        "UPDATE raw.source SET amount = 9, changed = '2026-06-20' WHERE customer = 'a'",
        [date(2026, 6, 1)],
    )
    build(warehouse, models)
    change(warehouse, "DELETE FROM raw.source WHERE customer = 'b'", [date(2026, 6, 9)])
    build(warehouse, models)
    build(warehouse, models)
    change(
        warehouse,
        "INSERT INTO raw.source VALUES (4, 'b', '2026-06-21 10:00:00+00', 2, '2026-06-02')",
        [date(2026, 6, 21)],
    )
    build(warehouse, models)
    found = rows(
        warehouse,
        "SELECT customer, revenue, CAST(valid_from AS DATE), CAST(valid_to AS DATE), is_current "
        "FROM marts.buyers ORDER BY customer, valid_from",
    )
    assert found[:2] == [
        ("a", 5, date(2026, 6, 1), date(2026, 6, 20), False),
        ("a", 9, date(2026, 6, 20), None, True),
    ]
    assert [row[:3] for row in found[2:3]] == [("b", 7, date(2026, 6, 9))]
    assert found[2][3] > date(2026, 6, 9), "ended when the row was found gone"
    assert (found[3][1], found[3][4]) == (2, True), "a row that comes back begins a version of its own"
    assert found[3][2] >= found[2][3], "and not before the last one ended, whatever the source says"


def test_snapshot_takes_new_columns_and_refuses_other_types(warehouse, tmp_path):
    build(warehouse, write_models(tmp_path, marts__buyers=SNAPSHOT))
    wider = SNAPSHOT.replace("SELECT customer,", "SELECT customer, count(*) AS orders,")
    build(warehouse, write_models(tmp_path / "wider", marts__buyers=wider))
    assert rows(warehouse, "SELECT count(*), count(orders) FROM marts.buyers") == [(4, 2)]
    other = SNAPSHOT.replace("AS BIGINT", "AS VARCHAR")
    failed = build(warehouse, write_models(tmp_path / "other", marts__buyers=other))["marts.buyers"]
    assert "revenue is now VARCHAR, but marts.buyers keeps it as BIGINT" in failed.reason
    assert rows(warehouse, "SELECT count(*) FROM marts.buyers WHERE is_current") == [(2,)]


def test_failure_stops_only_what_reads_it(warehouse, tmp_path):
    models = write_models(
        tmp_path,
        marts__buyers=BY_KEY,
        marts__broken=model("full", "SELECT nothing FROM staging.orders", grain="[nothing]"),
        marts__after=model("full", "SELECT * FROM marts.broken", grain="[nothing]"),
    )
    told: list[Outcome] = []
    built = build(warehouse, models, on_built=told.append)
    assert {name: outcome.status for name, outcome in built.items()} == {
        "staging.orders": "done",
        "marts.buyers": "done",
        "marts.broken": "failed",
        "marts.after": "blocked",
    }
    assert told == list(built.values())
    assert "nothing" in built["marts.broken"].reason
    assert built["marts.after"].reason == "needs marts.broken"


def test_a_range_is_rebuilt_in_batches_whatever_the_ledger_says(warehouse, tmp_path):
    daily = model(
        "incremental_by_time",
        "SELECT order_date, sum(amount) AS revenue FROM staging.orders GROUP BY order_date",
        grain="[order_date]", time_column="order_date",
    )  # fmt: skip
    models = write_models(tmp_path, marts__daily=daily)
    build(warehouse, models)
    change(warehouse, "UPDATE raw.source SET amount = 100", None, record=False)
    asked = {"since": date(2026, 6, 1), "until": date(2026, 6, 9), "batch_days": 3, "select": ["marts.daily"]}
    built = build(warehouse, models, **asked)["marts.daily"].built
    assert built
    assert built.reason == "8 days asked for [2026-06-01, 2026-06-09) in 3 batches"
    assert rows(warehouse, "FROM marts.daily ORDER BY 1") == [(date(2026, 6, 1), 100), (date(2026, 6, 9), 7)]
    empty = rows(warehouse, "SELECT count(*) FROM ops.windows WHERE rows = 0")
    assert empty == [(7,)], "windows without rows are noted as built"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"select": ["marts.buyers"], "since": date(2026, 6, 1), "until": date(2026, 6, 2)},
            "has no windows",
        ),
        ({"since": date(2026, 6, 1)}, "the day after its last"),
        ({"since": date(2026, 6, 1), "until": date(2026, 6, 1)}, "the day after its last"),
        ({"select": ["marts.buyer"]}, r"No model is named marts\.buyer;"),
    ],
)
def test_wrong_requests_are_refused(warehouse, tmp_path, asked, message):
    models = write_models(tmp_path, marts__buyers=BY_KEY)
    with pytest.raises(ConfigError, match=message):
        build(warehouse, models, **asked)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"window": "week"}, "belong to incremental_by_time"),
        ({"lookback": "[1, -1]"}, "not negative"),
        ({"updated_column": "x"}, "belongs to a snapshot"),
    ],
)
def test_wrong_headers_are_refused(tmp_path, fields, message):
    kind = "incremental_by_time" if "lookback" in fields else "full"
    text = model(kind, "SELECT 1 AS x", grain="[x]", time_column="x", **fields)
    with pytest.raises(ConfigError, match=message):
        write_models(tmp_path, marts__x=text)


def test_inputs_without_the_models_days_rebuild_it_whole(warehouse, tmp_path):
    sql = (
        "SELECT order_date, sum(amount) AS revenue FROM staging.orders AS o JOIN core.rates AS r ON true "
        "GROUP BY order_date"
    )
    daily = model(
        "incremental_by_time", sql, grain="[order_date]", time_column="order_date", rebuild_on="[core.rates]"
    )
    rates = model(
        "full", "SELECT DATE '2026-06-01' AS rate_date", grain="[rate_date]", time_column="rate_date"
    )
    models = write_models(tmp_path, marts__daily=daily, core__rates=rates)
    build(warehouse, models)
    models |= write_models(tmp_path, marts__daily=daily, core__rates=rates.replace("06-01", "06-02"))
    assert build(warehouse, models)["marts.daily"].built.action == "full"


SEED = """description: Codes.
owner: shop@demo.example
grain: [code]
columns:
  code: {type: string, nullable: false}
  rate: {type: decimal, scale: 4}
  since: {type: date}
checks:
  - unique: [code]
"""


def seed(folder: Path, text: str) -> dict[str, Model]:
    (folder / "seeds").mkdir(parents=True, exist_ok=True)
    (folder / "seeds" / "codes.yml").write_text(SEED)
    (folder / "seeds" / "codes.csv").write_text(text)
    return write_models(folder)


def test_seed_is_loaded_typed_and_reloaded_only_when_it_changes(warehouse, tmp_path):
    models = seed(tmp_path, 'since,code,rate\n2026-01-01,a,0.25\n,"b\'c",\n')
    assert build(warehouse, models)["seeds.codes"].built.reason == "first build"
    assert rows(warehouse, "FROM seeds.codes") == [
        ("a", rows(warehouse, "SELECT 0.2500::DECIMAL(18,4)")[0][0], date(2026, 1, 1)),
        ("b'c", None, None),
    ]
    assert build(warehouse, models)["seeds.codes"].built.action == "skip"
    again = build(warehouse, seed(tmp_path, "since,code,rate\n"))["seeds.codes"].built
    assert again
    assert (again.reason, again.rows) == ("its rows or columns changed", 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("code,rate\na,1\n", r"codes\.csv, line 1: the columns are code, rate"),
        ("code,rate,since\na,1,2026-01-01\nb,1e5,\n", r"line 3, column rate: '1e5' is not of type decimal"),
        ("code,rate,since\na,0.00001,\n", r"line 2, column rate: .* more than 4 decimals"),
        ("code,rate,since\n,1,\n", r"line 2, column code: is empty"),
        ("code,rate,since\na,1,01.02.2026\n", r"line 2, column since: .* type date"),
        ("code,rate,since\na,1\n", r"line 2: 2 fields; the header has 3"),
    ],
)
def test_wrong_values_of_a_seed_are_named_by_line_and_column(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        seed(tmp_path, text)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("decimal", "9" * 40), ("decimal", "1." + "1" * 40), ("decimal", "٣.٥"), ("float", "1_000"),
        ("float", " 1"), ("float", "infinity"), ("float", "1e999"), ("integer", "٣"),
        ("integer", "9" * 5000), ("date", "2026-W01-1"), ("timestamp", "2026-W01-1T10:00+01:00"),
        ("timestamp", "20260101T100000Z"), ("timestamp", "2026-01-01T10:00:00"), ("json", "NaN"),
        ("timestamp", "2026-01-01T10:00Z"), ("timestamp", "2026-01-01T10:00:00.1234567Z"),
    ],
)  # fmt: skip
def test_what_only_python_takes_for_a_value_is_refused_with_its_place(tmp_path, kind, value):
    declared = "description: x\nowner: a@b.example\ngrain: [k]\ncolumns:\n  k: {type: string}\n"
    (tmp_path / "s.yml").write_text(f"{declared}  v: {{type: {kind}}}\n")
    (tmp_path / "s.csv").write_text(f"k,v\na,\nb,{value}\n")
    with pytest.raises(ConfigError, match=r"s\.csv, line 3, column v: "):
        read_seed(tmp_path / "s.yml")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("decimal", "1.10000000000000000000000000000000"), ("float", "-1.5e3"), ("integer", "+5"),
        ("timestamp", "2026-01-01T10:00:00.5+01:00"), ("timestamp", "2026-01-01 10:00:00Z"),
    ],
)  # fmt: skip
def test_what_a_seed_accepts_the_warehouse_takes(tmp_path, kind, value):
    declared = "description: x\nowner: a@b.example\ngrain: [v]\ncolumns:\n"
    (tmp_path / "s.yml").write_text(f"{declared}  v: {{type: {kind}}}\n")
    (tmp_path / "s.csv").write_text(f"v\n{value}\n")
    with duckdb.connect() as con:
        assert con.execute(read_seed(tmp_path / "s.yml")[1]).fetchone() != (None,)


def test_seed_in_another_encoding_is_named_by_line_and_field(tmp_path):
    (tmp_path / "s.yml").write_text(SEED)
    (tmp_path / "s.csv").write_bytes(b"code,rate,since\na,1,\nb,\xe4,\n")
    with pytest.raises(ConfigError, match=r"s\.csv, line 3, field 2: not UTF-8"):
        read_seed(tmp_path / "s.yml")


def test_seed_that_fails_its_check_is_not_loaded(warehouse, tmp_path):
    build(warehouse, seed(tmp_path, "code,rate,since\na,1,\n"))
    failed = build(warehouse, seed(tmp_path, "code,rate,since\na,1,\na,2,\n"))["seeds.codes"]
    assert failed.status == "failed"
    assert "unique:code" in failed.reason
    assert rows(warehouse, "SELECT count(*) FROM seeds.codes") == [(1,)]


def test_the_record_of_changes_does_not_grow_without_end(warehouse, tmp_path):
    models = write_models(tmp_path, marts__weekly=WEEKLY)
    build(warehouse, models)
    with warehouse.transaction() as con:
        con.execute(
            "INSERT INTO ops.changes SELECT 'raw.source', 1000 + i, DATE '2026-06-01' "
            "FROM range(20000) AS r(i)"
        )
        con.execute("UPDATE ops.tables SET version = 20999 WHERE table_name = 'raw.source'")
        forget_seen_changes(con)
        assert con.execute("FROM ops.changes").fetchall() == [("raw.source", 20999, None)]
    built = build(warehouse, models)["marts.weekly"].built
    assert built
    assert built.action == "full"
    assert rows(warehouse, "FROM ops.changes") == []


def test_a_table_comes_after_what_it_is_checked_against(tmp_path: Path) -> None:
    """Unless that reads it: then the check looks at the table as it was."""
    check = "checks:\n  - relationship: {column: id, to: %s.id}\n"
    head = "/*\nkind: full\nowner: a@b.example\ndescription: X.\ngrain: [id]\n"
    sql = {
        "a": head + check % "core.z" + "*/ SELECT 1 AS id",
        "z": head + "*/ SELECT 1 AS id",
        "m": head + check % "core.n" + "*/ SELECT 1 AS id",
        "n": head + "*/ SELECT id FROM core.m",
    }
    (tmp_path / "core").mkdir()
    for name, text in sql.items():
        (tmp_path / "core" / f"{name}.sql").write_text(text)
    order = [model.name for model in in_order(load_models(tmp_path), [])]
    assert order.index("core.z") < order.index("core.a")
    assert order.index("core.m") < order.index("core.n")


LINES = """/*
kind: incremental_by_time
owner: a@b.example
description: X.
grain: [id]
time_column: d
checks:
  - unique: [id]
  - reconcile: {name: rows, measure: count(*), to: core.source, by: [d]}
*/
SELECT id, d FROM core.source
"""


def test_checks_of_some_windows_look_at_all_rows_where_those_matter(
    either_warehouse: str, tenant: Tenant, tmp_path: Path
) -> None:
    """A late day reconciles with the whole, and a key repeated in another window is found."""
    (tmp_path / "marts").mkdir()
    (tmp_path / "marts" / "lines.sql").write_text(LINES)
    models = load_models(tmp_path)
    with open_warehouse(tenant) as warehouse:

        def insert(number: int, day: str) -> Outcome:
            with warehouse.transaction() as con:
                con.execute("CREATE TABLE IF NOT EXISTS core.source (id BIGINT, d DATE)")
                con.execute(f"INSERT INTO core.source VALUES ({number}, DATE '{day}')")
                record_change(con, "core.source", [date.fromisoformat(day)], run_id="load")
            (outcome,) = build_models(warehouse, {**models}, run_id="r")
            return outcome

        first, second = insert(1, "2026-05-01"), insert(2, "2026-05-09")
        assert (first.status, second.status) == ("done", "done")
        assert second.built is not None
        assert second.built.action == "days"
        again = insert(1, "2026-05-20")
        assert again.status == "failed"
        assert "unique:id: 1 of 3 rows fail" in again.reason


def test_only_what_a_model_made_and_nothing_declares_or_reads_is_left_over(warehouse):
    def made(name: str, kind: str, sql: str) -> Model:
        return Model(name, Header(kind=kind, owner="a@b.example", description="x.", grain=["id"]), sql, name)

    every = {
        one.name: one
        for one in (
            made("core.stays", "full", "SELECT 1 AS id"),
            made("core.gone", "full", "SELECT 1 AS id"),
            made("core.shown", "view", "SELECT id FROM core.stays"),
            made("core.contracted", "full", "SELECT 1 AS id"),
        )
    }
    build(warehouse, every)
    with warehouse.transaction() as con:
        con.execute("CREATE TABLE core.by_hand (id INTEGER)")
    left, contracts = {"core.stays": every["core.stays"]}, {"core.contracted"}
    reader = made("core.reader", "full", "SELECT id FROM core.gone")
    with warehouse.transaction() as con:
        assert leftovers(con, every, contracts) == []
        assert leftovers(con, left, contracts) == ["core.gone", "core.shown"]
        for name in ("core.stays", "core.contracted", "core.by_hand", "core.gone; DROP TABLE core.stays"):
            with pytest.raises(ConfigError):
                drop_leftover(con, name, left, contracts)
        with pytest.raises(ConfigError, match=r"still read by core\.reader"):
            drop_leftover(con, "core.gone", left | {"core.reader": reader}, contracts)
        for name in ("core.shown", "core.gone"):
            drop_leftover(con, name, left, contracts)
        assert leftovers(con, left, contracts) == []
        assert not exists(con, "core.gone")
    assert rows(warehouse, "SELECT count(*) FROM core.stays") == [(1,)]
    assert rows(warehouse, "SELECT table_name FROM ops.tables WHERE table_name LIKE 'core.gone%'") == []
