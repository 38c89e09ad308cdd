"""Checks count what fails, keep samples without personal data, and remember their results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from omni.errors import CheckFailed, SchemaError
from omni.tenancy import Tenant
from omni.warehouse.check_runs import Checked, check_tables, refuse_failed, run_checks
from omni.warehouse.checks import Check
from omni.warehouse.connection import schema_errors
from omni.warehouse.database import open_warehouse
from omni.warehouse.versions import record_change

NOW = datetime(2026, 5, 3, 12, tzinfo=UTC)


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        opened.execute("CREATE SCHEMA core")
        opened.execute(
            "CREATE TABLE core.orders (order_id BIGINT, day DATE, remark VARCHAR, amount DECIMAL(18, 2))"
        )
        opened.execute(
            "INSERT INTO core.orders VALUES (1, '2026-05-01', 'Bonn', 10), (2, '2026-05-01', NULL, 20.5), "
            "(2, '2026-05-02', 'Köln 9', -3), (NULL, '2026-05-02', 'x', 1)"
        )
        opened.execute(
            "CREATE TABLE core.daily AS SELECT day, sum(amount) AS amount FROM core.orders GROUP BY day"
        )
        yield opened


def one(con: Any, declared: dict[str, Any], **options: Any) -> Any:
    options = {"grain": ["order_id"]} | options
    (result,) = run_checks(con, options.pop("table", "core.orders"), [Check(**declared)], **options)
    return result


@pytest.mark.parametrize(
    ("declared", "failing", "samples"),
    [
        (
            {"not_null": ["order_id", "remark"]},
            2,
            [{"order_id": 2, "remark": None}, {"order_id": None, "remark": "a"}],
        ),
        ({"unique": ["order_id"]}, 1, [{"order_id": 2, "repeated": 2}]),
        (
            {"accepted": {"column": "remark", "values": ["Bonn"]}},
            2,
            [{"order_id": 2, "remark": "aaaa 9"}, {"order_id": None, "remark": "a"}],
        ),
        (
            {"expression": {"sql": "amount > 0 AND remark <> 'x'", "name": "ok"}},
            3,
            [
                {"order_id": 2, "amount": "-3.00", "remark": "aaaa 9"},
                {"order_id": 2, "amount": "20.50", "remark": None},
                {"order_id": None, "amount": "1.00", "remark": "a"},
            ],
        ),
    ],
)
def test_failing_rows_are_counted_and_sampled_in_shape_only(
    con: Any, declared: dict[str, Any], failing: int, samples: list[dict[str, Any]]
) -> None:
    result = one(con, declared)
    assert (result.rows, result.failing, result.passed) == (4, failing, False)
    assert list(result.samples) == samples


def test_what_a_contract_calls_personal_is_not_sampled(con: Any) -> None:
    con.execute("CREATE TABLE core.people AS SELECT 1 AS id, 'ann@acme.example' AS email, 'Ann' AS city")
    result = one(con, {"accepted": {"column": "email", "values": ["-"]}}, table="core.people", grain=["id"])
    assert list(result.samples) == [{"id": 1}]


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        ("contact", "'max@mustermann.de'", "aaa@aaaaaaaaaa.aa"),
        ("contact_id", "'max@mustermann.de'", "aaa@aaaaaaaaaa.aa"),
        ("contact_id", "'c-17'", "c-17"),
        ("person_id", "repeat('ab12', 16)", "ab12ab12…"),
        ("born", "DATE '1980-05-05'", "1980-05"),
        ("order_day", "DATE '2026-05-05'", "2026-05-05"),
        ("tel", "4917012345678", "9999999999999"),
        ("amounts", "[1, 2]", "list"),
    ],
)
def test_samples_name_nobody_whatever_columns_are_called(
    con: Any, column: str, value: str, shown: str
) -> None:
    con.execute(f"CREATE TABLE core.twice AS SELECT {value} AS {column} FROM range(2)")
    result = one(con, {"unique": [column]}, table="core.twice", grain=[])
    assert result.samples[0][column] == shown


def test_an_expression_may_look_elsewhere_and_end_in_a_comment(con: Any) -> None:
    con.execute("CREATE TABLE core.known AS SELECT 1 AS key_id")
    sql = "order_id IN (SELECT key_id FROM core.known) -- those we know"
    result = one(con, {"expression": {"sql": sql, "name": "known"}})
    assert (result.failing, result.samples[0]) == (3, {"order_id": 2})


def test_a_known_rate_is_met_exactly(con: Any) -> None:
    con.execute(
        "CREATE TABLE core.hundred AS SELECT CASE WHEN i < 29 THEN NULL ELSE i END AS id FROM range(100) r(i)"
    )
    assert one(con, {"not_null": ["id"], "max_rate": 0.29}, table="core.hundred", grain=[]).passed


def test_relationships_and_known_rates(con: Any) -> None:
    con.execute("CREATE TABLE core.known AS SELECT 1 AS id")
    declared = {"relationship": {"column": "order_id", "to": "core.known.id"}}
    assert one(con, declared).failing == 2
    assert not one(con, declared | {"max_rate": 0.4}).passed
    assert one(con, declared | {"max_rate": 0.5}).passed


def test_reconciliation_names_the_groups_that_differ(con: Any) -> None:
    declared = {"reconcile": {"name": "amount", "measure": "sum(amount)", "to": "core.daily", "by": ["day"]}}
    good = one(con, declared)
    assert (good.rows, good.failing, good.detail) == (2, 0, "")
    con.execute("UPDATE core.daily SET amount = amount + 0.01 WHERE day = '2026-05-02'")
    con.execute("INSERT INTO core.daily VALUES ('2026-05-09', 4), (NULL, 0)")
    bad = one(con, declared)
    assert (bad.rows, bad.failing) == (4, 2)
    assert str(bad) == "core.orders reconcile:amount: 2 of 4 groups differ from core.daily"
    assert [(s["day"], float(s["here"]), float(s["there"])) for s in bad.samples] == [
        ("2026-05-02", -2.0, -1.99),
        ("2026-05-09", 0.0, 4.0),
    ]
    declared["reconcile"]["tolerance"] = 0.01
    assert one(con, declared).failing == 1


def test_reconciliation_of_other_measures_and_parts(con: Any) -> None:
    declared = {
        "reconcile": {
            "name": "rows",
            "measure": "count(*)",
            "where": "amount > 0",
            "to": "core.daily",
            "to_measure": "3 * count(DISTINCT 1)",
        }
    }
    assert one(con, declared).passed
    declared["reconcile"]["where"] = "amount > 10"
    assert one(con, declared).failing == 1


def test_freshness_is_asked_for_at_a_moment_only(con: Any) -> None:
    declared = {"freshness": {"column": "day", "hours": 24}}
    assert run_checks(con, "core.orders", [Check(**declared)]) == []
    assert one(con, declared, at=NOW).passed
    stale = one(con, declared, at=NOW + timedelta(hours=20))
    assert str(stale) == "core.orders freshness:day: the newest day is 32 hours old; 24 are allowed"
    con.execute("DELETE FROM core.orders")
    assert one(con, declared, at=NOW).detail == "day has no value"


def test_rows_are_compared_with_the_last_build(home: Path, tenant: Tenant) -> None:
    with open_warehouse(tenant) as warehouse:
        with warehouse.transaction() as write:
            write.execute("CREATE TABLE core.t AS SELECT range AS id FROM range(100)")
            write.execute("CREATE TABLE core.fresh AS SELECT range AS id FROM range(49)")
        jump = Check(row_count={"max_drop": 0.5, "max_growth": 1})
        with warehouse.cursor() as con:
            assert run_checks(con, "core.fresh", [jump], name="core.t")[0].passed
            with warehouse.transaction() as write:
                record_change(write, "core.t", None, run_id="r")
            (result,) = run_checks(con, "core.fresh", [jump], name="core.t")
            assert str(result) == "core.t row_count: 100 rows became 49 (-51%)"
            (whole,) = run_checks(
                con, "core.fresh", [jump], name="core.t", whole="(FROM core.fresh UNION ALL FROM core.fresh)"
            )
            assert (whole.rows, whole.passed) == (98, True)
            con.execute("INSERT INTO core.fresh FROM range(49, 250)")
            assert "(+150%)" in str(run_checks(con, "core.fresh", [jump], name="core.t")[0])


def test_results_stay_over_time_and_samples_of_the_newest(home: Path, tenant: Tenant) -> None:
    with open_warehouse(tenant) as warehouse:
        with warehouse.transaction() as write:
            write.execute("CREATE TABLE core.t AS SELECT 1 AS id UNION ALL SELECT 1")
        tables = {
            "core.t": Checked([Check(unique=["id"]), Check(freshness={"column": "id", "hours": 1})], ["id"]),
            "core.absent": Checked([Check(unique=["id"])], ["id"]),
        }
        tables["core.t"].checks[1:] = []
        for run, rows in (("r1", 2), ("r2", 3), ("r3", 1)):
            with warehouse.transaction() as write:
                write.execute(f"CREATE OR REPLACE TABLE core.t AS SELECT 1 AS id FROM range({rows})")
            results = check_tables(warehouse, tables, run, at=NOW)
            assert [r.failing for r in results] == [rows - 1]
            with warehouse.cursor() as con:
                kept = con.execute("SELECT run_id, samples FROM ops.check_samples").fetchall()
            expected = [] if rows == 1 else [(run, [{"id": 1, "repeated": rows}])]
            assert [(who, json.loads(what)) for who, what in kept] == expected
        with warehouse.cursor() as con:
            history = con.execute(
                "SELECT run_id, failing, passed FROM ops.check_results ORDER BY run_id"
            ).fetchall()
    assert history == [("r1", 1, False), ("r2", 2, False), ("r3", 0, True)]


def test_only_errors_refuse(con: Any) -> None:
    warned = run_checks(con, "core.orders", [Check(unique=["order_id"], severity="warn")])
    assert refuse_failed(warned, "kept") == warned
    with pytest.raises(CheckFailed, match=r"unique:order_id: 1 of 4 rows fail .*: kept"):
        refuse_failed(run_checks(con, "core.orders", [Check(unique=["order_id"])]), "kept")


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({}, "exactly one of"),
        ({"unique": ["a"], "not_null": ["a"]}, "exactly one of"),
        ({"row_count": {}}, "max_drop or max_growth"),
        ({"freshness": {"column": "a", "hours": 1}, "max_rate": 0.1}, "max_rate counts rows"),
        ({"reconcile": {"name": "x", "measure": "amount", "to": "core.t"}}, "not an aggregate"),
        ({"reconcile": {"name": "x", "measure": "sum(", "to": "core.t"}}, "not SQL"),
        ({"reconcile": {"name": "x", "measure": "sum(a)", "to": "t"}}, "pattern"),
    ],
)
def test_wrong_declarations_are_refused(declared: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Check(**declared)


rows = st.lists(st.tuples(st.integers(0, 3), st.integers(-5, 5)), max_size=12)


@given(here=rows, there=rows)
def test_reconciliation_agrees_with_sums_by_hand(
    here: list[tuple[int, int]], there: list[tuple[int, int]]
) -> None:
    with duckdb.connect() as opened:
        opened.execute("CREATE SCHEMA core")
        for name, given_rows in (("here", here), ("there", there)):
            opened.execute(f"CREATE TABLE core.{name} (k INTEGER, v INTEGER)")
            if given_rows:
                opened.executemany(f"INSERT INTO core.{name} VALUES (?, ?)", given_rows)
        check = Check(reconcile={"name": "v", "measure": "sum(v)", "to": "core.there", "by": ["k"]})
        (result,) = run_checks(opened, "core.here", [check])
    keys = {k for k, _ in [*here, *there]}
    differing = [k for k in keys if sum(v for q, v in here if q == k) != sum(v for q, v in there if q == k)]
    assert (result.rows, result.failing) == (len(keys), len(differing))


def test_a_value_that_does_not_convert_is_not_quoted(con: Any) -> None:
    with pytest.raises(SchemaError) as caught, schema_errors("core/x.sql"):
        con.execute("SELECT CAST(v AS INTEGER) FROM (VALUES ('O''Hara, Ann'), ('1')) AS t(v)").fetchall()
    assert "Ann" not in str(caught.value)
    assert "INT32" in str(caught.value)
