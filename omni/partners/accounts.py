"""What the published tables say of partners: who they are, on what terms, and what is due to them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import duckdb

from omni.errors import ConfigError

HUNDRED = 100


@dataclass(frozen=True)
class Partner:
    """A partner and its program's terms; amounts are hundredths of the currency."""

    partner_id: str
    name: str
    code: str
    program: str
    joined_on: date
    left_on: date | None
    window_days: int
    hold_days: int
    minimum_cents: int
    currency: str


@dataclass(frozen=True)
class Due:
    """A line of a partner's account as the marts have it now."""

    partner_id: str
    line_id: str
    kind: str
    order_id: str
    line_date: date
    base_cents: int
    cents: int
    currency: str


def partners(con: duckdb.DuckDBPyConnection) -> dict[str, Partner]:
    """The partners of a published snapshot, by id.

    Raises:
        ConfigError: the snapshot has no such table.
    """
    rows = _select(
        con,
        "SELECT partner_id, partner_name, code, program, joined_on, left_on, window_days, hold_days, "
        "minimum_payout, currency FROM core.partner_terms ORDER BY partner_id",
    )
    return {
        one: Partner(one, name, code, program, joined, left, window, hold, cents_of(minimum), currency)
        for one, name, code, program, joined, left, window, hold, minimum, currency in rows
    }


def due_through(con: duckdb.DuckDBPyConnection, month: date) -> list[Due]:
    """All lines that are payable by the end of a month, in order.

    Args:
        con: a published snapshot.
        month: its first day.

    Raises:
        ConfigError: the snapshot has no such table.
    """
    rows = _select(
        con,
        "SELECT partner_id, line_id, kind, order_id, line_date, base_amount, amount, currency "
        "FROM marts.partner_commissions WHERE payable_on <= $1 ORDER BY partner_id, line_date, line_id",
        [last_day(month)],
    )
    return [
        Due(partner, line, kind, order, day, cents_of(base), cents_of(amount), currency)
        for partner, line, kind, order, day, base, amount, currency in rows
    ]


def _select(con: duckdb.DuckDBPyConnection, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    try:
        return con.execute(sql, list(values)).fetchall()
    except duckdb.CatalogException:
        raise ConfigError(
            "What is published has no tables of partners yet. Run `omni nightly --company <company>`."
        ) from None


def last_day(month: date) -> date:
    """The last day of the month a day is in."""
    return (month.replace(day=1) + timedelta(days=31)).replace(day=1) - timedelta(days=1)


def month_of(text: str) -> date:
    """A month written 2026-05, as its first day.

    Raises:
        ConfigError: it is no month.
    """
    if re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", text) is None:
        raise ConfigError(f"{text!r} is no month; write it as 2026-05")
    return date.fromisoformat(f"{text}-01")


def cents_of(amount: Decimal) -> int:
    """An amount with two decimals in hundredths."""
    return int(amount * HUNDRED)


def money(cents: int) -> Decimal:
    """Hundredths as an amount with two decimals."""
    return (Decimal(cents) / HUNDRED).quantize(Decimal("0.01"))
