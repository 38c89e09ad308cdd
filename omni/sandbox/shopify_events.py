"""Shopify's webhooks as it would send them: headers, and the signature over the raw body."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime

from omni.sandbox.shopify import VERSIONS


def sign(secret: str, payload: bytes) -> str:
    """`X-Shopify-Hmac-Sha256`: base64 of the HMAC-SHA256 of the body under the app's client secret."""
    return base64.b64encode(hmac.new(secret.encode(), payload, hashlib.sha256).digest()).decode()


def webhook_headers(
    secret: str,
    topic: str,
    payload: bytes,
    webhook_id: str,
    *,
    event_id: str | None = None,
    shop: str = "demo.myshopify.com",
    triggered: datetime | None = None,
) -> dict[str, str]:
    """Headers of one delivery.

    Args:
        secret: the app's client secret.
        topic: for example "orders/updated".
        payload: the raw body.
        webhook_id: of this delivery; the same when it is repeated.
        event_id: of what happened; several deliveries may tell of it. Made from `webhook_id` when None.
        shop: the shop's domain.
        triggered: when it happened; now when None.
    """
    moment = (triggered or datetime.now(UTC)).astimezone(UTC)
    return {
        "Content-Type": "application/json",
        "X-Shopify-Topic": topic,
        "X-Shopify-Hmac-Sha256": sign(secret, payload),
        "X-Shopify-Shop-Domain": shop,
        "X-Shopify-API-Version": VERSIONS[-1],
        "X-Shopify-Webhook-Id": webhook_id,
        "X-Shopify-Event-Id": event_id or f"event-{webhook_id}",
        "X-Shopify-Triggered-At": moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
    }
