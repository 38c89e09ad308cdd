"""Loading segments: each once, each event once, days, letters, counts, damaged files."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest

from omni.errors import StorageError
from omni.usage.collect import Collector
from omni.usage.load import LETTERS_EACH, MANY, load_events
from omni.usage.spool import SCHEMA, Batch, Spool, sealed_segments, spool_folder
from omni.warehouse.database import open_warehouse

KEYS = "SELECT event_id FROM raw.usage__events ORDER BY event_id"


def test_events_are_loaded_and_the_segments_removed(put, load, ask, event, tenant):
    put([event(1), event(2, type="login", data={"successful": True})])
    loaded = load("run 1")
    assert (loaded.segments, loaded.read, loaded.inserted, loaded.repeated) == (1, 2, 2, 0)
    assert sealed_segments(spool_folder(tenant)) == []
    rows = ask(
        "SELECT event_id, event, json_extract_string(properties, '$.page'), occurred_at, _run_id "
        "FROM raw.usage__events ORDER BY event_id"
    )
    at = datetime(2026, 3, 10, 11, tzinfo=UTC)
    assert rows == [("e1", "page_view", "/", at, "run 1"), ("e2", "login", None, at, "run 1")]
    assert load().segments == 0


def test_repeats_change_nothing_whatever_their_time_says(put, load, ask, event):
    put([event(1), event(1, "2026-03-09T11:00:00Z", data={"page": "/second"}), event(2)])
    put([event(2, "2026-03-08T11:00:00Z")])
    assert (load().inserted, load().inserted) == (2, 0)
    put([event(1, "2026-02-01T11:00:00Z"), event(3)])
    loaded = load()
    assert (loaded.inserted, loaded.repeated, loaded.days) == (1, 1, (date(2026, 3, 10),))
    assert ask("SELECT event_id, properties FROM raw.usage__events ORDER BY 1")[0] == ("e1", '{"page":"/"}')


def test_the_same_id_of_another_source_is_another_event(put, load, event):
    put([event(1), event(1, source="app")])
    assert load().inserted == 2


def test_days_are_the_tenants_and_late_events_reopen_theirs(put, load, ask, event):
    put([event(1, "2026-03-09T22:59:59Z"), event(2, "2026-03-09T23:00:00Z")])
    assert load().days == (date(2026, 3, 9), date(2026, 3, 10))
    put([event(3, "2026-01-01T12:00:00Z")])
    load()
    days = ask("SELECT version, day FROM ops.changes WHERE table_name = 'raw.usage__events' ORDER BY ALL")
    assert [day for _, day in days] == [date(2026, 3, 9), date(2026, 3, 10), date(2026, 1, 1)]
    put([event(3, "2026-01-01T12:00:00Z")])
    load()
    assert len(ask("SELECT * FROM ops.changes WHERE table_name = 'raw.usage__events'")) == 3


def test_a_segment_that_was_loaded_but_not_removed_counts_nothing_twice(put, load, ask, event, tenant):
    put([event(1, data={"page": "/", "odd": 1}), event(2, type="unknown")])
    [segment] = sealed_segments(spool_folder(tenant))
    copy = shutil.copy(segment, segment.with_suffix(".copy"))
    assert load().segments == 1
    shutil.move(copy, segment)  # as after a kill between commit and removal
    assert load().segments == 0
    assert not segment.exists()
    assert ask("SELECT rows_read, inserted, rejected FROM ops.loads") == [(2 - 1, 1, 1)]
    assert ask("SELECT event, reason, dropped FROM ops.usage_dropped") == [("page_view", "not declared", 1)]


def test_loads_of_one_run_are_one_row(put, load, ask, event):
    for number in range(3):
        put([event(number)])
        load("live")
    assert ask("SELECT run_id, vendor, stream, rows_read, inserted FROM ops.loads") == [
        ("live", "usage", "events", 3, 3)
    ]
    assert ask("SELECT count(*) FROM ops.segments") == [(1,)]


def test_refused_events_wait_in_the_dead_letters_until_a_good_one_comes(put, load, ask, event):
    put([event(1, type="unknown"), event(1, type="unknown"), event(2, data={}), event(3)])
    assert load().letters == 3
    letters = (
        "SELECT record_key, column_name, reason FROM ops.dead_letters WHERE replayed_at IS NULL ORDER BY 1"
    )
    assert ask(letters) == [
        ("web|e1", "event", "event not declared in data/events"),
        ("web|e2", "properties", "property page is missing"),
    ]
    put([event(2)])
    load()
    assert [key for key, *_ in ask(letters)] == ["web|e1"]
    put([event(1)])
    put([event(1, type="odd")])
    load()  # both at once
    put([event(3, type="odd")])
    load()  # the good one is there already
    assert ask(letters) == []


def test_of_very_many_refused_events_only_the_reasons_are_kept(put, load, ask, event):
    put([event(n, type="unknown") for n in range(LETTERS_EACH + 500)])
    assert load().letters == LETTERS_EACH + 500
    assert ask("SELECT count(*) FROM ops.dead_letters") == [(LETTERS_EACH + 1,)]
    assert ask(f"SELECT reason FROM ops.dead_letters WHERE record_key = '{MANY}'") == [
        ("event not declared in data/events",)
    ]


def test_events_of_the_year_one_in_an_older_spool_hold_nothing_up(put, load, ask, event, tenant):
    rows = put([event(1), event(2)]).batch.rows
    times = pa.array(
        [datetime(1, 1, 1, tzinfo=UTC), datetime(2026, 3, 10, tzinfo=UTC)], pa.timestamp("us", "UTC")
    )
    rows = rows.set_column(7, SCHEMA.field("occurred_at"), times)
    for segment in sealed_segments(spool_folder(tenant)):
        segment.unlink()
    spool = Spool.of(tenant)
    spool.append(Batch(rows))
    spool.seal()
    loaded = load()
    assert (loaded.inserted, loaded.days, loaded.letters) == (1, (date(2026, 3, 10),), 1)
    assert ask("SELECT record_key, reason FROM ops.dead_letters") == [("web|e1", "its time lies before 1990")]
    assert sealed_segments(spool_folder(tenant)) == []


def test_segments_that_another_loader_took_are_left_out(put, load, event, tenant):
    put([event(1)])
    listed = sealed_segments(spool_folder(tenant))
    load()
    put([event(2)])
    with open_warehouse(tenant) as warehouse:
        both = [*listed, *sealed_segments(spool_folder(tenant))]
        assert load_events(warehouse, both, run_id="r").inserted == 1


def test_a_segment_that_cannot_be_read_now_waits(put, load, event, tenant):
    put([event(1)])
    [segment] = sealed_segments(spool_folder(tenant))
    away = segment.rename(segment.with_suffix(".away"))
    segment.mkdir()  # any error of the system's
    with pytest.raises(StorageError, match="Cannot read the segment"):
        load()
    segment.rmdir()
    away.rename(segment)
    assert load().inserted == 1


def test_of_a_damaged_segment_the_rest_is_loaded_and_a_copy_kept(load, ask, event, tenant):
    spool, collector = Spool.of(tenant), Collector(tenant, oldest_days=None)
    for n in range(3):
        spool.append(collector.read(json.dumps(event(n)).encode()).batch)
    segment = spool.seal()
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    loaded = load()
    assert (loaded.inserted, loaded.damaged) == (2, 1)
    assert ask(KEYS) == [("e0",), ("e2",)]
    [kept] = spool_folder(tenant).iterdir()
    assert (kept.name, kept.read_bytes()) == (f"{segment.stem}.bad", bytes(data))


def test_a_file_that_is_no_segment_is_put_aside_and_holds_nothing_up(put, load, ask, event, tenant):
    put([event(1)])
    bad = spool_folder(tenant) / "00000000000000000000-1-1.seg"
    bad.write_bytes(b"garbage")
    loaded = load()
    assert (loaded.inserted, loaded.damaged) == (1, 1)
    assert [path.name for path in spool_folder(tenant).iterdir()] == [f"{bad.stem}.bad"]


def test_a_failure_inside_the_transaction_leaves_nothing_and_the_segment(put, ask, event, tenant, load):
    load()
    put([event(1)])
    with open_warehouse(tenant) as warehouse:
        with warehouse.transaction() as con:
            con.execute("ALTER TABLE ops.loads RENAME TO loads_away")
        with pytest.raises(Exception, match="loads"):
            load_events(warehouse, sealed_segments(spool_folder(tenant)), run_id="r")
        with warehouse.transaction() as con:
            con.execute("ALTER TABLE ops.loads_away RENAME TO loads")
    assert ask(KEYS) == []
    assert load().inserted == 1
    assert ask(KEYS) == [("e1",)]


def test_a_tenant_never_sees_the_clear_user(put, load, event, home):
    put([event(1, actor="zoe@example.com")])
    load()
    found = [path for path in home.rglob("*") if path.is_file() and b"zoe@example" in path.read_bytes()]
    assert found == []


def test_ten_thousand_events_in_random_order_give_each_once(put, load, ask, event):
    start = datetime(2026, 2, 1, tzinfo=UTC)
    events = [event(n % 700, (start + timedelta(minutes=n)).isoformat()) for n in range(2_000)]
    for chunk in (events[:900], events[500:1500], events):
        put(chunk)
    assert load().inserted == 700
    assert ask("SELECT count(*), count(DISTINCT event_id) FROM raw.usage__events") == [(700, 700)]
