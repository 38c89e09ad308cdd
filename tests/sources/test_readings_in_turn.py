"""Readings one after the other: what a killed, failed or overtaken one leaves must not mislead the next."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from omni.errors import CountMismatch, SchemaError, TransientError
from omni.settings import settings
from omni.sources.connection import Connection
from omni.sources.extract import tables
from omni.sources.reading import PART_ROWS, Reading
from omni.sources.vendor import Page, Vendor, Window
from omni.tenancy import Tenant
from omni.warehouse import contracts as contract_module
from omni.warehouse.contracts import Column
from omni.warehouse.database import open_warehouse
from omni.warehouse.dead_letters import waiting
from omni.warehouse.load import cursor_of, load

DEALS = """
table: raw.hubspot__deals
description: deals
owner: crm@example.com
grain: one row per deal
key: [id]
history: true
source: {vendor: hubspot, object: deals, cursor: changed_at}
columns:
  id: {type: string, nullable: false}
  stage: {type: string}
  changed_at: {type: timestamp}
"""
NOTES = """
table: raw.hubspot__deal_notes
description: notes of deals
owner: crm@example.com
grain: one row per note
key: [id]
parent: raw.hubspot__deals
parent_key: deal_id
source: {vendor: hubspot, object: deals, rows: notes}
columns:
  id: {type: string, nullable: false}
  deal_id: {type: string, nullable: false, from: ^.id}
  score: {type: integer}
"""
DEAL, NOTE = "raw.hubspot__deals", "raw.hubspot__deal_notes"
DAY = datetime(2026, 3, 1, tzinfo=UTC)
ACME = Tenant(tenant="acme", title="Acme", timezone="UTC", currency="EUR", sources={})


def day(number, **more):
    return DAY + timedelta(days=number, **more)


@dataclass
class Source:
    """A vendor in memory: records by id, in pages, with a count; it can fail, hide records or forget some."""

    rows: dict = field(default_factory=dict)
    size: int = 1_000
    pages: int = 0
    fail_at: int | None = None
    hidden: set = field(default_factory=set)
    gone: tuple = ()

    def put(self, identity, stage, changed, notes=()):
        self.rows[identity] = (stage, changed, notes)

    def vendor(self, **changes):
        @contextmanager
        def opened(_):
            yield self

        options = {
            "name": "hubspot", "title": "The CRM", "open": opened, "lag": timedelta(0),
            "resolution": timedelta(milliseconds=1), "check": lambda *_: [],
            "count": lambda source, _, window: len(source.inside(window)), "read": Source.read,
        }  # fmt: skip
        return Vendor(**(options | changes))

    def inside(self, window):
        return [
            i for i, row in sorted(self.rows.items())
            if (window.since is None or row[1] >= window.since) and row[1] < window.until
        ]  # fmt: skip

    def read(self, _, window, resume) -> Iterator[Page]:
        wanted = sorted(self.rows) if window.since is None else self.inside(window)
        ids = [i for i in wanted if i not in self.hidden and (resume is None or i > resume)]
        for start in range(0, len(ids), self.size):
            self.pages += 1
            if self.pages == self.fail_at:
                raise TransientError("down")
            part = ids[start : start + self.size]
            yield Page([self.record(i) for i in part], part[-1])
        yield Page([], None, gone=self.gone)

    def record(self, identity):
        stage, changed, notes = self.rows[identity]
        listed = [note if isinstance(note, dict) else {"id": note} for note in notes]
        return {"id": identity, "stage": stage, "changed_at": changed.isoformat(), "notes": listed}


@pytest.fixture
def declared(home, tmp_path, monkeypatch):
    folder = tmp_path / "data" / "contracts"
    folder.mkdir(parents=True)
    (folder / "deals.yml").write_text(DEALS)
    (folder / "notes.yml").write_text(NOTES)
    monkeypatch.setenv("OMNI_DATA", str(tmp_path / "data"))
    settings.cache_clear()
    return folder


@pytest.fixture
def warehouse(declared):
    with open_warehouse(ACME) as opened:
        yield opened


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def read(source, declared, tmp_path):
    """Read a window into the one folder, as a run would."""

    def start(since, until, run="r1", *, moves_cursor=True, account="crm.example", **vendor):
        window = Window(since, until)
        folder = tmp_path / "staged"
        reading = Reading(
            ACME,
            source.vendor(**vendor),
            "deals",
            tables("hubspot", "deals"),
            folder,
            window,
            run,
            moves_cursor,
            account=account,
        )
        return reading.run(Connection("hubspot", "http://unused.example", SecretStr("unused")))

    return start


@pytest.fixture
def bring(warehouse, read, tmp_path):
    """Read and load, as a night does."""

    def start(since, until, run, **options):
        load(warehouse, read(since, until, run, **options))
        shutil.rmtree(tmp_path / "staged")

    return start


def fetch(warehouse, sql):
    with warehouse.cursor() as con:
        return con.execute(sql).fetchall()


def deals(warehouse):
    return fetch(warehouse, f"SELECT id, stage FROM {DEAL} ORDER BY id")


def test_a_full_read_keeps_what_changed_behind_its_window(warehouse, source, bring):
    source.put("1", "open", day(1))
    source.put("2", "open", day(1), ["a"])
    bring(None, day(10), "r1")
    source.put("2", "won", day(20, minutes=1), ["a"])
    bring(None, day(20), "r2")
    assert deals(warehouse) == [("1", "open"), ("2", "won")]
    assert fetch(warehouse, f"SELECT id FROM {NOTE}") == [("a",)]
    bring(day(20), day(30), "r3")
    versions = f"SELECT stage, _valid_from, _valid_to FROM {DEAL}__history WHERE id = '2' ORDER BY 2"
    assert fetch(warehouse, versions) == [
        ("open", day(1), day(20, minutes=1)),
        ("won", day(20, minutes=1), None),
    ]


def test_a_late_record_that_is_rejected_does_not_upset_the_count(source, read):
    source.put("1", "open", day(1))
    source.put("2", "open", day(11))
    source.rows["2"] = ({"not": "text"}, day(11), ())
    staged = read(None, day(10))
    assert (staged.rows[DEAL], staged.rejected) == (1, 1)


def test_versions_follow_each_other_when_a_row_returns(warehouse, source, bring):
    source.put("1", "open", day(1))
    bring(None, day(10), "r1")
    source.rows.clear()
    bring(None, day(11), "r2")
    source.put("1", "open", day(1))
    bring(None, day(12), "r3")
    rows = fetch(warehouse, f"SELECT _valid_from, _valid_to FROM {DEAL}__history ORDER BY 1")
    assert len(rows) == 2
    assert rows[0][1] <= rows[1][0]
    assert rows[1][1] is None


def test_a_retry_in_the_same_run_goes_on(source, read):
    for number in range(3 * PART_ROWS):
        source.put(f"{number:06}", "open", day(1))
    source.fail_at = 12
    with pytest.raises(TransientError):
        read(None, day(10))
    source.pages, source.fail_at = 0, None
    staged = read(None, day(10, seconds=2))
    assert source.pages == 5
    assert (staged.rows[DEAL], staged.until) == (3 * PART_ROWS, day(10))


def test_a_backfill_is_read_just_as_asked(source, read):
    source.put("1", "open", day(1))
    read(None, day(5), moves_cursor=False)
    source.put("2", "open", day(6))
    staged = read(None, day(10), "r2")
    assert (staged.moves_cursor, staged.rows[DEAL]) == (True, 2)


def test_what_another_account_or_contract_left_is_not_taken_up(declared, source, read):
    source.put("1", "open", day(1))
    read(None, day(10))
    source.put("2", "open", day(1))
    assert read(None, day(10), account="other.example").rows[DEAL] == 2
    source.put("3", "open", day(1))
    wider = DEALS.replace("columns:", "columns:\n  size: {type: string, from: stage}")
    (declared / "deals.yml").write_text(wider)
    contract_module._cached.cache_clear()
    assert "size" in tables("hubspot", "deals")[0].columns
    assert read(None, day(10), account="other.example").rows[DEAL] == 3


def test_a_count_that_was_wrong_once_is_not_wrong_for_ever(source, read):
    for number in range(PART_ROWS + 10):
        source.put(f"{number:06}", "open", day(1))
    source.hidden = {"000001"}
    with pytest.raises(CountMismatch):
        read(None, day(10))
    source.hidden = set()
    assert read(None, day(10), "r2").rows[DEAL] == PART_ROWS + 10


def test_ids_that_are_told_gone_are_removed_with_their_children(warehouse, source, bring):
    source.put("1", "open", day(1), ["a"])
    source.put("2", "open", day(1), ["b"])
    bring(None, day(10), "r1")
    del source.rows["2"]
    source.gone = ("2",)
    bring(day(10), day(11), "r2")
    assert deals(warehouse) == [("1", "open")]
    assert fetch(warehouse, f"SELECT id FROM {NOTE}") == [("a",)]
    assert fetch(warehouse, f"SELECT _deleted FROM {DEAL}__history WHERE id = '2'") == [(True,)]


def test_a_rejected_row_of_unknown_key_keeps_all_rows(warehouse, source, bring):
    source.put("1", "open", day(1))
    source.put("2", "open", day(1))
    bring(None, day(10), "r1")
    del source.rows["2"]
    broken = {"table": DEAL, "key": "deals.csv:3", "column": "", "reason": "too few cells"}

    def with_broken(client, declared_, window, resume):
        yield from Source.read(client, declared_, window, resume)
        yield Page([], None, rejected=(broken,))

    bring(None, day(11), "r2", read=with_broken, count=lambda *_: None)
    assert deals(warehouse) == [("1", "open"), ("2", "open")]


def test_a_childs_dead_letter_names_the_record_to_read_again(warehouse, source, bring):
    source.put("1", "open", day(1), [{"id": "gid://x/Note/1?of=2", "score": "high"}])
    bring(None, day(10), "r1")
    with warehouse.cursor() as con:
        (letter,) = waiting(con)
    assert (letter.table, letter.record) == (NOTE, "1")
    source.put("1", "open", day(11), [{"id": "gid://x/Note/1?of=2", "score": "3"}])
    bring(day(10), day(12), "r2")
    with warehouse.cursor() as con:
        assert waiting(con) == []


def test_keys_may_hold_any_character(warehouse, source, bring):
    source.rows["a\u2028b"] = ({"not": "text"}, day(1), ())
    bring(None, day(10), "r1")
    with warehouse.cursor() as con:
        assert [letter.key for letter in waiting(con)] == ["a\u2028b"]


def test_a_learnt_column_holds_one_field_of_one_type(warehouse, source, bring, read):
    source.put("1", "open", day(1))
    bring(None, day(10), "r1")

    def learn(path, kind, run):
        column = Column(type=kind, optional=True, **{"from": path}).model_dump(mode="json", by_alias=True)
        load(warehouse, replace(read(day(10), day(11), run), columns={DEAL: {"last_name": column}}))

    learn("Last Name", "string", "r2")
    with pytest.raises(SchemaError, match=r"'Last Name' \(string\).*'lastName'"):
        learn("lastName", "string", "r3")
    with pytest.raises(SchemaError, match=r"\(float\)"):
        learn("Last Name", "float", "r4")


def test_a_cursor_stays_where_its_columns_were_read(warehouse, source, bring):
    source.put("1", "open", day(1))
    bring(None, day(10), "r1")
    parent, child = tables("hubspot", "deals")
    with warehouse.cursor() as con:
        assert cursor_of(con, "hubspot", "deals", [parent, child]) == day(10)
        column = parent.columns["stage"].model_copy(update={"path": "other"})
        moved = parent.model_copy(update={"columns": parent.columns | {"stage": column}})
        assert cursor_of(con, "hubspot", "deals", [moved, child]) is None
