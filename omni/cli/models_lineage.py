"""`omni models lineage`: a column up to the vendors' fields and down to metrics and dashboards."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from omni.catalogue.graph import Column, Graph, build_graph, did_you_mean
from omni.catalogue.project import Project, load_project
from omni.catalogue.uses import Use, all_uses
from omni.errors import ConfigError

MARKS = {"copied": "", "computed": " (computed)", "assumed": " (perhaps)"}


def show(name: str | None, html: Path | None, *, as_json: bool) -> None:
    """Print a column's or a table's lineage, or write the graph of all.

    Raises:
        ConfigError: there is no such table or column.
    """
    project = load_project()
    if html:
        from omni import tenancy
        from omni.catalogue.content import catalogue_content
        from omni.catalogue.pages import render
        from omni.files import write_atomic

        write_atomic(html, render(catalogue_content(project, next(iter(tenancy.tenants().values())))))
        typer.echo(f"{html}#{name}" if name else html)
        return
    graph = build_graph(project.contracts, project.models)
    if name is None:
        _print_tables(graph, project, as_json=as_json)
        return
    table, column = _parsed(name, graph)
    columns = [column] if column else graph.columns[table]
    uses = _uses_by_column(all_uses(project))
    found = [_lineage((table, one), graph, project, uses) for one in columns]
    if as_json:
        typer.echo(json.dumps(found[0] if column else found, indent=1))
        return
    console = Console(highlight=False, width=None if Console().is_terminal else 200)
    for one in found:
        console.print(_tree(one, whole=bool(column)))


def _parsed(name: str, graph: Graph) -> tuple[str, str]:
    parts = name.split(".")
    table, column = ".".join(parts[:2]), ".".join(parts[2:])
    if table not in graph.columns:
        raise ConfigError(f"No contract and no model declares {table}{did_you_mean(table, graph.columns)}")
    if column and column not in graph.columns[table]:
        known = graph.columns[table]
        raise ConfigError(f"{table} has no column {column!r}{did_you_mean(column, known)}")
    return table, column


def _uses_by_column(uses: list[Use]) -> dict[Column, list[str]]:
    found: dict[Column, list[str]] = {}
    for use in uses:
        told = f"{use.kind} {use.name}"
        if use.name != use.table and told not in found.setdefault((use.table, use.column), []):
            found[use.table, use.column].append(told)
    return found


def _lineage(
    column: Column, graph: Graph, project: Project, uses: Mapping[Column, list[str]]
) -> dict[str, Any]:
    """What a column is made of and what is made of it, as nested plain values."""
    return {
        "column": ".".join(column),
        "from": _branches(column, graph.above, lambda c: {"field": f} if (f := _field(c, project)) else {}),
        "to": _branches(column, graph.below, lambda c: {"used_by": uses[c]} if c in uses else {}),
        "used_by": uses.get(column, []),
        "fields": [f for c in graph.sources(column) if (f := _field(c, project))],
    }


def _branches(
    column: Column,
    step: Callable[[Column], Mapping[Column, str]],
    more: Callable[[Column], dict[str, Any]],
    seen: frozenset[Column] = frozenset(),
) -> list[dict[str, Any]]:
    return [
        {
            "column": ".".join(other),
            "through": through,
            **more(other),
            "next": _branches(other, step, more, seen | {column}),
        }
        for other, through in step(column).items()
        if other not in seen
    ]


def _field(column: Column, project: Project) -> str:
    """The vendor's field a loaded column holds."""
    contract = project.contracts.get(column[0])
    declared = contract.columns.get(column[1]) if contract else None
    if contract is None or contract.source is None or declared is None:
        return ""
    return f"{contract.source.vendor} {contract.source.object}: {declared.path or column[1]}"


def _tree(found: dict[str, Any], *, whole: bool) -> Tree:
    root = Tree(Text(found["column"], style="bold"))
    above = root.add(Text("made of" if found["from"] else "made of no column", style="cyan"))
    _grow(above, found["from"], whole=whole)
    below = root.add(Text("feeds" if found["to"] or found["used_by"] else "feeds nothing", style="cyan"))
    for use in found["used_by"]:
        below.add(Text(use, style="green"))
    _grow(below, found["to"], whole=whole)
    return root


def _grow(node: Tree, branches: list[dict[str, Any]], *, whole: bool) -> None:
    for branch in branches:
        line = Text(branch["column"]).append(MARKS[branch["through"]], style="dim")
        if field := branch.get("field"):
            line.append(f"  ← {field}", style="green")
        inner = node.add(line)
        for use in branch.get("used_by", []):
            inner.add(Text(use, style="green"))
        if whole:
            _grow(inner, branch["next"], whole=whole)


def _print_tables(graph: Graph, project: Project, *, as_json: bool) -> None:
    reads = {name: list(model.parents) for name, model in project.models.items() if name in graph.columns}
    if as_json:
        columns = [
            {"column": f"{model}.{column}", "from": [[".".join(o), how] for o, how in origins.items()]}
            for model, reading in graph.readings.items()
            for column, origins in reading.made_of.items()
        ]
        typer.echo(json.dumps({"tables": reads, "columns": columns}, indent=1))
        return
    for name in graph.readings:
        typer.echo(f"{name} ← {', '.join(reads.get(name, [])) or 'nothing'}")
