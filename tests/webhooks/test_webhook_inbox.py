"""Draining what waits: many culprits among the innocent, and events that do not open."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
import sqlalchemy as sa

from omni.control.database import now, session
from omni.control.inbox import InboxEvent
from omni.errors import SourceError
from omni.settings import settings
from omni.webhooks import inbox
from omni.webhooks.drain import HALVINGS, drain
from omni.webhooks.events import Event
from omni.webhooks.inbox import ATTEMPTS, WAITS, Incoming

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("control")]

ALL = 10**9


def receive(number, at=None):
    told = [Event(f"d{n}", "contact.creation", json.dumps({"objectId": n}).encode()) for n in range(number)]
    inbox.store([Incoming("demo", "hubspot", "", {}, tuple(told), at or now())], {})


def rows():
    with session() as opened:
        return list(opened.scalars(sa.select(InboxEvent).order_by(InboxEvent.id)))


def due_again():
    with session() as opened:
        opened.execute(sa.update(InboxEvent).values(due_at=now()))


def drained(act):
    return drain("demo", "hubspot", ALL, act, lambda _: None)


def test_innocents_do_not_die_of_more_culprits_than_can_be_found_at_once():
    bad = {str(n) for n in range(0, 1000, 20)}
    receive(1000)
    calls = []

    def act(_stream, ids):
        calls.append(len(ids))
        if bad & set(ids):
            raise SourceError("one of them is bad")
        return len(ids)

    for _ in range(ATTEMPTS * 6):
        calls.clear()
        drained(act)
        assert len(calls) <= 1 + HALVINGS
        due_again()
    ends = {row.delivery: row.state for row in rows()}
    assert {key for key, state in ends.items() if state == "dead"} <= {f"d{n}" for n in bad}
    assert {key for key, state in ends.items() if state == "done"} == {f"d{n}" for n in range(1000)} - {
        f"d{n}" for n in bad
    }


def test_what_was_not_to_blame_waits_longer_the_older_it_is():
    at = now()
    receive(1, at)
    for age in (timedelta(0), timedelta(hours=2), timedelta(days=20)):
        inbox.fail([1], "in bad company", at + age, counts=False)
        [row] = rows()
        assert (row.state, row.attempts, row.reason) == ("failed", 0, "in bad company")
        wait = min(max(age / 2, WAITS[0]), WAITS[-1])
        assert wait * 0.9 <= row.due_at - at - age <= wait * 1.1


@pytest.mark.usefixtures("either_database")
def test_events_that_do_not_open_are_counted_with_the_reason_and_wait_for_their_key(monkeypatch):
    with monkeypatch.context() as lost:
        lost.setenv("OMNI_SECRET_KEY", "the key before, long enough to pass the minimum")
        settings.cache_clear()
        receive(2100)
    settings.cache_clear()
    at = now()
    found = drained(lambda _stream, ids: len(ids))
    assert (found.events, found.failed, found.done, found.dead) == (2100, 2100, 0, 0)
    assert found.reasons == [inbox.UNOPENED]
    assert {(row.state, row.attempts) for row in rows()} == {("failed", 1)}
    assert all(row.due_at > at for row in rows())
    monkeypatch.setenv("OMNI_OLD_SECRET_KEYS", '["the key before, long enough to pass the minimum"]')
    settings.cache_clear()
    due_again()
    assert drained(lambda _stream, ids: len(ids)).done == 2100
