"""REST hooks: who may subscribe, what they subscribed to, and the deliveries owed to them."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from omni.control.database import Base, identity


class HookKey(Base):
    """An API key of a tenant for the hooks' endpoints; only its hash is kept."""

    __tablename__ = "hook_keys"

    id: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    tenant: Mapped[str] = mapped_column(sa.String(63), index=True)
    name: Mapped[str] = mapped_column(sa.String(100))
    digest: Mapped[str] = mapped_column(sa.String(64))
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class HookSubscription(Base):
    """A wish to be told of an event.

    Its address is sealed, since whoever knows a hook's address can write to it; `target` is a keyed hash by
    which the same wish is found again. `ended_at` is when it was withdrawn or its receiver gone for good.
    """

    __tablename__ = "hook_subscriptions"
    __table_args__ = (sa.Index("hook_subscriptions_event", "tenant", "event", "ended_at"),)

    id: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    tenant: Mapped[str] = mapped_column(sa.String(63))
    event: Mapped[str] = mapped_column(sa.String(100))
    target: Mapped[str] = mapped_column(sa.String(64))
    address: Mapped[bytes]
    secret: Mapped[bytes]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    ended_because: Mapped[str | None] = mapped_column(sa.String(200))


class HookDelivery(Base):
    """One event owed to one subscription.

    `state` is `new`, `failed` (to be tried again at `due_at`), `sending` (a sender has it until `due_at`),
    `dead` (given up; a person decides), `done`, or `ended` (its subscription ended first). The body is
    sealed and emptied once it is delivered.
    """

    __tablename__ = "hook_deliveries"
    __table_args__ = (
        sa.UniqueConstraint("subscription", "event_id"),
        sa.Index("hook_deliveries_waiting", "tenant", "state", "due_at"),
    )

    id: Mapped[int] = identity()
    tenant: Mapped[str] = mapped_column(sa.String(63))
    subscription: Mapped[str] = mapped_column(sa.ForeignKey("hook_subscriptions.id"))
    event: Mapped[str] = mapped_column(sa.String(100))
    event_id: Mapped[str] = mapped_column(sa.String(100))
    body: Mapped[bytes | None]
    state: Mapped[str] = mapped_column(sa.String(10))
    attempts: Mapped[int]
    due_at: Mapped[datetime]
    status: Mapped[int | None]
    reason: Mapped[str | None] = mapped_column(sa.String(300))
    created_at: Mapped[datetime]
    settled_at: Mapped[datetime | None]
