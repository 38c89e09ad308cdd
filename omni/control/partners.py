"""Partners' accounts: approved statements, and the batches that paid them. Rows are added, never changed."""

from __future__ import annotations

from datetime import date, datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from omni.control.database import Base


class PartnerStatement(Base):
    """A statement as it was approved. Amounts are hundredths of the currency.

    `digest` is over the statement and its lines: what was approved can be told from what was altered since.
    """

    __tablename__ = "partner_statements"
    __table_args__ = (sa.UniqueConstraint("tenant", "partner_id", "month"),)

    id: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    tenant: Mapped[str] = mapped_column(sa.String(63))
    partner_id: Mapped[str] = mapped_column(sa.String(100))
    month: Mapped[date] = mapped_column(sa.Date())
    currency: Mapped[str] = mapped_column(sa.String(3))
    cents: Mapped[int] = mapped_column(sa.BigInteger())
    digest: Mapped[str] = mapped_column(sa.String(64))
    approved_at: Mapped[datetime]


class PartnerLine(Base):
    """A line of an approved statement: what it adds to the line of the partner's account `line_id`."""

    __tablename__ = "partner_lines"

    statement_id: Mapped[str] = mapped_column(sa.ForeignKey("partner_statements.id"), primary_key=True)
    line_id: Mapped[str] = mapped_column(sa.String(300), primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(20))
    order_id: Mapped[str] = mapped_column(sa.String(200))
    line_date: Mapped[date] = mapped_column(sa.Date())
    base_cents: Mapped[int] = mapped_column(sa.BigInteger())
    cents: Mapped[int] = mapped_column(sa.BigInteger())


class PartnerBatch(Base):
    """A batch of payouts with the file that was made for it."""

    __tablename__ = "partner_batches"

    tenant: Mapped[str] = mapped_column(sa.String(63), primary_key=True)
    batch: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    content: Mapped[str] = mapped_column(sa.Text())
    created_at: Mapped[datetime]


class PartnerPayment(Base):
    """The batch that paid a statement; the key lets no other pay it again."""

    __tablename__ = "partner_payments"
    __table_args__ = (
        sa.ForeignKeyConstraint(["tenant", "batch"], ["partner_batches.tenant", "partner_batches.batch"]),
    )

    statement_id: Mapped[str] = mapped_column(sa.ForeignKey("partner_statements.id"), primary_key=True)
    tenant: Mapped[str] = mapped_column(sa.String(63))
    batch: Mapped[str] = mapped_column(sa.String(64))
