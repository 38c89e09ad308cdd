"""A reading that was killed goes on behind its last whole part, and ends in the same rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import polars as pl
import pytest
from pydantic import SecretStr

from omni import tenancy
from omni.sandbox.process import running
from omni.sources.connection import Connection
from omni.sources.extract import extract
from omni.sources.parts import PROGRESS
from omni.sources.reading import PART_ROWS
from omni.warehouse.database import open_warehouse
from omni.warehouse.load import cursor_of, load

pytestmark = pytest.mark.slow

DRIVER = Path(__file__).with_name("extract_driver.py")
END = datetime(2100, 1, 1, tzinfo=UTC)
STREAMS = [("hubspot", "web_events"), ("shopify", "orders"), ("stripe", "balance_transactions")]


@pytest.fixture(scope="module")
def sandbox():
    with running("demo", hubspot_per_10s=100_000) as started:
        yield started


def requests(sandbox) -> int:
    stats = httpx.get(f"{sandbox.url}/_sandbox/stats").json()
    return sum(stats["requests"].values())


@pytest.fixture
def read(sandbox, home):
    def start(vendor, stream, folder, run_id="again"):
        connection = Connection(vendor, sandbox.url, SecretStr(sandbox.token), requests_per_10s=100_000)
        return extract(
            tenancy.get("demo"),
            vendor,
            stream,
            connection,
            since=None,
            until=END,
            run_id=run_id,
            folder=folder,
        )

    return start


def killed(sandbox, vendor, stream, folder):
    arguments = {"vendor": vendor, "stream": stream, "url": sandbox.url, "token": sandbox.token}
    arguments |= {"folder": str(folder), "until": END.isoformat(), "die-at": str(PART_ROWS + 1_000)}
    command = [sys.executable, str(DRIVER)]
    for name, value in arguments.items():
        command += [f"--{name}", value]
    done = subprocess.run(command, env=os.environ, capture_output=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def rows(staged, table):
    files = [pl.read_parquet(staged.folder / name) for name in staged.tables[table]]
    return pl.concat(files).sort(pl.all())


@pytest.mark.parametrize(("vendor", "stream"), STREAMS)
def test_a_killed_reading_goes_on(sandbox, read, tmp_path, vendor, stream):
    before = requests(sandbox)
    whole = read(vendor, stream, tmp_path / "whole")
    asked_whole = requests(sandbox) - before
    folder = tmp_path / "cut"
    killed(sandbox, vendor, stream, folder)
    note = json.loads((folder / PROGRESS).read_text())
    assert note["tally"]["read"] >= PART_ROWS
    before = requests(sandbox)
    staged = read(vendor, stream, folder)
    assert requests(sandbox) - before < asked_whole * 0.9
    assert staged.run_id == "again"
    assert (staged.rows, staged.source_rows) == (whole.rows, whole.source_rows)
    for table in whole.tables:
        assert rows(staged, table).equals(rows(whole, table))


def test_what_was_read_and_never_loaded_is_loaded_by_the_next_run(sandbox, read, tmp_path):
    folder = tmp_path / "left"
    first = read("hubspot", "companies", folder, run_id="died-before-loading")
    before = requests(sandbox)
    staged = read("hubspot", "companies", folder)
    assert requests(sandbox) == before
    assert (staged.run_id, staged.rows) == ("again", first.rows)
    with open_warehouse(tenancy.get("demo")) as warehouse:
        loaded = load(warehouse, staged)
        assert loaded[0].inserted == first.rows["raw.hubspot__companies"]
        with warehouse.cursor() as con:
            assert cursor_of(con, "hubspot", "companies") == END


def test_a_damaged_note_starts_over(sandbox, read, tmp_path):
    folder = tmp_path / "damaged"
    killed(sandbox, "hubspot", "web_events", folder)
    (folder / PROGRESS).write_text('{"since": null, "unt')
    staged = read("hubspot", "web_events", folder)
    assert staged.source_rows == 7_000


def test_a_token_the_vendor_no_longer_knows_starts_over(sandbox, read, tmp_path):
    folder = tmp_path / "stale"
    killed(sandbox, "hubspot", "web_events", folder)
    note = json.loads((folder / PROGRESS).read_text())
    note["tally"]["resume"] = {"list": "no such page"}
    (folder / PROGRESS).write_text(json.dumps(note))
    staged = read("hubspot", "web_events", folder)
    assert staged.source_rows == 7_000
