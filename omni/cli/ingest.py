"""`omni ingest` and `omni dead-letters`: reading vendors by hand, looking before doing, replaying."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from omni import tenancy
from omni.errors import ConfigError
from omni.orchestrator.environment import apply_environment


def check_selection(full: bool, since: str | None, until: str | None) -> None:
    """Refuse options that contradict each other.

    Raises:
        ConfigError: `--full` together with a window.
    """
    if full and (since or until):
        raise ConfigError("--full reads everything; leave --since and --until out, or leave --full out")


def show_plans(
    company: str, streams: list[str], *, full: bool, since: str | None, until: str | None, as_json: bool
) -> None:
    """What `omni ingest` would read, asked of the vendors; nothing is written."""
    apply_environment()
    crm = importlib.import_module("tasks.crm")
    tenant = tenancy.get(company)
    found: dict[str, Any] = {}
    with importlib.import_module("tasks.connections").connected(tenant):
        selection = crm.Selection(tuple(streams), since, until)
        for vendor, stream, plan in crm.plans(tenant, selection, full=full):
            found[f"{vendor}.{stream}"] = crm.shown(plan)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    table = Table(title=f"What would be read for {tenant.title}", title_justify="left")
    for name in ("stream", "from", "to", "records"):
        table.add_column(name, no_wrap=True)
    table.add_column("notices")
    for stream, plan in found.items():
        said = [
            *plan["notices"],
            *(f"new field {path} ({kind})" for path, kind in plan["new_fields"].items()),
        ]
        records = "not told" if plan["records"] is None else f"{plan['records']:,}"
        moments = (moment and moment[:16].replace("T", " ") for moment in (plan["since"], plan["until"]))
        row = [stream, *(moment or "the beginning" for moment in moments), records, "; ".join(said)]
        table.add_row(*(escape(cell) for cell in row))
    console = Console()
    console.print(table)
    console.print("Nothing was read or written. Leave --dry-run out to do it.", style="dim")


def list_dead_letters(company: str, *, as_json: bool) -> None:
    """Rows that could not be loaded and wait for a good version."""
    from omni.warehouse.database import open_warehouse
    from omni.warehouse.dead_letters import waiting

    tenant = tenancy.get(company)
    with open_warehouse(tenant) as warehouse, warehouse.cursor() as con:
        letters = waiting(con)
    if as_json:
        typer.echo(json.dumps([asdict(letter) for letter in letters], default=str, indent=1))
        return
    console = Console()
    if not letters:
        console.print(f"No row of {tenant.title} waits.")
        return
    table = Table(title=f"Dead letters of {tenant.title}", title_justify="left")
    for name in ("stream", "table", "key", "column", "reason", "first seen"):
        table.add_column(name)
    for letter in letters:
        row = [
            f"{letter.vendor}.{letter.stream}", letter.table, letter.key, letter.column, letter.reason,
            f"{letter.first_seen:%Y-%m-%d %H:%M}",
        ]  # fmt: skip
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)
    console.print(
        f"Correct the source or the contract, then: omni ingest --replay --company {company}", style="dim"
    )
