"""The steps of usage events as plain calls: what waits is loaded, and a turn ends well."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from omni import tenancy
from omni.usage.collect import Collector
from omni.usage.live import Turn
from omni.usage.sample import sample_events
from omni.usage.spool import Spool
from tasks import usage


def put(number):
    now = datetime.now(UTC)
    events = list(sample_events(number, since=now - timedelta(minutes=5), until=now))
    spool = Spool.of(tenancy.get("demo"))
    spool.append(Collector(tenancy.get("demo")).read_records(events).batch)
    spool.seal()


def test_what_waits_is_loaded_once(home):
    assert usage.waiting("demo") == 0
    put(30)
    assert usage.waiting("demo") == 1
    done = usage.load_spool.fn("demo", "run")
    assert (done["written"], done["repeated"], done["segments"]) == (30, 0, 1)
    assert usage.waiting("demo") == 0


def test_turns_end_as_the_last_one_did():
    failed = Turn("failed", problems={"turn": "the disk is full"})
    state = usage.outcome([Turn("done"), failed, failed])
    assert state.is_failed()
    assert state.message == "0 events in 3 turns, 0 left out, 2 failed. turn: the disk is full"
    assert usage.outcome([failed, Turn("done")]).is_completed()
    assert usage.outcome([]).is_failed()


@pytest.mark.slow
def test_a_turn_brings_the_projects_metrics_up_to_date(home):
    put(30)
    state = usage.turns("demo", every=5, seconds=0)
    assert state.is_completed()
    assert state.message == "30 events in 1 turns, 0 left out"
