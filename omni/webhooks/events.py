"""What a delivery holds: one event or many, each with a key by which it is known again, and a topic."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omni.webhooks.hints import SHOPIFY_OBJECTS

MOST = 10_000
"""Events that one delivery may hold; HubSpot sends at most 100, Zapier one."""

LONGEST_KEY, LONGEST_TOPIC = 255, 200
"""Characters that are kept of an event's key and topic."""
TOPIC = re.compile(r"[A-Za-z][\w.:/-]{0,99}", re.ASCII)
"""What may stand for a topic; topics are not sealed, and a free text may name people."""
UNNAMED = "event"
UNKNOWN = "unknown"

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


def events(vendor: str, headers: Mapping[str, str], body: bytes, source: str = "") -> list[Event]:
    """The events of a verified delivery.

    Args:
        vendor: the sender.
        headers: by name, whatever their case.
        body: as it came.
        source: tells the tenant's senders of this kind apart; each numbers its deliveries by itself.

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
        found = _generic(headers, value, body, source)
    return [Event(_key(one.delivery), storable(one.topic)[:LONGEST_TOPIC], one.body) for one in found]


def storable(text: str) -> str:
    """Text with what JSON may hold and databases do not - NUL, halves of characters - written out."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def _key(text: str) -> str:
    """A key to store; of a long one the end is a digest, so that it is still no other's."""
    whole = storable(text)
    return whole if len(whole) <= LONGEST_KEY else f"{whole[:190]}:{_digest(whole.encode())}"


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
    return Event(key, _text(event, "subscriptionType"), _json(event))


def _shopify(headers: Mapping[str, str], value: Any, body: bytes) -> Event:
    """Shopify signs the body only; its headers are anybody's word who has seen a delivery.

    So the event is known by its body and the kind of object its topic names. The id in the headers is not
    believed: with made-up ones, one delivery would fill the inbox.
    """
    if not isinstance(value, dict):
        raise Malformed("an object was expected")
    topic = headers.get("x-shopify-topic", "")
    if not topic:
        raise Malformed("X-Shopify-Topic is missing")
    root = topic.partition("/")[0]
    if root not in SHOPIFY_OBJECTS or not TOPIC.fullmatch(topic):
        topic = root = UNKNOWN
    return Event(_digest(root.encode(), body), topic, body)


def _stripe(value: Any, body: bytes) -> Event:
    if not isinstance(value, dict):
        raise Malformed("an object was expected")
    return Event(_text(value, "id"), _text(value, "type"), body)


def _generic(headers: Mapping[str, str], value: Any, body: bytes, source: str) -> list[Event]:
    """A row per object, numbered under the delivery's id of its source; without one, known by its content."""
    rows = _listed(value)
    sent = headers.get("webhook-id") or _digest(body)
    sent = f"{source}/{sent}" if source else sent
    keys = [sent] if not isinstance(value, list) else [f"{sent}#{number}" for number in range(len(rows))]
    return [Event(key, _topic(row), _json(row)) for key, row in zip(keys, rows, strict=True)]


def _topic(row: Mapping[str, Any]) -> str:
    """What a row says it is, where that is a name and not a text."""
    named = (row.get(name) for name in ("type", "event"))
    return next((one for one in named if isinstance(one, str) and TOPIC.fullmatch(one)), UNNAMED)
