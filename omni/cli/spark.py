"""`omni spark`: the models on Spark instead of the warehouse's own engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from omni.cli.errors import clear_errors

app = typer.Typer(help="Models on Spark, over Parquet copies of the raw tables.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Models on Spark, over Parquet copies of the raw tables."""


@app.command(
    epilog="Example: `omni spark run --company demo --out /tmp/demo-lake --select marts.daily_sales`"
)
def run(
    out: Annotated[
        Path, typer.Option(help="Folder for the Parquet files; on a cluster, one every worker sees.")
    ],
    company: Annotated[str, typer.Option("--company", "--tenant", "-c", help="Whose data.")] = "demo",
    select: Annotated[
        list[str] | None,
        typer.Option(
            "--select", "-s", help="A model or a glob; what it reads is built too.", show_default="all"
        ),
    ] = None,
    master: Annotated[str, typer.Option(help="Spark's address; local[2] is two threads here.")] = "local[2]",
) -> None:
    """Export the raw tables, build the models on Spark, print what each took. The warehouse is only read."""
    with clear_errors():
        from omni import tenancy
        from omni.catalogue.project import all_models
        from omni.errors import ConfigError
        from omni.warehouse import spark
        from omni.warehouse.database import open_warehouse
        from omni.warehouse.spark import with_parents

        if reason := spark.missing():
            raise ConfigError(reason)
        tenant = tenancy.get(company)
        models = with_parents(all_models(), select or ["*"])
        with open_warehouse(tenant) as warehouse, warehouse.cursor() as con:
            spark.export_raw(con, out, spark.raw_tables(models))
        with spark.session(master) as session:
            for ran in spark.run(session, out, models, tenant):
                rows = "view" if ran.rows is None else f"{ran.rows:,} rows"
                typer.echo(f"{ran.model:<40} {rows:>16} {ran.seconds:>8.2f} s")
