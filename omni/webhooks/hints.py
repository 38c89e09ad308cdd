"""What an event hints at: objects to read again, by stream. Its content is never loaded.

Deliveries come twice, late and in any order; the object as the vendor holds it now is right whatever came
before (docs/decisions/0006).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omni.webhooks.inbox import Pending

Hints = dict[str, list[str]]
"""Stream to ids."""

HUBSPOT_STREAMS = {
    "contact": "contacts",
    "company": "companies",
    "deal": "deals",
    "ticket": "tickets",
    "product": "products",
    "line_item": "line_items",
    "0-1": "contacts",
    "0-2": "companies",
    "0-3": "deals",
    "0-5": "tickets",
    "0-7": "products",
    "0-8": "line_items",
}
SHOPIFY_OBJECTS = {
    "orders": ("orders", "Order", "id"),
    "customers": ("customers", "Customer", "id"),
    "products": ("products", "Product", "id"),
    "refunds": ("orders", "Order", "order_id"),
    "order_transactions": ("orders", "Order", "order_id"),
    "fulfillments": ("orders", "Order", "order_id"),
}
"""First part of a topic to stream, GraphQL type and the field that holds the object's number."""

STRIPE_STREAMS = {
    "charge": "charges",
    "customer": "customers",
    "invoice": "invoices",
    "payment_intent": "payment_intents",
    "payout": "payouts",
    "price": "prices",
    "product": "products",
    "refund": "refunds",
    "subscription": "subscriptions",
    "balance_transaction": "balance_transactions",
    "dispute": "disputes",
}
"""An object's own name to the stream that holds it."""

LANDED = "events"
"""The stream of senders whose events are rows themselves."""


def _ids(*values: Any) -> list[str]:
    found = [str(v) for v in values if isinstance(v, (str, int)) and not isinstance(v, bool) and str(v)]
    return list(dict.fromkeys(found))


def _hubspot_stream(name: str) -> str:
    return HUBSPOT_STREAMS.get(name.lower(), name)


def _hubspot(topic: str, event: Mapping[str, Any]) -> Hints:
    """`contact.merge` and the like. Custom objects come as `object.*` with `objectTypeId`."""
    kind, _, what = topic.partition(".")
    stream = _hubspot_stream(str(event.get("objectTypeId") or kind) if kind == "object" else kind)
    if what == "associationChange":
        return _hubspot_ends(stream, event)
    merged = event.get("mergedObjectIds")
    ids = _ids(
        event.get("objectId"),
        event.get("primaryObjectId"),
        event.get("newObjectId"),
        *(merged if isinstance(merged, list) else []),
    )
    return {stream: ids} if ids else {}


def _hubspot_ends(stream: str, event: Mapping[str, Any]) -> Hints:
    """Both ends of a link that came or went; `associationType` names them, as CONTACT_TO_COMPANY."""
    left, _, right = str(event.get("associationType") or "").lower().partition("_to_")
    left = str(event.get("fromObjectTypeId") or left or stream)
    right = str(event.get("toObjectTypeId") or right)
    hints: Hints = {}
    for kind, number in ((left, event.get("fromObjectId")), (right, event.get("toObjectId"))):
        if kind and (ids := _ids(number)):
            hints[_hubspot_stream(kind)] = _ids(*hints.get(_hubspot_stream(kind), []), *ids)
    return hints


def _shopify(topic: str, event: Mapping[str, Any]) -> Hints:
    """`orders/updated` and the like; ids become those of GraphQL. Redaction names a customer and orders."""
    if topic == "customers/redact":
        customer = event.get("customer")
        people = _ids(customer.get("id") if isinstance(customer, dict) else None)
        orders = event.get("orders_to_redact")
        hints = {
            "customers": [f"gid://shopify/Customer/{one}" for one in people],
            "orders": [
                f"gid://shopify/Order/{one}" for one in _ids(*(orders if isinstance(orders, list) else []))
            ],
        }
        return {stream: ids for stream, ids in hints.items() if ids}
    found = SHOPIFY_OBJECTS.get(topic.partition("/")[0])
    if found is None:
        return {}
    stream, kind, field = found
    return {stream: [f"gid://shopify/{kind}/{one}" for one in ids]} if (ids := _ids(event.get(field))) else {}


def _stripe(_topic: str, event: Mapping[str, Any]) -> Hints:
    """The object the event carries, the charge it belongs to, and what it did to the balance."""
    data = event.get("data")
    found = data.get("object") if isinstance(data, dict) else None
    if not isinstance(found, dict):
        return {}
    hints: Hints = {}
    stream = STRIPE_STREAMS.get(str(found.get("object")))
    if stream and (ids := _ids(found.get("id"))):
        hints[stream] = ids
    if found.get("object") in ("refund", "dispute") and (charge := _ids(found.get("charge"))):
        hints["charges"] = charge
    if moved := _ids(found.get("balance_transaction")):
        hints["balance_transactions"] = moved
    return hints


MAPPINGS: dict[str, Callable[[str, Mapping[str, Any]], Hints]] = {
    "hubspot": _hubspot,
    "shopify": _shopify,
    "stripe": _stripe,
}


def hints_of(vendor: str, event: Pending) -> Hints:
    """The streams and ids an event hints at; nothing where its topic means nothing to us."""
    if event.hints is not None:
        return {stream: list(ids) for stream, ids in event.hints.items()}
    if vendor not in MAPPINGS:
        return {LANDED: [f"{vendor}/{event.delivery}"]}
    try:
        value = json.loads(event.body)
    except (ValueError, RecursionError):
        return {}
    return MAPPINGS[vendor](event.topic, value) if isinstance(value, dict) else {}
