"""Paying approved statements: once each, in batches whose file can be written again at any time."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import sqlalchemy as sa

from omni.control.database import alone, now, session
from omni.control.partners import PartnerBatch, PartnerPayment
from omni.errors import ConfigError
from omni.files import private_folder, write_atomic
from omni.partners.accounts import Partner, money, partners
from omni.partners.report import csv_text
from omni.partners.statements import Statement, approved
from omni.tenancy import Tenant

BATCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Balance:
    """What a partner's approved statements come to, in hundredths of the currency.

    `minimum_cents` is None for a partner that is no longer among the declared ones: it is not paid.
    """

    partner_id: str
    name: str
    currency: str
    approved_cents: int
    paid_cents: int
    minimum_cents: int | None
    open: tuple[Statement, ...]

    @property
    def cents(self) -> int:
        """What is approved and not paid; negative if more was taken back than earned since."""
        return self.approved_cents - self.paid_cents

    @property
    def is_payable(self) -> bool:
        """Whether it is paid now; if not, it carries over."""
        return self.minimum_cents is not None and self.cents >= max(self.minimum_cents, 1)


def balances(tenant: Tenant, con: duckdb.DuckDBPyConnection) -> list[Balance]:
    """Balances of all partners with approved statements.

    Args:
        tenant: whose partners.
        con: the tenant's published snapshot, for names and terms.

    Raises:
        ConfigError: nothing is published.
        StorageError: an approved statement was altered.
    """
    known = partners(con)
    with session() as opened:
        return _balances(known, approved(opened, tenant.tenant))


def _balances(known: Mapping[str, Partner], kept: Sequence[Statement]) -> list[Balance]:
    accounts: dict[tuple[str, str], list[Statement]] = defaultdict(list)
    for one in kept:
        accounts[one.partner_id, one.currency].append(one)
    found = []
    for (partner, currency), own in sorted(accounts.items()):
        terms = known.get(partner)
        current = terms is not None and terms.currency == currency
        found.append(
            Balance(
                partner,
                terms.name if terms else partner,
                currency,
                sum(one.cents for one in own),
                sum(one.cents for one in own if one.paid_by),
                terms.minimum_cents if terms and current else None,
                tuple(one for one in own if not one.paid_by),
            )
        )
    return found


def pay(tenant: Tenant, con: duckdb.DuckDBPyConnection, batch: str) -> str | None:
    """Take every payable balance into a batch; a batch that exists stays as it is.

    The statements are marked as paid in the transaction that keeps the batch's content, so that a crash pays
    nothing twice and loses nothing.

    Args:
        tenant: whose partners.
        con: the tenant's published snapshot.
        batch: a name of the caller's choice, for example 2026-06.

    Returns:
        The content of the batch's CSV file; None if there is nothing to pay and no such batch.

    Raises:
        ConfigError: the name cannot be one of a file; nothing is published.
        StorageError: an approved statement was altered.
    """
    if not BATCH.fullmatch(batch):
        raise ConfigError(
            f"--batch {batch!r}: at most 64 letters, digits, dots, hyphens, underscores, for example 2026-06"
        )
    known = partners(con)
    with session() as opened:
        alone(opened.connection(), f"partners of {tenant.tenant}")
        if (stored := opened.get(PartnerBatch, (tenant.tenant, batch))) is not None:
            return stored.content
        payable = [b for b in _balances(known, approved(opened, tenant.tenant)) if b.is_payable]
        if not payable:
            return None
        content = _csv(batch, payable)
        opened.add(PartnerBatch(tenant=tenant.tenant, batch=batch, content=content, created_at=now()))
        opened.flush()
        opened.add_all(
            PartnerPayment(statement_id=one.id, tenant=tenant.tenant, batch=batch)
            for balance in payable
            for one in balance.open
        )
        return content


def write_payout(tenant: Tenant, batch: str, content: str, path: Path | None = None) -> Path:
    """Write a batch's file whole; into the tenant's folder, which only its owner may enter, by default.

    Raises:
        StorageError: it cannot be written.
    """
    if path is None:
        folder = tenant.home / "partners"
        private_folder(folder)
        path = folder / f"payout-{batch}.csv"
    write_atomic(path, content)
    return path


def batches(tenant: str) -> list[str]:
    """The batches there are, oldest first."""
    with session() as opened:
        query = sa.select(PartnerBatch.batch).where(PartnerBatch.tenant == tenant)
        return list(opened.scalars(query.order_by(PartnerBatch.created_at, PartnerBatch.batch)))


def _csv(batch: str, payable: Iterable[Balance]) -> str:
    columns = ["batch", "partner_id", "name", "amount", "currency", "statements", "reference"]
    rows = [
        (
            batch, one.partner_id, one.name, money(one.cents), one.currency,
            " ".join(f"{statement.month:%Y-%m}" for statement in one.open), f"{batch} {one.partner_id}",
        )
        for one in payable
    ]  # fmt: skip
    return csv_text(columns, rows)
