"""What a change of columns breaks: everything that names a column which is no longer there, all at once.

Nothing is run and no warehouse is needed: contracts give the columns of loaded tables, the models' SQL
those of the others. What passes a column on by `*` names nothing itself: its own readers are what breaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from omni.catalogue.graph import Column, Graph, build_graph, did_you_mean
from omni.catalogue.project import Project
from omni.catalogue.uses import Use, all_uses


@dataclass(frozen=True)
class Break:
    """One declaration that names what is not there, or that rests on one which does.

    Attributes:
        kind: model, model header, metric, dashboard, contract, experiment, prediction, write-back, copy, …
        name: the declaration's.
        file: where to put it right.
        table: the table it reads.
        column: the column that is not there, or that can no longer be made.
        field: the field that names it; empty in SQL.
        because: empty if the column is gone; else the broken model that no longer makes it.
    """

    kind: str
    name: str
    file: str
    table: str
    column: str
    field: str = ""
    because: str = ""
    hint: str = ""

    def __str__(self) -> str:
        where = f" ({self.field})" if self.field else ""
        what = f"{self.table}.{self.column}" if self.column else self.table
        if self.because:
            return f"{self.kind} {self.name}{where}: reads {what}, which {self.because} no longer makes"
        if not self.column:
            nobody = "which no model and no contract declares"
            return f"{self.kind} {self.name}{where}: reads {what}, {nobody}{self.hint}"
        return f"{self.kind} {self.name}{where}: {self.table} has no column {self.column!r}{self.hint}"


def impact(project: Project, without: Iterable[Column] = ()) -> list[Break]:
    """Everything that breaks, or is broken already.

    Args:
        project: the declarations.
        without: columns to suppose gone or renamed, by table and name.

    Returns:
        First what names a missing column itself, then what rests on it; each in the order of the tables.

    Raises:
        ConfigError: a supposed column does not exist, or models form a circle.
    """
    gone = list(without)
    graph = build_graph(project.contracts, project.models, gone)
    uses = all_uses(project)
    direct = [*_in_sql(project, graph), *_in_fields(uses, graph)]
    return [*direct, *_resting(project, graph, uses, direct)]


def _in_sql(project: Project, graph: Graph) -> list[Break]:
    found = []
    for name, reading in graph.readings.items():
        if name.startswith("metrics."):
            continue
        file = project.models[name].origin
        for table in graph.unknown.get(name, ()):
            hint = did_you_mean(table, graph.columns)
            found.append(Break("model", name, file, table, "", hint=hint))
        for column, tables in reading.missing:
            if set(tables) & set(graph.unknown.get(name, ())):
                continue
            known = [c for table in tables for c in graph.columns.get(table, [])]
            found.append(
                Break("model", name, file, " or ".join(tables), column, hint=did_you_mean(column, known))
            )
    return found


def _in_fields(uses: Iterable[Use], graph: Graph) -> list[Break]:
    found = []
    for use in uses:
        known = graph.columns.get(use.table)
        if known is None:
            if use.table:
                found.append(_broken(use, "", did_you_mean(use.table, graph.columns)))
        elif use.column != "*" and use.column not in known:
            found.append(_broken(use, use.column, did_you_mean(use.column, known)))
    return found


def _broken(use: Use, column: str, hint: str) -> Break:
    return Break(use.kind, use.name, use.file, use.table, column, use.field, hint=hint)


def _resting(project: Project, graph: Graph, uses: list[Use], direct: list[Break]) -> list[Break]:
    """What names columns that a broken model made of the missing ones, directly or not."""
    lost = _lost_columns(project, graph, direct)
    broken = {(b.kind, b.name) for b in direct}
    found: dict[tuple[str, str, str, str], Break] = {}
    for name, reading in graph.readings.items():
        if name.startswith("metrics.") or ("model", name) in broken:
            continue
        for table, columns in reading.read.items():
            for column in sorted(columns):
                if because := lost.get((table, column)):
                    one = Break("model", name, project.models[name].origin, table, column, because=because)
                    found.setdefault(("model", name, table, column), one)
    for use in uses:
        if (because := lost.get((use.table, use.column))) and use.name != use.table:
            one = Break(use.kind, use.name, use.file, use.table, use.column, use.field, because)
            if (use.kind, use.name) not in broken:
                found.setdefault((use.kind, use.name, use.table, use.column), one)
    return list(found.values())


def _lost_columns(project: Project, graph: Graph, direct: list[Break]) -> Mapping[Column, str]:
    """Columns that cannot be made any more, each with the broken model at the start of its trouble.

    Of a model that names a missing column those made of it: the output columns whose expression names it.
    A metric that breaks loses its series.
    """
    lost: dict[Column, str] = {}
    for one in direct:
        if one.kind == "model":
            named = _outputs_naming(project, one)
            lost |= {(one.name, column): one.name for column in named}
        elif one.kind == "metric":
            lost[f"metrics.{one.name}", "value"] = f"metric {one.name}"
    waiting = list(lost)
    while waiting:
        column = waiting.pop()
        for below in graph.below(column):
            if below not in lost:
                lost[below] = lost[column]
                waiting.append(below)
    return lost


def _outputs_naming(project: Project, one: Break) -> list[str]:
    """Output columns of a model whose SELECT names the missing column; all if it is in a condition only."""
    from sqlglot import exp

    query = project.models[one.name].query
    names = {one.column}
    for _ in range(4):  # through WITH clauses that give it other names
        for select in query.find_all(exp.Select):
            for projection in select.selects:
                if any(column.name in names for column in projection.find_all(exp.Column)):
                    names.add(projection.alias_or_name)
    outputs = [n for n in query.named_selects if n in names and n != "*"]
    return outputs or [n for n in query.named_selects if n != "*"]
