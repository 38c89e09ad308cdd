"""What a delivery holds: one event or many, each with a key by which it is known again, and a topic."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MOST = 10_000
"""Events that one delivery may hold; HubSpot sends at most 100, Zapier one."""

HARMLESS = (
    "content-type",
    "user-agent",
    "webhook-id",
    "webhook-timestamp",
    "x-hubspot-request-timestamp",
    "x-hubspot-signature-version",
    "x-shopify-api-version",
    "x-shopify-event-id",
    "x-shopify-shop-domain",
    "x-shopify-topic",
    "x-shopify-triggered-at",
    "x-shopify-webhook-id",
)
"""Headers worth keeping that hold neither secrets nor people."""


class Malformed(ValueError):
    """A delivery that is rightly signed and yet cannot be read."""


@dataclass(frozen=True)
class Event:
    """One event.

    Attributes:
        delivery: the same for every delivery of this event, and for no other.
        topic: the vendor's name of what happened.
        body: the event alone, as JSON.
    """

    delivery: str
    topic: str
    body: bytes = field(repr=False)


def harmless(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers to keep."""
    return {name: headers[name][:200] for name in HARMLESS if name in headers}


def events(vendor: str, headers: Mapping[str, str], body: bytes) -> list[Event]:
    """The events of a verified delivery.

    Raises:
        Malformed: not what the vendor sends.
    """
    try:
        value = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise Malformed("the body is not JSON") from None
    if vendor == "hubspot":
        found = [_hubspot(event) for event in _listed(value)]
    elif vendor == "shopify":
        found = [_shopify(headers, value, body)]
    elif vendor == "stripe":
        found = [_stripe(value, body)]
    else:
        found = _generic(headers, value, body)
    return [Event(_storable(one.delivery), _storable(one.topic), one.body) for one in found]


def _storable(text: str) -> str:
    """Without what JSON may hold and databases do not: NUL and halves of surrogate pairs."""
    return text.replace("\0", "?").encode("utf-8", "replace").decode()


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _listed(value: Any) -> list[dict[str, Any]]:
    rows = value if isinstance(value, list) else [value]
    if len(rows) > MOST:
        raise Malformed(f"{len(rows)} events in one delivery; at most {MOST} are taken")
    if not all(isinstance(row, dict) for row in rows):
        raise Malformed("an object was expected, or a list of them")
    return rows


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value):
        raise Malformed(f"an event has no {name}")
    return str(value)


def _json(row: Any) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode()


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _hubspot(event: dict[str, Any]) -> Event:
    """HubSpot does not promise that `eventId` is unique; what it says happened, and when, makes it so.

    `attemptNumber` differs between deliveries of one event and must not count.
    """
    told = {name: value for name, value in sorted(event.items()) if name != "attemptNumber"}
    key = f"{_text(event, 'eventId')}:{_digest(_json(told))[:24]}"
    return Event(key[:255], _text(event, "subscriptionType")[:200], _json(event))


def _shopify(headers: Mapping[str, str], value: Any, body: bytes) -> Event:
    """Shopify signs the body only: topic and id are the sender's word, good enough for a hint."""
    if not isinstance(value, dict):
        raise Malformed("an object was expected")
    topic = headers.get("x-shopify-topic", "")
    if not topic:
        raise Malformed("X-Shopify-Topic is missing")
    key = headers.get("x-shopify-webhook-id") or _digest(topic.encode(), body)
    return Event(key[:255], topic[:200], body)


def _stripe(value: Any, body: bytes) -> Event:
    if not isinstance(value, dict):
        raise Malformed("an object was expected")
    return Event(_text(value, "id")[:255], _text(value, "type")[:200], body)


def _generic(headers: Mapping[str, str], value: Any, body: bytes) -> list[Event]:
    """A row per object, numbered under the delivery's id; without one, known by its content."""
    rows = _listed(value)
    sent = headers.get("webhook-id") or _digest(body)
    sent = sent if len(sent) <= 200 else _digest(sent.encode())
    keys = [sent] if not isinstance(value, list) else [f"{sent}#{number}" for number in range(len(rows))]
    topics = [str(row.get("type") or row.get("event") or "event")[:200] for row in rows]
    return [Event(key, topic, _json(row)) for key, topic, row in zip(keys, topics, rows, strict=True)]
