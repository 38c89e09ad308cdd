"""Run by `test_cookbook_source` inside a copy of the project that holds the cookbook's files."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

import omni
from omni import tenancy
from omni.declarations import validate_all
from omni.sources.extract import extract, tables
from omni.sources.vendor import Window
from omni.sources.vendors import vendor_named
from omni.warehouse.database import open_warehouse
from omni.warehouse.load import load
from omni.warehouse.models import load_models

ROOT = Path(__file__).parents[2]
START = datetime(2026, 1, 1, tzinfo=UTC)
END = START + timedelta(days=1000)
ROWS = 430


def ticket(number):
    when = (START + timedelta(hours=number)).isoformat()
    said = [{"id": f"{number}-{n}", "written_at": when} for n in range(number % 3)]
    asker = {"email": f"p{number}@example.com"}
    return {"id": str(number), "requester": asker, "status": "open", "updated_at": when, "comments": said}


def answer_of(number):
    when = (START + timedelta(hours=number)).isoformat().replace("+00:00", "Z")
    row = {"id": number, "person": {"email": f"p{number}@example.com"}, "score": number % 6}
    return row | {"answered_at": when, "updated_at": when}


TICKETS, ANSWERS = [ticket(n) for n in range(ROWS)], [answer_of(n) for n in range(ROWS)]
COMMENTS = sum(len(row["comments"]) for row in TICKETS)


@pytest.fixture
def vendors(serve, answering):
    """Both vendors on one server; every third call is one too many."""
    calls = count()

    def answer(asked):
        if asked.headers["authorization"] != "Bearer token-for-tests":
            return answering({"message": "who are you"}, 401)
        if next(calls) % 3 == 0:
            return answering({"message": "too many"}, 429, {"Retry-After": "0"})
        query, helpdesk = asked.query, asked.path == "/v1/tickets"
        place = int(query.get("after" if helpdesk else "cursor", 0))
        after, before = (
            ("updated_since", "updated_before") if helpdesk else ("changed_since", "changed_before")
        )
        span = query.get(after, ""), query.get(before, "9")
        rows = [r for r in (TICKETS if helpdesk else ANSWERS) if span[0] <= r["updated_at"] < span[1]]
        end = place + int(query["limit"])
        token = str(end) if end < len(rows) else None
        if helpdesk:
            return answering({"data": rows[place:end], "total": len(rows), "after": token})
        assert asked.path == "/v2/answers"
        return answering({"data": rows[place:end], "meta": {"total": len(rows), "next": token}})

    return serve(answer)


def test_this_is_the_copy():
    assert Path(omni.__file__).is_relative_to(ROOT)


def test_all_declarations_fit():
    found = validate_all()
    assert found["REST APIs"] == 2
    assert tenancy.get("retail").sources.keys() >= {"helpdesk", "surveys"}


def test_no_piece_is_missing_but_the_prose():
    spec = importlib.util.spec_from_file_location("pieces", ROOT / "tests" / "support" / "pieces.py")
    pieces = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pieces)
    assert {"helpdesk", "surveys"} <= set(pieces.vendors(ROOT))
    assert pieces.missing_pieces(ROOT, "surveys") == []
    assert pieces.missing_pieces(ROOT, "helpdesk") == ["docs/sources.md: no section `## Helpdesk`"]


@pytest.mark.parametrize(
    ("vendor", "stream", "rows"),
    [
        ("helpdesk", "tickets", {"raw.helpdesk__tickets": ROWS, "raw.helpdesk__comments": COMMENTS}),
        ("surveys", "answers", {"raw.surveys__answers": ROWS}),
    ],
)
def test_it_loads_whole_and_in_windows(vendors, connect, home, tmp_path, vendor, stream, rows):
    tenant, account = tenancy.get("retail"), connect(vendor, vendors.url)
    view = load_models(ROOT / "data" / "models")[f"staging.{vendor}__{stream}"]
    half = START + timedelta(hours=ROWS // 2)
    with open_warehouse(tenant) as warehouse:
        for step, (since, until) in enumerate([(None, half), (half, END), (None, END)]):
            staged = extract(
                tenant, vendor, stream, account, since=since, until=until, run_id=f"r{step}",
                folder=tmp_path / f"s{step}",
            )  # fmt: skip
            assert staged.rejected == 0
            load(warehouse, staged)
        assert staged.rows == rows
        con = warehouse.cursor()
        held = {table: con.sql(f"SELECT count(*) FROM {table}").fetchone()[0] for table in rows}
        assert held == rows
        assert len(con.sql(view.bound(tenant)).fetchall()) == ROWS
        kept = con.sql(f"SELECT email FROM raw.{vendor}__{stream}").fetchall()
        assert all(len(email) == 64 for (email,) in kept)


@pytest.mark.parametrize(("vendor", "stream"), [("helpdesk", "tickets"), ("surveys", "answers")])
def test_every_page_can_be_gone_on_from(vendors, connect, home, vendor, stream):
    source, contracts, ever = vendor_named(vendor), tables(vendor, stream), Window(None, END)
    with source.open(connect(vendor, vendors.url)) as client:
        pages = list(source.read(client, contracts, ever, None))
        assert source.count(client, contracts, ever) == sum(len(page.records) for page in pages) == ROWS
        for number, page in enumerate(pages[:-1], 1):
            place = json.loads(json.dumps(page.resume))
            assert list(source.read(client, contracts, ever, place)) == pages[number:]
    assert len(pages) == 5


@pytest.mark.parametrize(
    ("stream", "prefix"),
    [("helpdesk.tickets", "OMNI_VENDORS__HELPDESK__"), ("surveys.answers", "OMNI_REST__SURVEYS__")],
)
def test_the_command_asks_how_much_there_is(vendors, tmp_path, stream, prefix):
    given = {"OMNI_VENDORS__HELPDESK__": vendors.url, "OMNI_REST__SURVEYS__": vendors.url}
    env = os.environ | {"OMNI_HOME": str(tmp_path / "state")}
    for name, url in given.items():
        env |= {f"{name}BASE_URL": url, f"{name}TOKEN": "token-for-tests"}
    command = ["ingest", "--company", "retail", "--stream", stream, "--dry-run", "--json"]

    def run(environment):
        return subprocess.run(
            [sys.executable, "-c", "from omni.cli import app; app()", *command],
            env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    ended = run(env)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert json.loads(ended.stdout)[stream]["records"] == ROWS
    del env[f"{prefix}TOKEN"]
    refused = run(env)
    assert refused.returncode != 0
    assert f"{prefix}TOKEN" in refused.stdout + refused.stderr
