"""The webhook inbox: what vendors told us, until it is acted upon; and how many deliveries were refused."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from omni.control.database import Base, identity
from omni.security.vault import Vault

PURPOSE = "webhook"
LIVE = ("new", "failed")
"""States of rows that wait to be drained."""


class InboxEvent(Base):
    """One event of a delivery. Its body is sealed, and emptied once the event is acted upon.

    `state` is `new`, `failed` (to be tried again at `due_at`), `dead` (given up; a person decides), `done`,
    or `ignored` (nothing here is loaded that it could change).
    """

    __tablename__ = "webhook_inbox"
    __table_args__ = (
        sa.UniqueConstraint("tenant", "vendor", "delivery"),
        sa.Index("webhook_inbox_waiting", "tenant", "state", "due_at"),
        sa.Index("webhook_inbox_age", "state", "received_at"),
    )

    id: Mapped[int] = identity()
    tenant: Mapped[str] = mapped_column(sa.String(63))
    vendor: Mapped[str] = mapped_column(sa.String(63))
    source: Mapped[str] = mapped_column(sa.String(100))
    delivery: Mapped[str] = mapped_column(sa.String(255))
    topic: Mapped[str] = mapped_column(sa.String(200))
    received_at: Mapped[datetime]
    due_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(sa.String(10))
    attempts: Mapped[int]
    reason: Mapped[str | None] = mapped_column(sa.String(500))
    headers: Mapped[dict[str, Any]]
    body: Mapped[bytes | None]
    hints: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON(none_as_null=True))
    settled_at: Mapped[datetime | None]


class InboxRefusal(Base):
    """Deliveries refused on a day, by reason. Nothing of their content is kept."""

    __tablename__ = "webhook_refusals"

    tenant: Mapped[str] = mapped_column(sa.String(63), primary_key=True)
    vendor: Mapped[str] = mapped_column(sa.String(63), primary_key=True)
    reason: Mapped[str] = mapped_column(sa.String(20), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    refused: Mapped[int]


def seal_body(vault: Vault, vendor: str, delivery: str, body: bytes) -> bytes:
    """A body to store, bound to its delivery."""
    return vault.seal(body, purpose=PURPOSE, name=f"{vendor}/{delivery}")


def body_of(row: InboxEvent) -> bytes:
    """The body as it came; empty once it was acted upon.

    Raises:
        ConfigError: it was sealed under a key that is not known here.
    """
    if row.body is None:
        return b""
    return Vault(row.tenant).open(row.body, purpose=PURPOSE, name=f"{row.vendor}/{row.delivery}")
