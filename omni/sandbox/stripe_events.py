"""Stripe's events: how a change is told, in lists and to webhooks."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

Object = dict[str, Any]
"""One of Stripe's objects, by field name."""

KEPT = 30 * 86_400
"""Seconds that Stripe keeps events."""
ACCOUNT_VERSION = "2022-11-15"
"""The account's own API version, in which payloads are rendered whatever a reader pins."""


def identity(prefix: str, key: str) -> str:
    """An id that says nothing of its place in time, as Stripe's: equal keys give equal ids."""
    return f"{prefix}_{hashlib.blake2b(key.encode(), digest_size=9).hexdigest()}"


def event(kind: str, created: int, about: Object, *, before: Object | None = None) -> Object:
    """An event of a type such as `charge.refunded`.

    Args:
        kind: its type.
        created: its time, in seconds since the epoch.
        about: the object as it was then.
        before: what the changed fields held before, for updates.
    """
    data: Object = {"object": about} | ({"previous_attributes": before} if before else {})
    return {
        "id": identity("evt", f"{kind}/{created}/{about['id']}"),
        "object": "event",
        "api_version": ACCOUNT_VERSION,
        "created": created,
        "data": data,
        "livemode": False,
        "pending_webhooks": 0,
        "request": {"id": None, "idempotency_key": None},
        "type": kind,
    }


def signature_header(secret: str, payload: bytes, timestamp: int) -> str:
    """The `Stripe-Signature` header of a webhook: `t=…,v1=…`.

    Args:
        secret: the endpoint's signing secret, `whsec_…`.
        payload: the body, byte for byte.
        timestamp: when it is sent, in seconds since the epoch.
    """
    signed = f"{timestamp}.".encode() + payload
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"
