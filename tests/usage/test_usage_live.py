"""Live turns: what is kept up to date, the window, corrections, a held warehouse, the end as of a night."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omni.errors import ConfigError
from omni.settings import settings as omni_settings
from omni.usage.collect import Collector
from omni.usage.feed import Feed, read_state, state_file, told
from omni.usage.live import Live, run_turns, select_live, take_turn
from omni.usage.load import load_events
from omni.usage.spool import Spool, sealed_segments, spool_folder
from omni.warehouse.build import build_models
from omni.warehouse.database import open_warehouse, path_of

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


def test_what_is_cheap_is_kept_live_and_what_is_named(small_models):
    chosen = select_live(small_models)
    assert chosen.metrics == {"events": "metrics.events"}
    assert chosen.models == {"staging.usage__events", "core.by_day", "metrics.events"}
    named = select_live(small_models, ["costly"])
    assert named.models == {"staging.usage__events", "core.by_day", "core.whole", "metrics.costly"}
    with pytest.raises(ConfigError, match=r"revenue: no metric that comes from .* costly, events"):
        select_live(small_models, ["revenue"])


def test_the_projects_usage_metrics_are_live():
    from omni.catalogue.project import all_models

    chosen = select_live(all_models())
    assert {"usage_events", "active_users"} <= chosen.metrics.keys()
    assert {"metrics.usage_events__day", "metrics.active_users__day"} <= chosen.models
    assert "metrics.active_users__month" in chosen.slower
    assert "core.usage_sessions" not in chosen.models


def test_a_turn_publishes_the_current_window(live, put, event):
    put([event(1), event(2, "2026-03-10T11:59:00Z", type="login", data={}), event(3, "2026-03-10T12:30:00Z")])
    turn = take_turn(live)
    assert (turn.status, turn.loaded.inserted, dict(turn.problems)) == ("done", 3, {})
    state = live.feed.latest
    assert state["today"] == "2026-03-10"
    assert state["hour"] == "2026-03-10T13:00:00+01:00"
    assert state["metrics"] == {"events": 3.0}
    assert state["this_hour"] == {"events": 1, "users": 1, "by_event": {"page_view": 1}}
    assert state["corrections"] == []
    assert read_state(live.tenant) == state
    assert take_turn(live).status == "idle"
    assert live.feed.latest["sequence"] == 1


def test_late_events_correct_earlier_days_and_are_announced(live, put, event, ask):
    put([event(1, "2026-03-08T11:00:00Z"), event(2)])
    take_turn(live)
    put([event(3, "2026-03-08T12:00:00Z"), event(4, "2026-03-05T12:00:00Z"), event(2)])
    take_turn(live)
    state = live.feed.latest
    assert [(one["sequence"], one["day"], one["value"]) for one in state["corrections"]] == [
        (1, "2026-03-08", 1.0), (2, "2026-03-05", 1.0), (2, "2026-03-08", 2.0),
    ]  # fmt: skip
    assert ask("SELECT day, value FROM metrics.events ORDER BY day") == [
        (date(2026, 3, 5), 1.0), (date(2026, 3, 8), 2.0), (date(2026, 3, 10), 1.0),
    ]  # fmt: skip
    assert [one["sequence"] for one in told(state, 1)["corrections"]] == [2, 2]
    assert told(state, None)["corrections"] == []


def test_events_that_another_process_loaded_are_announced_too(live, put, load, event):
    put([event(1)])
    take_turn(live)
    put([event(2, "2026-03-09T11:00:00Z")])
    load()
    live._looked = None
    take_turn(live)
    [correction] = live.feed.latest["corrections"]
    assert (correction["metric"], correction["day"], correction["value"]) == ("events", "2026-03-09", 1.0)


def test_a_restarted_process_goes_on_with_the_sequence(live, put, event):
    put([event(1)])
    take_turn(live)
    again = replace(live, feed=Feed(), _looked=None)
    put([event(2)])
    take_turn(again)
    assert again.feed.latest["sequence"] == 2


@pytest.mark.parametrize("text", ["{", "[]", '{"sequence": 7}'])
def test_a_state_file_that_is_none_is_begun_anew(live, put, event, text):
    state_file(live.tenant).parent.mkdir(parents=True)
    state_file(live.tenant).write_text(text)
    put([event(1)])
    take_turn(live)
    assert read_state(live.tenant)["sequence"] == 1


def test_at_midnight_the_window_moves_although_nothing_came(live, put, event):
    put([event(1)])
    take_turn(live)
    live.clock = lambda: NOW + timedelta(hours=11)
    assert take_turn(live).status == "done"
    assert live.feed.latest["today"] == "2026-03-11"
    assert live.feed.latest["metrics"] == {"events": None}


def test_a_model_that_fails_is_told_and_tried_again(live, put, event, small_models):
    broken = replace(
        small_models["core.by_day"], sql=small_models["core.by_day"].sql.replace("actor_id", "no")
    )
    put([event(1)])
    live.models = {**small_models, "core.by_day": broken}
    turn = take_turn(live)
    assert turn.loaded.inserted == 1
    assert set(turn.problems) == {"core.by_day", "metrics.events"}
    assert live.feed.latest["problems"] == {
        "core.by_day": "SchemaError",
        "metrics.events": "needs core.by_day",
    }
    live.models = small_models
    assert dict(take_turn(live).problems) == {}
    assert live.feed.latest["metrics"] == {"events": 1.0}


def test_watchers_are_told_no_values_of_what_failed(live, put, event, small_models):
    quoting = small_models["core.by_day"].sql.replace(
        "CAST(count(*) AS BIGINT)", "CAST(max(json_extract_string(properties, '$.page')) AS BIGINT)"
    )
    live.models = {**small_models, "core.by_day": replace(small_models["core.by_day"], sql=quoting)}
    put([event(1, data={"page": "/patients/zoe"})])
    take_turn(live)
    assert set(live.feed.latest["problems"]) == {"core.by_day", "metrics.events"}
    assert "zoe" not in state_file(live.tenant).read_text()


def test_turns_that_fail_are_told(live, put, event):
    seen, stop = [], threading.Event()

    def tell(turn):
        seen.append((turn.status, *turn.problems))
        (spool_folder(live.tenant) / "1.seg").mkdir(exist_ok=True)  # no loader can read it
        stop.set()

    put([event(1)])
    run_turns(live, 0.01, stop, tell)
    assert seen == [("done",), ("failed", "turn")]


def test_a_state_that_was_lost_begins_a_later_epoch(live, put, event):
    put([event(1)])
    take_turn(live)
    first, watched = live.feed.latest, Feed()
    watched.publish({**first, "sequence": 500})
    state_file(live.tenant).unlink()
    put([event(2)])
    take_turn(replace(live, feed=Feed(), _looked=None))
    again = read_state(live.tenant)
    assert (again["sequence"], again["epoch"] > first["epoch"]) == (1, True)
    watched.publish(again)
    watched.publish({**first, "sequence": 501})
    assert watched.latest == again
    assert told(again, 500, first["epoch"])["missed"]
    assert not told(again, 0, again["epoch"])["missed"]


@pytest.mark.slow
def test_a_warehouse_that_is_held_is_left_out_and_caught_up_with(live, put, event, ask):
    take_turn(live)
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(path_of(live.tenant))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        live.lock_seconds = 0.1
        for number in range(3):
            put([event(number)])
            assert take_turn(live).status == "locked"
        assert len(sealed_segments(spool_folder(live.tenant))) == 3
        holder.stdin.close()
        holder.wait()
    assert take_turn(live).loaded.inserted == 3
    assert live.feed.latest["metrics"] == {"events": 3.0}


def test_old_corrections_are_let_go_and_a_listener_is_told(live, put, event):
    put([event(n, (NOW - timedelta(days=n % 300 + 1)).isoformat()) for n in range(300)])
    take_turn(live)
    put([event(n + 300, (NOW - timedelta(days=n % 300 + 1)).isoformat()) for n in range(300)])
    take_turn(live)
    state = live.feed.latest
    assert len(state["corrections"]) == 500
    assert told(state, 0)["missed"]
    assert not told(state, 1)["missed"]


TIMES = st.integers(0, 96).map(lambda hours: (NOW - timedelta(hours=hours)).isoformat())
SENT = st.lists(st.tuples(st.integers(0, 25), TIMES, st.sampled_from(["page_view", "login"])), max_size=12)
STEPS = st.lists(st.tuples(SENT, st.sampled_from(["wait", "load", "turn"])), min_size=1, max_size=6)
TABLES = {
    "raw.usage__events": "source, event_id, event, actor_id, properties, occurred_at",
    "core.by_day": "event_date, event, events, users",
    "metrics.events": "day, value",
}


def _contents(tenant):
    with open_warehouse(tenant) as warehouse, warehouse.cursor() as con:
        return {
            table: con.execute(f"SELECT {columns} FROM {table} ORDER BY ALL").fetchall()
            for table, columns in TABLES.items()
        }


@pytest.mark.slow
@settings(
    max_examples=5, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(steps=STEPS)
def test_batches_loads_and_turns_in_any_order_end_as_one_load(steps, tenant, small_models, monkeypatch):
    """Repeats, late events, loads by others and turns: the tables are those of one load and one build."""
    found = []
    for batched in (False, True):
        with tempfile.TemporaryDirectory() as home:
            monkeypatch.setenv("OMNI_HOME", home)
            monkeypatch.setenv("OMNI_SECRET_KEY", "a key for tests, long enough to pass the minimum")
            omni_settings.cache_clear()
            collector, spool = Collector(tenant), Spool.of(tenant)
            live = Live(tenant, small_models, select_live(small_models), clock=lambda: NOW)
            for sent, what in [*steps, ([], "turn")]:
                events = [
                    {"id": f"e{n}", "source": "web", "type": kind, "time": at, "actor": f"u{n % 5}",
                     "data": {"page": "/"}}
                    for n, at, kind in sent
                ]  # fmt: skip
                spool.append(collector.read(json.dumps(events).encode(), now=NOW).batch)
                if batched:
                    continue
                if what == "turn":
                    live.spool, live._looked = spool, None
                    take_turn(live)
                elif what == "load":
                    spool.seal()
                    with open_warehouse(tenant) as warehouse:
                        load_events(warehouse, sealed_segments(spool_folder(tenant)), run_id="x")
            if batched:
                spool.seal()
                with open_warehouse(tenant) as warehouse:
                    load_events(warehouse, sealed_segments(spool_folder(tenant)), run_id="y")
                    build_models(warehouse, small_models, run_id="y")
            found.append(_contents(tenant))
            assert not list(Path(spool_folder(tenant)).glob("*.seg"))
    omni_settings.cache_clear()
    assert found[0] == found[1]
