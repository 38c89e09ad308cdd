"""Commands that look: status, query, ask, check; and the sandbox's."""

from __future__ import annotations

import csv
import json
import sys
from datetime import date
from typing import Any

import duckdb
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from omni import tenancy
from omni.errors import ConfigError
from omni.spreadsheet import formula_safe
from omni.warehouse.publish import open_snapshot

Rows = list[tuple[Any, ...]]


def _plain(value: object) -> str:
    """A value as text to show: without what a terminal would obey, such as escapes in a sender's words."""
    text = "" if value is None else str(value)
    return escape("".join(one for one in text if one.isprintable() or one == "\n"))


def _table(title: str, columns: list[str], rows: Rows) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(_plain(column))
    for row in rows:
        table.add_row(*map(_plain, row))
    return table


_STATUS = {
    "runs": "SELECT flow, status, started_at, date_diff('second', started_at, finished_at) AS seconds "
    "FROM ops.runs ORDER BY started_at DESC LIMIT 10",
    "cursors": "SELECT vendor, stream, cursor, updated_at FROM ops.cursors ORDER BY 1, 2",
    "tables": "SELECT table_name, rows, version, changed_at FROM ops.tables ORDER BY 1",
}


def show_status(company: str, *, as_json: bool) -> None:
    """Last runs, tables and cursors from the published snapshot."""
    tenant = tenancy.get(company)
    with open_snapshot(tenant) as con:
        found = {part: _fetch(con.execute(sql)) for part, sql in _STATUS.items()}
    if as_json:
        named = {
            part: [dict(zip(columns, row, strict=True)) for row in rows]
            for part, (columns, rows) in found.items()
        }
        typer.echo(json.dumps(named, default=str, indent=1))
        return
    console = Console()
    for part, (columns, rows) in found.items():
        console.print(_table(f"{part} of {tenant.title}", columns, rows))


def _fetch(result: duckdb.DuckDBPyConnection) -> tuple[list[str], Rows]:
    return [column[0] for column in result.description or []], result.fetchall()


def run_query(company: str, sql: str, format_: str, limit: int) -> None:
    """Run one SELECT on the snapshot and print at most `limit` rows.

    Raises:
        ConfigError: as `select_rows`.
    """
    with open_snapshot(tenancy.get(company)) as con:
        select_rows(con, sql, format_, limit)


def select_rows(con: duckdb.DuckDBPyConnection, sql: str, format_: str, limit: int) -> None:
    """Run one SELECT and print at most `limit` rows.

    Raises:
        ConfigError: not exactly one SELECT, or DuckDB refuses it; with its message.
    """
    try:
        statements = con.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise ConfigError("A query is exactly one SELECT; nothing is written by it")
        result = con.execute(statements[0])
        columns = [column[0] for column in result.description or []]
        rows = result.fetchmany(limit + 1)
    except duckdb.Error as error:
        raise ConfigError(f"{error}") from None
    more = len(rows) > limit
    _print_rows(columns, rows[:limit], format_)
    if more:
        typer.echo(f"… more than {limit} rows; raise --limit", err=True)


def _print_rows(columns: list[str], rows: Rows, format_: str) -> None:
    if format_ == "csv":
        writer = csv.writer(sys.stdout)
        writer.writerow(columns)
        writer.writerows([[formula_safe(value) for value in row] for row in rows])
    elif format_ == "json":
        typer.echo(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], default=str, indent=1))
    else:
        Console().print(_table("", columns, rows))


def answer_question(company: str, question: str, passages: int, *, as_json: bool) -> None:
    """Answer from the snapshot's document index."""
    from omni.rag.answer import ask
    from omni.rag.embed import HashingEmbedder

    with open_snapshot(tenancy.get(company)) as con:
        answer = ask(con, question, embedder=HashingEmbedder(), k=passages)
    if as_json:
        from dataclasses import asdict

        typer.echo(json.dumps(asdict(answer), indent=1))
        return
    console = Console()
    console.print(escape(answer.text), highlight=False)
    for citation in answer.citations:
        place = f"{citation.path} — {citation.heading}" if citation.heading else citation.path
        console.print(f"[dim]\\[{citation.number}] {escape(place)}[/]", highlight=False)


def check_declarations() -> None:
    """Validate every declaration against the others and say how many there are."""
    from omni.declarations import validate_all

    for what, number in validate_all().items():
        typer.echo(f"{number:4} {what}")


def serve(company: str, port: int, faults: float, seed: int, until: str | None) -> None:
    """Serve the sandbox in this process."""
    from omni.sandbox.process import serve as run_server

    try:
        day = date.fromisoformat(until) if until else None
    except ValueError:
        raise ConfigError(f"--until {until}: not a day, for example 2026-06-30") from None
    run_server(company, port=port, faults=faults, seed=seed, until=day)
