"""Commands of the lake: the warehouse's tables where several processes write at once."""

from __future__ import annotations

from typing import Annotated

import typer

from omni.cli.errors import FAILED, clear_errors

app = typer.Typer(
    help="A lake that several processes write: DuckLake, with its catalogue in PostgreSQL (extra `lake`).",
    no_args_is_help=True,
)

Company = Annotated[str, typer.Option("--company", "--tenant", "-c", help="Whose data.")]


@app.command(
    "copy", epilog="Examples: `omni lake copy` · `omni lake copy --company olist --table raw.usage__events`"
)
def copy_tables(
    company: Company = "demo",
    table: Annotated[
        list[str] | None,
        typer.Option("--table", "-t", help="A table; repeat for several.", show_default="every raw table"),
    ] = None,
) -> None:
    """Copy what the models read from the warehouse into the lake; only tables whose content differs."""
    with clear_errors():
        import uuid

        from omni import tenancy
        from omni.warehouse import lake
        from omni.warehouse.contracts import contracts
        from omni.warehouse.database import open_warehouse
        from omni.warehouse.lake_build import copy_in

        tenant = tenancy.get(company)
        place = lake.place_of(tenant)
        names = table or [name for name, c in contracts().items() if c.schema_name == "raw"]
        with open_warehouse(tenant) as warehouse:
            copied = copy_in(warehouse, place, names, f"lake-{uuid.uuid4()}")
    written = [one for one in copied if one.rewritten]
    typer.echo(
        f"{len(copied)} tables: {len(written)} copied ({sum(one.rows for one in written):,} rows), "
        f"{len(copied) - len(written)} as they were. Next: omni lake build --company {company}"
    )


@app.command(epilog="Examples: `omni lake build --workers 4` · `omni lake build --select core.orders`")
def build(
    company: Company = "demo",
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes that build.")] = 4,
    select: Annotated[
        list[str] | None,
        typer.Option(
            "--select", "-s", help="A model or a glob, as in `omni models run`; repeat for several."
        ),
    ] = None,
) -> None:
    """Bring the lake's models up to date with several processes. Exit status 1 if anything failed."""
    with clear_errors():
        import uuid

        from omni import tenancy
        from omni.catalogue.project import all_models
        from omni.warehouse import lake
        from omni.warehouse.build import Outcome
        from omni.warehouse.lake_build import build_lake
        from omni.warehouse.selection import select_models

        def tell(outcome: Outcome) -> None:
            if outcome.built is None:
                typer.echo(f"✗ {outcome.model}: {outcome.reason}", err=True)
            elif outcome.built.action == "full":
                typer.echo(f"✓ {outcome.model} {outcome.built.rows:,} rows in {outcome.built.seconds:.2f} s")

        tenant, models = tenancy.get(company), all_models()
        outcomes = build_lake(
            tenant, lake.place_of(tenant), models, workers=workers,
            select=select_models(models, select) if select else None,
            run_id=f"lake-{uuid.uuid4()}", on_built=tell,
        )  # fmt: skip
    failed = sum(outcome.status != "done" for outcome in outcomes)
    typer.echo(f"{len(outcomes)} models of {tenant.title}, {failed} not done")
    if failed:
        raise typer.Exit(FAILED)


@app.command(epilog='Example: `omni lake query "SELECT count(*) FROM core.orders"`')
def query(
    sql: Annotated[str, typer.Argument(help="One SELECT; tables by schema and name.", show_default=False)],
    company: Company = "demo",
    limit: Annotated[int, typer.Option(min=1, help="Rows printed at most.")] = 100,
) -> None:
    """Run one SELECT on the lake."""
    with clear_errors():
        from omni import tenancy
        from omni.cli.inspect import select_rows
        from omni.warehouse import lake

        with lake.open_lake(lake.place_of(tenancy.get(company))) as con:
            select_rows(con, sql, "table", limit)
