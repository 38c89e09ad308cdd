"""REST hooks: other programs, such as Zapier, subscribe to our events and are told of each.

`publish` is the way in: it writes what is owed into the outbox, in the same control database as everything
else; `omni.webhooks.deliveries` sends it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from base64 import b64encode
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from omni.control.database import alone, insert_new, now, session
from omni.control.hooks import HookDelivery, HookKey, HookSubscription
from omni.errors import ConfigError
from omni.security.hashing import Hasher
from omni.security.vault import Vault
from omni.webhooks import targets
from omni.webhooks.signatures import STANDARD_PREFIX

WAITING = ("new", "failed")
SENDING = "sending"
"""The state of a row while a sender has it; at `due_at` its lease is over."""
LIVE = (*WAITING, SENDING)
MOST_SUBSCRIPTIONS = 500
"""Of one tenant: an automation that subscribes in a loop is stopped here."""
LARGEST = 10 * 1024 * 1024
"""Bytes of one event; Zapier takes no more."""
PURPOSE = "hook"

SAMPLES: dict[str, dict[str, Any]] = {
    "segment.entered": {"segment": "at_risk", "customer": "C-1001", "since": "2026-01-15"},
    "segment.left": {"segment": "at_risk", "customer": "C-1001", "since": "2026-01-15"},
    "score.changed": {"prediction": "churn", "customer": "C-1001", "score": 0.72, "before": 0.31},
    "anomaly.found": {"metric": "revenue", "day": "2026-01-15", "value": 1250.5, "expected": 2100.0},
    "run.finished": {"flow": "nightly", "status": "done", "seconds": 84.2},
}
"""The events there are, each with a made-up example of its `data`."""


def new_secret() -> str:
    """A signing secret in the form of Standard Webhooks."""
    return STANDARD_PREFIX + b64encode(secrets.token_bytes(32)).decode()


def create_key(tenant: str, name: str) -> str:
    """An API key for a tenant's hooks. It is given back once; only its hash is kept."""
    number, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    with session() as opened:
        opened.add(
            HookKey(id=number, tenant=tenant, name=name[:100], digest=_digest(secret), created_at=now())
        )
    return f"omk_{number}_{secret}"


def revoke_key(tenant: str, number: str) -> bool:
    """Make a key worthless; whether there was one of this number."""
    change = sa.update(HookKey).where(HookKey.tenant == tenant, HookKey.id == number)
    with session() as opened:
        rows = opened.execute(change.where(HookKey.revoked_at.is_(None)).values(revoked_at=now()))
        return bool(getattr(rows, "rowcount", 0))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def authorized(tenant: str, key: str) -> bool:
    """Whether a key is one of the tenant's. Takes as long for a wrong number as for a wrong secret."""
    prefix, _, rest = key.partition("_")
    number, _, secret = rest.partition("_")
    with session() as opened:
        found = opened.get(HookKey, number[:32])
    expected = found.digest if found else _digest("nobody")
    same = hmac.compare_digest(expected, _digest(secret))
    return same and prefix == "omk" and found is not None and found.tenant == tenant and not found.revoked_at


def _event(name: str) -> str:
    if name not in SAMPLES:
        raise ConfigError(f"Unknown event. Known: {', '.join(SAMPLES)}.")
    return name


def subscribe(tenant: str, event: str, target_url: str, *, loopback: bool = False) -> tuple[str, str]:
    """Tell an address of an event from now on; asking again gives the same subscription.

    Returns:
        The subscription's id, and the secret its deliveries are signed with.

    Raises:
        ConfigError: unknown event, an address that may not be sent to, or too many subscriptions.
    """
    targets.check(target_url, loopback=loopback)
    _event(event)
    vault, known = Vault(tenant), _known_as(tenant, target_url)
    with session() as opened:
        alone(opened.connection(), f"hooks: subscribe {tenant}")
        live = sa.select(HookSubscription).where(
            HookSubscription.tenant == tenant, HookSubscription.ended_at.is_(None)
        )
        same = live.where(HookSubscription.event == event, HookSubscription.target.in_(known))
        if (found := opened.scalars(same.order_by(HookSubscription.created_at)).first()) is not None:
            secret = vault.open(found.secret, purpose=PURPOSE, name=f"{found.id}/secret").decode()
            if found.target != known[0]:
                _seal(vault, found, known[0], target_url, secret)
            return found.id, secret
        if (
            opened.scalar(sa.select(sa.func.count()).select_from(live.subquery())) or 0
        ) >= MOST_SUBSCRIPTIONS:
            raise ConfigError(f"There are {MOST_SUBSCRIPTIONS} subscriptions already; end some first")
        number, secret = f"sub_{secrets.token_hex(12)}", new_secret()
        made = HookSubscription(id=number, tenant=tenant, event=event, created_at=now())
        _seal(vault, made, known[0], target_url, secret)
        opened.add(made)
    return number, secret


def _known_as(tenant: str, url: str) -> list[str]:
    """What an address is found by: its keyed hash under the present master key, then under earlier ones."""
    return [
        hmac.digest(hasher.key, b"hook " + url.encode(), "sha256").hex() for hasher in Hasher.all_of(tenant)
    ]


def _seal(vault: Vault, of: HookSubscription, target: str, url: str, secret: str) -> None:
    """Keep an address and a secret under the present master key."""
    of.target = target
    of.address = vault.seal(url.encode(), purpose=PURPOSE, name=f"{of.id}/address")
    of.secret = vault.seal(secret.encode(), purpose=PURPOSE, name=f"{of.id}/secret")


def unsubscribe(tenant: str, number: str, because: str = "asked to") -> bool:
    """End a subscription and what it is still owed; whether it was there."""
    with session() as opened:
        return end(opened, tenant, number, because)


def end(opened: Session, tenant: str, number: str, because: str) -> bool:
    """`unsubscribe` within a transaction."""
    found = opened.get(HookSubscription, number[:32])
    if found is None or found.tenant != tenant or found.ended_at is not None:
        return False
    found.ended_at, found.ended_because = now(), because[:200]
    owed = sa.update(HookDelivery).where(
        HookDelivery.subscription == found.id, HookDelivery.state.in_((*LIVE, "dead"))
    )
    opened.execute(owed.values(state="ended", body=None, reason="its subscription ended", settled_at=now()))
    return True


def subscriptions(tenant: str) -> list[HookSubscription]:
    """A tenant's subscriptions, those that ended last."""
    wanted = sa.select(HookSubscription).where(HookSubscription.tenant == tenant)
    with session() as opened:
        return list(opened.scalars(wanted.order_by(HookSubscription.ended_at, HookSubscription.created_at)))


def message(event: str, data: Mapping[str, Any], event_id: str, at: datetime) -> bytes:
    """An event as it is sent: id, type, time and data."""
    whole = {"id": event_id, "type": event, "timestamp": at.isoformat(timespec="seconds"), "data": data}
    return json.dumps(whole, default=str, separators=(",", ":")).encode()


def sample(event: str) -> list[dict[str, Any]]:
    """Examples of an event as it is sent, made up.

    Raises:
        ConfigError: there is no such event.
    """
    at = datetime.fromisoformat("2026-01-15T06:00:00+00:00")
    made: dict[str, Any] = json.loads(message(event, SAMPLES[_event(event)], f"evt_{'0' * 32}", at))
    return [made]


def publish(tenant: str, event: str, rows: Iterable[Mapping[str, Any]]) -> int:
    """Owe every subscriber of an event one delivery per row.

    The same row published again is the same event and sent once: a flow that is run again tells nobody twice.
    What can rightly happen again carries its time among its values.

    Args:
        tenant: whose.
        event: one of `SAMPLES`.
        rows: what is told; without personal data, since it leaves the house.

    Returns:
        Deliveries newly owed.

    Raises:
        ConfigError: unknown event, or a row over `LARGEST`.
    """
    at, vault = now(), Vault(tenant)
    told = [_told(tenant, _event(event), row, at) for row in rows]
    interested = sa.select(HookSubscription.id).where(
        HookSubscription.tenant == tenant,
        HookSubscription.event == event,
        HookSubscription.ended_at.is_(None),
    )
    with session() as opened:
        owed = [
            {
                "tenant": tenant,
                "subscription": number,
                "event": event,
                "event_id": key,
                "body": vault.seal(body, purpose=PURPOSE, name=f"{number}/{key}"),
                "state": "new",
                "attempts": 0,
                "due_at": at,
                "created_at": at,
            }
            for number in opened.scalars(interested)
            for key, body in told
        ]
        return insert_new(opened, HookDelivery, ("subscription", "event_id"), owed)


def _told(tenant: str, event: str, row: Mapping[str, Any], at: datetime) -> tuple[str, bytes]:
    """An event's id, which follows from its content, and its body."""
    content = json.dumps([tenant, event, row], default=str, sort_keys=True).encode()
    key = f"evt_{hashlib.sha256(content).hexdigest()[:32]}"
    body = message(event, row, key, at)
    if len(body) > LARGEST:
        raise ConfigError(f"A {event} event has {len(body)} bytes; at most {LARGEST} can be sent")
    return key, body
