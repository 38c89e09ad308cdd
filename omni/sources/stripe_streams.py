"""What Stripe's objects are called, which events tell of their changes, and which lists come in pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omni.errors import SourceError
from omni.sources.http import need


@dataclass(frozen=True)
class Stream:
    """One of Stripe's objects.

    Attributes:
        kind: the value of its `object` field.
        events: types that tell of a change; at most twenty fit one request. None: it never changes.
        deletions: of them, those after which the object is gone for good.
        params: what a list needs to be complete.
        nested: fields with the first few rows of a list of its own.
        expand: of them, those that only come when asked for.
    """

    kind: str
    events: tuple[str, ...] = ()
    deletions: frozenset[str] = frozenset()
    params: Mapping[str, str] = field(default_factory=dict)
    nested: tuple[str, ...] = ()
    expand: tuple[str, ...] = ()


def _named(prefix: str, names: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{name}" for name in names.split())


STREAMS = {
    "charges": Stream(
        "charge",
        _named("charge", "captured expired failed pending refunded succeeded updated")
        + _named("charge.dispute", "closed created funds_reinstated funds_withdrawn updated"),
    ),
    "refunds": Stream("refund", ("charge.refund.updated", *_named("refund", "created failed updated"))),
    "balance_transactions": Stream("balance_transaction"),
    "customers": Stream(
        "customer",
        _named("customer", "created updated deleted"),
        frozenset({"customer.deleted"}),
    ),
    "invoices": Stream(
        "invoice",
        _named(
            "invoice",
            "created deleted finalization_failed finalized marked_uncollectible overdue overpaid paid "
            "payment_action_required payment_attempt_required payment_failed payment_succeeded sent updated "
            "voided will_be_due",
        ),
        frozenset({"invoice.deleted"}),
        nested=("lines", "payments"),
        expand=("payments",),
    ),
    "subscriptions": Stream(
        "subscription",
        _named(
            "customer.subscription",
            "created deleted paused pending_update_applied pending_update_expired resumed trial_will_end "
            "updated",
        ),
        params={"status": "all"},
        nested=("items",),
    ),
    "products": Stream(
        "product", _named("product", "created updated deleted"), frozenset({"product.deleted"})
    ),
    "prices": Stream("price", _named("price", "created updated deleted"), frozenset({"price.deleted"})),
}
"""By the name in Stripe's paths. A subscription that is "deleted" is cancelled, and still there."""


def nested_call(stream: Stream, name: str, identity: str) -> tuple[str, dict[str, str]]:
    """Path and parameters of a record's own list."""
    if name == "lines":
        return f"/v1/{stream.kind}s/{identity}/lines", {}
    return f"/v1/{stream.kind}_{name}", {stream.kind: identity}


@dataclass(frozen=True)
class Hint:
    """What an event tells: that an object changed. Its payload may be of another API version, and old.

    Attributes:
        id: of the object.
        created: when the object was created, in seconds since the epoch, where the payload says so.
        deleted: it is gone.
    """

    id: str
    created: int | None
    deleted: bool


def hint(event: dict[str, Any], stream: Stream, where: str) -> Hint:
    """The object an event is about; a dispute's event is about its charge.

    Raises:
        SourceError: the event names no such object.
    """
    about = need(event, "data.object", dict, where)
    if about.get("object") == stream.kind:
        created = about.get("created")
        deleted = event.get("type") in stream.deletions
        return Hint(need(about, "id", str, where), created if isinstance(created, int) else None, deleted)
    owner = about.get(stream.kind)
    identity = owner.get("id") if isinstance(owner, dict) else owner
    if not isinstance(identity, str):
        raise SourceError(f"{where}: an event of type {event.get('type')!r} names no {stream.kind}.")
    return Hint(identity, None, False)
