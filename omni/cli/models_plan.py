"""`omni models plan` and `list`: what would run and why, and what a change of columns breaks."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from omni import tenancy
from omni.catalogue.impact import Break, impact
from omni.catalogue.project import all_models, load_project
from omni.cli.models_run import backfill_range
from omni.errors import ConfigError
from omni.settings import PROJECT
from omni.warehouse.contracts import contracts
from omni.warehouse.database import open_warehouse
from omni.warehouse.leftover import leftovers
from omni.warehouse.plan import Planned, plan_models
from omni.warehouse.quick import without_pandas
from omni.warehouse.selection import descendants, select_models

MARKS = {
    "full": "build",
    "days": "windows",
    "merge": "merge",
    "view": "view",
    "shows": "shows",
    "skip": "skip",
}

NOT_LOOKED_AT = "SQL written in Python; search the code for the column's name"


def show_plan(
    company: str,
    select: list[str],
    since: datetime | None,
    until: datetime | None,
    *,
    full: bool,
    everything: bool,
    as_json: bool,
) -> bool:
    """Print what a run would do with the selected models and what the declarations as they are break.

    Args:
        company: whose.
        select: patterns of `select_models`.
        since: first day of a range to rebuild.
        until: the day after the range's last.
        full: whether everything would be built whole.
        everything: list models that would be skipped too.
        as_json: print JSON instead.

    Returns:
        Whether nothing is broken.
    """
    tenant = tenancy.get(company)
    project = load_project()
    models = all_models()
    chosen = select_models(models, select)
    span = backfill_range(since, until)
    if span and select:  # a range reaches whatever reads the chosen models
        reached = descendants(models, select_models(models, []), chosen)
        chosen = [name for name in select_models(models, []) if name in reached]
    broken = impact(project)
    with without_pandas(), open_warehouse(tenant) as warehouse, warehouse.cursor() as con:
        planned = plan_models(con, models, tenant, select=chosen, span=span, full=full)
        gone = [] if select else leftovers(con, models, contracts())
    if as_json:
        content = {
            "tenant": tenant.tenant, "plan": [p.plain() for p in planned], "breaks": _plain(broken),
            "leftover": gone,
        }  # fmt: skip
        typer.echo(json.dumps(content, indent=1))
        return not broken
    console = Console(highlight=False, soft_wrap=True)
    if broken:
        _print_breaks(console, broken, "The declarations do not fit each other")
    _print_plan(console, planned, everything=everything)
    for name in gone:
        drop = f"omni models drop {name} --company {tenant.tenant}"
        console.print(Text("stays   ", style="cyan").append(name).append(
            f"  no model makes it any more; `{drop}` removes it", style="dim"
        ))  # fmt: skip
    return not broken


def _print_plan(console: Console, planned: list[Planned], *, everything: bool) -> None:
    for one in planned:
        if not one.moves and not everything:
            continue
        style = "dim" if one.action in ("skip", "shows") else "bold" if one.certain else "default"
        line = Text(f"{MARKS[one.action]:8}" + ("" if one.certain else "? "), style="cyan")
        line.append(one.model, style=style).append(f"  {one.reason}{_extent(one)}", style="dim")
        console.print(line)
        for change in one.changes:
            console.print(Text(f"            {change}"))
        if one.breaking is not None:
            told = "breaking: readers may get other rows or values" if one.breaking else "non-breaking"
            console.print(Text(f"            {told}", style="yellow" if one.breaking else "green"))
    sure = sum(one.moves and one.certain and one.action != "shows" for one in planned)
    maybe = sum(one.moves and not one.certain for one in planned)
    shown = sum(one.action == "shows" for one in planned)
    left = len(planned) - sure - maybe - shown
    console.print(
        f"{sure} of {len(planned)} models would run, {maybe} more if their parents' rows differ (?), "
        f"{shown} views show what changes, {left} stay as they are."
    )


def _extent(one: Planned) -> str:
    parts = []
    if one.days:
        count = len(one.days)
        listed = ", ".join(day.isoformat() for day in one.days[:3])
        parts.append(listed if count <= 3 else f"{one.days[0]} … {one.days[-1]}, {count} windows")
    if one.rows is not None:
        parts.append(f"about {one.rows:,} rows")
    return f" ({'; '.join(parts)})" if parts else ""


def show_impact(without: list[str], *, as_json: bool) -> bool:
    """Print what would break if columns were gone or had another name.

    Returns:
        Whether nothing would.

    Raises:
        ConfigError: not a column of any table.
    """
    columns = []
    for text in without:
        if text.count(".") != 2:
            raise ConfigError(f"--without {text}: give schema.table.column, for example core.orders.channel")
        table, _, column = text.rpartition(".")
        columns.append((table, column))
    broken = impact(load_project(), columns)
    if as_json:
        content = {"without": without, "breaks": _plain(broken), "not_looked_at": NOT_LOOKED_AT}
        typer.echo(json.dumps(content, indent=1))
        return not broken
    console = Console(highlight=False, soft_wrap=True)
    if broken:
        _print_breaks(console, broken, f"Without {', '.join(without)}")
    else:
        console.print(f"No declaration names {', '.join(without)}.")
    console.print(Text(f"Not looked at: {NOT_LOOKED_AT}.", style="dim"))
    return not broken


def _plain(broken: list[Break]) -> list[dict[str, str]]:
    return [asdict(one) | {"message": str(one)} for one in broken]


def _print_breaks(console: Console, broken: list[Break], title: str) -> None:
    direct = [one for one in broken if not one.because]
    resting = [one for one in broken if one.because]
    console.print(Text(f"{title}: {len(direct)} break, {len(resting)} rest on them.", style="bold red"))
    for one in direct:
        console.print(Text("✗ ", style="red").append(str(one), style="default"))
        console.print(Text(f"    {_file(one.file)}", style="dim"))
    for one in resting:
        console.print(Text("– ", style="yellow").append(str(one), style="default"))
        console.print(Text(f"    {_file(one.file)}", style="dim"))


def _file(path: str) -> str:
    """A path as seen from the project, where it lies in it."""
    found = Path(path)
    return str(found.relative_to(PROJECT)) if found.is_relative_to(PROJECT) else path


def show_list(select: list[str], *, as_json: bool) -> None:
    """Print the selected models."""
    models = all_models()
    chosen = [models[name] for name in select_models(models, select)]
    if as_json:
        rows = [
            {
                "model": m.name, "kind": m.header.kind, "owner": m.header.owner, "grain": m.header.grain,
                "reads": list(m.parents), "file": m.origin,
                "description": " ".join(m.header.description.split()),
            }
            for m in chosen
        ]  # fmt: skip
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("model", "kind", "owner", "grain", "reads"):
        table.add_column(column)
    for model in chosen:
        header = model.header
        table.add_row(
            model.name, header.kind, header.owner, ", ".join(header.grain), ", ".join(model.parents)
        )
    Console(highlight=False).print(table)
