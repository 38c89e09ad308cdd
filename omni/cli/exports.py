"""Commands of exports and the outbox."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from omni.cli.errors import FAILED, clear_errors

Company = Annotated[str, typer.Option("--company", "--tenant", "-c", help="Whose data.")]
outbox = typer.Typer(help="Messages that are to leave the house.", no_args_is_help=True)


class FileFormat(StrEnum):
    """How a file is written."""

    csv = "csv"
    parquet = "parquet"
    xlsx = "xlsx"


def export(
    name: Annotated[
        str | None, typer.Argument(help="A file data/exports/<name>.yml, or a published table.")
    ] = None,
    company: Company = "demo",
    format_: Annotated[
        FileFormat | None,
        typer.Option("--format", "-f", help="The declared one, or csv.", show_default=False),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the rows; write nothing.")] = False,
) -> None:
    """Write published rows to a CSV, Parquet or Excel file; without a name list the exports there are.

    A CSV is safe to open in a spreadsheet: no text of it is run as a formula. Columns with personal data are
    refused unless the export's declaration says why they may leave.
    """
    with clear_errors():
        from omni.bi.exports import load_exports

        if name is None:
            for one in load_exports().values():
                to = f" -> {len(one.deliver.to)} recipients" if one.deliver else ""
                typer.echo(f"{one.name:24} {one.table} as {one.format}{to}  {one.title}")
            return
        _write(name, company, format_.value if format_ else None, output, dry_run=dry_run)


def _write(name: str, company: str, format_: str | None, output: Path | None, *, dry_run: bool) -> None:
    import re
    from datetime import UTC, datetime

    from omni import tenancy
    from omni.bi.export_files import write_export
    from omni.bi.exports import TABLE, Export, export_named, file_name
    from omni.declarations import check_leaving
    from omni.errors import ConfigError
    from omni.warehouse.catalog import columns, exists
    from omni.warehouse.publish import open_snapshot

    tenant = tenancy.get(company)
    if "." in name and not re.fullmatch(TABLE, name):
        raise ConfigError(f"{name} is not the name of a table: schema.name, in small letters without quotes")
    with open_snapshot(tenant) as con:
        if "." in name:
            if not exists(con, name):
                raise ConfigError(f"{name} is not a published table; `omni status` lists those that are")
            declared = Export(
                name=name.replace(".", "__"), title=name, owner="", table=name,
                columns=[column for column in columns(con, name) if not column.startswith("_")],
            )  # fmt: skip
        else:
            declared = export_named(name, company)
        check_leaving(declared)
        kind = format_ or declared.format
        path = output or Path(file_name(declared, datetime.now(UTC).date(), kind))  # type: ignore[arg-type]
        if dry_run:
            counted = con.execute(f"SELECT count(*) FROM ({declared.sql()}) AS found").fetchone()
            rows = counted[0] if counted else 0
            typer.echo(
                f"{rows:,} rows of {', '.join(declared.columns)} would go to {path}. Nothing was written."
            )
            return
        written = write_export(con, declared, path, kind)  # type: ignore[arg-type]
    typer.echo(f"{written.path}: {written.rows:,} rows, {written.bytes:,} bytes")


@outbox.command("list", epilog="Example: `omni outbox list --company demo`")
def list_messages(company: Company = "demo") -> None:
    """Messages of the last 30 days and what became of them; recipients are not shown."""
    with clear_errors():
        from omni import tenancy
        from omni.messaging.outbox import entries

        found = entries(tenancy.get(company).tenant)
        for one in found:
            at = f"{one.created_at:%Y-%m-%d %H:%M}"
            typer.echo(f"{one.id[:8]}  {at}  {one.state:8} {one.about}  {one.reason or ''}")
        if not found:
            typer.echo("Nothing was sent or is waiting.")


@outbox.command(epilog="Example: `omni outbox send`")
def send(company: Company = "demo") -> None:
    """Send what is due. Exit status 1 if a message was given up."""
    with clear_errors():
        from omni import tenancy
        from omni.messaging.outbox import send_due
        from omni.messaging.transports import Folder, transport_of
        from omni.settings import settings

        tenant = tenancy.get(company)
        transport = transport_of(tenant)
        done = send_due(tenant, transport, sender=settings().smtp.sender)
        where = f" to {transport.path}" if isinstance(transport, Folder) else ""
        typer.echo(f"{done.sent} sent{where}, {done.failed} to be tried again, {done.dead} given up")
        for reason in done.reasons:
            typer.echo(reason, err=True)
    if done.dead:
        raise typer.Exit(FAILED)


@outbox.command(epilog="Examples: `omni outbox retry` · `omni outbox retry 3f2a91c0`")
def retry(
    identity: Annotated[str | None, typer.Argument(help="How the message's id begins.")] = None,
    company: Company = "demo",
) -> None:
    """Try messages again that were given up."""
    with clear_errors():
        from omni import tenancy
        from omni.messaging.outbox import retry as try_again

        number = try_again(tenancy.get(company).tenant, identity)
        typer.echo(f"{number} messages will be tried again: omni outbox send --company {company}")
