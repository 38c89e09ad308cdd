"""Sending what is owed to subscribers: paced, repeated within bounds, and nobody waits for a slow receiver.

A row is leased before it is sent and settled after, so a crash in between sends it again under the same
`webhook-id`; receivers drop what they have seen. The subscriptions take turns, a few rows each: one that
fails is left alone with everything it is owed, and holds up no other.
"""

from __future__ import annotations

import logging
import random
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import httpx
import sqlalchemy as sa
from sqlalchemy.orm import Session

from omni.control.database import now, session
from omni.control.hooks import HookDelivery, HookSubscription
from omni.errors import ConfigError
from omni.security.vault import Vault
from omni.webhooks import hooks
from omni.webhooks.hooks import LIVE, PURPOSE, SENDING
from omni.webhooks.sending import SEND_SECONDS, Due, Result, client, send

WAITS = tuple(timedelta(minutes=m) for m in (1, 5, 30, 120, 240, 420, 600))
"""Waits before further attempts: eight in all within 24 hours."""
ATTEMPTS = len(WAITS) + 1
LEASE = timedelta(minutes=10)
"""How long a sender has a row for itself; after a crash it is sent again then. After half of it a sender
gives back what it has not begun."""
PATIENCE = timedelta(hours=24)
"""How long throttling does not count as an attempt."""
PER_SECOND = 30
"""Requests we start in a second, as many as Zapier takes."""
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
SENDERS = 8
CLAIM = 50
"""Rows of one subscription before it is another one's turn."""
TRIES_AT_ONCE = 3
"""Failures in a row after which a receiver is left alone until the next time."""
KEEP = timedelta(days=30)

log = logging.getLogger(__name__)


class Pacer:
    """Lets through at most so many a second, evenly, from any thread."""

    def __init__(
        self,
        per_second: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._gap, self._clock, self._sleep = 1 / per_second, clock, sleep
        self._next, self._lock = clock(), threading.Lock()

    def wait(self) -> None:
        """Return when it is this caller's turn."""
        with self._lock:
            at = max(self._next, self._clock())
            self._next = at + self._gap
        self._sleep(max(0.0, at - self._clock()))


@dataclass
class _Turns:
    """Subscriptions that wait for their turn, and how many deliveries may still be attempted."""

    left: int
    waiting: deque[str]
    failures: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self) -> tuple[str, int] | None:
        """A subscription, and how many of its deliveries may be attempted now; they are set aside for it."""
        with self.lock:
            if not self.waiting or self.left < 1:
                return None
            many = min(CLAIM, self.left)
            self.left -= many
            return self.waiting.popleft(), many

    def back(self, subscription: str, unused: int, *, again: bool) -> None:
        """End a turn: give back what was not attempted, and wait for another one."""
        with self.lock:
            self.left += unused
            if again:
                self.waiting.append(subscription)


@dataclass(frozen=True)
class _Sender:
    """What all threads of one `deliver` share."""

    tenant: str
    vault: Vault
    client: httpx.Client
    pacer: Pacer
    moment: datetime | None
    loopback: bool
    seconds: float
    lease: timedelta


def deliver(
    tenant: str,
    *,
    limit: int = 5_000,
    moment: datetime | None = None,
    loopback: bool = False,
    tls: ssl.SSLContext | bool = True,
    per_second: float = PER_SECOND,
    seconds: float = SEND_SECONDS,
    lease: timedelta | None = None,
) -> dict[str, int]:
    """Send a tenant's deliveries that are due.

    Args:
        tenant: whose.
        limit: most deliveries to attempt.
        moment: now, unless told.
        loopback: this machine may be sent to.
        tls: what to trust; the usual authorities.
        per_second: requests to start in a second.
        seconds: the most one request may take in all.
        lease: how long rows are this sender's; `LEASE`.

    Returns:
        How many were `sent`, `failed` (and will be tried again), `throttled`, `dead`, `ended` with their
        subscription, `lapsed` (another sender had settled it meanwhile, since this one took too long).
    """
    outcome: Counter[str] = Counter(sent=0, failed=0, throttled=0, dead=0, ended=0, lapsed=0)
    turns = _Turns(limit, deque(_owed(tenant, moment or now())))
    with client(TIMEOUT, tls) as by, ThreadPoolExecutor(SENDERS) as pool:
        pacer = Pacer(per_second)
        sender = _Sender(
            tenant, Vault(tenant), by, pacer, moment, loopback, seconds, LEASE if lease is None else lease
        )
        for counted in [pool.submit(_work, sender, turns) for _ in range(SENDERS)]:
            outcome.update(counted.result())
    return dict(outcome)


def _owed(tenant: str, moment: datetime) -> list[str]:
    """Subscriptions with deliveries that are due, the longest waiting first."""
    wanted = sa.select(HookDelivery.subscription).where(*_due(tenant, moment))
    order = (sa.func.min(HookDelivery.due_at), HookDelivery.subscription)
    with session() as opened:
        return list(opened.scalars(wanted.group_by(HookDelivery.subscription).order_by(*order)))


def _due(tenant: str, moment: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return (HookDelivery.tenant == tenant, HookDelivery.state.in_(LIVE), HookDelivery.due_at <= moment)


def _claim(
    tenant: str,
    vault: Vault,
    moment: datetime,
    limit: int,
    subscription: str | None = None,
    lease: timedelta | None = None,
) -> list[Due]:
    """Lease rows that are due; of one subscription, where that is given."""
    wanted = (
        sa.select(HookDelivery, HookSubscription)
        .join(HookSubscription, HookSubscription.id == HookDelivery.subscription)
        .where(*_due(tenant, moment))
        .order_by(HookDelivery.due_at, HookDelivery.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=HookDelivery)
    )
    if subscription is not None:
        wanted = wanted.where(HookDelivery.subscription == subscription)
    found = []
    with session() as opened:
        for row, of in opened.execute(wanted).tuples():
            row.state, row.due_at = SENDING, moment + (LEASE if lease is None else lease)
            found.append(_opened(vault, row, of))
    return sorted(found, key=lambda one: (one.subscription, one.id))


def _opened(vault: Vault, row: HookDelivery, of: HookSubscription) -> Due:
    """What to send; one that does not open, since its key is missing, is in trouble."""
    key = f"{row.event_id}.{row.subscription}"
    try:
        return Due(
            row.id,
            row.subscription,
            key,
            row.created_at,
            vault.open(of.address, purpose=PURPOSE, name=f"{of.id}/address").decode(),
            vault.open(of.secret, purpose=PURPOSE, name=f"{of.id}/secret").decode(),
            vault.open(row.body or b"", purpose=PURPOSE, name=f"{of.id}/{row.event_id}"),
            row.due_at,
        )
    except ConfigError as error:
        return Due(row.id, row.subscription, key, row.created_at, "", "", b"", row.due_at, str(error))


def _work(sender: _Sender, turns: _Turns) -> Counter[str]:
    """Take turns until nothing waits for one."""
    outcome: Counter[str] = Counter()
    while (turn := turns.next()) is not None:
        subscription, many = turn
        at = sender.moment or now()
        due = _claim(sender.tenant, sender.vault, at, many, subscription, sender.lease)
        attempted, again = _send_all(sender, turns, due, outcome)
        turns.back(subscription, many - attempted, again=again)
    return outcome


def _send_all(sender: _Sender, turns: _Turns, rows: list[Due], outcome: Counter[str]) -> tuple[int, bool]:
    """One subscription's rows, until it says stop or half their lease has passed.

    Returns:
        How many were attempted, and whether it may have more that are due.
    """
    begun, failures = time.monotonic(), turns.failures
    for number, due in enumerate(rows):
        if number and time.monotonic() - begun >= sender.lease.total_seconds() / 2:
            _release(rows[number:], sender.moment or now())
            return number, True
        if due.trouble:
            result = Result(None, due.trouble)
        else:
            sender.pacer.wait()
            result = send(sender.client, due, loopback=sender.loopback, seconds=sender.seconds)
        moment = sender.moment or now()
        kind = _settle(sender.tenant, due, result, moment)
        outcome[kind] += 1
        failures[due.subscription] = 0 if result.good or due.trouble else failures[due.subscription] + 1
        rest = rows[number + 1 :]
        if kind == "ended":
            outcome["ended"] += len(rest)
            return number + 1, False
        if kind == "throttled" or failures[due.subscription] >= TRIES_AT_ONCE:
            _leave_alone(due.subscription, rest, moment + _asked(result, kind))
            return number + 1, False
    return len(rows), bool(rows)


def _asked(result: Result, kind: str) -> timedelta:
    """How long a receiver is to be left alone."""
    least = timedelta(seconds=1) if kind == "throttled" else WAITS[0]
    return max(timedelta(seconds=result.retry_after or 0), least)


def _settle(tenant: str, due: Due, result: Result, moment: datetime) -> str:
    """Note what became of a delivery; returns the kind to count it under."""
    kind = _noted(due, result, moment)
    if kind == "ended" and result.status == 410:
        # Apart, since it takes the rows of other senders, who may be waiting for this one.
        hooks.unsubscribe(tenant, due.subscription, "its receiver answered 410 Gone")
    return kind


def _noted(due: Due, result: Result, moment: datetime) -> str:
    with session() as opened:
        row = opened.get(HookDelivery, due.id, with_for_update=True)
        if row is None or row.state not in LIVE:
            return "ended" if row is not None and row.state == "ended" else "lapsed"
        if result.good:
            row.state, row.body, row.settled_at = "done", None, moment
            row.status, row.reason = result.status, None
            return "sent"
        if result.status == 410:
            row.status = result.status
            return "ended"
        if row.due_at != due.leased_until:
            return "lapsed"
        row.status, row.reason = result.status, result.reason[:300]
        if result.status == 429 and moment - due.created_at < PATIENCE:
            row.state, row.due_at = "failed", moment + _asked(result, "throttled")
            return "throttled"
        row.attempts += 1
        if row.attempts >= ATTEMPTS:
            row.state, row.settled_at = "dead", moment
            return "dead"
        wait = WAITS[row.attempts - 1] * random.uniform(0.9, 1.1)  # noqa: S311  spreads load
        row.state, row.due_at = "failed", moment + max(wait, timedelta(seconds=result.retry_after or 0))
        return "failed"


def _leave_alone(subscription: str, rest: list[Due], until: datetime) -> None:
    """Nothing goes to a receiver before then: neither what this sender holds nor what else is owed.

    Rows that are due later stay so, and those that another sender holds are its own to settle.
    """
    _release(rest, until)
    with session() as opened:
        _pause(opened, subscription, until)


def _pause(opened: Session, subscription: str, until: datetime) -> None:
    owed = sa.update(HookDelivery).where(
        HookDelivery.subscription == subscription,
        HookDelivery.state.in_(hooks.WAITING),
        HookDelivery.due_at < until,
    )
    opened.execute(owed.values(due_at=until))


def _release(rows: list[Due], until: datetime) -> None:
    """Give leased rows back unsent, unless the lease has been lost."""
    state = sa.case((HookDelivery.reason.is_not(None), "failed"), else_="new")
    for part in _parts([one.id for one in rows]):
        held = (
            HookDelivery.id.in_(part),
            HookDelivery.state == SENDING,
            HookDelivery.due_at == rows[0].leased_until,
        )
        with session() as opened:
            opened.execute(sa.update(HookDelivery).where(*held).values(due_at=until, state=state))


def _parts(ids: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids), 500):
        yield ids[start : start + 500]


def waiting(tenant: str, moment: datetime | None = None) -> int:
    """Deliveries that are due."""
    due = sa.select(sa.func.count()).where(*_due(tenant, moment or now()))
    with session() as opened:
        return opened.scalar(due) or 0


def listing(tenant: str) -> list[tuple[object, ...]]:
    """How many deliveries are in which state, with a reason of those that failed."""
    wanted = (
        sa.select(HookDelivery.event, HookDelivery.state, sa.func.count(), sa.func.max(HookDelivery.reason))
        .where(HookDelivery.tenant == tenant)
        .group_by(HookDelivery.event, HookDelivery.state)
        .order_by(HookDelivery.event, HookDelivery.state)
    )
    with session() as opened:
        return [tuple(row) for row in opened.execute(wanted)]


def replay(tenant: str, *, ids: list[int] | None = None, moment: datetime | None = None) -> int:
    """Let dead and failed deliveries, or those of them that are named, be attempted afresh; returns how many.

    Those that are being sent are left out.

    Raises:
        ConfigError: one of those named cannot be sent again: it is done, being sent, or its subscription
            ended.
    """
    where = [HookDelivery.tenant == tenant, HookDelivery.state.in_(("dead", "failed"))]
    if ids is not None:
        where.append(HookDelivery.id.in_(ids))
    with session() as opened:
        found = list(opened.scalars(sa.select(HookDelivery.id).where(*where)))
        if ids is not None and (lost := sorted(set(ids) - set(found))):
            raise ConfigError(
                f"Not waiting to be sent: {', '.join(map(str, lost))} (sent, being sent, ended or unknown)"
            )
        fresh = {"state": "new", "attempts": 0, "due_at": moment or now(), "settled_at": None}
        opened.execute(sa.update(HookDelivery).where(*where).values(**fresh))
    return len(found)


def forget(moment: datetime | None = None) -> int:
    """Delete deliveries that are settled, and subscriptions that ended, before `KEEP`; returns how many."""
    before = (moment or now()) - KEEP
    old = (HookDelivery.state.not_in(LIVE), HookDelivery.created_at < before)
    owing = sa.exists().where(HookDelivery.subscription == HookSubscription.id)
    ended = (HookSubscription.ended_at < before, ~owing)
    with session() as opened:
        gone = _deleted(opened, HookDelivery, *old)
        over = _deleted(opened, HookSubscription, *ended)
    if over:
        log.info("%d subscriptions that ended before %s are forgotten", over, f"{before:%Y-%m-%d}")
    return gone + over


def _deleted(
    opened: Session, table: type[HookDelivery | HookSubscription], *where: sa.ColumnElement[bool]
) -> int:
    done = opened.execute(sa.delete(table).where(*where).execution_options(synchronize_session=False))
    return int(getattr(done, "rowcount", 0))
