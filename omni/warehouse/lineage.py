"""Following columns through a SELECT: what each output column is made of, and which columns are read at all.

The tracing errs on the side of reporting: what cannot be resolved counts as holding everything that was
within reach. Conditions (WHERE, JOIN … ON) decide which rows there are, not what they hold: they are left out
of what a column is made of, and among what is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    """One statement being traced: the columns to look out for, by table."""

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
    full, scope = _resolve(query, schema)
    return _carried(full, scope, known)


@dataclass(frozen=True)
class Reading:
    """What a SELECT makes of the tables it reads.

    Attributes:
        made_of: by output column, in order, the columns of the tables read that it holds something of.
        read: by table, every column that is named, conditions and `*` included.
        missing: named columns that no table within reach has: the column, and the tables it could be of.
        followed: whether the SQL could be followed; if not, every column counts as made of everything.
    """

    made_of: Mapping[str, Carried]
    read: Mapping[str, frozenset[str]]
    missing: tuple[tuple[str, tuple[str, ...]], ...]
    followed: bool

    @property
    def columns(self) -> list[str]:
        """The output columns, in order."""
        return list(self.made_of)


def read_columns(query: exp.Query, schema: Mapping[str, Mapping[str, str]]) -> Reading:
    """Follow every column of the tables a SELECT reads.

    Args:
        query: the parsed SELECT; not changed.
        schema: by table (`schema.table`), every column and its type.
    """
    full, scope = _resolve(query, schema)
    known: dict[str, dict[str, Carried]] = {
        table: {column: {(table, column): "copied"} for column in columns}
        for table, columns in schema.items()
    }
    if scope is None or next(full.find_all(*_BEYOND_TRACING), None):
        everything = {table: frozenset(columns) for table, columns in schema.items()}
        return Reading(_carried(full, scope, known), everything, tuple(_missing_keys(query, schema)), False)
    read: dict[str, set[str]] = {table: set() for table in schema}
    missing: dict[tuple[str, tuple[str, ...]], None] = {}
    seen: set[int] = set()
    for inner in scope.traverse():
        for column in inner.columns:
            if id(column) not in seen:  # a subquery's columns may be listed with those around it
                seen.add(id(column))
                _note_read(column, inner, schema, read, missing)
    made_of = _outputs(scope, _Trace(known))
    return Reading(made_of, {t: frozenset(names) for t, names in read.items()}, tuple(missing), True)


def _note_read(
    column: exp.Column,
    scope: Scope,
    schema: Mapping[str, Mapping[str, str]],
    read: dict[str, set[str]],
    missing: dict[tuple[str, tuple[str, ...]], None],
) -> None:
    """Note one column reference as read, or as missing from wherever it could be of."""
    around = list(_around(scope))
    named = [s.sources[column.table] for s in around if column.table and column.table in s.sources][:1]
    within = named or [source for s in around for source in s.sources.values()]
    for source in within:
        if isinstance(source, exp.Table):
            table = f"{source.db}.{source.name}"
            if table not in schema:
                return  # an unknown table is another complaint
            if column.name in schema[table]:
                read[table].add(column.name)
                return
        elif not isinstance(source.expression, exp.Query):
            return  # UNNEST and the like give columns of any name
        elif column.name in source.expression.named_selects or "*" in source.expression.named_selects:
            return
    if not column.table and _names_output(column, scope):
        return
    tables = {table for source in within for table in _stored(source)}
    missing[column.name, tuple(sorted(tables))] = None


def _names_output(column: exp.Column, scope: Scope) -> bool:
    """Whether a name may be that of an output column, as in ORDER BY: not in the expression that makes it."""
    if not isinstance(scope.expression, exp.Query):
        return False
    own = [p for p in scope.expression.selects if p.alias_or_name == column.name]
    return bool(own) and not any(column is inner for p in own for inner in p.find_all(exp.Column))


def _around(scope: Scope) -> Iterator[Scope]:
    """A scope and those it lies in."""
    found: Scope | None = scope
    while found is not None:
        yield found
        found = found.parent


def _stored(source: exp.Table | Scope) -> Iterator[str]:
    """The stored tables a source reads, through whatever lies between."""
    expression = source if isinstance(source, exp.Table) else source.expression
    if isinstance(source, Scope):
        for inner in source.sources.values():
            yield from _stored(inner)
    for table in expression.find_all(exp.Table):
        if table.db:
            yield f"{table.db}.{table.name}"


def _missing_keys(
    query: exp.Query, schema: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Columns of JOIN … USING that the joined table lacks, a usual reason why SQL cannot be followed."""
    for join in query.find_all(exp.Join):
        table = join.this
        name = f"{table.db}.{table.name}" if isinstance(table, exp.Table) else ""
        for key in join.args.get("using") or []:
            if name in schema and key.name not in schema[name]:
                yield key.name, (name,)


def _resolve(query: exp.Query, schema: Mapping[str, Mapping[str, str]]) -> tuple[exp.Expr, Scope | None]:
    """The SELECT with every column's table and every `*` spelt out; no scope if that fails."""
    nested: dict[str, Any] = {}
    for table, columns in schema.items():
        owner, _, name = table.partition(".")
        nested.setdefault(owner, {})[name] = columns
    try:
        full: exp.Expr = qualify(
            query.copy(),
            schema=nested,
            dialect="duckdb",
            validate_qualify_columns=False,
            allow_partial_qualification=True,
        )
        return full, build_scope(full)
    except SqlglotError:
        return query, None


def _carried(
    full: exp.Expr, scope: Scope | None, known: Mapping[str, Mapping[str, Carried]]
) -> dict[str, Carried]:
    if scope is None or next(full.find_all(*_BEYOND_TRACING), None):
        everything = _everything(full, known)
        listed = full.named_selects if isinstance(full, exp.Query) else []
        names = [*listed, *sorted({column for _, column in everything})]
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
        for place, projection in enumerate(scope.expression.selects):
            # Columns without a name, or with another's, keep their place: a UNION goes by it.
            name = projection.alias_or_name
            unique = name if name and name not in found else f"{name}#{place}"
            found[unique] = _origins(projection, scope, trace)
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
