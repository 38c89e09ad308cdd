"""Outgoing deliveries to a Zapier-like receiver: signed, once, repeated within bounds, ended when gone."""

from __future__ import annotations

import json
import ssl
from collections import Counter
from datetime import datetime, timedelta

import httpx
import pytest
import sqlalchemy as sa
import standardwebhooks

from omni.control.database import now, session
from omni.control.hooks import HookDelivery
from omni.errors import ConfigError
from omni.webhooks import deliveries, hooks
from omni.webhooks.deliveries import ATTEMPTS, LEASE, PATIENCE, Pacer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("either_database")]

FAST = {"loopback": True, "per_second": 10_000.0}


@pytest.fixture
def zap(sandbox, control, request):
    """A Zap that listens to `score.changed`: its address, secret and subscription."""
    key = f"1/{abs(hash(request.node.name))}"

    class Zap:
        id, secret = hooks.subscribe(
            "demo", "score.changed", f"{sandbox}/zapier/hooks/catch/{key}", loopback=True
        )

        def caught(self):
            return httpx.get(f"{sandbox}/_sandbox/zapier/{key}").json()

        def off(self):
            httpx.delete(f"{sandbox}/_sandbox/zapier/{key}")

        def fault(self, kind, times=1):
            body = {"kind": kind, "path": f"catch/{key}", "times": times}
            assert httpx.post(f"{sandbox}/_sandbox/fault", json=body).status_code == 200

    yield Zap()
    httpx.delete(f"{sandbox}/_sandbox/fault")


def publish(number):
    assert hooks.publish("demo", "score.changed", [{"customer": f"C-{n}"} for n in range(number)]) == number


def rows():
    with session() as opened:
        return list(opened.scalars(sa.select(HookDelivery).order_by(HookDelivery.id)))


def states():
    return Counter(row.state for row in rows())


def deliver(at: datetime | None = None):
    outcome = deliveries.deliver("demo", moment=at, **FAST)
    return {what: number for what, number in outcome.items() if number}


def test_deliveries_arrive_once_and_the_standards_library_verifies_them(zap):
    publish(5)
    assert deliver() == {"sent": 5}
    assert deliver() == {}
    library, caught = standardwebhooks.Webhook(zap.secret), zap.caught()
    told = [library.verify(one["body"], one["headers"]) for one in caught]
    assert sorted(one["data"]["customer"] for one in told) == [f"C-{n}" for n in range(5)]
    assert {one["headers"]["webhook-id"] for one in caught} == {f"{one['id']}.{zap.id}" for one in told}
    assert all(row.body is None and row.state == "done" for row in rows())


def test_a_failing_receiver_is_left_alone_and_tried_again(zap):
    publish(10)
    zap.fault("503", times=3)
    assert deliver() == {"failed": 3}
    assert deliver() == {}
    later = now() + timedelta(minutes=2)
    assert deliver(later) == {"sent": 10}
    ids = Counter(one["headers"]["webhook-id"] for one in zap.caught())
    assert sorted(ids.values()) == [1] * 7 + [2] * 3


@pytest.mark.parametrize("kind", ["500", "502", "cut_body"])
def test_whatever_goes_wrong_is_tried_again(zap, kind):
    publish(1)
    zap.fault(kind)
    first = deliver()
    assert first in ({"failed": 1}, {"sent": 1})
    deliver(now() + timedelta(minutes=2))
    assert states() == {"done": 1}


def test_attempts_end_after_a_day_and_a_replay_starts_afresh(zap):
    publish(1)
    start = at = now()
    zap.fault("500", times=ATTEMPTS)
    outcomes = []
    while states() != {"dead": 1}:
        outcomes.append(deliver(at))
        at = rows()[0].due_at
    assert outcomes == [{"failed": 1}] * (ATTEMPTS - 1) + [{"dead": 1}]
    assert timedelta(hours=20) < at - start < timedelta(hours=28)
    assert rows()[0].reason == "status 500"
    assert deliver(at + timedelta(days=1)) == {}
    assert deliveries.replay("demo") == 1
    assert deliver() == {"sent": 1}
    with pytest.raises(ConfigError, match="Not waiting"):
        deliveries.replay("demo", ids=[rows()[0].id])


def test_a_throttle_pauses_the_whole_subscription_for_as_long_as_asked(zap):
    publish(4)
    zap.fault("429_retry_after")
    start = now()
    assert deliver(start) == {"throttled": 1}
    assert {row.due_at for row in rows()} == {start + timedelta(seconds=1)}
    assert [row.attempts for row in rows()] == [0] * 4
    assert deliver(start + timedelta(seconds=1)) == {"sent": 4}


def test_throttling_without_end_counts_after_a_day(zap):
    publish(1)
    zap.fault("429", times=2)
    assert deliver(now() + PATIENCE) == {"failed": 1}


def test_gone_ends_the_subscription(zap):
    publish(3)
    zap.off()
    assert deliver() == {"ended": 3}
    assert states() == {"ended": 3}
    assert hooks.subscriptions("demo")[0].ended_because == "its receiver answered 410 Gone"
    assert hooks.publish("demo", "score.changed", [{"customer": "C-9"}]) == 0
    assert len(zap.caught()) == 1


def test_a_crash_between_sending_and_noting_repeats_under_the_same_id(zap, sandbox):
    publish(1)
    vault = deliveries.Vault("demo")
    [due] = deliveries._claim("demo", vault, now(), 10)
    with httpx.Client() as client:
        assert deliveries.send(client, due, loopback=True).good
    assert deliver() == {}
    assert deliver(now() + LEASE) == {"sent": 1}
    ids = [one["headers"]["webhook-id"] for one in zap.caught()]
    assert len(ids) == 2
    assert len(set(ids)) == 1


def test_two_senders_do_not_take_the_same_row(zap):
    publish(3)
    vault, at = deliveries.Vault("demo"), now()
    first, second = (deliveries._claim("demo", vault, at, 2) for _ in range(2))
    assert [len(first), len(second)] == [2, 1]
    assert not {one.id for one in first} & {one.id for one in second}


def test_an_unsubscribed_delivery_on_its_way_stays_ended(zap):
    publish(1)
    [due] = deliveries._claim("demo", deliveries.Vault("demo"), now(), 1)
    hooks.unsubscribe("demo", zap.id)
    assert deliveries._settle("demo", due, deliveries.Result(200), now()) == "ended"
    assert states() == {"ended": 1}


def test_a_private_address_is_never_connected_to(sandbox, zap):
    publish(1)
    outcome = deliveries.deliver("demo", loopback=False, per_second=1000)
    assert outcome["failed"] == 1
    assert zap.caught() == []
    assert "https" in rows()[0].reason


def test_redirects_are_not_followed(control, serving, sandbox):
    from starlette.applications import Starlette
    from starlette.responses import RedirectResponse
    from starlette.routing import Route

    async def elsewhere(_):
        return RedirectResponse(f"{sandbox}/zapier/hooks/catch/1/redirected", 307)

    with serving(Starlette(routes=[Route("/", elsewhere, methods=["POST"])])) as url:
        hooks.subscribe("demo", "score.changed", f"{url}/", loopback=True)
        publish(1)
        assert deliver() == {"failed": 1}
    assert httpx.get(f"{sandbox}/_sandbox/zapier/1/redirected").json() == []


def certificate(folder, name):
    """A certificate that vouches for itself, and its key, as files."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now() - timedelta(days=1))
        .not_valid_after(now() + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / f"{name}.pem").write_bytes(made.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / f"{name}.key").write_bytes(private)
    return {"ssl_certfile": folder / f"{name}.pem", "ssl_keyfile": folder / f"{name}.key"}


@pytest.mark.parametrize(("name", "outcome"), [("localhost", "sent"), ("other.example", "failed")])
def test_tls_is_checked_against_the_name_though_the_address_is_pinned(
    control, serving, tmp_path, name, outcome
):
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def taken(request):
        assert request.headers["host"] == request.url.netloc
        return PlainTextResponse("ok")

    files = certificate(tmp_path, name)
    trusting = ssl.create_default_context(cafile=files["ssl_certfile"])
    with serving(Starlette(routes=[Route("/", taken, methods=["POST"])]), **files) as url:
        port = url.rpartition(":")[2]
        hooks.subscribe("demo", "score.changed", f"https://localhost:{port}/", loopback=True)
        publish(1)
        assert deliveries.deliver("demo", tls=trusting, **FAST)[outcome] == 1


def test_one_dead_receiver_does_not_hold_up_another(zap):
    hooks.subscribe("demo", "score.changed", "http://127.0.0.1:9/", loopback=True)
    assert hooks.publish("demo", "score.changed", [{"customer": f"C-{n}"} for n in range(20)]) == 40
    assert deliver() == {"sent": 20, "failed": 3}
    assert len(zap.caught()) == 20
    assert all("9" not in (row.reason or "") for row in rows())


def test_a_damaged_row_waits_alone(zap):
    publish(2)
    with session() as opened:
        first = opened.scalars(sa.select(HookDelivery).order_by(HookDelivery.id)).first()
        first.body = b"\x01lost" + bytes(60)
    assert deliver() == {"sent": 1, "failed": 1}
    assert states() == {"failed": 1, "done": 1}


def test_the_pacer_lets_thirty_through_in_a_second():
    clock = [0.0]
    started = []
    pacer = Pacer(30, clock=lambda: clock[0], sleep=lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    for _ in range(300):
        pacer.wait()
        started.append(clock[0])
    for begin in range(10):
        assert sum(begin <= at < begin + 1 for at in started) <= 31
    assert started[-1] == pytest.approx(299 / 30)


def test_settled_rows_are_forgotten_after_a_month(zap):
    publish(1)
    deliver()
    assert [deliveries.forget(now() + timedelta(days=d)) for d in (29, 31)] == [0, 1]


def test_what_is_told_is_valid_json_whatever_the_values(zap):
    at = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
    hooks.publish("demo", "score.changed", [{"at": at, "name": "Zoë", "n": 1.5, "none": None}])
    deliver()
    [one] = zap.caught()
    data = json.loads(one["body"])["data"]
    assert data == {"at": "2026-01-01 00:00:00+00:00", "name": "Zoë", "n": 1.5, "none": None}
