"""Statements: what became payable to a partner since the last one; kept for good once approved.

A statement of a month holds every line of the partner's account that is payable by the month's end, less
what approved statements say of the same line. So a line comes once; what changes afterwards (an order that
came late or vanished, other tiers, another partner's click) comes as an adjustment in the next statement, and
approved statements add up to what the marts say was due when the last one was approved.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

import duckdb
import sqlalchemy as sa
from sqlalchemy.orm import Session

from omni.control.database import alone, now, session
from omni.control.partners import PartnerLine, PartnerPayment, PartnerStatement
from omni.errors import ConfigError, NotEnoughData, StorageError
from omni.partners.accounts import Due, due_through, last_day, partners
from omni.tenancy import Tenant
from omni.warehouse.versions import complete_through

ADJUSTMENT = "adjustment"


@dataclass(frozen=True)
class Line:
    """A line of a statement; amounts are hundredths of its currency.

    `kind` is commission or clawback where the account's line comes for the first time, else adjustment.
    """

    line_id: str
    kind: str
    order_id: str
    line_date: date
    base_cents: int
    cents: int


@dataclass(frozen=True)
class Statement:
    """A partner's statement of a month; `approved_at` is None while it is a draft."""

    partner_id: str
    month: date
    currency: str
    lines: tuple[Line, ...]
    approved_at: datetime | None = None
    id: str | None = None
    paid_by: str | None = None

    @property
    def cents(self) -> int:
        """The sum of its lines."""
        return sum(line.cents for line in self.lines)

    @property
    def digest(self) -> str:
        """A fingerprint of what it says: of partner, month, currency and lines in order."""
        lines = [
            [line.line_id, line.kind, line.order_id, line.line_date.isoformat(), line.base_cents, line.cents]
            for line in self.lines
        ]
        said = [self.partner_id, self.month.isoformat(), self.currency, lines]
        return hashlib.sha256(json.dumps(said, ensure_ascii=True).encode()).hexdigest()


def statements(
    tenant: Tenant, con: duckdb.DuckDBPyConnection, month: date, partner: str | None = None
) -> list[Statement]:
    """Statements of a month by partner: approved ones as they were approved, drafts of the others.

    Partners with nothing to state, or with an approved statement of a later month, have none.

    Args:
        tenant: whose partners.
        con: the tenant's published snapshot.
        month: its first day.
        partner: only this one's.

    Raises:
        ConfigError: unknown partner; nothing is published; the currency changed.
        StorageError: an approved statement was altered.
    """
    due = due_through(con, month)
    with session() as opened:
        kept = approved(opened, tenant.tenant)
    if partner is not None and partner not in {*partners(con), *(s.partner_id for s in kept)}:
        raise ConfigError(f"There is no partner {partner!r}; `omni partners list` names them")
    found = [one for one in kept if one.month == month] + _drafts(kept, due, month)
    return sorted((s for s in found if partner in (None, s.partner_id)), key=lambda s: s.partner_id)


def approve(
    tenant: Tenant,
    con: duckdb.DuckDBPyConnection,
    month: date,
    partner: str | None = None,
    *,
    digest: str | None = None,
) -> list[Statement]:
    """Approve the drafts of a month; those approved already stay as they are.

    Args:
        tenant: whose partners.
        con: the tenant's published snapshot.
        month: its first day.
        partner: only this one's.
        digest: approve only if the partner's statement is still the one whose digest begins so.

    Returns:
        What was approved now.

    Raises:
        NotEnoughData: the month's data are not complete yet.
        ConfigError: the draft is another by now; and as `statements`.
        StorageError: as `statements`.
    """
    through = complete_through(con, tenant.timezone)
    if through is None or through < last_day(month):
        raise NotEnoughData(
            f"The data of {tenant.tenant} are complete through {through or 'no day'}; a statement of "
            f"{month:%Y-%m} can be approved when they are through {last_day(month)}"
        )
    due = due_through(con, month)
    with session() as opened:
        alone(opened.connection(), f"partners of {tenant.tenant}")
        kept = approved(opened, tenant.tenant)
        drafts = [one for one in _drafts(kept, due, month) if partner in (None, one.partner_id)]
        if digest is not None and not (len(drafts) == 1 and drafts[0].digest.startswith(digest)):
            raise ConfigError(
                f"The statement is not the one with digest {digest}: data or statements changed since, or it "
                f"is approved. Look again: omni partners statement --month {month:%Y-%m}"
            )
        return [_keep(opened, tenant.tenant, draft) for draft in drafts]


def _keep(opened: Session, tenant: str, draft: Statement) -> Statement:
    kept = replace(draft, id=uuid.uuid4().hex, approved_at=now())
    opened.add(
        PartnerStatement(
            id=kept.id, tenant=tenant, partner_id=kept.partner_id, month=kept.month, currency=kept.currency,
            cents=kept.cents, digest=kept.digest, approved_at=kept.approved_at,
        )
    )  # fmt: skip
    opened.flush()
    opened.add_all(PartnerLine(statement_id=kept.id, **vars(line)) for line in kept.lines)
    return kept


def approved(opened: Session, tenant: str) -> list[Statement]:
    """A tenant's approved statements with their lines, oldest month first.

    Raises:
        StorageError: one says something else than what was approved.
    """
    rows = opened.execute(
        sa.select(PartnerStatement, PartnerPayment.batch)
        .outerjoin(PartnerPayment, PartnerPayment.statement_id == PartnerStatement.id)
        .where(PartnerStatement.tenant == tenant)
        .order_by(PartnerStatement.month, PartnerStatement.partner_id)
    ).all()
    lines: dict[str, list[PartnerLine]] = defaultdict(list)
    mine = sa.select(PartnerStatement.id).where(PartnerStatement.tenant == tenant)
    for line in opened.scalars(sa.select(PartnerLine).where(PartnerLine.statement_id.in_(mine))):
        lines[line.statement_id].append(line)
    found = []
    for row, batch in rows:
        own = _in_order(
            Line(x.line_id, x.kind, x.order_id, x.line_date, x.base_cents, x.cents) for x in lines[row.id]
        )
        one = Statement(row.partner_id, row.month, row.currency, own, row.approved_at, row.id, batch)
        if (one.digest, one.cents) != (row.digest, row.cents):
            raise StorageError(
                f"The approved statement of {row.partner_id} of {row.month:%Y-%m} (id {row.id}) was altered "
                "in the control database: it no longer has the digest it was approved with. Restore a backup."
            )
        found.append(one)
    return found


def _in_order(lines: Iterable[Line]) -> tuple[Line, ...]:
    return tuple(sorted(lines, key=lambda line: (line.line_date, line.line_id)))


def _drafts(kept: Sequence[Statement], due: Sequence[Due], month: date) -> list[Statement]:
    """What changed since the last statement, of partners that have none of this month or later."""
    settled = {one.partner_id for one in kept if one.month >= month}
    earlier: dict[str, list[Statement]] = defaultdict(list)
    for one in kept:
        earlier[one.partner_id].append(one)
    current: dict[str, list[Due]] = defaultdict(list)
    for line in due:
        current[line.partner_id].append(line)
    drafts = []
    for partner in sorted((set(earlier) | set(current)) - settled):
        currency = _currency(partner, earlier[partner], current[partner])
        lines = _changes(earlier[partner], current[partner])
        if lines:
            drafts.append(Statement(partner, month, currency, lines))
    return drafts


def _currency(partner: str, earlier: Sequence[Statement], current: Sequence[Due]) -> str:
    found = {one.currency for one in earlier} | {line.currency for line in current}
    if len(found) > 1:
        raise ConfigError(
            f"Partner {partner} has statements or lines in {', '.join(sorted(found))}. An account has one "
            "currency: end the partner and give it a new id in the new currency."
        )
    return found.pop()


def _changes(earlier: Sequence[Statement], current: Sequence[Due]) -> tuple[Line, ...]:
    """The lines that bring an account from what was approved to what is due."""
    known: dict[str, Line] = {}
    for statement in earlier:
        for line in statement.lines:
            base, cents = line.base_cents, line.cents
            if before := known.get(line.line_id):
                base, cents = before.base_cents + base, before.cents + cents
            known[line.line_id] = replace(line, base_cents=base, cents=cents)
    lines = []
    for new in current:
        old = known.pop(new.line_id, None)
        kind = ADJUSTMENT if old else new.kind
        base, cents = (old.base_cents, old.cents) if old else (0, 0)
        if new.cents != cents:
            base, cents = new.base_cents - base, new.cents - cents
            lines.append(Line(new.line_id, kind, new.order_id, new.line_date, base, cents))
    lines += [
        replace(old, kind=ADJUSTMENT, base_cents=-old.base_cents, cents=-old.cents)
        for old in known.values()
        if old.cents
    ]
    return _in_order(lines)
