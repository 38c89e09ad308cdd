"""Following columns through a SELECT: which output columns hold something of which input columns.

The tracing errs on the side of reporting: what cannot be resolved counts as holding everything that was
within reach. Conditions (WHERE, JOIN … ON) decide which rows there are, not what they hold, and are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, build_scope

Through = Literal["copied", "computed", "assumed"]
Origin = tuple[str, str]
"""Table and column a value began in."""
Carried = dict[Origin, Through]
"""Origins of a column: the value itself (`copied`), a count or comparison of it (`computed`), or unknown."""

RANK: dict[Through, int] = {"computed": 0, "assumed": 1, "copied": 2}
_NOT_THE_VALUE = (
    exp.Predicate,
    exp.Connector,
    exp.Not,
    exp.Count,
    exp.ApproxDistinct,
    exp.Length,
)

_BEYOND_TRACING = (exp.Columns, exp.Pivot)
"""Make columns out of patterns or values: then every column counts as holding everything."""


@dataclass
class _Trace:
    """One statement being traced: the columns known to hold personal data, by table."""

    known: Mapping[str, Mapping[str, Carried]]
    done: dict[int, dict[str, Carried]] = field(default_factory=dict)


def carried_columns(
    query: exp.Query,
    known: Mapping[str, Mapping[str, Carried]],
    schema: Mapping[str, Mapping[str, str]],
) -> dict[str, Carried]:
    """Output columns of a SELECT that hold something of known columns.

    Args:
        query: the parsed SELECT; not changed.
        known: by table (`schema.table`) and column, where the values began.
        schema: by table, every column and its type, so that `*` can be spelt out.

    Returns:
        By output column, in the SELECT's order; columns that hold nothing of it are left out.
    """
    nested: dict[str, Any] = {}
    for table, columns in schema.items():
        owner, _, name = table.partition(".")
        nested.setdefault(owner, {})[name] = columns
    try:
        full: exp.Expr = qualify(
            query.copy(), schema=nested, dialect="duckdb", validate_qualify_columns=False
        )
        scope = build_scope(full)
    except SqlglotError:
        full, scope = query, None
    if scope is None or next(full.find_all(*_BEYOND_TRACING), None):
        everything = _everything(query, known)
        names = [*query.named_selects, *sorted({column for _, column in everything})]
        return {name: dict(everything) for name in names if name not in ("", "*")} if everything else {}
    return {name: origins for name, origins in _outputs(scope, _Trace(known)).items() if origins}


def _everything(query: exp.Expr, known: Mapping[str, Mapping[str, Carried]]) -> Carried:
    """All that the tables read by a query hold, for want of knowing better."""
    found: Carried = {}
    for table in query.find_all(exp.Table):
        for origins in known.get(f"{table.db}.{table.name}", {}).values():
            found.update(dict.fromkeys(origins, "assumed"))
    return found


def _outputs(scope: Scope, trace: _Trace) -> dict[str, Carried]:
    """Output columns of a scope with their origins, in order."""
    key = id(scope)
    if key in trace.done:
        return trace.done[key]
    trace.done[key] = {}  # a recursive WITH meets itself here: its first branch says what it holds
    found: dict[str, Carried] = {}
    if scope.set_operation_scopes:
        found = _united(scope, trace)
    elif isinstance(scope.expression, exp.Query):
        for projection in scope.expression.selects:
            found[projection.alias_or_name] = _origins(projection, scope, trace)
    trace.done[key] = found
    return found


def _united(scope: Scope, trace: _Trace) -> dict[str, Carried]:
    """Columns of a UNION (or EXCEPT, INTERSECT): those of its first branch, others matched by place."""
    first, *others = (_outputs(branch, trace) for branch in scope.set_operation_scopes)
    found = {name: dict(origins) for name, origins in first.items()}
    for branch in others:
        by_name = bool(scope.expression.args.get("by_name"))
        names = list(branch) if by_name else list(found)
        for name, origins in zip(names, branch.values(), strict=False):
            _merge(found.setdefault(name, {}), origins)
    return found


def _origins(projection: exp.Expr, scope: Scope, trace: _Trace) -> Carried:
    found: Carried = {}
    for column in projection.find_all(exp.Column):
        origins = _lookup(column, scope, trace)
        if _changes_meaning(column, projection):
            origins = dict.fromkeys(origins, "computed")
        _merge(found, origins)
    whole_row = next(projection.find_all(exp.TableColumn), None)
    star = next(projection.find_all(exp.Star), None) and not next(projection.find_all(exp.Count), None)
    if whole_row or star:
        _merge(found, _everything(scope.expression, trace.known))
    return found


def _lookup(column: exp.Column, scope: Scope, trace: _Trace) -> Carried:
    """Origins of one column reference, looked for in its scope, the scopes inside it and around it."""
    around: list[Scope] = []
    parent: Scope | None = scope
    while parent is not None:
        around.append(parent)
        parent = parent.parent
    inside = [inner for outer in scope.subquery_scopes for inner in outer.traverse()]
    for candidate in [*around, *inside]:
        if column.table and column.table in candidate.sources:
            return _of_source(candidate.sources[column.table], column.name, trace)
    found: Carried = {}
    for source in [source for candidate in [scope, *inside] for source in candidate.sources.values()]:
        _merge(found, _of_source(source, column.name, trace))
    return found


def _of_source(source: exp.Table | Scope, column: str, trace: _Trace) -> Carried:
    if isinstance(source, Scope) and isinstance(source.expression, exp.Query):
        return dict(_outputs(source, trace).get(column, {}))
    if isinstance(source, Scope):  # UNNEST and the like: whatever goes in may come out
        found: Carried = {}
        for inner in source.expression.find_all(exp.Column):
            _merge(found, _lookup(inner, source.parent or source, trace))
        return found
    return dict(trace.known.get(f"{source.db}.{source.name}", {}).get(column, {}))


def _changes_meaning(column: exp.Column, projection: exp.Expr) -> bool:
    """Whether what comes out says something about the value rather than being it."""
    inner: exp.Expr = column
    node = column.parent
    while node is not None and inner is not projection:
        beside = isinstance(node, (exp.Window, exp.Filter)) and inner is not node.this
        condition = isinstance(node, exp.If) and inner is node.this
        if beside or condition or isinstance(node, _NOT_THE_VALUE):
            return True
        inner, node = node, node.parent
    return False


def _merge(into: Carried, more: Mapping[Origin, Through]) -> None:
    for origin, through in more.items():
        if origin not in into or RANK[through] > RANK[into[origin]]:
            into[origin] = through
