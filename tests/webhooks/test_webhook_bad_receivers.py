"""Receivers that fail, hang, throttle or drip: they wait for themselves, and nobody else does."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from contextlib import contextmanager
from datetime import timedelta

import pytest
import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from omni.control.database import now, session
from omni.control.hooks import HookDelivery
from omni.errors import ConfigError
from omni.security.vault import Vault
from omni.settings import settings
from omni.webhooks import deliveries, hooks
from omni.webhooks.deliveries import CLAIM, LEASE, TRIES_AT_ONCE, WAITS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("control", "either_database")]

FAST = {"loopback": True, "per_second": 10_000.0}


def owe(url, number, event="score.changed"):
    """A subscription with so many deliveries that are due."""
    made, _ = hooks.subscribe("demo", event, url, loopback=True)
    assert hooks.publish("demo", event, [{"to": url, "n": n} for n in range(number)]) == number
    return made


def rows():
    with session() as opened:
        return list(opened.scalars(sa.select(HookDelivery).order_by(HookDelivery.id)))


def deliver(**options):
    outcome = deliveries.deliver("demo", **FAST, **options)
    return {what: number for what, number in outcome.items() if number}


def answering(*statuses, **headers):
    """A receiver that answers so, the last one for ever; and the headers it was sent."""
    seen, left = [], list(statuses)

    async def answer(request):
        await request.body()
        seen.append(dict(request.headers))
        return Response("", left.pop(0) if len(left) > 1 else left[0], headers)

    return Starlette(routes=[Route("/", answer, methods=["POST"])]), seen


def test_a_failing_receiver_is_asked_three_times_however_much_it_is_owed(serving):
    app, seen = answering(500)
    with serving(app) as url:
        owe(f"{url}/", CLAIM * 2 + 5)
        at = now()
        assert deliver(moment=at) == {"failed": TRIES_AT_ONCE}
        assert deliver(moment=at + WAITS[0] * 0.8) == {}
    assert len(seen) == TRIES_AT_ONCE
    untouched = [row for row in rows() if not row.attempts]
    assert len(untouched) == CLAIM * 2 + 5 - TRIES_AT_ONCE
    assert {(row.state, row.due_at) for row in untouched} == {("new", at + WAITS[0])}


def test_failures_in_a_row_count_across_turns(serving):
    app, seen = answering(*[200] * (CLAIM - 2), 500)
    with serving(app) as url:
        owe(f"{url}/", CLAIM * 2)
        assert deliver() == {"sent": CLAIM - 2, "failed": TRIES_AT_ONCE}
    assert len(seen) == CLAIM + 1


def test_only_what_was_attempted_counts_to_the_limit(serving):
    bad, _ = answering(500)
    good, _ = answering(200)
    with serving(bad) as here, serving(good) as there:
        owe(f"{here}/", 40)
        owe(f"{there}/", 5, "anomaly.found")
        assert deliver(limit=TRIES_AT_ONCE + 5) == {"sent": 5, "failed": TRIES_AT_ONCE}
        assert deliver(limit=2, moment=now() + WAITS[0] * 2) == {"failed": 2}


def test_nobody_waits_for_a_receiver_that_hangs(serving):
    healthy = asyncio.Event()

    async def slow(request):
        await request.body()
        async with asyncio.timeout(10):
            await healthy.wait()
        return Response()

    async def ok(_):
        healthy.set()
        return Response()

    app = Starlette(routes=[Route("/slow", slow, methods=["POST"]), Route("/ok", ok, methods=["POST"])])
    with serving(app) as url:
        owe(f"{url}/slow", 201)
        owe(f"{url}/ok", 1, "anomaly.found")
        assert deliver() == {"sent": 202}


def test_a_throttle_brings_nothing_forward_and_touches_no_lease(serving):
    app, _ = answering(429)
    with serving(app) as url:
        owe(f"{url}/", 4)
        at = now()
        with session() as opened:
            first = opened.get_one(HookDelivery, rows()[0].id)
            first.state, first.attempts, first.due_at = "failed", 7, at + timedelta(hours=10)
        leased = deliveries._claim("demo", Vault("demo"), at, 2)
        assert deliver(moment=at, limit=1) == {"throttled": 1}
    assert [row.state for row in rows()] == ["failed", "sending", "sending", "failed"]
    soon = timedelta(seconds=1)
    assert [row.due_at - at for row in rows()] == [timedelta(hours=10), LEASE, LEASE, soon]
    assert [one.leased_until for one in leased] == [at + LEASE] * 2


def test_a_failure_does_not_bring_other_rows_forward(serving):
    app, _ = answering(503)
    with serving(app) as url:
        owe(f"{url}/", 5)
        at = now()
        with session() as opened:
            opened.get_one(HookDelivery, rows()[4].id).due_at = at + timedelta(hours=3)
        assert deliver(moment=at) == {"failed": TRIES_AT_ONCE}
    assert [row.due_at - at for row in rows()[3:]] == [WAITS[0], timedelta(hours=3)]


def test_what_is_being_sent_is_not_replayed():
    owe("http://127.0.0.1:9/", 2)
    with session() as opened:
        opened.execute(sa.update(HookDelivery).values(state="failed", attempts=1))
    [first] = deliveries._claim("demo", Vault("demo"), now(), 1)
    with pytest.raises(ConfigError, match="being sent"):
        deliveries.replay("demo", ids=[first.id])
    assert deliveries.replay("demo") == 1
    assert [one.id for one in deliveries._claim("demo", Vault("demo"), now(), 10)] == [rows()[1].id]


@contextmanager
def dripping(begin):
    """Accept connections, say `begin`, and then a byte now and then, for ten seconds at most."""
    done = threading.Event()

    def serve():
        while not done.is_set():
            try:
                taken, _ = listener.accept()
            except OSError:
                return
            with taken:
                try:
                    taken.sendall(begin)
                    for _ in range(200):
                        taken.sendall(b"a")
                        if done.wait(0.05):
                            break
                    taken.sendall(b"\r\n\r\n")
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        done.set()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize(
    ("scheme", "begin"),
    [("http", b"HTTP/1.1 200 OK\r\nX: "), ("https", b"\x16\x03\x03\x3f\x00\x02")],
    ids=["headers", "handshake"],
)
def test_a_receiver_that_drips_is_cut(scheme, begin):
    with dripping(begin) as port:
        owe(f"{scheme}://localhost:{port}/", 1)
        assert deliver(seconds=0.3) == {"failed": 1}
    assert rows()[0].reason == "no answer: not within 0.3 seconds"


def test_a_lease_that_was_lost_is_somebody_elses():
    owe("http://127.0.0.1:9/", 1)
    vault, at = Vault("demo"), now()
    [ours] = deliveries._claim("demo", vault, at, 1)
    [theirs] = deliveries._claim("demo", vault, at + LEASE, 1)
    assert deliveries._settle("demo", ours, deliveries.Result(500), at + LEASE) == "lapsed"
    deliveries._release([ours], at)
    assert [(row.state, row.attempts, row.due_at) for row in rows()] == [("sending", 0, at + LEASE * 2)]
    assert deliveries._settle("demo", theirs, deliveries.Result(200), at + LEASE) == "sent"
    assert deliveries._settle("demo", ours, deliveries.Result(200), at + LEASE) == "lapsed"


def test_what_is_not_begun_is_given_back_at_half_the_lease(serving):
    held = []
    app, seen = answering(200)

    async def counted(scope, receive, send):
        if scope["type"] == "http":
            held.append(await asyncio.to_thread(lambda: sum(row.state == "sending" for row in rows())))
        await app(scope, receive, send)

    with serving(counted) as url:
        owe(f"{url}/", 4)
        assert deliver(lease=timedelta(0), limit=2) == {"sent": 2}
        assert Counter(row.state for row in rows()) == {"done": 2, "new": 2}
        assert held == [2, 1]
        assert deliver(lease=timedelta(0)) == {"sent": 2}
    assert set(Counter(one["webhook-id"] for one in seen).values()) == {1}


def test_no_cookie_is_kept(serving):
    app, seen = answering(200, **{"Set-Cookie": "session=yours; Path=/"})
    with serving(app) as url:
        owe(f"{url}/", 3)
        assert deliver() == {"sent": 3}
    assert not any("cookie" in headers for headers in seen)


def test_rows_sealed_under_a_lost_key_all_wait_and_say_why(serving, monkeypatch):
    app, _ = answering(200)
    number = CLAIM + 10
    with serving(app) as url:
        with monkeypatch.context() as lost:
            lost.setenv("OMNI_SECRET_KEY", "the key before, long enough to pass the minimum")
            settings.cache_clear()
            owe(f"{url}/", number)
        settings.cache_clear()
        at = now()
        assert deliver(moment=at) == {"failed": number}
        assert all("OMNI_OLD_SECRET_KEYS" in row.reason and row.state == "failed" for row in rows())
        keys = '["the key before, long enough to pass the minimum"]'
        monkeypatch.setenv("OMNI_OLD_SECRET_KEYS", keys)
        settings.cache_clear()
        assert deliver(moment=at + WAITS[0] * 2) == {"sent": number}


def test_ended_subscriptions_are_forgotten_after_their_deliveries():
    kept = owe("http://127.0.0.1:9/", 1)
    gone = owe("http://127.0.0.1:10/", 1, "anomaly.found")
    hooks.unsubscribe("demo", gone)
    late = now() + deliveries.KEEP + timedelta(days=1)
    assert [deliveries.forget(now() + timedelta(days=1)), deliveries.forget(late)] == [0, 2]
    assert [one.id for one in hooks.subscriptions("demo")] == [kept]
    assert [row.subscription for row in rows()] == [kept]
