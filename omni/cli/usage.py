"""`omni usage …`: funnels, retention, cohorts, stickiness, paths and sessions from the published tables."""

from __future__ import annotations

import csv
import json
import sys
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from omni.cli.errors import clear_errors
from omni.cli.formats import Format

app = typer.Typer(
    help="What users do: funnels, retention, cohorts, stickiness, paths, sessions.", no_args_is_help=True
)

Company = Annotated[str, typer.Option("--company", "--tenant", "-c", help="Whose data.")]
Since = Annotated[
    datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First day, in the company's time zone.")
]
Until = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The day after the last.")]
Event = Annotated[str | None, typer.Option("--event", "-e", help="Only this event; by default all.")]


class Grain(StrEnum):
    """Length of a period."""

    day = "day"
    week = "week"
    month = "month"


class Period(StrEnum):
    """Length of a cohort's periods."""

    week = "week"
    month = "month"


class Kind(StrEnum):
    """What counts as being there again."""

    n_day = "n-day"
    unbounded = "unbounded"
    bracket = "bracket"


LABELS = {
    "dimension": "by", "member": "is", "step_name": "name", "of_previous": "of prev", "is_complete": "whole",
    "median_seconds": "med s", "median_seconds_from_previous": "from prev", "cohort_date": "cohort",
    "cohort_actors": "joined", "retention_rate": "rate", "periods_since": "since", "first_day": "from",
    "last_day": "to", "daily_of_weekly": "day/week", "daily_of_monthly": "day/month",
}  # fmt: skip
"""Short heads of tables; CSV and JSON have the columns' own names."""

As = Annotated[Format, typer.Option("--format", "-f", help="How rows are printed.")]


@app.command(
    epilog="Examples: `omni usage funnel` · `omni usage funnel signup --since 2026-01-01 --by channel`"
)
def funnel(
    name: Annotated[str | None, typer.Argument(help="Which one; lists them when left out.")] = None,
    company: Company = "demo",
    since: Since = None,
    until: Until = None,
    by: Annotated[
        str | None, typer.Option(help="Split by channel, page, account, source, event or properties.<key>.")
    ] = None,
    daily: Annotated[bool, typer.Option("--daily", help="A row for each day of entry.")] = False,
    form: As = Format.table,
) -> None:
    """How many reach each step, of those who entered in the given days."""
    with clear_errors():
        from omni.bi.funnels import funnel_named, load_funnels
        from omni.bi.usage import funnel_query
        from omni.settings import settings

        if name is None:
            found = load_funnels(settings().data / "funnels").values()
            rows = [(f.name, f.title, f.unit, f.order, f.window, len(f.steps)) for f in found]
            _print("funnels", ["funnel", "title", "unit", "order", "window", "steps"], rows, form)
            return
        asked = funnel_named(name)
        tenant = _tenant(company)
        sql = funnel_query(asked, tenant, by_day=daily, since=_day(since), until=_day(until), by=by)
        _show(asked.title, company, sql, form)


@app.command(epilog="Example: `omni usage retention --kind bracket --start signup --return purchase`")
def retention(
    company: Company = "demo",
    kind: Annotated[Kind, typer.Option(help="On a day, on it or later, or within days.")] = Kind.n_day,
    start: Annotated[str | None, typer.Option(help="The event actors join with; any by default.")] = None,
    back: Annotated[str | None, typer.Option("--return", help="The event that counts as return.")] = None,
    since: Since = None,
    until: Until = None,
    form: As = Format.table,
) -> None:
    """How many are there again, days after they first were."""
    with clear_errors():
        from omni.bi.usage import retention_query

        sql = retention_query(
            _tenant(company),
            kind=kind.name,  # type: ignore[arg-type]
            start=start,
            back=back,
            since=_day(since),
            until=_day(until),
        )
        _show("retention", company, sql, form)


@app.command(epilog="Example: `omni usage cohorts --period month --event purchase`")
def cohorts(
    company: Company = "demo",
    period: Annotated[Period, typer.Option(help="Length of a period.")] = Period.week,
    event: Event = None,
    since: Since = None,
    until: Until = None,
    form: As = Format.table,
) -> None:
    """Actors by the week or month they were first seen in, and how many came back."""
    with clear_errors():
        from omni.bi.usage import cohorts_query

        sql = cohorts_query(
            _tenant(company), period=period.value, event=event, since=_day(since), until=_day(until)
        )
        _show("cohorts", company, sql, form)


@app.command(epilog="Example: `omni usage stickiness --since 2026-06-01`")
def stickiness(
    company: Company = "demo",
    event: Event = None,
    since: Since = None,
    until: Until = None,
    form: As = Format.table,
) -> None:
    """Daily, weekly and monthly actors, and how many of a month's come on a day."""
    with clear_errors():
        from omni.bi.usage import stickiness_query

        sql = stickiness_query(_tenant(company), event=event, since=_day(since), until=_day(until))
        _show("stickiness", company, sql, form)


@app.command(epilog="Examples: `omni usage paths --from /pricing` · `omni usage paths --from '(start)'`")
def paths(
    company: Company = "demo",
    start: Annotated[
        str | None, typer.Option("--from", help="Only what follows this page or event; or (start).")
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=1000, help="So many rows.")] = 20,
    since: Since = None,
    until: Until = None,
    form: As = Format.table,
) -> None:
    """What comes next within a session."""
    with clear_errors():
        from omni.bi.usage import paths_query

        sql = paths_query(_tenant(company), start=start, since=_day(since), until=_day(until), top=top)
        _show("paths", company, sql, form)


@app.command(epilog="Example: `omni usage sessions --grain week --by channel`")
def sessions(
    company: Company = "demo",
    grain: Annotated[Grain, typer.Option(help="Length of a period.")] = Grain.day,
    by: Annotated[
        str | None,
        typer.Option(help="Split by account, channel, source, landing_page, exit_page, first_event."),
    ] = None,
    since: Since = None,
    until: Until = None,
    form: As = Format.table,
) -> None:
    """Sessions, bounces and durations by the period they began in."""
    with clear_errors():
        from omni.bi.usage import sessions_query

        sql = sessions_query(grain=grain.value, by=by, since=_day(since), until=_day(until))
        _show("sessions", company, sql, form)


def _tenant(company: str) -> Any:
    from omni import tenancy

    return tenancy.get(company)


def _day(moment: datetime | None) -> date | None:
    return None if moment is None else moment.date()


def _show(title: str, company: str, sql: str, form: Format) -> None:
    import duckdb

    from omni.errors import ConfigError
    from omni.warehouse.publish import open_snapshot

    with open_snapshot(_tenant(company)) as con:
        try:
            result = con.execute(sql)
        except duckdb.CatalogException:
            raise ConfigError(
                f"What is published of {company} has no usage tables yet. "
                f"Run `omni nightly --company {company}`."
            ) from None
        columns = [column[0] for column in result.description or []]
        _print(title, columns, result.fetchall(), form)


def _print(title: str, columns: list[str], rows: list[tuple[Any, ...]], form: Format) -> None:
    if form is Format.json:
        named = [dict(zip(columns, row, strict=True)) for row in rows]
        typer.echo(json.dumps(named, default=str, indent=1))
    elif form is Format.csv:
        from omni.spreadsheet import formula_safe

        writer = csv.writer(sys.stdout)
        writer.writerow(columns)
        writer.writerows([formula_safe(cell) for cell in row] for row in rows)
    else:
        from rich.console import Console

        from omni.cli.inspect import _table

        heads = [LABELS.get(column, column.replace("_", " ")) for column in columns]
        shown = [tuple(round(cell, 3) if isinstance(cell, float) else cell for cell in row) for row in rows]
        Console().print(_table(title, heads, shown))
