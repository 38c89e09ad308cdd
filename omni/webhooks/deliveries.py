"""Sending what is owed to subscribers: signed, paced, repeated within bounds, and never to a private address.

A row is leased before it is sent and settled after, so a crash in between sends it again under the same
`webhook-id`; receivers drop what they have seen.
"""

from __future__ import annotations

import random
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import groupby

import httpx
import sqlalchemy as sa
from sqlalchemy.orm import Session

from omni.control.database import now, session
from omni.control.hooks import HookDelivery, HookSubscription
from omni.errors import ConfigError, OmniError
from omni.security.vault import Vault
from omni.webhooks import hooks, targets
from omni.webhooks.hooks import LIVE, PURPOSE
from omni.webhooks.signatures import standard_headers

WAITS = tuple(timedelta(minutes=m) for m in (1, 5, 30, 120, 240, 420, 600))
"""Waits before further attempts: eight in all within 24 hours."""
ATTEMPTS = len(WAITS) + 1
LEASE = timedelta(minutes=10)
"""How long a sender has a row for itself; after a crash it is sent again then."""
PATIENCE = timedelta(hours=24)
"""How long throttling does not count as an attempt, and the longest `Retry-After` that is followed."""
PER_SECOND = 30
"""Requests we start in a second, as many as Zapier takes."""
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
SENDERS = 8
CLAIM = 200
TRIES_AT_ONCE = 3
"""Failures in a row after which a receiver is left alone until the next time."""
KEEP = timedelta(days=30)


@dataclass(frozen=True)
class Due:
    """A delivery to make."""

    id: int
    subscription: str
    message_id: str
    created_at: datetime
    url: str = field(repr=False)
    secret: str = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Result:
    """How a receiver answered: its status, or why there is none, and the seconds it asked to wait."""

    status: int | None
    reason: str = ""
    retry_after: float | None = None

    @property
    def good(self) -> bool:
        """It was taken."""
        return self.status is not None and 200 <= self.status < 300


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


def deliver(
    tenant: str,
    *,
    limit: int = 5_000,
    moment: datetime | None = None,
    loopback: bool = False,
    tls: ssl.SSLContext | bool = True,
    per_second: float = PER_SECOND,
) -> dict[str, int]:
    """Send a tenant's deliveries that are due.

    Args:
        tenant: whose.
        limit: most deliveries to attempt.
        moment: now, unless told.
        loopback: this machine may be sent to.
        tls: what to trust; the usual authorities.
        per_second: requests to start in a second.

    Returns:
        How many were `sent`, `failed` (and will be tried again), `throttled`, `dead`, `ended`.
    """
    outcome: Counter[str] = Counter(sent=0, failed=0, throttled=0, dead=0, ended=0)
    pacer, vault = Pacer(per_second), Vault(tenant)
    with (
        httpx.Client(timeout=TIMEOUT, follow_redirects=False, trust_env=False, verify=tls) as client,
        ThreadPoolExecutor(SENDERS) as pool,
    ):
        taken = 0
        while taken < limit and (due := _claim(tenant, vault, moment or now(), min(CLAIM, limit - taken))):
            taken += len(due)
            groups = [list(rows) for _, rows in groupby(due, key=lambda one: one.subscription)]
            for counted in pool.map(
                lambda rows: _send_all(tenant, client, pacer, rows, moment, loopback), groups
            ):
                outcome.update(counted)
    return dict(outcome)


def _claim(tenant: str, vault: Vault, moment: datetime, limit: int) -> list[Due]:
    """Take rows that are due, by subscription."""
    wanted = (
        sa.select(HookDelivery, HookSubscription)
        .join(HookSubscription, HookSubscription.id == HookDelivery.subscription)
        .where(HookDelivery.tenant == tenant, HookDelivery.state.in_(LIVE), HookDelivery.due_at <= moment)
        .order_by(HookDelivery.due_at, HookDelivery.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=HookDelivery)
    )
    found = []
    with session() as opened:
        for row, subscription in opened.execute(wanted).tuples():
            row.due_at = moment + LEASE
            try:
                found.append(_opened(vault, row, subscription))
            except ConfigError as error:
                row.state, row.reason, row.settled_at = "dead", str(error)[:300], moment
    return sorted(found, key=lambda one: (one.subscription, one.id))


def _opened(vault: Vault, row: HookDelivery, of: HookSubscription) -> Due:
    return Due(
        row.id,
        row.subscription,
        f"{row.event_id}.{row.subscription}",
        row.created_at,
        vault.open(of.address, purpose=PURPOSE, name=f"{of.id}/address").decode(),
        vault.open(of.secret, purpose=PURPOSE, name=f"{of.id}/secret").decode(),
        vault.open(row.body or b"", purpose=PURPOSE, name=f"{of.id}/{row.event_id}"),
    )


def _send_all(
    tenant: str,
    client: httpx.Client,
    pacer: Pacer,
    rows: list[Due],
    moment: datetime | None,
    loopback: bool,
) -> Counter[str]:
    """One subscription's rows in turn, until it says stop."""
    outcome: Counter[str] = Counter()
    failures = 0
    for number, due in enumerate(rows):
        pacer.wait()
        result = send(client, due, loopback=loopback)
        kind = _settle(tenant, due, result, moment or now())
        outcome[kind] += 1
        failures = 0 if result.good else failures + 1
        if kind in ("ended", "throttled") or failures >= TRIES_AT_ONCE:
            rest = rows[number + 1 :]
            if kind == "ended":
                outcome["ended"] += len(rest)
            elif kind != "throttled":
                _release(rest, (moment or now()) + WAITS[0])
            break
    return outcome


def send(client: httpx.Client, due: Due, *, loopback: bool = False) -> Result:
    """One request. Whatever goes wrong is an answer; no message names the address."""
    try:
        target = targets.resolve(due.url, loopback=loopback)
    except OmniError as error:
        return Result(None, str(error))
    headers = {
        **standard_headers(due.secret, due.message_id, int(time.time()), due.body),
        "Content-Type": "application/json",
        "Host": target.host,
        "User-Agent": "omni-pipelines",
    }
    try:
        with client.stream(
            "POST", target.url, content=due.body, headers=headers, extensions={"sni_hostname": target.name}
        ) as answer:
            wait = _retry_after(answer.headers.get("retry-after"))
            return Result(answer.status_code, f"status {answer.status_code}", wait)
    except (httpx.HTTPError, OSError, ValueError) as error:
        return Result(None, f"no answer: {type(error).__name__}")


def _retry_after(text: str | None) -> float | None:
    """Seconds, given as a number or a date."""
    if not text:
        return None
    try:
        wait = float(text) if text.strip().isdigit() else _until(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait, 0.0), PATIENCE.total_seconds())


def _until(text: str) -> float:
    at = parsedate_to_datetime(text)
    return (at - now()).total_seconds()


def _settle(tenant: str, due: Due, result: Result, moment: datetime) -> str:
    """Note what became of a delivery; returns the kind to count it under."""
    with session() as opened:
        row = opened.get(HookDelivery, due.id, with_for_update=True)
        if row is None or row.state not in LIVE:
            return "ended"
        row.status, row.reason = result.status, None if result.good else result.reason[:300]
        asked = timedelta(seconds=result.retry_after or 0)
        if result.good:
            row.state, row.body, row.settled_at = "done", None, moment
            return "sent"
        if result.status == 410:
            hooks.end(opened, tenant, due.subscription, "its receiver answered 410 Gone")
            return "ended"
        if result.status == 429 and moment - due.created_at < PATIENCE:
            row.state = "failed"
            _pause(opened, due.subscription, moment + max(asked, timedelta(seconds=1)))
            return "throttled"
        row.attempts += 1
        if row.attempts >= ATTEMPTS:
            row.state, row.settled_at = "dead", moment
            return "dead"
        wait = WAITS[row.attempts - 1] * random.uniform(0.9, 1.1)  # noqa: S311  spreads load
        row.state, row.due_at = "failed", moment + max(wait, asked)
        return "failed"


def _pause(opened: Session, subscription: str, until: datetime) -> None:
    """A throttled receiver is left alone with everything, not only the delivery it refused."""
    opened.flush()
    owed = sa.update(HookDelivery).where(
        HookDelivery.subscription == subscription, HookDelivery.state.in_(LIVE)
    )
    opened.execute(owed.values(due_at=until))


def _release(rows: list[Due], until: datetime) -> None:
    """Give leased rows back unsent."""
    for part in _parts([one.id for one in rows]):
        with session() as opened:
            opened.execute(sa.update(HookDelivery).where(HookDelivery.id.in_(part)).values(due_at=until))


def _parts(ids: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids), 500):
        yield ids[start : start + 500]


def waiting(tenant: str, moment: datetime | None = None) -> int:
    """Deliveries that are due."""
    due = sa.select(sa.func.count()).where(
        HookDelivery.tenant == tenant, HookDelivery.state.in_(LIVE), HookDelivery.due_at <= (moment or now())
    )
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
    """Let dead deliveries, or the ones named, be attempted afresh; returns how many.

    Raises:
        ConfigError: one of those named cannot be sent again: it is done, or its subscription ended.
    """
    where = [HookDelivery.tenant == tenant, HookDelivery.state.in_(("dead", "failed"))]
    if ids is not None:
        where.append(HookDelivery.id.in_(ids))
    with session() as opened:
        found = list(opened.scalars(sa.select(HookDelivery.id).where(*where)))
        if ids is not None and (lost := sorted(set(ids) - set(found))):
            raise ConfigError(f"Not waiting to be sent: {', '.join(map(str, lost))} (sent, ended or unknown)")
        fresh = {"state": "new", "attempts": 0, "due_at": moment or now(), "settled_at": None}
        opened.execute(sa.update(HookDelivery).where(*where).values(**fresh))
    return len(found)


def forget(moment: datetime | None = None) -> int:
    """Delete what is settled and older than `KEEP`; returns how many rows."""
    old = (HookDelivery.state.not_in(LIVE), HookDelivery.created_at < (moment or now()) - KEEP)
    with session() as opened:
        gone = opened.scalar(sa.select(sa.func.count()).where(*old)) or 0
        opened.execute(sa.delete(HookDelivery).where(*old))
    return gone
