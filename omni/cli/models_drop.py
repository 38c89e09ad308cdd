"""`omni models drop`: removing a table whose model is no more."""

from __future__ import annotations

import json

import typer

from omni import tenancy
from omni.catalogue.project import all_models
from omni.errors import ConfigError
from omni.warehouse.contracts import contracts
from omni.warehouse.database import open_warehouse
from omni.warehouse.leftover import drop_leftover, refuse_to_drop
from omni.warehouse.quick import without_pandas


def drop(company: str, name: str, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Drop a table or view that no model makes any more.

    Args:
        company: whose.
        name: `schema.table`.
        dry_run: say only what would be dropped.
        yes: drop without asking.
        as_json: print JSON instead.

    Raises:
        ConfigError: something declares or reads it, no model made it, or nobody said yes.
    """
    tenant = tenancy.get(company)
    models = all_models()
    with without_pandas(), open_warehouse(tenant) as warehouse:
        with warehouse.cursor() as con:
            refuse_to_drop(con, name, models, contracts())
            row = con.execute(f"SELECT count(*) FROM {name}").fetchone()
        rows = int(row[0]) if row else 0
        what = f"{name} of {tenant.title} ({rows:,} rows)"
        if not dry_run:
            if not yes and (as_json or not typer.confirm(f"Drop {what} for good?")):
                raise ConfigError("Nothing was dropped; --yes drops without asking")
            with warehouse.transaction() as con:
                drop_leftover(con, name, models, contracts())
    if as_json:
        typer.echo(json.dumps({"table": name, "rows": rows, "dropped": not dry_run}))
    elif dry_run:
        typer.echo(f"Would drop {what}.")
    else:
        typer.echo(f"Dropped {what}; readers lose it at the next publishing.")
