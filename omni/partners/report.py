"""Statements as rows of tables and files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

from omni.files import private_folder, write_atomic
from omni.partners.accounts import money
from omni.partners.statements import Statement
from omni.spreadsheet import formula_safe
from omni.tenancy import Tenant

SUMS = ["partner", "state", "lines", "commission", "clawback", "adjustment", "total", "currency", "digest"]
LINES = ["partner", "month", "state", "line", "kind", "order", "date", "base", "amount", "currency"]
SHOWN = 8
"""Characters of a digest that are shown."""


def state(statement: Statement) -> str:
    """What became of it: draft, approved, or the batch that paid it."""
    if statement.paid_by:
        return f"paid by {statement.paid_by}"
    return "approved" if statement.approved_at else "draft"


def sum_rows(statements: Iterable[Statement]) -> list[tuple[object, ...]]:
    """One row per statement, under `SUMS`."""
    return [
        (
            one.partner_id,
            state(one),
            len(one.lines),
            *(
                money(sum(line.cents for line in one.lines if line.kind == kind))
                for kind in ("commission", "clawback", "adjustment")
            ),
            money(one.cents),
            one.currency,
            one.digest[:SHOWN],
        )
        for one in statements
    ]


def line_rows(statements: Iterable[Statement]) -> list[tuple[object, ...]]:
    """One row per line, under `LINES`."""
    return [
        (
            one.partner_id, f"{one.month:%Y-%m}", state(one), line.line_id, line.kind, line.order_id,
            line.line_date, money(line.base_cents), money(line.cents), one.currency,
        )
        for one in statements
        for line in one.lines
    ]  # fmt: skip


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """RFC 4180; texts that a spreadsheet would run begin with an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([formula_safe(value) for value in row] for row in rows)
    return text.getvalue()


def write_lines(tenant: Tenant, month: date, statements: Iterable[Statement]) -> Path:
    """Write a month's statements line by line as CSV, into the tenant's folder of partners.

    Raises:
        StorageError: it cannot be written.
    """
    folder = tenant.home / "partners"
    private_folder(folder)
    path = folder / f"statements-{month:%Y-%m}.csv"
    write_atomic(path, csv_text(LINES, line_rows(statements)))
    return path
