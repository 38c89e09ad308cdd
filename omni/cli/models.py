"""Commands of models: what would run and why, build, test, follow columns, the catalogue."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from omni.cli.errors import FAILED, clear_errors

app = typer.Typer(help="Models: the tables made from other tables by one SELECT each.", no_args_is_help=True)

Company = Annotated[str, typer.Option("--company", "--tenant", "-c", help="Whose data.")]
Select = Annotated[
    list[str] | None,
    typer.Option(
        "--select",
        "-s",
        help="A model or a glob; `+core.orders` adds what it reads, `core.orders+` what reads it. Repeat for "
        "several.",
        show_default="all models",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="A day, for example 2026-06-01.")]
Full = Annotated[bool, typer.Option("--full", help="Build whole, whatever was built before.")]
BatchDays = Annotated[int, typer.Option(min=1, max=3660, help="Days of a range that are rebuilt at a time.")]


@app.command(
    epilog="Examples: `omni models plan` · `omni models plan --select core.orders+` · "
    "`omni models plan --without core.orders.channel`"
)
def plan(
    company: Company = "demo",
    select: Select = None,
    since: Day = None,
    until: Day = None,
    full: Full = False,
    without: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TABLE.COLUMN", help="Say what would break if this column were gone or renamed."
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="List models that would be skipped too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what `omni models run` would do and why, and what a change breaks. Nothing is written.

    Exit status 1 if something would break."""
    with clear_errors():
        from omni.cli import models_plan

        if without:
            good = models_plan.show_impact(without, as_json=as_json)
        else:
            good = models_plan.show_plan(
                company, select or [], since, until, full=full, everything=everything, as_json=as_json
            )
    if not good:
        raise typer.Exit(FAILED)


@app.command(
    epilog="Examples: `omni models run` · `omni models run --select +marts.daily_sales` · "
    "`omni models run --select 'marts.*' --since 2026-01-01 --until 2026-07-01 --batch-days 31` · "
    "`omni models run --dry-run`"
)
def run(
    company: Company = "demo",
    select: Select = None,
    since: Day = None,
    until: Day = None,
    batch_days: BatchDays = 30,
    full: Full = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run only, as `plan`.")] = False,
    publish: Annotated[
        bool, typer.Option("--publish", help="Publish the result for readers at the end.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say nothing unless something failed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Build models that need it, in order, without Prefect. A failure stops only what reads the model.

    With --since and --until the windows of that range are rebuilt even if nothing changed. Exit status 1 if
    a model failed."""
    with clear_errors():
        if dry_run:
            from omni.cli import models_plan

            good = models_plan.show_plan(
                company, select or [], since, until, full=full, everything=False, as_json=as_json
            )
        else:
            from omni.cli import models_run

            good = models_run.run_models(
                company, select or [], since, until, batch_days=batch_days, full=full, publish=publish,
                quiet=quiet, as_json=as_json,
            )  # fmt: skip
    if not good:
        raise typer.Exit(FAILED)


@app.command(
    "test",
    epilog="Examples: `omni models test` · `omni models test --select core.orders` · "
    "`omni models test --data`",
)
def run_tests(
    select: Select = None,
    company: Company = "demo",
    cases: Annotated[
        Path | None, typer.Option(help="Folder of cases.", show_default="data/tests, else tests/models")
    ] = None,
    data: Annotated[
        bool, typer.Option("--data", help="Run the checks of the company's built tables instead.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run models on the rows of their test cases, in memory, and compare. Exit status 1 if any differs."""
    with clear_errors():
        from omni.cli import models_test

        if data:
            good = models_test.check_tables(company, select or [], as_json=as_json)
        else:
            good = models_test.run_cases(select or [], cases, as_json=as_json)
    if not good:
        raise typer.Exit(FAILED)


@app.command(
    epilog="Examples: `omni models lineage core.orders.revenue` · `omni models lineage marts.daily_sales` · "
    "`omni models lineage --html lineage.html`"
)
def lineage(
    name: Annotated[
        str | None, typer.Argument(help="schema.table.column or schema.table; everything when left out.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the graph of all tables as a page instead.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Follow a column: up to the vendors' fields it comes from, down to metrics and dashboards."""
    with clear_errors():
        from omni.cli import models_lineage

        models_lineage.show(name, html, as_json=as_json)


@app.command(epilog="Examples: `omni models docs` · `omni models docs --company olist --out catalogue.html`")
def docs(
    company: Company = "demo",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write it.", show_default="the company's home"),
    ] = None,
) -> None:
    """Write the catalogue as one page: tables, columns, owners, checks, lineage, metrics. Prints its path."""
    with clear_errors():
        from omni.catalogue.pages import publish_catalogue

        typer.echo(publish_catalogue(company, out))


@app.command(
    epilog="Examples: `omni models drop core.old_orders --dry-run` · `omni models drop core.old_orders --yes`"
)
def drop(
    name: Annotated[str, typer.Argument(help="schema.table, as `omni models plan` lists it.")],
    company: Company = "demo",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be dropped only.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Drop without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """Drop a table whose model is no more. What a model or a contract declares or reads is never dropped."""
    with clear_errors():
        from omni.cli import models_drop

        models_drop.drop(company, name, dry_run=dry_run, yes=yes, as_json=as_json)


@app.command("list", epilog="Examples: `omni models list` · `omni models list --select 'marts.*' --json`")
def list_models(select: Select = None, as_json: AsJson = False) -> None:
    """List models: kind, owner, grain and what they read."""
    with clear_errors():
        from omni.cli import models_plan

        models_plan.show_list(select or [], as_json=as_json)
