"""Versions of rows, columns learnt from the source, dead letters, records read again, backfills."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from omni.settings import settings
from omni.tenancy import Tenant
from omni.warehouse.contracts import Column, contracts
from omni.warehouse.database import open_warehouse
from omni.warehouse.dead_letters import waiting
from omni.warehouse.load import already_loaded, cursor_of, load
from omni.warehouse.staged import REJECTED, Staged

DEALS = """
table: raw.crm__deals
description: deals
owner: crm@example.com
grain: one row per deal
key: [id]
history: true
source: {vendor: crm, object: deals, cursor: changed_at}
columns:
  id: {type: string, nullable: false}
  stage: {type: string}
  changed_at: {type: timestamp}
"""
NOTES = """
table: raw.crm__deal_notes
description: notes of deals
owner: crm@example.com
grain: one row per note
key: [deal_id, id]
parent: raw.crm__deals
parent_key: deal_id
source: {vendor: crm, object: deals, rows: notes}
columns:
  deal_id: {type: string, nullable: false, from: ^.id}
  id: {type: string, nullable: false}
"""
DEAL, NOTE = "raw.crm__deals", "raw.crm__deal_notes"
DAY = datetime(2026, 3, 1, tzinfo=UTC)
ACME = Tenant(tenant="acme", title="Acme", timezone="UTC", currency="EUR", sources={})


@pytest.fixture
def warehouse(either_warehouse, tmp_path, monkeypatch):
    folder = tmp_path / "data" / "contracts"
    folder.mkdir(parents=True)
    (folder / "deals.yml").write_text(DEALS)
    (folder / "notes.yml").write_text(NOTES)
    monkeypatch.setenv("OMNI_DATA", str(tmp_path / "data"))
    settings.cache_clear()
    with open_warehouse(ACME) as opened:
        yield opened


@pytest.fixture
def stage(tmp_path):
    """Stage deals `(id, stage, day)`, each with its notes, as extraction would."""
    made = []

    def start(deals, *, notes=(), rejected=(), since=DAY, days=30, **changes):
        folder = tmp_path / f"staged-{len(made)}"
        folder.mkdir()
        made.append(folder)
        extra = changes.pop("extra", {})
        frame = pl.DataFrame(
            [
                {"id": i, "stage": s, "changed_at": DAY + timedelta(days=d)} | extra.get(i, {})
                for i, s, d in deals
            ],
            schema={"id": pl.String, "stage": pl.String, "changed_at": pl.Datetime("us", "UTC")}
            | {name: pl.String for row in extra.values() for name in row},
        )
        frame.write_parquet(folder / "deals.parquet")
        pl.DataFrame(
            [{"deal_id": d, "id": n} for d, n in notes], schema={"deal_id": pl.String, "id": pl.String}
        ).write_parquet(folder / "notes.parquet")
        (folder / REJECTED).write_text("".join(json.dumps(row) + "\n" for row in rejected))
        staged = Staged(
            tenant="acme", vendor="crm", stream="deals", run_id=f"run-{len(made)}", folder=folder,
            tables={DEAL: ["deals.parquet"], NOTE: ["notes.parquet"]},
            rows={DEAL: len(deals), NOTE: len(notes)}, rejected=len(rejected), source_rows=len(deals),
            since=since, until=DAY + timedelta(days=days),
        )  # fmt: skip
        return replace(staged, **changes).save()

    return start


def fetch(warehouse, sql):
    with warehouse.cursor() as con:
        return con.execute(sql).fetchall()


VERSIONS = f"SELECT id, stage, _valid_from, _valid_to, _deleted FROM {DEAL}__history ORDER BY id, _valid_from"


def test_every_version_is_kept_from_when_to_when(warehouse, stage):
    load(warehouse, stage([("1", "open", 1), ("2", "open", 1)], since=None))
    load(warehouse, stage([("1", "won", 5)]))
    load(warehouse, stage([("1", "won", 5)]))
    first, second = DAY + timedelta(days=1), DAY + timedelta(days=5)
    assert fetch(warehouse, VERSIONS) == [
        ("1", "open", first, second, False),
        ("1", "won", second, None, False),
        ("2", "open", first, None, False),
    ]


def test_versions_end_when_the_row_is_gone_and_begin_again_when_it_returns(warehouse, stage):
    load(warehouse, stage([("1", "open", 1)], since=None))
    load(warehouse, stage([], since=None))
    assert [row[4] for row in fetch(warehouse, VERSIONS)] == [True]
    assert fetch(warehouse, f"SELECT count(*) FROM {DEAL}") == [(0,)]
    load(warehouse, stage([("1", "open", 1)]))
    rows = fetch(warehouse, VERSIONS)
    assert [(row[4], row[3] is None) for row in rows] == [(True, False), (False, True)]


def test_a_version_never_begins_before_the_one_before_it(warehouse, stage):
    load(warehouse, stage([("1", "open", 5)], since=None))
    load(warehouse, stage([("1", "won", 3)], since=None, asked=("1",), moves_cursor=False))
    starts = [row[2] for row in fetch(warehouse, VERSIONS)]
    assert starts == sorted(starts)
    assert len(set(starts)) == 2


def test_a_column_learnt_from_the_source_is_added_and_kept(warehouse, stage):
    learnt = {DEAL: {"colour": Column(type="string", optional=True).model_dump(mode="json", by_alias=True)}}
    load(warehouse, stage([("1", "open", 1)], since=None))
    load(warehouse, stage([("2", "open", 2)], columns=learnt, extra={"2": {"colour": "red"}}))
    load(warehouse, stage([("1", "won", 3)]))
    assert fetch(warehouse, f"SELECT id, colour FROM {DEAL} ORDER BY id") == [("1", None), ("2", "red")]
    assert fetch(warehouse, f"SELECT colour FROM {DEAL}__history WHERE id = '2'") == [("red",)]
    assert fetch(warehouse, "SELECT table_name, column_name FROM ops.learned_columns") == [(DEAL, "colour")]


def test_a_contract_with_a_new_column_is_read_whole_again(warehouse, stage):
    load(warehouse, stage([("1", "open", 1)], since=None))
    declared = [contracts()[DEAL], contracts()[NOTE]]
    with warehouse.cursor() as con:
        assert cursor_of(con, "crm", "deals", declared) == DAY + timedelta(days=30)
        wider = [declared[0].with_columns({"owner_id": Column(type="string")}), declared[1]]
        assert cursor_of(con, "crm", "deals", wider) is None


LETTER = {"table": DEAL, "key": "7", "column": "changed_at", "reason": "not a date"}


def test_a_dead_letter_waits_until_a_good_version_comes(warehouse, stage):
    load(warehouse, stage([("1", "open", 1)], rejected=[LETTER], since=None))
    with warehouse.cursor() as con:
        assert [(letter.key, letter.reason) for letter in waiting(con)] == [("7", "not a date")]
    load(warehouse, stage([("2", "open", 2)], rejected=[LETTER]))
    with warehouse.cursor() as con:
        assert len(waiting(con)) == 1
    load(warehouse, stage([("7", "open", 3)]))
    with warehouse.cursor() as con:
        assert waiting(con) == []
    load(warehouse, stage([], rejected=[LETTER]))
    with warehouse.cursor() as con:
        assert len(waiting(con)) == 1


def test_records_read_again_replace_theirs_and_the_absent_are_gone(warehouse, stage):
    notes = [("1", "a"), ("1", "b"), ("2", "a"), ("3", "a")]
    load(warehouse, stage([("1", "open", 1), ("2", "open", 1), ("3", "open", 1)], notes=notes, since=None))
    staged = stage([("1", "won", 9)], notes=[("1", "b")], since=None, asked=("1", "2"), moves_cursor=False)
    load(warehouse, staged)
    assert fetch(warehouse, f"SELECT id, stage FROM {DEAL} ORDER BY id") == [("1", "won"), ("3", "open")]
    assert fetch(warehouse, f"SELECT deal_id, id FROM {NOTE} ORDER BY ALL") == [
        ("1", "b"),
        ("3", "a"),
    ]


def test_a_record_that_is_rejected_when_read_again_keeps_its_row(warehouse, stage):
    load(warehouse, stage([("7", "open", 1)], since=None))
    load(warehouse, stage([], rejected=[LETTER], since=None, asked=("7",), moves_cursor=False))
    assert fetch(warehouse, f"SELECT id FROM {DEAL}") == [("7",)]
    with warehouse.cursor() as con:
        assert len(waiting(con)) == 1


def test_a_backfill_leaves_the_cursor_and_removes_nothing(warehouse, stage):
    load(warehouse, stage([("1", "open", 1), ("2", "open", 20)], since=None, days=30))
    load(warehouse, stage([("1", "lost", 2)], since=None, days=10, moves_cursor=False))
    assert fetch(warehouse, f"SELECT id, stage FROM {DEAL} ORDER BY id") == [("1", "lost"), ("2", "open")]
    with warehouse.cursor() as con:
        assert cursor_of(con, "crm", "deals") == DAY + timedelta(days=30)


def test_an_older_delivery_does_not_undo_what_came_since(warehouse, stage):
    load(warehouse, stage([("1", "won", 9), ("2", "open", 9)], notes=[("1", "a"), ("2", "a")], since=None))
    old = stage([("1", "open", 2), ("2", "lost", 10)], notes=[("1", "old"), ("2", "b")], moves_cursor=False)
    load(warehouse, old)
    assert fetch(warehouse, f"SELECT id, stage FROM {DEAL} ORDER BY id") == [("1", "won"), ("2", "lost")]
    assert fetch(warehouse, f"SELECT deal_id, id FROM {NOTE} ORDER BY ALL") == [("1", "a"), ("2", "b")]
    load(warehouse, replace(stage([("1", "open", 2)], since=None, asked=("1",), moves_cursor=False)))
    assert fetch(warehouse, f"SELECT stage FROM {DEAL} WHERE id = '1'") == [("open",)]


def test_an_old_full_read_taken_up_late_does_not_remove_what_came_since(warehouse, stage):
    load(warehouse, stage([("1", "open", 1), ("2", "open", 20)], since=None, days=30))
    load(warehouse, stage([("1", "open", 1)], since=None, days=10))
    assert fetch(warehouse, f"SELECT id FROM {DEAL} ORDER BY id") == [("1",), ("2",)]


def test_what_is_loaded_is_known_by_its_run(warehouse, stage):
    staged = stage([("1", "open", 1)], since=None)
    with warehouse.cursor() as con:
        assert not already_loaded(con, staged)
    load(warehouse, staged)
    with warehouse.cursor() as con:
        assert already_loaded(con, staged)
