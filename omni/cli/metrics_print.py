"""What `omni metrics` prints."""

from __future__ import annotations

import csv
import json
import sys
from datetime import date
from typing import Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from omni import tenancy
from omni.bi.answers import Answer, Column, MetricQuery, ask, describe, find_metric, list_metrics
from omni.bi.metrics import metrics
from omni.bi.numbers import NOTHING, change, show
from omni.errors import ConfigError


def print_list(*, as_json: bool) -> None:
    """All metrics, a line each."""
    found = list_metrics(metrics())
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    console = Console()
    width = max((len(one["name"]) for one in found), default=0)
    for one in found:
        mark = " ≈" if one["approximate"] else ""
        by = f", by {', '.join(one['dimensions'])}" if one["dimensions"] else ""
        text = f"{one['name']:{width}}  {one['title']}: {made(one)}{mark}{by}"
        console.print(escape(text), highlight=False, soft_wrap=True)


def made(described: dict[str, Any]) -> str:
    """How a metric is made, in a few words."""
    measure = described["measure"]
    match measure["agg"]:
        case "ratio":
            return f"{measure['numerator']} / {measure['denominator']}"
        case "derived":
            return str(measure["expression"])
        case "cumulative":
            span = f" of {measure['window']}" if "window" in measure else ""
            span = f" per {measure['per']}" if "per" in measure else span
            return f"running total of {measure['metric']}{span}"
        case "change":
            relative = "relative " if measure.get("form") == "relative" else ""
            return f"{relative}change of {measure['metric']} from {measure['offset']} before"
        case "percentile":
            return f"percentile {100 * measure['p']:g} of {measure['column']}"
        case "conversion":
            return f"share of {measure['column']} that converts within {measure['within']}"
        case agg:
            return f"{agg.replace('_', ' ')}{' of ' + measure['column'] if 'column' in measure else ''}"


ADDS = {
    "additive": "days and members add up",
    "semi_additive": "members add up, days do not",
    "non_additive": "neither days nor members add up; computed at the grain you ask for",
}


def print_metric(name: str, company: str, *, as_json: bool) -> None:
    """One metric in full."""
    metric = find_metric(name, metrics())
    described = describe(metric, metrics())
    stored = [metric.cells(grain) for grain in metric.stored]
    newest = _newest(metric.name, company)
    if as_json:
        state = newest.as_json()["rows"] if newest else []
        typer.echo(
            json.dumps(described | {"stored": [metric.table, *stored], "newest": state[-1:]}, indent=1)
        )
        return
    lines = {
        "means": metric.description,
        "is": made(described) + (f" where {metric.filter}" if metric.filter else ""),
        "read from": f"{metric.model} by {metric.time_column}" if metric.model else ", ".join(metric.parts),
        "also called": ", ".join(metric.synonyms),
        "split by": ", ".join(described["dimensions"]) or "nothing",
        "adds up": ADDS[described["additivity"]],
        "unit": metric.unit + (" (≈ an estimate)" if described["approximate"] else ""),
        "stored in": ", ".join([metric.table, *stored]),
        "owner": metric.owner,
    }
    console = Console()
    console.print(f"[bold]{escape(metric.title)}[/] ({metric.name})", highlight=False)
    for label, text in lines.items():
        if text:
            console.print(f"  {label:12} {escape(text)}", highlight=False, soft_wrap=True)
    if newest and newest.rows:
        period, value = newest.rows[-1][0], newest.rows[-1][-1]
        so_far = "" if newest.complete[-1] else " so far"
        text = f"{show(value, metric.unit, newest.currency)} in the month of {period}{so_far}"
        console.print(f"  {'newest':12} {text}", highlight=False)


def _newest(name: str, company: str) -> Answer | None:
    """The metric by month, if it is published."""
    try:
        return ask(tenancy.get(company), MetricQuery(metrics=[name], grain="month"))
    except ConfigError:
        return None


def print_answer(
    company: str,
    names: list[str],
    by: list[str],
    grain: str,
    since: date | None,
    until: date | None,
    where: str | None,
    compare: str | None,
    format_: str,
    *,
    sql: bool,
) -> None:
    """Ask and print.

    Raises:
        ConfigError: the question cannot be answered; the message says why.
    """
    asked = {"metrics": names, "by": by, "grain": grain, "since": since, "until": until, "where": where,
             "compare": compare}  # fmt: skip
    try:
        query = MetricQuery.model_validate(asked)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
    found = ask(tenancy.get(company), query)
    if sql:
        typer.echo(found.sql)
    elif format_ == "json":
        typer.echo(json.dumps(found.as_json(), indent=1))
    elif format_ == "csv":
        _print_csv(found)
    else:
        _print_table(found)


def _print_csv(found: Answer) -> None:
    from omni.spreadsheet import formula_safe

    writer = csv.writer(sys.stdout)
    writer.writerow([*(column.name for column in found.columns), "complete"])
    for row, whole in zip(found.rows, found.complete, strict=True):
        writer.writerow([*map(formula_safe, row), str(whole).lower()])
    for note in found.notes:
        typer.echo(note, err=True)


def _print_table(found: Answer) -> None:
    console = Console()
    table = Table(box=None, pad_edge=False)
    for column in found.columns:
        numeric = column.kind in ("value", "before")
        table.add_column(
            ("≈ " if column.approximate else "") + escape(_heading(column)),
            justify="right" if numeric else "left",
        )
        if column.kind == "before":
            table.add_column("change", justify="right")
    for row, whole in zip(found.rows, found.complete, strict=True):
        table.add_row(*_cells(found, row, whole=whole))
    console.print(table)
    if not found.rows:
        console.print("No values in this range.")
    if found.complete_through or found.as_of:
        loaded = f", loaded {found.as_of:%Y-%m-%d %H:%M}" if found.as_of else ""
        console.print(f"Complete through {found.complete_through}{loaded}.", style="dim", highlight=False)
    for note in found.notes:
        console.print(escape(note), style="dim", highlight=False)


def _heading(column: Column) -> str:
    return column.title.rpartition(", ")[2] if column.kind == "before" else column.title


def _cells(found: Answer, row: tuple[Any, ...], *, whole: bool) -> list[str]:
    cells: list[str] = []
    current = None
    declared = metrics()
    for column, value in zip(found.columns, row, strict=True):
        if column.kind == "period":
            cells.append(f"{value}{'' if whole else ' …'}")
        elif column.unit is None or column.metric is None:
            cells.append(escape("".join(c for c in str(value) if c.isprintable())))
        else:
            cells.append(show(value, column.unit, found.currency))
            if column.kind == "value":
                current = value
            else:
                # A period that is not over is not less than a whole one: it is not compared.
                direction = declared[column.metric].direction
                moved = change(current, value, column.unit, direction, found.currency) if whole else None
                cells.append(f"{moved.arrow} {moved.text}" if moved else NOTHING)
    return cells


def print_export(*, as_json: bool) -> None:
    """The definitions as an Apache Ossie semantic model; what is not in it is named on standard error."""
    import yaml

    from omni.bi.ossie import export

    document, left_out = export(metrics())
    typer.echo(json.dumps(document, indent=1) if as_json else yaml.safe_dump(document, sort_keys=False))
    if left_out:
        typer.echo(f"Left out, Ossie has no words for them: {', '.join(left_out)}", err=True)
