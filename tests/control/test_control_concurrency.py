"""Transactions at once, on SQLite and PostgreSQL: nothing twice, nothing lost, no waiting for each other."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from omni.control import database
from omni.control.database import alone, insert_new, now, session
from omni.control.inbox import InboxEvent, InboxRefusal
from omni.control.keys import TenantKey
from omni.security.vault import Vault
from omni.webhooks import deliveries, hooks, inbox
from omni.webhooks.events import Event

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("home", "either_database")]

TARGET = "https://hooks.example.com/catch/1"


def at_once(calls):
    """Run calls in threads that start together; what each returned."""
    gate = threading.Barrier(len(calls))

    def run(call):
        gate.wait(timeout=30)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def key(number):
    return {"tenant": "acme", "purpose": f"p{number}", "sealed": b"x", "created_at": now()}


def test_rows_that_several_insert_in_any_order_are_there_once_and_counted_once():
    rows = [key(number) for number in range(1200)]

    def put(some):
        with session() as opened:
            return insert_new(opened, TenantKey, ("tenant", "purpose"), some)

    ways = [rows, rows[::-1], rows[600:] + rows[:600], rows[::2] + rows[1::2]]
    assert sum(at_once([lambda some=some: put(some) for some in ways])) == 1200
    assert put(rows) == 0
    assert put([*rows, key(1200)]) == 1
    assert put([]) == 0
    with session() as opened:
        assert opened.scalar(sa.select(sa.func.count()).select_from(TenantKey)) == 1201


def test_deliveries_repeated_to_several_receivers_are_kept_once():
    database.engine()
    events = [Event(f"d{number}", "t", b"{}") for number in range(300)]
    refused = {("acme", "generic", "signature"): 1, ("acme", "stripe", "signature"): 2}

    def receive(some):
        some = inbox.Incoming("acme", "generic", "", {}, tuple(some), datetime.now(UTC))
        return inbox.store([some], dict(reversed(refused.items())))

    assert sum(at_once([lambda some=some: receive(some) for some in (events, events[::-1]) * 3])) == 300
    with session() as opened:
        assert opened.scalar(sa.select(sa.func.count()).select_from(InboxEvent)) == 300
        counts = sa.select(InboxRefusal.vendor, InboxRefusal.refused).order_by(InboxRefusal.vendor)
        assert [tuple(row) for row in opened.execute(counts)] == [("generic", 6), ("stripe", 12)]


def test_the_same_wish_at_once_is_one_subscription():
    wish = lambda: hooks.subscribe("acme", "run.finished", TARGET)  # noqa: E731
    assert len(set(at_once([wish] * 6))) == 1
    assert len(hooks.subscriptions("acme")) == 1


def test_rows_published_at_once_are_owed_once():
    hooks.subscribe("acme", "run.finished", TARGET)
    rows = [{"flow": str(number)} for number in range(50)]
    publish = lambda: hooks.publish("acme", "run.finished", rows)  # noqa: E731
    assert sum(at_once([publish] * 4)) == 50
    assert deliveries.waiting("acme") == 50


def test_senders_at_once_lease_each_row_to_one_of_them():
    hooks.subscribe("acme", "run.finished", TARGET)
    hooks.publish("acme", "run.finished", [{"flow": str(number)} for number in range(60)])
    vault, moment = Vault("acme"), now()

    def claim():
        taken = []
        while due := deliveries._claim("acme", vault, moment, 7):
            taken += [one.id for one in due]
        return taken

    taken = [one for some in at_once([claim] * 4) for one in some]
    left = [one.id for one in deliveries._claim("acme", vault, moment, 100)]
    assert len(taken + left) == len(set(taken + left)) == 60


def somebody_waits(opened):
    """Whether another transaction waits for a lock of ours; on SQLite it could not have begun."""
    if opened.get_bind().dialect.name == "sqlite":
        return True
    waiting = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    until = time.monotonic() + 30
    while not opened.scalar(waiting):
        opened.execute(sa.text("SELECT pg_stat_clear_snapshot()"))
        assert time.monotonic() < until
    return True


def test_an_end_that_comes_while_a_delivery_is_settled_wins():
    number, _ = hooks.subscribe("acme", "run.finished", TARGET)
    hooks.publish("acme", "run.finished", [{"flow": "a"}])
    [due] = deliveries._claim("acme", Vault("acme"), now(), 1)
    ended = threading.Event()

    def end():
        with session() as opened:
            hooks.end(opened, "acme", number, "asked to")
            opened.flush()
            ended.set()
            return somebody_waits(opened)

    def settle():
        ended.wait(timeout=30)
        return deliveries._settle("acme", due, deliveries.Result(200), now())

    assert at_once([end, settle]) == [True, "ended"]


def test_only_one_that_names_the_same_goes_on():
    inside, most = [], []

    def enter(name):
        with session() as opened:
            alone(opened.connection(), name)
            inside.append(name)
            most.append(inside.count(name))
            opened.execute(sa.select(TenantKey)).all()
            inside.remove(name)

    at_once([lambda name=name: enter(name) for name in "aabb" * 3])
    assert max(most) == 1
    assert len(most) == 12
