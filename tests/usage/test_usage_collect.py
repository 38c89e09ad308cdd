"""Reading deliveries: the three forms, what is refused and why, pseudonyms, what is dropped."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from omni.security.hashing import Hasher
from omni.usage.collect import MAX_EVENT, MAX_EVENTS, Collector, Malformed

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


@pytest.fixture
def collector(home, tenant):
    return Collector(tenant)


def read(collector, sent, **more):
    return collector.read(json.dumps(sent).encode(), now=NOW, **more)


def test_one_event_an_array_and_lines_give_the_same_rows(collector, event):
    events = [event(1), event(2)]
    array = read(collector, events)
    lines = collector.read("\n\n".join(map(json.dumps, events)).encode() + b"\n", lines=True, now=NOW)
    single = [read(collector, one).batch.rows.to_pylist()[0] for one in events]
    assert array.batch.rows.to_pylist() == lines.batch.rows.to_pylist() == single
    assert array.accepted == 2


def test_what_is_kept_of_an_event(collector, tenant):
    sent = {
        "specversion": "1.0", "id": "e1", "source": "app", "type": " Page_View ",
        "subject": " Zoe@Example.com ",
        "session": "s", "account": "", "time": "2026-03-10T12:00:00+01:00", "datacontenttype": "text/json",
        "data": {"page": "/ü", "channel": None},
    }  # fmt: skip
    [row] = read(collector, sent).batch.rows.to_pylist()
    assert row == {
        "source": "app", "event_id": "e1", "account": None, "session_id": "s", "event": "page_view",
        "actor_id": Hasher.for_tenant(tenant.tenant).digest("zoe@example.com"), "properties": '{"page":"/ü"}',
        "occurred_at": datetime(2026, 3, 10, 11, tzinfo=UTC), "received_at": NOW,
    }  # fmt: skip


def test_the_actor_counts_before_the_subject_and_no_time_means_now(collector):
    sent = {"id": "1", "source": "web", "type": "login", "actor": "a", "subject": "b"}
    other = {"id": "2", "source": "web", "type": "login", "actor": "a", "time": None}
    one, two = read(collector, [sent, other]).batch.rows.to_pylist()
    assert one["actor_id"] == two["actor_id"]
    assert one["occurred_at"] == two["occurred_at"] == NOW


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": ""}, "id"),
        ({"id": 5}, "Expected `str`, got `int`"),
        ({"id": "a b"}, "id"),
        ({"id": "a\n"}, "id"),
        ({"id": None}, "id"),
        ({"source": "a@b"}, "source"),
        ({"source": "x" * 101}, "source"),
        ({"type": "page_vieww"}, "not declared in data/events; did you mean page_view"),
        ({"type": "zoe_smith"}, "not declared in data/events$"),
        ({"specversion": "2.0"}, "specversion"),
        ({"time": "2026-03-10 12:00"}, "RFC3339|timezone"),
        ({"time": "2026-03-10T12:00:00"}, "timezone"),
        ({"time": "2026-03-11T12:00:01Z"}, "more than a day ahead"),
        ({"time": "2025-03-10T11:59:59Z"}, "older than"),
        ({"actor": "x" * 501}, "actor"),
        ({"account": "zoe@example.com"}, "holds an @"),
        ({"account": "zoe%2540example.com"}, "holds an @"),
        ({"session": "zoe\uff20example.com"}, "holds an @"),
        ({"id": "zoe%40example.com"}, "holds an @"),
        ({"account": "a\0b"}, "null character"),
        ({"id": "zoe@example.com"}, "holds an @"),
        ({"data": [1]}, "Expected `object"),
        ({"data": {}}, "property page is missing"),
        ({"data": {"page": 5}}, "property page is no text"),
        ({"data": {"page": "/", "referrer": "x" * MAX_EVENT}}, "bytes"),
    ],
)
def test_a_wrong_event_is_refused_alone_and_its_reason_quotes_nothing(collector, event, change, reason):
    good, bad = event(1), {**event(2), **change}
    delivery = read(collector, [good, bad])
    assert delivery.accepted == 1
    [refused] = delivery.refused
    assert refused.index == 1
    [letter] = delivery.batch.letters
    assert letter.reason == refused.reason
    assert re.search(reason, refused.reason), refused.reason
    assert not re.search("zoe|smith", letter.reason + letter.key)
    assert letter.key in ("web|e2", "?|?")


@pytest.mark.parametrize("body", [b"", b"  ", b"[{}", b"[1 2]", b"[" * 9999])
def test_a_delivery_that_is_no_json_of_events_is_malformed(collector, body):
    with pytest.raises(Malformed):
        collector.read(body, now=NOW)


@pytest.mark.parametrize(
    "body", [b"{", b"5", b'"x"', b"null", b"\xff", b"[[]]", b'{"id": "\\ud800"}', b"{" * 9999]
)
def test_what_is_json_but_no_event_is_refused(collector, body):
    delivery = collector.read(body, now=NOW)
    assert delivery.accepted == 0
    assert [letter.key for letter in delivery.batch.letters] == ["?|?"]


def test_a_bad_line_does_not_touch_the_others(collector, event):
    body = b"\n".join([json.dumps(event(1)).encode(), b'{"id": "cut', json.dumps(event(2)).encode()])
    delivery = collector.read(body, lines=True, now=NOW)
    assert delivery.accepted == 2
    assert [(one.index, one.reason) for one in delivery.refused] == [(1, "it is not valid JSON")]


def test_too_many_events_are_refused_together(collector):
    with pytest.raises(Malformed, match=str(MAX_EVENTS)):
        collector.read(b"[" + b",".join([b"{}"] * (MAX_EVENTS + 1)) + b"]")


def test_undeclared_and_wrong_properties_are_dropped_and_counted(collector, event):
    data = {
        "page": "/",
        "email": "zoe@example.com",
        "phone": 1,
        "channel": "carrier pigeon",
        "referrer": "z@e.com",
    }
    delivery = read(collector, [event(1, data=data), event(2, data=data)])
    assert {row["properties"] for row in delivery.batch.rows.to_pylist()} == {'{"page":"/"}'}
    assert delivery.batch.dropped == {
        "page_view: not declared": 4,
        "page_view: channel is none of its values": 2,
        "page_view: referrer looks like an e-mail address": 2,
    }


def test_history_may_be_of_any_age(home, tenant, event):
    old = event(1, (NOW - timedelta(days=4000)).isoformat())
    assert read(Collector(tenant, oldest_days=None), old).accepted == 1
    assert read(Collector(tenant), old).accepted == 0


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "1989-12-31T23:59:59Z"])
def test_history_begins_in_1990(home, tenant, event, at):
    delivery = read(Collector(tenant, oldest_days=None), [event(1, at), event(2, "1990-01-01T00:00:00Z")])
    assert [refused.reason for refused in delivery.refused] == ["its time lies before 1990"]
    assert delivery.batch.letters[0].key == "web|e1"


def test_users_that_differ_in_capitals_are_two_and_addresses_one(collector, tenant):
    actors = ["aB3x", "Ab3x", " aB3x ", "Zoe@Example.com", "zoe@example.com"]
    sent = [{"id": str(n), "source": "web", "type": "login", "actor": one} for n, one in enumerate(actors)]
    first, other, again, address, same = read(collector, sent).batch.rows["actor_id"].to_pylist()
    assert first == again != other
    assert address == same == Hasher.for_tenant(tenant.tenant).digest("zoe@example.com")
