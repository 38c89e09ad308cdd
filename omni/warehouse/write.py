"""Replacing a result table: whole, checked, and only if its content differs."""

from __future__ import annotations

import duckdb
import polars as pl

from omni.errors import SchemaError
from omni.warehouse.check_runs import record_checks, refuse_failed, run_checks
from omni.warehouse.connection import Connection
from omni.warehouse.contracts import Contract
from omni.warehouse.versions import changed_days, content_hash, record_change


def replace_table(con: Connection, contract: Contract, frame: pl.DataFrame, run_id: str) -> int:
    """Make a contracted table hold just the frame's rows, inside the caller's transaction.

    Args:
        con: the transaction's connection (`Warehouse.transaction`).
        contract: the table's contract; the frame has its columns, in any order.
        frame: the rows.
        run_id: kept with the rows.

    Returns:
        Rows written; 0 when the table already held them.

    Raises:
        SchemaError: the frame's columns are not the contract's, or a value does not fit its type.
        CheckFailed: a check of severity `error` fails; the caller's transaction must roll back.
    """
    if set(frame.columns) != set(contract.columns):
        missing, extra = (
            set(contract.columns) - set(frame.columns),
            set(frame.columns) - set(contract.columns),
        )
        raise SchemaError(f"{contract.table}: missing columns {sorted(missing)}, unexpected {sorted(extra)}")
    kinds = {name: kind for name, kind in contract.column_types().items() if name in contract.columns}
    columns = ", ".join(f'CAST("{name}" AS {kind}) AS "{name}"' for name, kind in kinds.items())
    con.register("result_frame", frame.to_arrow())
    try:
        con.execute(f"CREATE OR REPLACE TEMP TABLE result AS SELECT {columns} FROM result_frame")
    except duckdb.ConversionException as error:
        raise SchemaError(f"{contract.table}: {str(error).splitlines()[0]}") from error
    finally:
        con.unregister("result_frame")
    whole = content_hash(con, "temp.result")
    current = ", ".join(f'"{name}"' for name in kinds)
    con.execute(f"CREATE OR REPLACE TEMP VIEW current_result AS SELECT {current} FROM {contract.table}")
    if content_hash(con, "current_result") == whole:
        return 0
    results = run_checks(con, "temp.result", contract.checks, name=contract.table, grain=contract.key)
    record_checks(con, results, run_id)
    refuse_failed(results, "the table keeps its old rows")
    time_column = contract.time_column
    days = changed_days(con, "current_result", "temp.result", time_column) if time_column else None
    con.execute(f"DELETE FROM {contract.table}")
    con.execute(
        f"INSERT INTO {contract.table} BY NAME SELECT *, now() AS _loaded_at, $1 AS _run_id FROM temp.result",
        [run_id],
    )
    record_change(con, contract.table, days, run_id=run_id, content_hash=whole)
    return frame.height
