"""The tables there were when the control database began to be migrated.

Databases older than that have them already, or some of them: only what is missing is made.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make keys, tokens, inbox, hooks and ledger."""
    _keys()
    _tokens()
    _inbox()
    _hooks()
    _ledger()


def _table(name: str, *parts: sa.schema.SchemaItem, **options: bool) -> None:
    op.create_table(name, *parts, if_not_exists=True, **options)


def _index(name: str, table: str, columns: list[str]) -> None:
    op.create_index(name, table, columns, if_not_exists=True)


def _number() -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column("id", kind, autoincrement=True, nullable=False)


def _keys() -> None:
    _table(
        "tenant_keys",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "purpose"),
    )
    _table(
        "subject_keys",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("subject_id_hash", sa.LargeBinary(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("destroyed_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "subject", "subject_id_hash"),
        sqlite_with_rowid=False,
    )


def _tokens() -> None:
    _table(
        "oauth_tokens",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("vendor", sa.String(), nullable=False),
        sa.Column("grant", sa.String(), nullable=False),
        sa.Column("client_id", sa.String(), nullable=False),
        sa.Column("site", sa.String(), nullable=True),
        sa.Column("base_url", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("issued_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=True),
        sa.Column("renewable_until", sa.DateTime(), nullable=True),
        sa.Column("connected_at", sa.DateTime(), nullable=False),
        sa.Column("renewals", sa.Integer(), nullable=False),
        sa.Column("refused_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "vendor"),
    )


def _inbox() -> None:
    _table(
        "webhook_inbox",
        _number(),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("vendor", sa.String(63), nullable=False),
        sa.Column("source", sa.String(100), nullable=False),
        sa.Column("delivery", sa.String(255), nullable=False),
        sa.Column("topic", sa.String(200), nullable=False),
        sa.Column("received_at", sa.DateTime(), nullable=False),
        sa.Column("due_at", sa.DateTime(), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(500), nullable=True),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("hints", sa.JSON(), nullable=True),
        sa.Column("settled_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant", "vendor", "delivery"),
    )
    _index("webhook_inbox_waiting", "webhook_inbox", ["tenant", "state", "due_at"])
    _index("webhook_inbox_age", "webhook_inbox", ["state", "received_at"])
    _table(
        "webhook_refusals",
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("vendor", sa.String(63), nullable=False),
        sa.Column("reason", sa.String(20), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "vendor", "reason", "day"),
    )


def _hooks() -> None:
    _table(
        "hook_keys",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("revoked_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    _index("ix_hook_keys_tenant", "hook_keys", ["tenant"])
    _table(
        "hook_subscriptions",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("event", sa.String(100), nullable=False),
        sa.Column("target", sa.String(64), nullable=False),
        sa.Column("address", sa.LargeBinary(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.Column("ended_because", sa.String(200), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    _index("hook_subscriptions_event", "hook_subscriptions", ["tenant", "event", "ended_at"])
    _deliveries()


def _deliveries() -> None:
    _table(
        "hook_deliveries",
        _number(),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("subscription", sa.String(32), nullable=False),
        sa.Column("event", sa.String(100), nullable=False),
        sa.Column("event_id", sa.String(100), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.DateTime(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("reason", sa.String(300), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("settled_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["subscription"], ["hook_subscriptions.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("subscription", "event_id"),
    )
    _index("hook_deliveries_waiting", "hook_deliveries", ["tenant", "state", "due_at"])


def _ledger() -> None:
    _table(
        "written_rows",
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("write_back", sa.String(100), nullable=False),
        sa.Column("destination", sa.String(200), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("content", sa.String(64), nullable=True),
        sa.Column("columns", sa.JSON(), nullable=False),
        sa.Column("writes", sa.Integer(), nullable=False),
        sa.Column("written_at", sa.DateTime(), nullable=True),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("rejected", sa.String(64), nullable=True),
        sa.Column("reason", sa.String(300), nullable=True),
        sa.Column("rejected_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "write_back", "destination", "key"),
    )
    _index("written_rows_rejected", "written_rows", ["tenant", "write_back", "rejected_at"])
