"""The outbox: messages that are to leave the house, each kept until it has."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from omni.control.database import Base


class OutboxMessage(Base):
    """One message.

    `dedupe_key` says what it is about: a second message about the same is not taken. `state` is `new`,
    `failed` (to be tried again at `due_at`), `sending` (a sender has it until `due_at`), `dead` (given up; a
    person decides) or `sent`. Recipients, subject and text are sealed and emptied once it is sent;
    `attachments` are names and digests of files in the tenant's outbox folder.
    """

    __tablename__ = "outbox_messages"
    __table_args__ = (
        sa.UniqueConstraint("tenant", "dedupe_key"),
        sa.Index("outbox_messages_waiting", "tenant", "state", "due_at"),
    )

    id: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    tenant: Mapped[str] = mapped_column(sa.String(63))
    dedupe_key: Mapped[str] = mapped_column(sa.String(200))
    kind: Mapped[str] = mapped_column(sa.String(200))
    content: Mapped[bytes | None]
    attachments: Mapped[str] = mapped_column(sa.Text())
    state: Mapped[str] = mapped_column(sa.String(10))
    attempts: Mapped[int]
    due_at: Mapped[datetime]
    reason: Mapped[str | None] = mapped_column(sa.String(300))
    created_at: Mapped[datetime]
    settled_at: Mapped[datetime | None]
