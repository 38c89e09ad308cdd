"""From a drop folder into tables: deliveries that correct earlier ones, broken rows, a killed reading."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from omni import tenancy
from omni.settings import PROJECT
from omni.sources.connection import Connection
from omni.sources.extract import extract
from omni.warehouse.database import open_warehouse
from omni.warehouse.load import load

pytestmark = pytest.mark.slow

STREAM = "online_retail_lines"
HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
EVER = datetime(2100, 1, 1, tzinfo=UTC)
START = datetime(2026, 1, 1, tzinfo=UTC)


def lines(invoice, *quantities, price="1.005"):
    return "".join(f"{invoice},A,mug,{n},2026-01-01 10:00:00,{price},,UK\n" for n in quantities)


@pytest.fixture
def drop(tmp_path, home):
    folder = tmp_path / "drop" / STREAM
    folder.mkdir(parents=True)

    def put(name, text, hour):
        (folder / name).write_text(HEADER + text)
        moment = (START + timedelta(hours=hour)).timestamp()
        os.utime(folder / name, (moment, moment))

    return put


@pytest.fixture
def account(tmp_path):
    options = {"timezone": "Europe/London", "arrival": "modified"}
    return Connection("files", (tmp_path / "drop").as_uri(), SecretStr(""), options=options)


@pytest.fixture
def loading(tmp_path, account):
    tenant = tenancy.get("retail")

    def run(since=None, until=EVER, run_id="r1", **options):
        staged = extract(
            tenant, "files", STREAM, account, since=since, until=until, run_id=run_id,
            folder=tmp_path / "staged", **options,
        )  # fmt: skip
        with open_warehouse(tenant) as warehouse:
            (loaded,) = load(warehouse, staged)
            con = warehouse.cursor()
            rows = con.execute(
                f"SELECT invoice_no, line, quantity FROM raw.files__{STREAM} ORDER BY ALL"
            ).fetchall()
            letters = con.execute("SELECT record_key, reason FROM ops.dead_letters ORDER BY ALL").fetchall()
        return loaded, rows, letters

    return run


def test_the_last_delivery_of_a_key_stands_in_one_window_and_over_several(drop, loading):
    drop("monday.csv", lines("1", 5, 6) + lines("2", 7), 1)
    drop("correction.csv", lines("1", 50), 2)
    _, rows, _ = loading()
    assert rows == [("1", 1, 50), ("1", 2, 6), ("2", 1, 7)]
    drop("again.csv", lines("2", 70) + lines("3", 1), 30)
    loaded, rows, _ = loading(since=START + timedelta(hours=24), run_id="r2")
    assert (loaded.updated, loaded.inserted, loaded.deleted) == (1, 1, 0)
    assert rows == [("1", 1, 50), ("1", 2, 6), ("2", 1, 70), ("3", 1, 1)]


def test_a_backfill_of_an_older_file_undoes_no_newer_delivery(drop, loading):
    drop("old.csv", lines("1", 6) + lines("2", 7), 1)
    drop("new.csv", lines("1", 60), 50)
    loading()
    window = {"since": START, "until": START + timedelta(hours=2)}
    loaded, rows, _ = loading(**window, run_id="r2", moves_cursor=False)
    assert rows == [("1", 1, 60), ("2", 1, 7)]
    assert (loaded.updated, loaded.inserted, loaded.deleted) == (0, 0, 0)


def test_a_file_delivered_again_after_a_full_reads_end_keeps_its_rows(drop, loading):
    drop("a.csv", lines("1", 5), 1)
    drop("b.csv", lines("2", 6), 1)
    loading()
    drop("b.csv", lines("2", 60), 50)
    loaded, rows, _ = loading(until=START + timedelta(hours=40), run_id="r2")
    assert rows == [("1", 1, 5), ("2", 1, 60)]
    assert loaded.deleted == 0


def test_broken_rows_go_to_the_dead_letters_by_file_and_line(drop, loading):
    drop("a.csv", lines("1", 5) + "1,A,mug\n" + lines("1", "six", 7) + lines("2", 1, price="0.00051"), 1)
    _, rows, letters = loading()
    assert rows == [("1", 1, 5), ("1", 3, 7)]
    assert letters == [
        ("1|2", "not a number (shape 'aaa')"),
        ("2|1", "more than 3 decimals (shape '9.99999')"),
        ("a.csv:3", "a.csv:3: 3 cells, but the header has 8"),
    ]


KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from pydantic import SecretStr
from omni import tenancy
from omni.sources.connection import Connection
from omni.sources.extract import extract
options = {"timezone": "Europe/London", "arrival": "modified"}
account = Connection("files", sys.argv[1], SecretStr(""), options=options)
def progress(read):
    if read > 12_000:
        os.kill(os.getpid(), signal.SIGKILL)
extract(tenancy.get("retail"), "files", "online_retail_lines", account, since=None,
        until=datetime(2100, 1, 1, tzinfo=UTC), run_id="killed", folder=Path(sys.argv[2]), progress=progress)
"""


def test_a_killed_reading_goes_on_behind_its_last_part(drop, loading, account, tmp_path, caplog):
    drop("a.csv", "".join(lines(str(n % 900), n) for n in range(13_000)), 1)
    drop("b.csv", lines("x", *range(3_000)), 2)
    process = subprocess.run(
        [sys.executable, "-c", KILLED, account.base_url, str(tmp_path / "staged")], cwd=PROJECT, timeout=60
    )
    assert process.returncode == -signal.SIGKILL
    caplog.set_level("INFO")
    loaded, rows, _ = loading(run_id="next")
    assert "going on behind" in caplog.text
    assert loaded.rows_read == len(rows) == 16_000
    numbered = {(str(n % 900), n // 900 + 1) for n in range(13_000)} | {("x", n + 1) for n in range(3_000)}
    assert {(invoice, line) for invoice, line, _ in rows} == numbered
