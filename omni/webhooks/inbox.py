"""The inbox: events are stored once, wait until they are acted upon, and end as done, ignored or dead.

Bodies may hold personal data: they are sealed, emptied when an event is done, and no row outlives `KEEP`.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from omni.control.database import insert, insert_new, now, session
from omni.control.inbox import LIVE, InboxEvent, InboxRefusal, body_of, seal_body
from omni.errors import ConfigError
from omni.security.vault import Vault
from omni.webhooks.events import Event

WAITS = tuple(timedelta(minutes=m) for m in (1, 5, 15, 60, 180, 360, 720))
"""How long a failed event waits before each further attempt: eight in about 22 hours."""
ATTEMPTS = len(WAITS) + 1
KEEP = timedelta(days=30)
"""How long rows are kept, and so repeated deliveries recognised; vendors repeat for up to three days."""


UNOPENED = (
    "stored events do not open: OMNI_SECRET_KEY was changed (list the earlier one in OMNI_OLD_SECRET_KEYS), "
    "or they are damaged"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Incoming:
    """A verified delivery on its way into the inbox."""

    tenant: str
    vendor: str
    source: str
    headers: Mapping[str, str]
    events: tuple[Event, ...]
    received_at: datetime


@dataclass(frozen=True)
class Pending:
    """An event that waits, its body open, or empty with the `trouble` why it is not."""

    id: int
    delivery: str
    topic: str
    attempts: int
    body: bytes = field(repr=False)
    hints: Mapping[str, list[str]] | None = None
    trouble: str = ""


def store(deliveries: Iterable[Incoming], refusals: Mapping[tuple[str, str, str], int]) -> int:
    """Keep events that are not there yet and count refusals, in one transaction.

    Args:
        deliveries: verified ones.
        refusals: how many, by tenant, vendor and reason.

    Returns:
        Events that were new.
    """
    rows = [row for delivery in deliveries for row in _rows(delivery)]
    with session() as opened:
        new = insert_new(opened, InboxEvent, ("tenant", "vendor", "delivery"), rows)
        for (tenant, vendor, reason), number in sorted(refusals.items()):
            key = {"tenant": tenant, "vendor": vendor, "reason": reason, "day": now().date()}
            adding = insert(opened.get_bind().dialect.name, InboxRefusal).values(**key, refused=number)
            opened.execute(
                adding.on_conflict_do_update(
                    index_elements=list(key), set_={"refused": InboxRefusal.refused + number}
                )
            )
    return new


def _rows(delivery: Incoming) -> list[dict[str, Any]]:
    vault = Vault(delivery.tenant)
    return [
        {
            "tenant": delivery.tenant,
            "vendor": delivery.vendor,
            "source": delivery.source,
            "delivery": event.delivery,
            "topic": event.topic,
            "received_at": delivery.received_at,
            "due_at": delivery.received_at,
            "state": "new",
            "attempts": 0,
            "headers": dict(delivery.headers),
            "body": seal_body(vault, delivery.vendor, event.delivery, event.body),
        }
        for event in delivery.events
    ]


def waiting(tenant: str, moment: datetime | None = None) -> dict[str, int]:
    """Senders with events that are due, and the last id among them: up to there a drain goes."""
    due = sa.select(InboxEvent.vendor, sa.func.max(InboxEvent.id)).where(*_due(tenant, moment or now()))
    with session() as opened:
        return dict(row.tuple() for row in opened.execute(due.group_by(InboxEvent.vendor)))


def _due(tenant: str, moment: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return (InboxEvent.tenant == tenant, InboxEvent.state.in_(LIVE), InboxEvent.due_at <= moment)


def pending(tenant: str, vendor: str, upto: int, limit: int, moment: datetime | None = None) -> list[Pending]:
    """Events of a sender that are due, oldest first, with their bodies."""
    wanted = (
        sa.select(InboxEvent)
        .where(*_due(tenant, moment or now()), InboxEvent.vendor == vendor, InboxEvent.id <= upto)
        .order_by(InboxEvent.id)
        .limit(limit)
    )
    with session() as opened:
        rows = list(opened.scalars(wanted))
    found = []
    for row in rows:
        try:
            body, trouble = body_of(row), ""
        except ConfigError:
            body, trouble = b"", UNOPENED
        hints = None if body or trouble else row.hints
        found.append(Pending(row.id, row.delivery, row.topic, row.attempts, body, hints, trouble))
    return found


def settle(hints: Mapping[int, Mapping[str, list[str]] | None]) -> None:
    """Events are acted upon: keep only what they hinted at, by stream; None where it was landed as a row."""
    values = [{"key": key, "hinted": streams and dict(streams)} for key, streams in hints.items()]
    hinted = sa.bindparam("hinted", type_=InboxEvent.hints.type)
    done = (
        sa.update(InboxEvent)
        .where(InboxEvent.id == sa.bindparam("key"))
        .values(state="done", reason=None, body=None, settled_at=now(), hints=hinted)
    )
    if values:
        with session() as opened:
            opened.connection().execute(done, values)


def ignore(reasons: Mapping[int, str]) -> None:
    """Events ask for nothing that is loaded here. Their bodies stay, so that a replay can act on them."""
    _mark([{"key": key, "why": why[:500]} for key, why in reasons.items()], "ignored")


def _mark(values: list[dict[str, Any]], state: str) -> None:
    change = (
        sa.update(InboxEvent)
        .where(InboxEvent.id == sa.bindparam("key"))
        .values(state=state, reason=sa.bindparam("why"), settled_at=now())
    )
    if values:
        with session() as opened:
            opened.connection().execute(change, values)


def fail(ids: Iterable[int], reason: str, moment: datetime | None = None, *, counts: bool = True) -> int:
    """An attempt failed: try again later, or give up after `ATTEMPTS`.

    Args:
        ids: events.
        reason: why.
        moment: now, unless told.
        counts: whether it was these that failed. Otherwise it is no attempt of theirs, and they wait the
            longer the older they are.

    Returns:
        Events given up.
    """
    at, dead = moment or now(), 0
    wanted, text = list(ids), reason[:500]
    with session() as opened:
        for start in range(0, len(wanted), 500):
            part = InboxEvent.id.in_(wanted[start : start + 500])
            for row in opened.scalars(sa.select(InboxEvent).where(part).with_for_update()):
                row.attempts, row.reason = row.attempts + counts, text
                if row.attempts >= ATTEMPTS:
                    row.state, row.settled_at, dead = "dead", at, dead + 1
                else:
                    wait = WAITS[row.attempts - 1] if counts else (at - row.received_at) / 2
                    wait = min(max(wait, WAITS[0]), WAITS[-1])
                    spread = random.uniform(0.9, 1.1)  # noqa: S311  spreads load
                    row.state, row.due_at = "failed", at + wait * spread
    return dead


def replay(
    tenant: str,
    *,
    ids: Iterable[int] = (),
    failed: bool = False,
    since: datetime | None = None,
    vendor: str | None = None,
) -> int:
    """Let events be acted upon again, whatever became of them.

    Args:
        tenant: whose.
        ids: these events.
        failed: those failed or given up.
        since: all received since then, done ones too.
        vendor: of this sender only.

    Returns:
        Events that wait now.

    Raises:
        ConfigError: nothing is chosen.
    """
    wanted = list(ids)
    if not (wanted or failed or since):
        raise ConfigError("Say what to replay: --id, --failed or --since.")
    where = [InboxEvent.tenant == tenant]
    # What was landed as rows holds nothing to act upon again.
    where.append(sa.or_(InboxEvent.body.is_not(None), InboxEvent.hints.is_not(sa.null())))
    if wanted:
        where.append(InboxEvent.id.in_(wanted))
    if failed:
        where.append(InboxEvent.state.in_(("failed", "dead")))
    if since:
        where.append(InboxEvent.received_at >= since)
    if vendor:
        where.append(InboxEvent.vendor == vendor)
    fresh = {"state": "new", "attempts": 0, "due_at": now(), "reason": None, "settled_at": None}
    with session() as opened:
        found = list(opened.scalars(sa.select(InboxEvent.id).where(*where)))
        opened.execute(sa.update(InboxEvent).where(*where).values(**fresh))
    return len(found)


def forget(moment: datetime | None = None) -> int:
    """Delete what is older than `KEEP`, also what was never acted upon; returns how many rows."""
    before = (moment or now()) - KEEP
    old = InboxEvent.received_at < before
    numbers = sa.select(sa.func.count()).select_from(InboxEvent).where(old)
    with session() as opened:
        gone = opened.scalar(numbers) or 0
        lost = opened.scalar(numbers.where(InboxEvent.state.in_(LIVE))) or 0
        opened.execute(sa.delete(InboxEvent).where(old))
        opened.execute(sa.delete(InboxRefusal).where(InboxRefusal.day < before.date()))
    if lost:
        log.warning(
            "%d events received before %s were never acted upon and are forgotten now; is drain_webhooks "
            "scheduled? Read the vendors' objects again with omni ingest.",
            lost,
            f"{before:%Y-%m-%d}",
        )
    return gone


@dataclass(frozen=True)
class Listed:
    """What the command line shows: never a body."""

    counts: list[tuple[Any, ...]]
    events: list[tuple[Any, ...]]
    refusals: list[tuple[Any, ...]]


def listing(tenant: str, *, state: str | None = None, limit: int = 20) -> Listed:
    """How many events are in which state, the last ones, and deliveries refused by day."""
    counts = sa.select(InboxEvent.vendor, InboxEvent.state, sa.func.count()).where(
        InboxEvent.tenant == tenant
    )
    events = sa.select(
        InboxEvent.id,
        InboxEvent.vendor,
        InboxEvent.topic,
        InboxEvent.state,
        InboxEvent.attempts,
        InboxEvent.received_at,
        InboxEvent.reason,
    ).where(InboxEvent.tenant == tenant, *([InboxEvent.state == state] if state else []))
    refusals = sa.select(
        InboxRefusal.day, InboxRefusal.vendor, InboxRefusal.reason, InboxRefusal.refused
    ).where(InboxRefusal.tenant == tenant)
    with session() as opened:
        return Listed(
            [
                tuple(row)
                for row in opened.execute(
                    counts.group_by(InboxEvent.vendor, InboxEvent.state).order_by(
                        InboxEvent.vendor, InboxEvent.state
                    )
                )
            ],
            [tuple(row) for row in opened.execute(events.order_by(InboxEvent.id.desc()).limit(limit))],
            [tuple(row) for row in opened.execute(refusals.order_by(InboxRefusal.day.desc()).limit(limit))],
        )
