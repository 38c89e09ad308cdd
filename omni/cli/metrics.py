"""Commands of metrics: which there are, what one means, and its numbers."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from omni.cli.errors import clear_errors
from omni.cli.formats import Format

app = typer.Typer(help="Metrics: numbers that are defined once and asked for by name.", no_args_is_help=True)

Company = Annotated[str, typer.Option("--company", "--tenant", "-c", help="Whose data.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="A day, for example 2026-01-01.")]


class Grain(StrEnum):
    """Length of a period."""

    day = "day"
    week = "week"
    month = "month"
    quarter = "quarter"
    year = "year"
    all = "all"


class Compared(StrEnum):
    """What a period is compared with."""

    previous = "previous"
    last_year = "last_year"


@app.command("list", epilog="Examples: `omni metrics list` · `omni metrics list --json`")
def list_(as_json: AsJson = False) -> None:
    """All metrics: what they mean, how they are made, what they can be split by."""
    with clear_errors():
        from omni.cli.metrics_print import print_list

        print_list(as_json=as_json)


@app.command(epilog="Examples: `omni metrics show revenue` · `omni metrics show 'open rate' --json`")
def show(
    metric: Annotated[str, typer.Argument(help="Its name, title or a synonym.", show_default=False)],
    company: Company = "demo",
    as_json: AsJson = False,
) -> None:
    """One metric: definition, dimensions, what is stored of it, and its newest value if it is published."""
    with clear_errors():
        from omni.cli.metrics_print import print_metric

        print_metric(metric, company, as_json=as_json)


@app.command(
    epilog="Examples: `omni metrics query revenue --grain week --since 2026-01-01` · "
    "`omni metrics query revenue,orders --by country --compare last_year` · "
    "`omni metrics query revenue --by channel --grain all --since 2026-01-01 --until 2026-04-01` · "
    "`omni metrics query orders --where \"channel = 'web' AND country IN ('DE', 'AT')\" --format csv`"
)
def query(
    metrics: Annotated[
        str, typer.Argument(help="One metric, or several with commas between.", show_default=False)
    ],
    by: Annotated[
        list[str] | None, typer.Option("--by", "-b", help="Dimensions to split by; commas or repeated.")
    ] = None,
    grain: Annotated[Grain, typer.Option("--grain", "-g", help="Length of a period.")] = Grain.month,
    since: Day = None,
    until: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The first day that no longer counts.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Only these members, e.g. \"channel = 'web'\".", show_default=False)
    ] = None,
    compare: Annotated[
        Compared | None, typer.Option(help="Show the period before, or the year before, too.")
    ] = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="How to print.")] = Format.table,  # noqa: A002
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL instead of the numbers.")] = False,
    company: Company = "demo",
) -> None:
    """Ask metrics for numbers, from the published snapshot.

    What does not add up is never added up: distinct counts of a month are counted in the month."""
    with clear_errors():
        from omni.cli.metrics_print import print_answer

        print_answer(
            company, metrics.split(","), [d for part in by or [] for d in part.split(",")], grain.value,
            since.date() if since else None, until.date() if until else None, where,
            compare.value if compare else None, format.value, sql=sql,
        )  # fmt: skip


@app.command(epilog="Example: `omni metrics export > semantic_model.yml`")
def export(as_json: AsJson = False) -> None:
    """Print the definitions as an Apache Ossie semantic model, for other tools.

    Metrics that it has no words for are left out and named on standard error."""
    with clear_errors():
        from omni.cli.metrics_print import print_export

        print_export(as_json=as_json)
