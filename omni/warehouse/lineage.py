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
    """One statement being traced: the columns to look out for and all columns, by table."""

    known: Mapping[str, Mapping[str, Carried]]
    schema: Mapping[str, Mapping[str, str]]
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
    return _carried(full, scope, _Trace(known, schema))


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
    made_of = _followed(full, scope, _Trace(known, schema))
    if scope is None or made_of is None:
        everything = {table: frozenset(columns) for table, columns in schema.items()}
        assumed = _carried(full, None, _Trace(known, schema))
        return Reading(assumed, everything, tuple(_missing_keys(query, schema)), False)
    read: dict[str, set[str]] = {table: set() for table in schema}
    missing: dict[tuple[str, tuple[str, ...]], None] = {}
    seen: set[int] = set()
    for inner in scope.traverse():
        for column in inner.columns:
            if id(column) not in seen:  # a subquery's columns may be listed with those around it
                seen.add(id(column))
                _note_read(column, inner, schema, read, missing)
    return Reading(made_of, {t: frozenset(names) for t, names in read.items()}, tuple(missing), True)


def _note_read(
    column: exp.Column,
    scope: Scope,
    schema: Mapping[str, Mapping[str, str]],
    read: dict[str, set[str]],
    missing: dict[tuple[str, tuple[str, ...]], None],
) -> None:
    """Note one column reference as read, or as missing from wherever it could be of."""
    named = [s for s in _around(scope) if column.table and column.table in _own_sources(s)][:1]
    tried: list[exp.Table | Scope] = []
    for candidate in named or _reach(scope):
        sources = _own_sources(candidate)
        within = [sources[column.table]] if named else list(sources.values())
        held = [_holds(source, column.name, schema) for source in within]
        if any(held):
            for source, name in zip(within, held, strict=True):
                if name and isinstance(source, exp.Table) and _full_name(source) in read:
                    read[_full_name(source)].add(name)
            return
        if None in held:
            return  # an unknown table is another complaint
        tried += within
    if not column.table and _names_output(column, scope):
        return
    tables = {table for source in tried for table in _stored(source)}
    missing[column.name, tuple(sorted(tables))] = None


def _holds(
    source: exp.Table | Scope, column: str, schema: Mapping[str, Mapping[str, str]]
) -> str | Literal[False] | None:
    """What a source calls a column itself; False if it has none of the name, None if nobody can say."""
    if isinstance(source, Scope) and isinstance(source.expression, exp.Query):
        names = source.expression.named_selects
        return column if column in names else None if "*" in names else False
    if isinstance(source, exp.Table) and source.db:
        if (table := _full_name(source)) not in schema:
            return None
        return _own_names(source, list(schema[table])).get(column, False)
    made = _made_names(source)
    return None if made is None else column if column in made else False


def _made_names(source: exp.Table | Scope) -> set[str] | None:
    """Columns of VALUES, UNNEST, generate_series and their like; None if their names are not known."""
    expression = source if isinstance(source, exp.Table) else source.expression
    if isinstance(expression, exp.Lateral) and isinstance(source, Scope) and source.subquery_scopes:
        inner = source.subquery_scopes[0].expression
        listed = inner.named_selects if isinstance(inner, exp.Query) else ["*"]
        return None if "*" in listed else {*listed, *expression.alias_column_names}
    if given := expression.alias_column_names:
        places = len(given) if isinstance(expression, exp.Values) else 0
        return {*given, *(f"col{place}" for place in range(places))}
    function = expression.this if isinstance(expression, exp.Table) else expression
    if isinstance(function, (exp.GenerateSeries, exp.Unnest)):
        return {"generate_series", "range", "unnest", expression.alias}
    return None


def _own_names(table: exp.Table, columns: list[str]) -> dict[str, str]:
    """By the name a query uses, the stored column: `t AS c(a, b)` names the first ones anew."""
    given = table.alias_column_names
    return dict(zip([*given, *columns[len(given) :]], columns, strict=False))


def _full_name(table: exp.Table) -> str:
    return f"{table.db}.{table.name}"


def _own_sources(scope: Scope) -> dict[str, exp.Table | Scope]:
    """What a scope itself selects from; `sources` also has every WITH within reach."""
    return {name: scope.sources[name] for name, _ in scope.references if name in scope.sources}


def _reach(scope: Scope) -> Iterator[Scope]:
    """A scope and those whose columns it may name without their table.

    A subquery sees what lies around it. A WITH, a derived table or a branch of a UNION does not see what is
    beside it, only what lies around the whole.
    """
    yield scope
    inner = scope
    while (outer := inner.parent) is not None:
        if not (inner.is_cte or inner.is_derived_table):
            yield outer
        inner = outer


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
    if isinstance(source, exp.Table):
        if source.db:
            yield _full_name(source)
        return
    for scope in source.traverse():
        for inner in _own_sources(scope).values():
            if inner is not source:
                yield from _stored(inner)


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
    except (SqlglotError, AssertionError, RecursionError):  # PIVOT in FROM, among others
        return query, None


def _followed(full: exp.Expr, scope: Scope | None, trace: _Trace) -> dict[str, Carried] | None:
    """Output columns with their origins; None if the SQL cannot be followed."""
    if scope is None or next(full.find_all(*_BEYOND_TRACING), None):
        return None
    try:
        return _outputs(scope, trace)
    except (SqlglotError, AssertionError, RecursionError):
        return None


def _carried(full: exp.Expr, scope: Scope | None, trace: _Trace) -> dict[str, Carried]:
    outputs = _followed(full, scope, trace)
    if outputs is None:
        everything = _everything(full, trace.known)
        listed = full.named_selects if isinstance(full, exp.Query) else []
        names = [*listed, *sorted({column for _, column in everything})]
        return {name: dict(everything) for name in names if name not in ("", "*")} if everything else {}
    return {name: origins for name, origins in outputs.items() if origins}


def _everything(query: exp.Expr, known: Mapping[str, Mapping[str, Carried]]) -> Carried:
    """All that the tables read by a query hold, for want of knowing better."""
    found: Carried = {}
    for table in query.find_all(exp.Table):
        for origins in known.get(_full_name(table), {}).values():
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
        for query in source.subquery_scopes:  # LATERAL
            for name, origins in _outputs(query, trace).items():
                if name == column or source.expression.alias_column_names:
                    _merge(found, origins)
        if source.subquery_scopes:
            return found
        for inner in source.expression.find_all(exp.Column):
            _merge(found, _lookup(inner, source.parent or source, trace))
        return found
    table = _full_name(source)
    known = trace.known.get(table, {})
    if source.alias_column_names and table not in trace.schema:
        return _everything(source, trace.known)
    stored = _own_names(source, list(trace.schema.get(table, known)))
    return dict(known.get(stored.get(column, ""), {}))


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
