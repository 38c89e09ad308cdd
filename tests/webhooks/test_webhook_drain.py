"""From a vendor's event to the warehouse: whatever order, number or crash, the tables are the vendor's."""

from __future__ import annotations

import base64
import json
import random
import shutil
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import sqlalchemy as sa

from omni import tenancy
from omni.control.database import now, session
from omni.control.inbox import InboxEvent
from omni.errors import ConfigError, SourceError, TransientError
from omni.sandbox import stripe_events
from omni.sandbox.company import load_company
from omni.sandbox.hubspot_events import association, batches, event, merge
from omni.sandbox.server import Options, build_app
from omni.settings import PROJECT, settings
from omni.sources.connection import Connection
from omni.sources.extract import extract, reread
from omni.warehouse.contracts import ROW_HASH
from omni.warehouse.database import open_warehouse
from omni.warehouse.load import load
from omni.webhooks import inbox
from omni.webhooks.drain import drain
from omni.webhooks.events import events
from omni.webhooks.hints import hints_of
from omni.webhooks.inbox import Incoming, Pending

pytestmark = pytest.mark.slow

TOKEN = "sandbox-test"


@pytest.fixture(scope="session")
def company():
    return load_company("demo")


class Shop:
    """A tenant whose HubSpot is a sandbox of its own, with its warehouse and inbox."""

    def __init__(self, url, folder):
        self.url, self.folder, self.runs = url, folder, 0
        self.tenant = tenancy.get("acme")
        self.api = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"})

    def account(self, name="hubspot"):
        from pydantic import SecretStr

        return Connection(
            name, self.url, SecretStr(TOKEN), requests_per_10s=100_000, searches_per_second=100_000,
            backoff=0.001, options={"tenant": "acme"},
        )  # fmt: skip

    def stale(self, vendor, stream, wrong):
        """Load a stream, then make one row of its table wrong; returns the row's id and the right table."""
        until = datetime.now(UTC) + timedelta(hours=1)
        run = self._run()
        self._loaded(
            extract(self.tenant, vendor, stream, self.account(vendor), since=None, until=until, **run)
        )
        table = f"raw.{vendor}__{stream}"
        right = self.query(f"SELECT * EXCLUDE (_loaded_at, _run_id) FROM {table} ORDER BY id")
        with open_warehouse(self.tenant) as warehouse, warehouse.transaction() as con:
            con.execute(f"UPDATE {table} SET {wrong}, {ROW_HASH} = 0 WHERE id = $1", [right[0][0]])
        assert self.query(f"SELECT * EXCLUDE (_loaded_at, _run_id) FROM {table} ORDER BY id") != right
        return right

    def _loaded(self, staged):
        with open_warehouse(self.tenant) as warehouse:
            return sum(table.changed for table in load(warehouse, staged))

    def _run(self):
        self.runs += 1
        return {"run_id": f"run-{self.runs}", "folder": self.folder / f"{self.runs}"}

    def full(self, stream="contacts"):
        """Load everything; returns the rows that changed."""
        until = datetime.now(UTC) + timedelta(hours=1)
        account = self.account()
        return self._loaded(
            extract(self.tenant, "hubspot", stream, account, since=None, until=until, **self._run())
        )

    def act(self, stream, ids):
        return self._loaded(reread(self.tenant, "hubspot", stream, self.account(), ids, **self._run()))

    def receive(self, told, seed=None):
        for body, headers in batches(told, "secret", "https://x/", seed=seed):
            found = events("hubspot", headers, body)
            inbox.store([Incoming("acme", "hubspot", "", {}, tuple(found), now())], {})

    def drain(self, act=None, unread=lambda _: None, vendor="hubspot"):
        upto = inbox.waiting("acme").get(vendor, 0)
        return drain("acme", vendor, upto, act or self.act, unread)

    def query(self, sql):
        with open_warehouse(self.tenant) as warehouse, warehouse.cursor() as con:
            return con.execute(sql).fetchall()

    def ids(self, number, stream="contacts"):
        found = self.query(f"SELECT id FROM raw.hubspot__{stream} WHERE NOT archived ORDER BY id::BIGINT")
        return [row[0] for row in found[:number]]


@pytest.fixture
def shop(control, company, serving, tmp_path, monkeypatch):
    data = tmp_path / "data"
    shutil.copytree(PROJECT / "data", data, ignore=shutil.ignore_patterns("var"))
    (data / "tenants" / "acme.yml").write_text(
        "tenant: acme\ntitle: Acme\ntimezone: Europe/Berlin\ncurrency: EUR\n"
        "sources: {hubspot: [contacts, companies]}\n"
    )
    monkeypatch.setenv("OMNI_DATA", str(data))
    options = Options(token=TOKEN, hubspot_per_10s=100_000, searches_per_second=100_000)
    with serving(build_app(company, options)) as url:
        monkeypatch.setenv("OMNI_HUBSPOT__BASE_URL", url)
        monkeypatch.setenv("OMNI_HUBSPOT__TOKEN", TOKEN)
        settings.cache_clear()
        shop = Shop(url, tmp_path / "staged")
        shop.full()
        yield shop
        shop.api.close()


def states():
    with session() as opened:
        return [row.state for row in opened.scalars(sa.select(InboxEvent).order_by(InboxEvent.id))]


def changes(shop):
    """Change contacts at the vendor in every way it has; returns the events it would send."""
    a, b, c, d, e, *rest = shop.ids(30)
    base = "/crm/objects/2026-09/contacts"
    told = []
    for number, one in enumerate(rest):
        for value in ("CH", "AT"):
            answer = shop.api.patch(f"{base}/{one}", json={"properties": {"country": value}})
            assert answer.is_success, answer.text
            told.append(event("contact.propertyChange", one, 100 + 2 * number + (value == "AT")))
    assert shop.api.delete(f"{base}/{a}").is_success
    told.append(event("contact.deletion", a, 1))
    merged = shop.api.post(f"{base}/merge", json={"primaryObjectId": b, "objectIdToMerge": c})
    assert merged.is_success, merged.text
    told.append(merge("contact", b, [b, c], 2) | {"newObjectId": int(merged.json()["id"])})
    assert shop.api.post(f"{base}/gdpr-delete", json={"objectId": d}).is_success
    told.append(event("contact.privacyDeletion", d, 3))
    made = shop.api.post(base, json={"properties": {"email": "new@example.com", "country": "FR"}})
    assert made.is_success, made.text
    told.append(event("contact.creation", made.json()["id"], 4))
    told.append(event("contact.restore", e, 5))
    return told


def content(shop):
    return shop.query("SELECT * EXCLUDE (_loaded_at, _run_id) FROM raw.hubspot__contacts ORDER BY id")


def test_events_bring_the_table_to_what_the_vendor_has(shop):
    before = content(shop)
    told = changes(shop)
    shop.receive(told)
    drained = shop.drain()
    assert (drained.done, drained.failed, drained.dead) == (len(told), 0, 0)
    assert drained.rows >= 29
    after = content(shop)
    assert after != before
    assert shop.full() == 0
    assert content(shop) == after


@pytest.mark.parametrize("seed", [1, 2])
def test_reordered_and_repeated_events_end_in_the_same_table(shop, seed):
    told = changes(shop)
    shop.receive(told, seed=seed)
    first, second = told[: len(told) // 2], told[len(told) // 2 :]
    shop.drain()
    shop.receive(second, seed=seed)
    shop.receive(first)
    assert set(states()) == {"done"}
    assert len(states()) == len(told)
    assert shop.drain().events == 0
    assert shop.full() == 0


class Killed(BaseException):
    """As if the process had ended there."""


@pytest.mark.parametrize("point", ["before reading", "after loading"])
def test_a_crash_at_any_step_and_a_rerun_end_in_the_same_table(either_database, shop, point):
    shop.receive(changes(shop))

    def dying(stream, ids):
        if point == "after loading":
            shop.act(stream, ids)
        raise Killed

    with pytest.raises(Killed):
        shop.drain(dying)
    assert set(states()) == {"new"}
    assert shop.drain().failed == 0
    assert set(states()) == {"done"}
    assert shop.full() == 0


def test_a_change_while_draining_is_not_lost(shop):
    [one] = shop.ids(1)
    shop.receive([event("contact.propertyChange", one, 1)])

    def late(stream, ids):
        changed = shop.act(stream, ids)
        shop.api.patch(f"/crm/objects/2026-09/contacts/{one}", json={"properties": {"country": "IT"}})
        shop.receive([event("contact.propertyChange", one, 2)])
        return changed

    shop.drain(late)
    assert states() == ["done", "new"]
    shop.drain()
    assert shop.full() == 0


def test_a_vendor_that_is_down_costs_attempts_and_ends_in_the_dead_letters(either_database, shop):
    shop.receive([event("contact.propertyChange", one, n) for n, one in enumerate(shop.ids(3))])

    def down(_stream, _ids):
        raise TransientError("HubSpot does not answer")

    drained = shop.drain(down)
    assert (drained.failed, drained.reasons) == (3, ["contacts: HubSpot does not answer"])
    assert shop.drain(down).events == 0
    at = now()
    for _ in range(inbox.ATTEMPTS):
        at += timedelta(days=1)
        waiting = inbox.pending("acme", "hubspot", 10, 10, at)
        inbox.fail([one.id for one in waiting], "down", at)
    assert states() == ["dead"] * 3
    assert inbox.replay("acme", failed=True) == 3
    assert shop.drain().done == 3


def test_one_bad_event_does_not_hold_up_the_others(shop):
    ids = shop.ids(50)
    bad = set(random.Random(1).sample(ids, 3))
    shop.receive([event("contact.propertyChange", one, n) for n, one in enumerate(ids)])
    calls = []

    def picky(stream, wanted):
        calls.append(len(wanted))
        if bad & set(wanted):
            raise SourceError("cannot be read")
        return shop.act(stream, wanted)

    drained = shop.drain(picky)
    assert (drained.done, drained.failed) == (47, 3)
    assert len(calls) <= 1 + 64


def test_a_bug_in_the_handling_is_a_failure_without_its_values(shop):
    shop.receive([event("contact.propertyChange", one, n) for n, one in enumerate(shop.ids(2))])

    def broken(_stream, _ids):
        raise KeyError("zoe@example.com")

    assert shop.drain(broken).reasons == ["contacts: KeyError"]


def test_what_is_not_loaded_is_ignored_and_said(shop):
    told = [event("ticket.creation", 1, 1), event("contact.propertyChange", shop.ids(1)[0], 2)]
    told.append(event("conversation.newMessage", 5, 3))
    shop.receive(told)
    drained = shop.drain(unread=lambda stream: None if stream == "contacts" else f"{stream} is not loaded")
    assert (drained.done, drained.ignored) == (1, 2)
    reasons = {row[2]: row[6] for row in inbox.listing("acme").events}
    assert reasons["ticket.creation"] == "tickets is not loaded"


def test_done_events_keep_their_hints_only_and_can_be_replayed(either_database, shop):
    [one] = shop.ids(1)
    shop.receive([event("contact.propertyChange", one, 1, propertyValue="zoe@example.com")])
    shop.drain()
    with session() as opened:
        row = opened.scalars(sa.select(InboxEvent)).one()
    assert (row.body, row.hints) == (None, {"contacts": [one]})
    shop.api.patch(f"/crm/objects/2026-09/contacts/{one}", json={"properties": {"country": "IT"}})
    assert inbox.replay("acme", since=now() - timedelta(hours=1)) == 1
    assert shop.drain().done == 1
    assert shop.full() == 0
    with pytest.raises(ConfigError, match="--id"):
        inbox.replay("acme")


def test_the_step_reads_the_tenants_own_account(shop):
    from tasks.connections import connected
    from tasks.webhooks import drain_sender, waiting

    shop.receive([*changes(shop), event("ticket.creation", 1, 999)])
    with connected(shop.tenant):
        upto = waiting("acme")["hubspot"]
        handle = drain_sender.fn("acme", "hubspot", upto, "run-x")
    assert handle["ignored"] == 1
    assert shop.full() == 0
    assert not list((shop.tenant.home / "staged" / "run-x").glob("*"))


def test_the_content_of_generic_deliveries_is_landed_once_and_encrypted(shop):
    from tasks.webhooks import drain_sender, waiting

    body = json.dumps([{"type": "form", "email": "zoe@example.com"}, {"type": "form", "n": 2}]).encode()
    for sender in ("generic", "zapier"):
        found = tuple(events(sender, {"webhook-id": "msg_1"}, body))
        inbox.store([Incoming("acme", sender, "forms", {}, found, now())], {})
    for _ in range(2):
        for sender, upto in waiting("acme").items():
            assert drain_sender.fn("acme", sender, upto, f"run-{sender}")["done"] == 2
    rows = shop.query("SELECT id, sender, source, topic, payload FROM raw.webhooks__events ORDER BY id")
    assert [row[:4] for row in rows] == [
        (f"{sender}/msg_1#{n}", sender, "forms", "form") for sender in ("generic", "zapier") for n in (0, 1)
    ]
    assert all(row[4].startswith("e1.") for row in rows)
    assert inbox.replay("acme", since=now() - timedelta(hours=1)) == 0


def test_a_tenants_contract_can_take_fields_out_of_a_payload(shop):
    path = settings().data / "contracts" / "raw" / "webhooks__events.yml"
    text = path.read_text().replace("checks:", "  amount: {type: decimal, from: body.order.amount}\nchecks:")
    path.write_text(text)
    from omni.warehouse import contracts

    contracts._cached.cache_clear()
    from tasks.webhooks import drain_sender, waiting

    found = tuple(events("generic", {}, b'{"order": {"amount": "12.50"}}'))
    inbox.store([Incoming("acme", "generic", "", {}, found, now())], {})
    drain_sender.fn("acme", "generic", waiting("acme")["generic"], "run-y")
    assert [str(row[0]) for row in shop.query("SELECT amount FROM raw.webhooks__events")] == ["12.50"]


@pytest.mark.parametrize(
    ("vendor", "stream", "wrong", "told"),
    [
        (
            "shopify",
            "orders",
            "total = 0.01",
            lambda i: ("orders/updated", {"id": int(i.rpartition("/")[2])}),
        ),
        (
            "stripe",
            "charges",
            "amount = 1",
            lambda i: (
                "charge.updated",
                stripe_events.event("charge.updated", 1, {"id": i, "object": "charge", "amount": 999}),
            ),
        ),
    ],
)
def test_other_vendors_objects_are_read_again_and_their_payload_is_not_believed(
    shop, vendor, stream, wrong, told
):
    right = shop.stale(vendor, stream, wrong)
    topic, body = told(right[0][0])
    found = events(vendor, {"x-shopify-topic": topic}, json.dumps(body).encode())
    inbox.store([Incoming("acme", vendor, "", {}, tuple(found), now())], {})

    def act(stream, ids):
        return shop._loaded(reread(shop.tenant, vendor, stream, shop.account(vendor), ids, **shop._run()))

    assert shop.drain(act, vendor=vendor).done == 1
    assert (
        shop.query(f"SELECT * EXCLUDE (_loaded_at, _run_id) FROM raw.{vendor}__{stream} ORDER BY id") == right
    )


def hint(vendor, topic, value):
    return hints_of(vendor, Pending(1, "d", topic, 0, json.dumps(value).encode()))


@pytest.mark.parametrize(
    ("vendor", "topic", "value", "expected"),
    [
        ("hubspot", "deal.propertyChange", {"objectId": 5}, {"deals": ["5"]}),
        ("hubspot", "contact.privacyDeletion", {"objectId": 5}, {"contacts": ["5"]}),
        ("hubspot", "contact.merge", merge("contact", 1, [2, 3], 1), {"contacts": ["1", "2", "3"]}),
        (
            "hubspot",
            "contact.associationChange",
            association("CONTACT_TO_COMPANY", 1, 2, 1),
            {"contacts": ["1"], "companies": ["2"]},
        ),
        (
            "hubspot",
            "contact.associationChange",
            association("CONTACT_TO_CONTACT", 1, 2, 1),
            {"contacts": ["1", "2"]},
        ),
        ("hubspot", "object.creation", {"objectTypeId": "2-77", "objectId": 1}, {"2-77": ["1"]}),
        ("hubspot", "object.restore", {"objectTypeId": "0-3", "objectId": 1}, {"deals": ["1"]}),
        ("hubspot", "contact.propertyChange", {"objectId": None}, {}),
        ("shopify", "orders/updated", {"id": 7}, {"orders": ["gid://shopify/Order/7"]}),
        ("shopify", "refunds/create", {"id": 9, "order_id": 7}, {"orders": ["gid://shopify/Order/7"]}),
        (
            "shopify",
            "customers/redact",
            {"customer": {"id": 1}, "orders_to_redact": [2, 3]},
            {"customers": ["gid://shopify/Customer/1"]}
            | {"orders": ["gid://shopify/Order/2", "gid://shopify/Order/3"]},
        ),
        ("shopify", "app/uninstalled", {"id": 1}, {}),
        (
            "stripe",
            "charge.refunded",
            {"data": {"object": {"object": "charge", "id": "ch_1"}}},
            {"charges": ["ch_1"]},
        ),
        (
            "stripe",
            "refund.updated",
            {"data": {"object": {"object": "refund", "id": "re_1", "charge": "ch_1"}}},
            {"refunds": ["re_1"], "charges": ["ch_1"]},
        ),
        ("stripe", "account.updated", {"data": {"object": {"object": "account", "id": "acct_1"}}}, {}),
        ("stripe", "charge.failed", {"data": None}, {}),
    ],
)
def test_topics_hint_at_the_objects_to_read(vendor, topic, value, expected):
    assert hint(vendor, topic, value) == expected


def test_secrets_are_looked_up_by_tenant_then_vendor(home, monkeypatch):
    from omni.webhooks.secrets import secrets_of

    standard = "whsec_" + base64.b64encode(bytes(24)).decode()
    monkeypatch.setenv("OMNI_HUBSPOT__WEBHOOK_SECRET", "of-the-vendor")
    monkeypatch.setenv(
        "OMNI_WEBHOOKS__SECRETS", json.dumps({"acme/hubspot": "new old", "acme/zapier": standard})
    )
    settings.cache_clear()
    assert secrets_of("acme", "hubspot") == ("new", "old")
    assert secrets_of("demo", "hubspot") == ("of-the-vendor",)
    assert secrets_of("acme", "zapier") == (standard,)
    assert secrets_of("demo", "zapier") == secrets_of("acme", "shopify") == ()
    assert standard not in repr(settings())
