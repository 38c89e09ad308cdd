"""The door: what is let in, what is refused, what is stored and how it is answered."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from datetime import timedelta

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from omni.control.database import engine, now, session
from omni.control.inbox import InboxEvent, body_of
from omni.sandbox.hubspot_events import event, signed
from omni.webhooks import inbox, receiver
from omni.webhooks.events import Event
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
    signed = {"X-Shopify-Hmac-Sha256": "x"}
    assert receiver.post("/webhooks/demo/shopify", content=content, headers=signed).status_code == 413
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


def test_text_that_a_database_does_not_take_is_written_out(send):
    odd = {"type": "a\0b\ud800", "id": "\0"}
    assert send("generic", odd, "/webhooks/demo/generic/a%00b").status_code == 200
    for end in ("\udfff", "\udffe", "\udfff"):
        assert send("stripe", {"id": f"evt\0{end}", "type": "\0"}).status_code == 200
    assert [(row.topic, row.delivery) for row in stored()] == [
        ("event", "a\\0b/msg_1"),
        ("\\0", "evt\\0\\udfff"),
        ("\\0", "evt\\0\\udffe"),
    ]
    assert json.loads(body_of(stored()[0])) == odd


@pytest.mark.parametrize("vendor", ["stripe", "hubspot", "generic"])
def test_long_keys_are_told_apart_to_their_end(send, vendor):
    for end in "aab":
        key = "k" * 400 + end
        value = {"id": key, "type": "t"} if vendor == "stripe" else {"eventId": key, "subscriptionType": "t"}
        assert send(vendor, value, key=key).status_code == 200
    assert [len(row.delivery) for row in stored()] == [255, 255]


def test_what_one_delivery_holds_does_not_keep_others_out(control):
    def incoming(key):
        return inbox.Incoming("demo", "generic", "", {}, (Event(key, "t", b"{}"),), now())

    async def store():
        writer = receiver.Writer()
        writer.refused["demo", "generic", "wrong"] += 2
        keys = [f"k{number}" for number in range(9)]
        keys[4] = "\ud83d"
        waiting = [asyncio.create_task(writer.store(incoming(key))) for key in keys]
        await asyncio.sleep(0)
        running = asyncio.create_task(writer.run())
        told = await asyncio.gather(*waiting, return_exceptions=True)
        await writer.commit([])
        running.cancel()
        return [type(one).__name__ for one in told]

    told = asyncio.run(store())
    assert told == ["NoneType"] * 4 + ["StorageError"] + ["NoneType"] * 4
    assert len(stored()) == 8
    assert [row[3] for row in everything().refusals] == [2]


@pytest.mark.slow
def test_nothing_is_read_of_a_body_that_nobody_vouches_for(control, serving, secrets):
    app = receiver.build_app(lambda _tenant, vendor: (secrets[vendor],))
    token = path_token(secrets["zapier"], "demo", "zapier")
    with serving(app) as url:
        port = int(url.rpartition(":")[2])
        for path in ("stripe", "hubspot/app", "zapier", f"zapier/forms/{token[:-1]}x", f"stripe/a/{token}"):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
                length = receiver.MAX_BODY - 1
                head = f"POST /webhooks/demo/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
                line.sendall(head.encode())
                assert line.recv(100).startswith(b"HTTP/1.1 401")


def test_sources_number_their_deliveries_by_themselves(send):
    for source in ("shop", "forms", "forms"):
        path = f"/webhooks/demo/generic/{source}"
        assert send("generic", {"from": source}, path, key="1").status_code == 200
    assert [(row.source, row.delivery) for row in stored()] == [("shop", "shop/1"), ("forms", "forms/1")]


def test_a_captured_shopify_delivery_under_made_up_headers_is_one_event(send):
    value = {"id": 5, "updated_at": "2020-01-01"}
    for number, topic in enumerate(["orders/updated", "orders/create", "orders/" + "x" * 150, "orders/é"]):
        assert send("shopify", value, key=f"made-up-{number}", topic=topic.encode()).status_code == 200
    for number in range(5):
        assert send("shopify", value, key=f"other-{number}", topic=f"t{number}/x").status_code == 200
    assert [row.topic for row in stored()] == ["orders/updated", "unknown"]
    assert send("shopify", value | {"updated_at": "2020-01-02"}, key="made-up-0").status_code == 200
    assert len(stored()) == 3


@pytest.mark.parametrize(
    ("value", "topic"),
    [
        ({"type": "form.sent"}, "form.sent"),
        ({"event": "forms:sent/2"}, "forms:sent/2"),
        ({"type": 7, "event": "sent"}, "sent"),
        ({"type": "Call Zoe"}, "event"),
        ({"event": "zoe@example.com"}, "event"),
        ({"event": "Zoë"}, "event"),
        ({"event": "a" * 101}, "event"),
        ({"event": "sent\n"}, "event"),
        ({"type": {"email": "zoe@example.com"}}, "event"),
    ],
)
def test_what_may_name_people_is_no_topic(send, value, topic):
    assert send("zapier", value).status_code == 200
    assert [row.topic for row in stored()] == [topic]


def test_a_secret_that_is_none_is_our_mistake_and_asks_for_a_redelivery(control, sign):
    app = receiver.build_app(lambda *_: ("whsec_broken!",))
    body = b"{}"
    with TestClient(app, base_url=BASE) as client:
        answer = client.post(
            "/webhooks/demo/generic", content=body, headers=sign("generic", body, "/webhooks/demo/generic")
        )
    assert answer.status_code == 503


def test_no_row_outlives_its_time_and_those_never_acted_upon_are_said(send, caplog):
    assert send("generic", [{"n": 1}, {"n": 2}]).status_code == 200
    first, _ = stored()
    inbox.settle({first.id: None})
    assert inbox.forget(first.received_at + inbox.KEEP - timedelta(days=1)) == 0
    assert inbox.forget(first.received_at + inbox.KEEP + timedelta(days=1)) == 2
    assert stored() == []
    assert "1 events" in caplog.text
