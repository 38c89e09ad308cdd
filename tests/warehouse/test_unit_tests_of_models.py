"""The harness of the models' cases: a right model passes, a wrong one is told apart value by value."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import duckdb
import pytest

from omni.errors import ConfigError
from omni.warehouse.connection import Connection
from omni.warehouse.models import Header, Model
from omni.warehouse.unit_tests import Result, create_schemas, load_cases, run_case

# fmt: off
TYPES = {
    "core.orders": {"id": "VARCHAR", "amount": "DECIMAL(18,2)", "at": "TIMESTAMPTZ", "tags": "JSON",
                    "n": "BIGINT", "day": "DATE"},
    "marts.totals": {"id": "VARCHAR", "total": "DECIMAL(18,2)"},
}
# fmt: on
HEADER = Header(kind="full", owner="a@b.example", description="Totals.", grain=["id"])
MODELS = {
    "marts.totals": Model(
        "marts.totals", HEADER, "SELECT id, sum(amount) AS total FROM core.orders GROUP BY id", "totals.sql"
    )
}


@pytest.fixture
def con() -> Iterator[Connection]:
    with duckdb.connect() as opened:
        create_schemas(opened)
        yield opened


def run(con: Connection, folder: Path, text: str, models: dict[str, Model] = MODELS) -> Result:
    path = folder / "marts.totals" / "case.yml"
    path.parent.mkdir()
    path.write_text(dedent(text), encoding="utf-8")
    (case,) = load_cases(folder)
    return run_case(con, case, models, TYPES)


def test_right_rows_pass_in_any_order_and_missing_columns_are_null(con: Connection, tmp_path: Path) -> None:
    text = """
        inputs:
          core.orders: [{id: a, amount: 1.10}, {id: b}, {id: a, amount: 2, tags: [x]}]
        outputs: [{id: b, total: null}, {id: a, total: 3.1}]
    """
    assert run(con, tmp_path, text).problems == ()


def test_a_difference_names_key_column_and_both_values(con: Connection, tmp_path: Path) -> None:
    text = """
        inputs: {core.orders: [{id: a, amount: 1}, {id: c, amount: 2}]}
        outputs: [{id: a, total: 9}, {id: b, total: 1}]
    """
    assert run(con, tmp_path, text).problems == (
        "id=a: total is 1.00, expected 9.00",
        "missing row: id=b, total=1.00",
        "unexpected row: id=c, total=2.00",
    )


def test_rows_that_break_the_grain_fail_though_they_are_stated(con: Connection, tmp_path: Path) -> None:
    twice = {
        "marts.totals": Model("marts.totals", HEADER, "SELECT id, amount AS total FROM core.orders", "x")
    }
    text = """
        inputs: {core.orders: [{id: a, amount: 1}, {id: a, amount: 2}]}
        outputs: [{id: a, total: 1}, {id: a, total: 2}]
    """
    assert run(con, tmp_path, text, twice).problems == ("more than one row of (id) = (a)",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "inputs: {core.orders: [{idd: a}]}\noutputs: []",
            "core.orders has no column idd; it has id, amount",
        ),
        ("inputs: {core.order: []}\noutputs: []", "does not read core.order; it reads core.orders"),
        ("inputs: {}\noutputs: [{id: a, sum: 1}]", "marts.totals has no column sum"),
        ("inputs: {}\noutputs: [{id: a}, {total: 1}]", "name the same columns"),
        ("inputs: {core.orders: [{amount: many}]}\noutputs: []", "core.orders, row 1: amount is 'many'"),
        ("inputs: {core.orders: [{id: a}, {}]}\noutputs: []", "core.orders, row 2: names no column"),
        ("inputs: {}\noutputs: [{}]", "outputs, row 1: names no column"),
        ("inputs: {core.orders: [{amount: 1.0149}]}\noutputs: []", "row 1: amount is 1.0149"),
        ("inputs: {}\noutputs: [{id: a, total: 1.0149}]", "outputs, row 1: total is 1.0149"),
        ("inputs: {core.orders: [{amount: 12345678901234567}]}\noutputs: []", "no DECIMAL(18,2) holds"),
        ("inputs: {core.orders: [{n: 1.7}]}\noutputs: []", "n is 1.7, which no BIGINT holds"),
        ("inputs: {core.orders: [{day: 2026-01-01 10:00:00}]}\noutputs: []", "which no DATE holds"),
        ("inputs: {core.orders: [{id: no}]}\noutputs: []", "id is False, which no VARCHAR holds"),
    ],
)
def test_a_wrong_case_says_what_is_wrong(con: Connection, tmp_path: Path, text: str, message: str) -> None:
    (problem,) = run(con, tmp_path, text).problems
    assert message in problem


def test_a_file_that_is_no_case_is_refused(tmp_path: Path) -> None:
    (tmp_path / "marts.totals").mkdir()
    (tmp_path / "marts.totals" / "x.yml").write_text("input: {}\noutputs: []", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"x\.yml.*input"):
        load_cases(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inputs: {core.orders: [{id: a, id: b}]}\noutputs: []", r"'id' is there twice\s.*line 1, column 32"),
        ("inputs: {}\ninputs: {}\noutputs: []", r"'inputs' is there twice\s.*line 2"),
        ("inputs:\n  core.orders:\n  - {at: 2026-02-30}\noutputs: []", r"2026-02-30 is no .*\s.*line 3"),
        ("parameters: {timezone: Mars/Phobos}\ninputs: {}\noutputs: []", "unknown time zone 'Mars/Phobos'"),
        ("parameters: {timezone: ../x}\ninputs: {}\noutputs: []", "unknown time zone"),
        ("parameters: {currency: euro}\ninputs: {}\noutputs: []", "parameters.currency"),
    ],
)
def test_what_yaml_would_swallow_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "marts.totals").mkdir()
    (tmp_path / "marts.totals" / "x.yml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"x\.yml.*{message}"):
        load_cases(tmp_path)
