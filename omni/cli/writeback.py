"""`omni write-back`: what it would write, and writing it."""

from __future__ import annotations

import json

import typer
from rich.console import Console
from rich.markup import escape

from omni import tenancy
from omni.errors import ConfigError

EXAMPLES = 5


def list_write_backs(*, as_json: bool) -> None:
    """The declared write-backs."""
    from omni.destinations.declaration import load_write_backs

    declared = load_write_backs()
    if as_json:
        typer.echo(
            json.dumps({name: one.model_dump(mode="json") for name, one in declared.items()}, indent=1)
        )
        return
    for name, one in declared.items():
        typer.echo(f"{name:24} {one.table} -> {one.destination}  {one.title}")


def show_plan(name: str, company: str, *, replay: bool, as_json: bool) -> None:
    """Print how many rows would be written, a few of their keys, and dead letters; writes nothing.

    Raises:
        ConfigError: there is no such write-back or nothing published, or a column must not leave the house.
        SchemaError: keys are not unique.
    """
    from omni.declarations import check_leaving
    from omni.destinations.declaration import write_back_named
    from omni.destinations.ledger import letters
    from omni.destinations.write import planned

    tenant, declared = tenancy.get(company), write_back_named(name)
    check_leaving(declared)
    found = planned(tenant, declared, replay=replay)
    examples = {
        kind: {item.key: list(item.changed) for item in items[:EXAMPLES]}
        for kind, items in (("new", found.new), ("changed", found.changed), ("leaving", found.leaving))
        if items
    }
    dead = {letter.key: letter.reason for letter in letters(company, declared, EXAMPLES)}
    try:
        found.guard()
        refused = None
    except ConfigError as error:
        refused = str(error)
    if as_json:
        whole = {**found.summary(), "examples": examples, "dead_letters": dead, "refused": refused}
        typer.echo(json.dumps(whole, indent=1))
        return
    console = Console()
    counts = ", ".join(f"{number} {kind}" for kind, number in found.summary().items())
    console.print(f"{declared.table} -> {declared.destination}: {counts}", highlight=False)
    for kind, rows in examples.items():
        for key, columns in rows.items():
            console.print(f"  {kind} {escape(key)}: {', '.join(columns)}", highlight=False)
    for key, reason in dead.items():
        console.print(f"  dead letter {escape(key)}: {escape(reason)}", highlight=False)
    if refused:
        console.print(f"It would be refused: {escape(refused)}", highlight=False)
    else:
        console.print(
            f"Nothing was written. Write it: omni write-back {name} --company {company}", style="dim"
        )
