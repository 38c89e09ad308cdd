"""HubSpot's webhook deliveries: batches of events about the company's objects, signed as HubSpot signs them.

Written from HubSpot's documentation and independent of what receives them, so that each checks the other.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import time
from collections.abc import Iterable, Iterator
from typing import Any

BATCH = 100
"""Events HubSpot puts into one request at most."""


def event(subscription: str, object_id: str | int, number: int, **more: Any) -> dict[str, Any]:
    """One event.

    Args:
        subscription: its type, such as `contact.propertyChange`.
        object_id: of the object concerned.
        number: makes its `eventId`.
        more: fields besides the usual ones, or in their place.
    """
    return {
        "eventId": 100 + number,
        "subscriptionId": 4001,
        "portalId": 62515,
        "appId": 54321,
        "occurredAt": 1_760_000_000_000 + number,
        "subscriptionType": subscription,
        "attemptNumber": 0,
        "objectId": int(object_id) if str(object_id).isdigit() else object_id,
        "changeSource": "CRM",
        **more,
    }


def merge(kind: str, primary: str | int, merged: Iterable[str | int], number: int) -> dict[str, Any]:
    """Objects merged into one; HubSpot names them all."""
    ids = [int(one) for one in merged]
    return event(
        f"{kind}.merge",
        primary,
        number,
        primaryObjectId=int(primary),
        mergedObjectIds=ids,
        newObjectId=int(primary),
        numberOfPropertiesMoved=3,
    )


def association(kind: str, source: str | int, target: str | int, number: int) -> dict[str, Any]:
    """A link made or removed; `kind` is such as `CONTACT_TO_COMPANY`."""
    made = event(f"{kind.split('_TO_')[0].lower()}.associationChange", 0, number, associationType=kind)
    del made["objectId"]
    return made | {
        "fromObjectId": int(source),
        "toObjectId": int(target),
        "associationRemoved": False,
        "isPrimaryAssociation": False,
    }


def signed(
    secret: str, method: str, uri: str, body: bytes, *, version: str = "v3", now: float | None = None
) -> dict[str, str]:
    """The headers of a delivery. Real v3 deliveries carry the older signature too, as these do.

    Args:
        secret: the app's client secret.
        method: of HTTP.
        uri: the address it goes to.
        body: its bytes.
        version: v1, v2 or v3.
        now: seconds since 1970; the clock's when None.
    """
    older = secret.encode() + ((method + uri).encode() if version == "v2" else b"") + body
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "HubSpot Connect 2.0",
        "X-HubSpot-Signature": hashlib.sha256(older).hexdigest(),
        "X-HubSpot-Signature-Version": "v2" if version == "v2" else "v1",
    }
    if version == "v3":
        stamp = str(int((time.time() if now is None else now) * 1000))
        mac = hmac.new(secret.encode(), (method + uri).encode() + body + stamp.encode(), hashlib.sha256)
        headers |= {
            "X-HubSpot-Signature-v3": base64.b64encode(mac.digest()).decode(),
            "X-HubSpot-Request-Timestamp": stamp,
        }
    return headers


def batches(
    events: list[dict[str, Any]], secret: str, uri: str, *, version: str = "v3", seed: int | None = None
) -> Iterator[tuple[bytes, dict[str, str]]]:
    """Deliveries of events: bodies and headers, at most 100 events each.

    With a seed they come as HubSpot may send them: out of order, and a tenth of them a second time with a
    raised `attemptNumber`.
    """
    sent = list(events)
    if seed is not None:
        rng = random.Random(seed)  # noqa: S311  shuffles
        again = [e | {"attemptNumber": 1} for e in rng.sample(sent, len(sent) // 10)]
        sent += again
        rng.shuffle(sent)
    for start in range(0, len(sent), BATCH):
        body = json.dumps(sent[start : start + BATCH]).encode()
        yield body, signed(secret, "POST", uri, body, version=version)
