"""A result table is replaced whole, or not at all."""

from __future__ import annotations

import polars as pl
import pytest

from omni.errors import CheckFailed, SchemaError
from omni.warehouse.contracts import contracts
from omni.warehouse.database import open_warehouse
from omni.warehouse.write import replace_table

SCORES = pl.DataFrame(
    {
        "lead_id": ["1", "2"],
        "score": [0.1, 0.9],
        "decile": [1, 10],
        "model": ["m", "m"],
        "model_version": [1, 1],
    }
)


@pytest.fixture
def warehouse(either_warehouse, tenant):
    with open_warehouse(tenant) as opened:
        yield opened


def write(warehouse, frame: pl.DataFrame) -> int:
    with warehouse.transaction() as con:
        return replace_table(con, contracts()["ml.lead_scores"], frame, "run")


def stored(warehouse) -> list[tuple]:
    return warehouse.cursor().execute("SELECT lead_id, score FROM ml.lead_scores ORDER BY 1").fetchall()


def version(warehouse) -> int:
    query = "SELECT version FROM ops.tables WHERE table_name = 'ml.lead_scores'"
    return warehouse.cursor().execute(query).fetchone()[0]


def test_equal_rows_are_not_written_again(warehouse):
    assert write(warehouse, SCORES) == 2
    first = version(warehouse)
    assert write(warehouse, SCORES.reverse().select(reversed(SCORES.columns))) == 0
    assert version(warehouse) == first


def test_rows_that_vanished_are_gone(warehouse):
    write(warehouse, SCORES)
    assert write(warehouse, SCORES.head(1)) == 1
    assert stored(warehouse) == [("1", 0.1)]


@pytest.mark.parametrize(
    ("frame", "error", "message"),
    [
        (SCORES.drop("decile"), SchemaError, "missing columns .'decile'."),
        (SCORES.with_columns(extra=1), SchemaError, "unexpected .'extra'."),
        (SCORES.with_columns(decile=pl.lit("ten")), SchemaError, "ml.lead_scores: Conversion Error"),
        (SCORES.with_columns(score=pl.lit(1.5)), CheckFailed, "score_is_probability: 2 of 2"),
        (SCORES.with_columns(lead_id=pl.lit("1")), CheckFailed, "unique:lead_id"),
    ],
)
def test_wrong_rows_leave_the_table_as_it_was(warehouse, frame, error, message):
    write(warehouse, SCORES)
    with pytest.raises(error, match=message):
        write(warehouse, frame)
    assert stored(warehouse) == [("1", 0.1), ("2", 0.9)]
