"""The door: what is let in, what is refused, what is stored and how it is answered."""

from __future__ import annotations

import json
import time
from datetime import timedelta

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from omni.control.database import engine, session
from omni.control.inbox import InboxEvent, body_of
from omni.sandbox.hubspot_events import event, signed
from omni.webhooks import inbox, receiver
from omni.webhooks.signatures import path_token

pytestmark = pytest.mark.usefixtures("either_database")

BASE = "http://testserver"
EVENTS = {
    "hubspot": [event("contact.propertyChange", 7, 1, propertyValue="zoe@example.com")],
    "shopify": {"id": 5, "email": "zoe@example.com"},
    "stripe": {"id": "evt_1", "object": "event", "type": "charge.succeeded", "data": {}},
    "zapier": {"email": "zoe@example.com"},
    "generic": [{"type": "a", "n": 1}, {"type": "b", "n": 2}],
}


def stored():
    with session() as opened:
        return list(opened.scalars(sa.select(InboxEvent).order_by(InboxEvent.id)))


def everything():
    return inbox.listing("demo", limit=1000)


@pytest.mark.parametrize("vendor", sorted(EVENTS))
def test_a_signed_delivery_is_kept_once_and_sealed(send, home, vendor):
    for _ in range(3):
        assert send(vendor, EVENTS[vendor]).status_code == 200
    rows = stored()
    assert len(rows) == (len(EVENTS[vendor]) if isinstance(EVENTS[vendor], list) else 1)
    first = EVENTS[vendor][0] if isinstance(EVENTS[vendor], list) else EVENTS[vendor]
    [row, *_] = inbox.pending("demo", vendor, rows[-1].id, 10)
    assert json.loads(row.body) == first
    assert not any(b"zoe@example" in f.read_bytes() for f in home.rglob("*") if f.is_file())
    assert not any("signature" in name and "version" not in name for name in rows[0].headers)


@pytest.mark.parametrize("vendor", sorted(EVENTS))
def test_forged_and_unsigned_deliveries_leave_nothing_but_a_count(receiver, send, vendor):
    assert send(vendor, EVENTS[vendor], body=b'{"id": 6}').status_code == 401
    assert receiver.post(f"/webhooks/demo/{vendor}", content=b"{}").status_code == 401
    assert stored() == []
    receiver.__exit__()
    assert {(vendor, reason, count) for _, vendor, reason, count in everything().refusals} == {
        (vendor, "wrong", 1),
        (vendor, "missing", 1),
    }


@pytest.mark.parametrize("vendor", ["hubspot", "stripe", "zapier"])
def test_stale_deliveries_are_refused(send, vendor):
    answer = send(vendor, EVENTS[vendor], at=time.time() - 400)
    assert (answer.status_code, answer.json()) == (401, {"status": "signature stale"})
    assert stored() == []


@pytest.mark.parametrize(
    "path", ["/webhooks/nobody/hubspot", "/webhooks/demo/fax", "/webhooks/olist/hubspot", "/webhooks/demo"]
)
def test_unknown_doors_are_closed(receiver, path):
    assert receiver.post(path, content=b"{}").status_code == 404
    assert stored() == []


@pytest.mark.parametrize("announced", [True, False])
def test_an_oversized_body_is_not_read(receiver, announced):
    part = b"x" * 1024 * 1024
    content = part * 11 if announced else (part for _ in range(11))
    assert receiver.post("/webhooks/demo/shopify", content=content).status_code == 413
    assert stored() == []


@pytest.mark.parametrize(
    ("vendor", "body"),
    [
        ("shopify", b"not json"),
        ("shopify", b"[1]"),
        ("shopify", b"[" * 100_000),
        ("stripe", b'{"type": "x"}'),
        ("hubspot", b'[{"eventId": 1}]'),
        ("generic", b'{"a": NaN}'),
        ("generic", json.dumps([{}] * 10_001).encode()),
    ],
)
def test_signed_nonsense_is_answered_and_counted(receiver, sign, vendor, body):
    path = f"/webhooks/demo/{vendor}"
    answer = receiver.post(path, content=body, headers=sign(vendor, body, path))
    assert answer.status_code == 400
    assert stored() == []
    receiver.__exit__()
    assert [row[1:] for row in everything().refusals] == [(vendor, "unreadable", 1)]


def test_a_zap_that_cannot_sign_stands_behind_a_token(receiver, secrets):
    token = path_token(secrets["zapier"], "demo", "zapier")
    assert receiver.post(f"/webhooks/demo/zapier/forms/{token}", json={"a": 1}).status_code == 200
    assert receiver.post(f"/webhooks/demo/zapier/forms/{token[:-1]}0", json={"a": 2}).status_code == 401
    assert receiver.post(f"/webhooks/demo/stripe/forms/{token}", json={"a": 3}).status_code == 401
    [row] = stored()
    assert row.source == "forms"
    assert token not in json.dumps([row.headers, row.source, row.delivery, row.topic])


def test_hubspot_redeliveries_differ_only_in_their_attempt(send):
    first = event("contact.creation", 7, 1)
    other = event("contact.creation", 8, 1)
    assert first["eventId"] == other["eventId"]
    for attempt in range(3):
        assert send("hubspot", [first | {"attemptNumber": attempt}, other]).status_code == 200
    assert len(stored()) == 2


def test_hubspot_signs_the_address_the_proxy_has(control, secrets):
    body = json.dumps(EVENTS["hubspot"]).encode()
    public = "https://hooks.acme.example/in"
    app = receiver.build_app(lambda _tenant, vendor: (secrets[vendor],), public_url=public)
    with TestClient(app, base_url=BASE) as client:
        path = "/webhooks/demo/hubspot?app=1"
        good = signed(secrets["hubspot"], "POST", public + path, body)
        inner = signed(secrets["hubspot"], "POST", BASE + path, body)
        assert client.post(path, content=body, headers=good).status_code == 200
        assert client.post(path, content=body, headers=inner).status_code == 401


@pytest.mark.slow
def test_a_locked_database_is_answered_503_and_the_redelivery_is_kept_once(send, either_database):
    assert send("stripe", EVENTS["stripe"]).status_code == 200
    other = EVENTS["stripe"] | {"id": "evt_2"}
    with engine().begin() as holder:
        if either_database == "postgres":
            holder.execute(sa.text("LOCK TABLE webhook_inbox"))
        answer = send("stripe", other)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "30"
    assert send("stripe", other).status_code == 200
    assert [row.delivery for row in stored()] == ["evt_1", "evt_2"]


def test_text_that_a_database_does_not_take_is_kept_without_it(send):
    odd = {"type": "a\0b\ud800", "id": "\0"}
    assert send("generic", odd).status_code == 200
    assert send("stripe", {"id": "evt\0\udfff", "type": "\0"}).status_code == 200
    assert [(row.topic, row.delivery[:4]) for row in stored()] == [("a?b?", "msg_"), ("?", "evt?")]
    assert json.loads(body_of(stored()[0])) == odd


def test_a_secret_that_is_none_is_our_mistake_and_asks_for_a_redelivery(control, sign):
    app = receiver.build_app(lambda *_: ("whsec_broken!",))
    body = b"{}"
    with TestClient(app, base_url=BASE) as client:
        answer = client.post(
            "/webhooks/demo/generic", content=body, headers=sign("generic", body, "/webhooks/demo/generic")
        )
    assert answer.status_code == 503


def test_old_rows_are_forgotten_but_not_what_still_waits(send):
    assert send("generic", [{"n": 1}, {"n": 2}]).status_code == 200
    first, second = stored()
    inbox.settle({first.id: None})
    assert inbox.forget(first.received_at + inbox.KEEP - timedelta(days=1)) == 0
    assert inbox.forget(first.received_at + inbox.KEEP + timedelta(days=1)) == 1
    assert [row.id for row in stored()] == [second.id]
