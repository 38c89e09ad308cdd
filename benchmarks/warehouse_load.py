"""Loading staged contacts into either warehouse: a first load, then a load in which one in a hundred changed.

    python -m benchmarks.warehouse_load --rows 200000                       # a DuckDB file
    OMNI_WAREHOUSE_URL=postgresql://… python -m benchmarks.warehouse_load   # PostgreSQL; uses schemas bench_*

Prints one line of JSON per step: wall and CPU seconds of this process (the server's are its own), what the
load did. The tables of the tenant `bench` are emptied first.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from omni.settings import settings
from omni.tenancy import Tenant
from omni.warehouse.contracts import contracts
from omni.warehouse.database import open_warehouse
from omni.warehouse.load import load
from omni.warehouse.publish import publish
from omni.warehouse.staged import Staged

TABLE = "raw.hubspot__contacts"
START = datetime(2026, 1, 1, tzinfo=UTC)
BENCH = Tenant(tenant="bench", title="Bench", timezone="Europe/Berlin", currency="EUR", sources={})
VALUES = {
    "string": "'{name} ' || hash(i, '{name}', {version})",
    "integer": "hash(i, '{name}') % 1000",
    "boolean": "i % 3 = 0",
    "date": "DATE '2025-01-01' + (i % 365)::INTEGER",
    "timestamp": "TIMESTAMPTZ '2025-01-01 00:00:00+00' + INTERVAL 1 MINUTE * i",
    "decimal": "(i % 100000) / 100",
    "float": "i / 7",
    "json": "'{{}}'",
}


def stage(folder: Path, rows: str, version: int, since: datetime | None) -> Staged:
    """Staged contacts whose numbers a SELECT gives as `i`."""
    columns = ", ".join(
        "i::VARCHAR AS id"
        if name == "id"
        else f"TIMESTAMPTZ '2026-01-01 00:00:00+00' + INTERVAL {version} DAY AS updated_at"
        if name == "updated_at"
        else f'{VALUES[column.type].format(name=name, version=version)} AS "{name}"'
        for name, column in contracts()[TABLE].columns.items()
    )
    folder.mkdir()
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute(f"COPY (SELECT {columns} FROM ({rows})) TO '{folder}/{TABLE}.parquet'")
        count = con.execute(f"SELECT count(*) FROM ({rows})").fetchone()
    assert count is not None
    return Staged(
        tenant="bench", vendor="hubspot", stream="contacts", run_id=folder.name, folder=folder,
        tables={TABLE: [f"{TABLE}.parquet"]}, rows={TABLE: count[0]}, rejected=0, source_rows=count[0],
        since=since, until=START + timedelta(days=version + 1),
    ).save()  # fmt: skip


def main() -> None:
    """Run the steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        os.environ["OMNI_HOME"] = f"{name}/state"
        settings.cache_clear()
        every = f"SELECT i FROM range({rows}) AS r(i)"
        steps = [
            stage(Path(name) / "first", every, 0, None),
            stage(Path(name) / "upsert", f"{every} WHERE i % 100 = 0", 1, START),
            stage(Path(name) / "whole", f"{every}", 1, None),
        ]
        kind = "PostgreSQL" if settings().warehouse_url else "DuckDB"
        with open_warehouse(BENCH) as warehouse:
            with warehouse.transaction() as con:
                con.execute(f"DELETE FROM {TABLE}")
                con.execute("DELETE FROM ops.cursors")
            for staged in steps:
                started, cpu = time.perf_counter(), time.process_time()
                (loaded,) = load(warehouse, staged)
                _say(kind, staged.run_id, started, cpu, loaded.inserted, loaded.updated)
            with warehouse.transaction() as con:
                con.execute(f"CREATE OR REPLACE TABLE core.contacts AS SELECT * FROM {TABLE}")
            started, cpu = time.perf_counter(), time.process_time()
            publish(warehouse)
            _say(kind, "publish", started, cpu, rows, 0)


def _say(kind: str, step: str, started: float, cpu: float, inserted: int, updated: int) -> None:
    wall, own = time.perf_counter() - started, time.process_time() - cpu
    said = {"warehouse": kind, "step": step, "wall": round(wall, 2), "cpu": round(own, 2)}
    print(json.dumps(said | {"inserted": inserted, "updated": updated}), flush=True)


if __name__ == "__main__":
    main()
