"""The ledger of what was written back, in the control database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from omni.control.database import now, session
from omni.control.ledger import WrittenRow
from omni.destinations.declaration import WriteBack
from omni.destinations.plan import LEFT, UNSURE, Item, Known, unsure

AT_ONCE = 500
"""Keys asked for in one query; databases bound how many parameters it may have."""


@dataclass(frozen=True)
class Refusal:
    """A row the destination did not take, and why, without its values.

    `again`: the row itself may be right; it is simply sent again by the next run.
    """

    item: Item
    reason: str
    again: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of the rows of one sending."""

    written: list[Item]
    refused: list[Refusal]


@dataclass(frozen=True)
class Letter:
    """A dead letter as it is shown."""

    key: str
    reason: str


def known_rows(tenant: str, declared: WriteBack) -> dict[str, Known]:
    """What the ledger knows of a write-back's rows, by key."""
    with session() as opened:
        rows = opened.execute(
            sa.select(
                WrittenRow.key,
                WrittenRow.content,
                WrittenRow.columns,
                WrittenRow.writes,
                WrittenRow.rejected,
                WrittenRow.rejected_at.is_not(None),
            ).where(*_of(tenant, declared))
        )
        return {key: Known(*found) for key, *found in rows}


def _of(tenant: str, declared: WriteBack) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        WrittenRow.tenant == tenant,
        WrittenRow.write_back == declared.name,
        WrittenRow.destination == declared.destination,
    )


def intend(tenant: str, declared: WriteBack, items: list[Item], run_id: str) -> dict[str, str | None]:
    """Note that rows are about to be sent, so that they are sent again if nothing more is noted.

    A lost answer leaves open what the vendor holds; without this, a row that returned to what was written
    before would count as unchanged.

    Returns:
        What the ledger held of each key, for `record`.
    """
    with session() as opened:
        rows = _rows(opened, tenant, declared, [item.key for item in items])
        before = {key: row.content for key, row in rows.items()}
        for item in items:
            row, content = rows[item.key], unsure(item.content)
            if row.content is not None and row.content.startswith(UNSURE) and row.content != content:
                row.writes += 1
            row.content, row.run_id = content, run_id
    return before


def record(
    tenant: str, declared: WriteBack, outcome: Outcome, run_id: str, before: Mapping[str, str | None]
) -> None:
    """Note what became of a sending, all of it or nothing.

    Args:
        tenant: whose.
        declared: the write-back.
        outcome: what the destination answered.
        run_id: noted with each row.
        before: what `intend` gave. Refused rows get it back, unless it is not known what became of them.
    """
    moment = now()
    items = [*outcome.written, *(refusal.item for refusal in outcome.refused)]
    with session() as opened:
        rows = _rows(opened, tenant, declared, [item.key for item in items])
        for row in rows.values():
            row.run_id = run_id
        for item in outcome.written:
            row = rows[item.key]
            row.content, row.columns = item.content, dict(item.columns)
            row.writes, row.written_at = row.writes + 1, moment
            row.rejected = row.reason = row.rejected_at = None
        for refusal in outcome.refused:
            row = rows[refusal.item.key]
            if not refusal.again:
                row.content = before.get(refusal.item.key)
            row.rejected = None if refusal.again else (refusal.item.content or LEFT)
            row.reason, row.rejected_at = refusal.reason[:300], moment


def _rows(opened: Session, tenant: str, declared: WriteBack, keys: list[str]) -> dict[str, WrittenRow]:
    """The ledger's rows of these keys, made where there are none."""
    found: dict[str, WrittenRow] = {}
    for start in range(0, len(keys), AT_ONCE):
        some = WrittenRow.key.in_(keys[start : start + AT_ONCE])
        wanted = sa.select(WrittenRow).where(*_of(tenant, declared), some)
        found |= {row.key: row for row in opened.scalars(wanted)}
    for key in keys:
        if key not in found:
            found[key] = WrittenRow(
                tenant=tenant,
                write_back=declared.name,
                destination=declared.destination,
                key=key,
                columns={},
                writes=0,
            )
            opened.add(found[key])
    return found


def letters(tenant: str, declared: WriteBack, limit: int = 100) -> list[Letter]:
    """The dead letters of a write-back, the latest first."""
    wanted = (
        sa.select(WrittenRow.key, WrittenRow.reason)
        .where(*_of(tenant, declared), WrittenRow.rejected_at.is_not(None))
        .order_by(WrittenRow.rejected_at.desc(), WrittenRow.key)
        .limit(limit)
    )
    with session() as opened:
        return [Letter(key, reason or "") for key, reason in opened.execute(wanted)]


def settle(tenant: str, declared: WriteBack, keys: Sequence[str]) -> None:
    """Take rows off the list of dead letters about which nothing is to be done any more."""
    for start in range(0, len(keys), AT_ONCE):
        some = WrittenRow.key.in_(keys[start : start + AT_ONCE])
        with session() as opened:
            opened.execute(
                sa.update(WrittenRow)
                .where(*_of(tenant, declared), some)
                .values(rejected=None, reason=None, rejected_at=None)
            )


def forget(tenant: str, keys: Iterable[str]) -> int:
    """Forget rows of these keys, when the people they are about are erased. Returns how many."""
    gone = sa.delete(WrittenRow).where(WrittenRow.tenant == tenant, WrittenRow.key.in_(list(keys)))
    with session() as opened:
        return int(getattr(opened.execute(gone), "rowcount", 0))
