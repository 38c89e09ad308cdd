"""`omni copy`: which copies there are, and what one would do."""

from __future__ import annotations

import json

import typer

from omni import tenancy


def list_copies(*, as_json: bool) -> None:
    """The declared copies."""
    from omni.destinations.copy_declaration import load_copies

    declared = load_copies()
    if as_json:
        typer.echo(
            json.dumps({name: one.model_dump(mode="json") for name, one in declared.items()}, indent=1)
        )
        return
    for name, one in declared.items():
        typer.echo(f"{name:24} {one.table} -> {one.destination}/{one.target}  {one.title}")


def show_plan(name: str, company: str, *, as_json: bool) -> None:
    """Print how many rows would be copied and what was copied last; asks the destination nothing.

    Raises:
        ConfigError: there is no such copy or nothing published, or a column must not leave the house.
    """
    from omni.declarations import check_leaving
    from omni.destinations.copies import planned
    from omni.destinations.copy_declaration import copy_named

    tenant, declared = tenancy.get(company), copy_named(name, company)
    check_leaving(declared)
    found = planned(tenant, declared)
    before = found.before
    place = f"{declared.table} -> {declared.destination}/{declared.target}"
    if as_json:
        last = {"rows": before.rows, "at": before.at.isoformat()} if before else None
        whole = {"rows": found.rows, "changed": found.changed, "columns": declared.columns, "before": last}
        typer.echo(json.dumps(whole, indent=1))
        return
    typer.echo(f"{place}: {found.rows:,} rows of {', '.join(declared.columns)}")
    if before is None:
        typer.echo("It was not copied so far.")
    else:
        said = "it has changed since" if found.changed else "nothing changed since"
        typer.echo(f"Last copied {before.at:%Y-%m-%d %H:%M} UTC with {before.rows:,} rows; {said}.")
    typer.echo(f"Nothing was written. Copy it: omni copy {name} --company {company}")
