"""Acting on the inbox: the objects that events hint at are read again, then the events are done.

An event is settled only after the load of what it hinted at was committed, so a crash between any two steps
leaves it waiting, and acting twice ends in the same tables. One event that cannot be acted upon does not hold
up the others: where a batch fails for what it holds, it is halved until the culprit stands alone. What had to
wait because there were too many culprits to tell them apart is no worse for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from omni.errors import CheckFailed, OmniError, SchemaError, SourceError
from omni.webhooks import inbox
from omni.webhooks.hints import MAPPINGS, hints_of
from omni.webhooks.inbox import Pending

BATCH = 2_000
"""Events acted upon together."""
HALVINGS = 64
"""Attempts beyond the first that a batch may take to find what fails in it."""

Act = Callable[[str, list[str]], int]
"""Reads objects of a stream again by id and loads them; returns the rows that changed."""

Why = dict[str, str]
"""Ids that could not be acted upon and the reason."""


@dataclass
class Drained:
    """What became of a sender's events.

    Attributes:
        events: how many were looked at.
        objects: distinct objects read again.
        rows: rows that changed by it.
        reasons: what went wrong, each reason once.
    """

    events: int = 0
    done: int = 0
    ignored: int = 0
    failed: int = 0
    dead: int = 0
    objects: int = 0
    rows: int = 0
    reasons: list[str] = field(default_factory=list)


@dataclass
class _Budget:
    left: int = HALVINGS
    untried: set[tuple[str, str]] = field(default_factory=set)
    """Ids that failed in company only, by stream: nothing is known against them."""


@dataclass
class _Failed:
    """Events that could not be acted upon, by the reason and whether that was an attempt of theirs."""

    keys: dict[tuple[str, bool], list[int]] = field(default_factory=dict)

    def add(self, key: int, reason: str, *, counts: bool = True) -> None:
        """Note an event."""
        self.keys.setdefault((reason, counts), []).append(key)


def drain(tenant: str, vendor: str, upto: int, act: Act, unread: Callable[[str], str | None]) -> Drained:
    """Act on a sender's events that are due.

    Args:
        tenant: whose.
        vendor: the sender.
        upto: the last event's number; later ones are left to the next time.
        act: reads again and loads, committed when it returns.
        unread: why a stream is not read here; None if it is.
    """
    total = Drained()
    while events := inbox.pending(tenant, vendor, upto, BATCH):
        _batch(total, vendor, events, act, unread)
    return total


def _batch(
    total: Drained, vendor: str, events: list[Pending], act: Act, unread: Callable[[str], str | None]
) -> None:
    failed = _Failed()
    for event in events:
        if event.trouble:
            failed.add(event.id, event.trouble)
    events = [event for event in events if not event.trouble]
    # Those that failed before stand together at the end, so that most halves without them succeed whole.
    events.sort(key=lambda event: event.attempts)
    hinted = {event.id: hints_of(vendor, event) for event in events}
    topics = {event.id: event.topic for event in events}
    streams: dict[str, list[str]] = {}
    for hints in hinted.values():
        for stream, ids in hints.items():
            streams.setdefault(stream, []).extend(ids)
    closed = {stream: why for stream in streams if (why := unread(stream)) is not None}
    failures: dict[str, Why] = {}
    budget = _Budget()
    for stream, ids in streams.items():
        if stream not in closed:
            distinct = list(dict.fromkeys(ids))
            failures[stream] = _attempt(total, stream, distinct, act, budget)
            total.objects += len(distinct) - len(failures[stream])
    good: dict[int, dict[str, list[str]] | None] = {}
    useless: dict[int, str] = {}
    for key, hints in hinted.items():
        wrong = [(s, one) for s, ids in hints.items() for one in ids if one in failures.get(s, {})]
        if wrong:
            stream, one = wrong[0]
            failed.add(key, failures[stream][one], counts=not budget.untried.issuperset(wrong))
        elif all(stream in closed for stream in hints):
            useless[key] = next((closed[s] for s in hints), f"{topics[key]} means nothing here")
        else:
            good[key] = hints if vendor in MAPPINGS else None
    _settle(total, good, useless, failed)


def _settle(
    total: Drained,
    good: dict[int, dict[str, list[str]] | None],
    useless: dict[int, str],
    failed: _Failed,
) -> None:
    inbox.settle(good)
    inbox.ignore(useless)
    total.events += len(good) + len(useless)
    total.done += len(good)
    total.ignored += len(useless)
    for (reason, counts), keys in failed.keys.items():
        dead = inbox.fail(keys, reason, counts=counts)
        total.events, total.dead = total.events + len(keys), total.dead + dead
        total.failed += len(keys) - dead
        if reason not in total.reasons:
            total.reasons.append(reason)


def _attempt(total: Drained, stream: str, ids: list[str], act: Act, budget: _Budget) -> Why:
    """Act on ids, halving them where one may be to blame."""
    try:
        total.rows += act(stream, ids)
        return {}
    except (SourceError, SchemaError, CheckFailed) as error:
        reason = f"{stream}: {error}"
    except OmniError as error:
        return dict.fromkeys(ids, f"{stream}: {error}")
    except Exception as error:  # noqa: BLE001  a bug in one record's handling must not hold up the others
        reason = f"{stream}: {type(error).__name__}"
    if len(ids) == 1:
        return {ids[0]: reason}
    if budget.left < 2:
        budget.untried.update((stream, one) for one in ids)
        return dict.fromkeys(ids, reason)
    budget.left -= 2
    middle = len(ids) // 2
    first = _attempt(total, stream, ids[:middle], act, budget)
    return first | _attempt(total, stream, ids[middle:], act, budget)
