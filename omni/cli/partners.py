"""`omni partners …`: statements of partners, their approval, and payouts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from omni.cli.errors import clear_errors

app = typer.Typer(help="Partners and affiliates: statements, approval, payouts.", no_args_is_help=True)

Company = Annotated[str, typer.Option("--company", "--tenant", "-c", help="Whose partners.")]
Month = Annotated[str, typer.Option("--month", "-m", help="Of which month, as 2026-05.", show_default=False)]
One = Annotated[str | None, typer.Option("--partner", "-p", help="Only this partner, by its id.")]


class Format(StrEnum):
    """How rows are printed."""

    table = "table"
    csv = "csv"
    json = "json"


LABELS = {
    "partner": "id", "commission": "earned", "clawback": "back", "adjustment": "adj", "currency": "cur",
    "window": "days", "minimum": "min",
}  # fmt: skip
"""Short heads of tables; CSV and JSON have the whole words."""

As = Annotated[Format, typer.Option("--format", "-f", help="How rows are printed.")]


@app.command("list", epilog="Example: `omni partners list`")
def list_partners(company: Company = "demo", form: As = Format.table) -> None:
    """The partners and the terms of their programs."""
    with clear_errors():
        from omni import tenancy
        from omni.partners.accounts import money, partners
        from omni.warehouse.publish import open_snapshot

        with open_snapshot(tenancy.get(company)) as con:
            found = partners(con).values()
        columns = ["partner", "name", "code", "program", "joined", "left", "window", "hold", "minimum",
                   "currency"]  # fmt: skip
        rows = [
            (
                one.partner_id, one.name, one.code, one.program, one.joined_on, one.left_on, one.window_days,
                one.hold_days, money(one.minimum_cents), one.currency,
            )
            for one in found
        ]  # fmt: skip
        _print("partners", columns, rows, form)


@app.command(
    epilog="Examples: `omni partners statement --month 2026-05` · "
    "`omni partners statement -m 2026-05 -p P-1 -f csv`"
)
def statement(
    month: Month,
    partner: One = None,
    company: Company = "demo",
    form: As = Format.table,
    lines: Annotated[bool, typer.Option("--lines", help="Each line, not only the sums.")] = False,
) -> None:
    """Statements of a month: approved ones as they were approved, drafts of the others."""
    with clear_errors():
        from omni import tenancy
        from omni.partners.accounts import month_of
        from omni.partners.report import LINES, SUMS, line_rows, sum_rows
        from omni.partners.statements import statements
        from omni.warehouse.publish import open_snapshot

        tenant = tenancy.get(company)
        with open_snapshot(tenant) as con:
            found = statements(tenant, con, month_of(month), partner)
        if not lines:
            _print(f"statements of {month}", SUMS, sum_rows(found), form)
            return
        rows = line_rows(found)
        if form is Format.table:  # months and states are those of the sums; an order's number tells it
            rows = [(*row[:1], *row[4:5], str(row[5]).rpartition("/")[2], *row[6:]) for row in rows]
        heads = [*LINES[:1], *LINES[4:]] if form is Format.table else LINES
        _print(f"lines of {month}", heads, rows, form)


@app.command(epilog="Example: `omni partners approve --month 2026-05 --partner P-1 --digest 3f2a91c0`")
def approve(
    month: Month,
    partner: One = None,
    digest: Annotated[
        str | None,
        typer.Option(help="Only if the statement is the one whose digest begins so; with --partner."),
    ] = None,
    company: Company = "demo",
) -> None:
    """Approve the drafts of a month, for good: what comes later is adjusted in the next statement."""
    with clear_errors():
        from omni import tenancy
        from omni.errors import ConfigError
        from omni.partners.accounts import money, month_of
        from omni.partners.statements import approve as keep
        from omni.warehouse.publish import open_snapshot

        if digest is not None and partner is None:
            raise ConfigError("--digest is of one statement; say whose with --partner")
        tenant = tenancy.get(company)
        with open_snapshot(tenant) as con:
            done = keep(tenant, con, month_of(month), partner, digest=digest)
        for one in done:
            typer.echo(
                f"{one.partner_id}: {money(one.cents)} {one.currency}, {len(one.lines)} lines, approved"
            )
        if not done:
            typer.echo(f"Nothing of {month} is left to be approved.")


@app.command(epilog="Example: `omni partners balance`")
def balance(company: Company = "demo", form: As = Format.table) -> None:
    """What is approved, paid and open, by partner."""
    with clear_errors():
        from omni import tenancy
        from omni.partners.accounts import money
        from omni.partners.payouts import balances
        from omni.warehouse.publish import open_snapshot

        tenant = tenancy.get(company)
        with open_snapshot(tenant) as con:
            found = balances(tenant, con)
        columns = ["partner", "name", "approved", "paid", "open", "minimum", "currency", "payable"]
        rows = [
            (
                one.partner_id, one.name, money(one.approved_cents), money(one.paid_cents), money(one.cents),
                None if one.minimum_cents is None else money(one.minimum_cents), one.currency,
                "yes" if one.is_payable else "no",
            )
            for one in found
        ]  # fmt: skip
        _print("balances", columns, rows, form)


@app.command(epilog="Example: `omni partners payout --batch 2026-06`")
def payout(
    batch: Annotated[str | None, typer.Option(help="Its name; lists the batches when left out.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write the file.")] = None,
    company: Company = "demo",
) -> None:
    """Pay what is approved and open: a CSV file of the batch. The same batch again is the same file."""
    with clear_errors():
        from omni import tenancy
        from omni.partners.payouts import batches, pay, write_payout
        from omni.warehouse.publish import open_snapshot

        tenant = tenancy.get(company)
        if batch is None:
            typer.echo("\n".join(batches(tenant.tenant)) or "Nothing was paid yet.")
            return
        with open_snapshot(tenant) as con:
            content = pay(tenant, con, batch)
        if content is None:
            typer.echo("No balance has reached its minimum. Nothing was paid, and there is no such batch.")
            return
        typer.echo(f"{write_payout(tenant, batch, content, output)}: {content.count(chr(10)) - 1} payouts")


def _print(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], form: Format) -> None:
    listed = [tuple(row) for row in rows]
    if form is Format.json:
        named = [dict(zip(columns, row, strict=True)) for row in listed]
        typer.echo(json.dumps(named, default=str, indent=1))
    elif form is Format.csv:
        from omni.partners.report import csv_text

        typer.echo(csv_text(columns, listed), nl=False)
    else:
        from rich.console import Console

        from omni.cli.inspect import _table

        Console().print(_table(title, [LABELS.get(name, name) for name in columns], listed))
