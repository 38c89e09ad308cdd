"""Deliveries whose content is itself the data: what Zapier and others send us, one row per object.

There is no vendor to ask again, so these rows come from the inbox, by the keys the drain gives. A contract's
paths reach into a delivery by `body.…`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from omni.control.database import session
from omni.control.inbox import InboxEvent, body_of
from omni.errors import ConfigError
from omni.sources.connection import Connection
from omni.sources.vendor import Page, Vendor, Window
from omni.warehouse.contracts import Contract

PAGE = 500


def _open(connection: Connection) -> AbstractContextManager[str]:
    """The client is the tenant whose inbox is read."""
    return nullcontext(connection.options["tenant"])


def _read(_tenant: str, _tables: list[Contract], _window: Window, _resume: Any) -> Iterator[Page]:
    raise ConfigError("Webhooks are not read by window: run drain_webhooks, and do not list them as a source")


def _reread(tenant: str, _tables: list[Contract], ids: list[str]) -> Iterator[Page]:
    """Events by `sender/delivery`, while their bodies are kept."""
    for start in range(0, len(ids), PAGE):
        wanted = [tuple(one.split("/", 1)) for one in ids[start : start + PAGE]]
        found = sa.select(InboxEvent).where(
            InboxEvent.tenant == tenant,
            sa.tuple_(InboxEvent.vendor, InboxEvent.delivery).in_(wanted),
            InboxEvent.body.is_not(None),
        )
        with session() as opened:
            rows = list(opened.scalars(found.order_by(InboxEvent.id)))
        yield Page([_record(row) for row in rows])


def _record(row: InboxEvent) -> dict[str, Any]:
    body = body_of(row)
    return {
        "id": f"{row.vendor}/{row.delivery}",
        "sender": row.vendor,
        "source": row.source,
        "topic": row.topic,
        "received_at": row.received_at.isoformat(),
        "payload": body.decode(),
        "body": json.loads(body),
    }


VENDOR: Vendor[str] = Vendor(
    name="webhooks",
    title="Webhooks",
    open=_open,
    lag=timedelta(0),
    resolution=timedelta(microseconds=1),
    check=lambda _tenant, _tables: [],
    count=lambda _tenant, _tables, _window: None,
    read=_read,
    reread=_reread,
    fields=lambda _tenant, _tables: {},
)
