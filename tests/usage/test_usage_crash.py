"""Killed with -9 while accepting and while loading: nothing acknowledged is lost, nothing counts twice."""

from __future__ import annotations

import subprocess
import sys

import pytest

from omni.usage.spool import Spool, sealed_segments, spool_folder

pytestmark = pytest.mark.slow

COMMON = """
import json, os, signal, sys, threading
from omni.tenancy import Tenant
from omni.usage.collect import Collector
from omni.usage.load import load_events
from omni.usage.spool import Spool, recover, sealed_segments, spool_folder
from omni.warehouse.database import open_warehouse

tenant = Tenant(tenant="acme", title="Acme", timezone="Europe/Berlin", currency="EUR", sources={})

def kill_me_after(seconds):
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
    timer.daemon = True
    timer.start()
"""
ACCEPT = """
collector, spool, number = Collector(tenant, oldest_days=None), Spool.of(tenant), int(sys.argv[1])
spool._seal_bytes = 20_000
while True:
    ids = [f"e{n}" for n in range(number, number + 50)]
    events = [{"id": one, "source": "web", "type": "login", "actor": one} for one in ids]
    spool.append(collector.read(json.dumps(events).encode()).batch)
    print(number + 50, flush=True)
    number += 50
"""
LOAD = """
with open_warehouse(tenant) as warehouse:
    kill_me_after(float(sys.argv[1]))
    for segment in sealed_segments(spool_folder(tenant)):
        load_events(warehouse, [segment], run_id="r")
    print("done", flush=True)
"""


def child(code, *args):
    return subprocess.Popen([sys.executable, "-c", COMMON + code, *args], stdout=subprocess.PIPE, text=True)


def test_a_kill_while_accepting_loses_nothing_that_was_acknowledged(home, tenant, load, ask):
    acknowledged = 0
    for lines in (1, 30):
        with child(ACCEPT, str(acknowledged)) as accepting:
            for _ in range(lines):
                acknowledged = int(accepting.stdout.readline())
            accepting.kill()
            rest = accepting.stdout.read().split()
            acknowledged = int(rest[-1]) if rest else acknowledged
    Spool.of(tenant)  # seals what the killed ones left open
    load()
    found = {int(name[1:]) for (name,) in ask("SELECT event_id FROM raw.usage__events")}
    assert set(range(acknowledged)) <= found
    assert ask("SELECT count(*) - count(DISTINCT event_id) FROM raw.usage__events") == [(0,)]


def test_a_kill_while_loading_loses_nothing_and_loads_nothing_twice(put, home, tenant, load, ask, event):
    for first in range(0, 4500, 300):
        put([event(n) for n in range(first, first + 320)])
    ended = []
    for seconds in (0.005, 0.03, 0.1):
        with child(LOAD, str(seconds)) as loading:
            ended.append(loading.stdout.read().strip() == "done")
            loading.wait()
        counts = ask("SELECT count(*), count(DISTINCT event_id) FROM raw.usage__events")
        assert counts[0][0] == counts[0][1]
    assert not all(ended)
    load()
    assert ask("SELECT count(*), count(DISTINCT event_id) FROM raw.usage__events") == [(4520, 4520)]
    assert ask("SELECT sum(inserted), sum(rows_read) FROM ops.loads") == [(4520, 4800)]
    assert sealed_segments(spool_folder(tenant)) == []
