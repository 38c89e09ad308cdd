"""Statements of partners and their payouts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables of partners' accounts."""
    op.create_table(
        "partner_statements",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("partner_id", sa.String(100), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("cents", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("approved_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant", "partner_id", "month"),
        if_not_exists=True,
    )
    op.create_table(
        "partner_lines",
        sa.Column("statement_id", sa.String(32), nullable=False),
        sa.Column("line_id", sa.String(300), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("order_id", sa.String(200), nullable=False),
        sa.Column("line_date", sa.Date(), nullable=False),
        sa.Column("base_cents", sa.BigInteger(), nullable=False),
        sa.Column("cents", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["statement_id"], ["partner_statements.id"]),
        sa.PrimaryKeyConstraint("statement_id", "line_id"),
        if_not_exists=True,
    )
    op.create_table(
        "partner_batches",
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("batch", sa.String(64), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "batch"),
        if_not_exists=True,
    )
    op.create_table(
        "partner_payments",
        sa.Column("statement_id", sa.String(32), nullable=False),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("batch", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["statement_id"], ["partner_statements.id"]),
        sa.ForeignKeyConstraint(["tenant", "batch"], ["partner_batches.tenant", "partner_batches.batch"]),
        sa.PrimaryKeyConstraint("statement_id"),
        if_not_exists=True,
    )
