"""Reading no more of a source than the windows to rebuild need.

A model is rebuilt for some windows by a condition on its time column. Databases move that condition below
the grouping, but `CAST(moment AS DATE) IN (…)` lets them skip nothing of a table that is sorted by
moment. So where the time column is, step by step, a cast of one source column, a range of that column is
added beside it. It only repeats what the condition says: wherever a step is not surely harmless (a window
function over other partitions, an outer join, a limit), nothing is added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

from sqlglot import exp

from omni.tenancy import Tenant
from omni.warehouse.catalog import columns
from omni.warehouse.connection import Connection
from omni.warehouse.models import Model
from omni.warehouse.windows import LENGTHS

MAX_RANGES = 8
_LITERALS = {"DATE": "date", "TIMESTAMP": "timestamp", "TIMESTAMPTZ": "timestamptz"}


@dataclass(frozen=True)
class _Trace:
    """Where the search is, and how far the values below may lie from the windows' first days."""

    con: Connection
    models: Mapping[str, Model]
    tenant: Tenant
    windows: Sequence[date]
    tree: exp.Expr
    zones: int = 0
    shifts: int = 0
    days_after: int = 1


def narrowed(
    con: Connection, model: Model, models: Mapping[str, Model], tenant: Tenant, windows: Sequence[date]
) -> str:
    """The model's SELECT, with a range on its source's own column where that cannot change the windows' rows.

    Args:
        con: asked for the type of the source column.
        model: an incremental_by_time model.
        models: all, to look through views.
        tenant: whose values the parameters take.
        windows: the first days of the windows wanted; the caller still filters by them.
    """
    tree = model.bound_query(tenant)
    trace = _Trace(con, models, tenant, windows, tree)
    if not windows or not _narrow(tree, str(model.header.time_column), trace):
        return model.bound(tenant)
    return tree.sql("duckdb", comments=False)


def _narrow(query: exp.Expr | None, column: str, trace: _Trace) -> bool:
    """Add the range somewhere below `query`, whose output column is given; False if it is not sure."""
    if isinstance(query, exp.Subquery):
        return not query.args.get("pivots") and _narrow(query.this, column, trace)
    if isinstance(query, exp.Union):
        return _narrow_branches(query, column, trace)
    if not isinstance(query, exp.Select) or _is_barrier(query):
        return False
    value: exp.Expr | None = next(
        (p for p in query.expressions if not p.is_star and p.alias_or_name == column), None
    )
    if value is None:
        star = query.expressions[0]
        if len(query.expressions) != 1 or not isinstance(star, exp.Star) or any(star.args.values()):
            return False
        value = exp.column(column)
    value = value.unalias()
    if not _survives_grouping(query, value, column) or not _survives_windows(query, value):
        return False
    traced = _source_column(value, trace)
    if traced is None:
        return False
    source, trace = traced
    found = _source(query, source)
    return found is not None and _into_source(query, source, found, trace)


def _narrow_branches(union: exp.Union, column: str, trace: _Trace) -> bool:
    """Add the range to the branches of a UNION ALL where it is sure; each holds rows of its own."""
    names = union.left.named_selects
    beside = ("distinct", "by_name", "limit", "offset")
    if names.count(column) != 1 or any(union.args.get(part) for part in beside):
        return False
    added = False
    for branch in (union.left, union.right):
        query = branch.unnest()
        selected = query.named_selects if isinstance(query, exp.Query) else []
        if len(selected) == len(names) and "*" not in selected:
            added |= _narrow(query, selected[names.index(column)], trace)
    return added


def _is_barrier(query: exp.Select) -> bool:
    distinct = query.args.get("distinct")
    return (
        any(query.args.get(part) for part in ("limit", "offset", "sample", "laterals"))
        or any(clause.args.get("recursive") for clause in query.find_all(exp.With))
        or (distinct is not None and distinct.args.get("on") is not None)
    )


def _survives_grouping(query: exp.Select, value: exp.Expr, column: str) -> bool:
    """Whether all rows of a group share the value, so that leaving out others leaves the group whole."""
    group = query.args.get("group")
    if group is None:
        return True
    if any(group.args.get(part) for part in ("rollup", "cube", "grouping_sets", "totals", "all")):
        return False
    inner = value.find(exp.Column)
    for key in group.expressions:
        if isinstance(key, exp.Literal) and not key.is_string:
            at = int(key.name) - 1
            if at < len(query.expressions) and query.expressions[at].unalias() == value:
                return True
        elif key in (value, inner) or (isinstance(key, exp.Column) and not key.table and key.name == column):
            return True
    return False


def _survives_windows(query: exp.Select, value: exp.Expr) -> bool:
    """Whether every window function of this SELECT stays within rows of one value."""
    return all(
        value in (window.args.get("partition_by") or [])
        for window in query.find_all(exp.Window)
        if window.find_ancestor(exp.Select) is query
    )


def _source_column(value: exp.Expr, trace: _Trace) -> tuple[exp.Column, _Trace] | None:
    """The column that `value` is a cast, a zone change or a truncation of."""
    zones, shifts, after = trace.zones, trace.shifts, trace.days_after
    node: exp.Expr = value
    while not isinstance(node, exp.Column):
        if isinstance(node, exp.AtTimeZone):
            zones += 1
            shifts += int(node.args["zone"] != exp.Literal.string("UTC"))
        elif isinstance(node, exp.DateTrunc | exp.TimestampTrunc):
            unit = str(node.args["unit"].name).lower()
            if unit not in LENGTHS or node.args.get("zone"):
                return None
            after += LENGTHS[unit]
        elif not isinstance(node, exp.Paren) and not (type(node) is exp.Cast and node.is_type("date")):
            return None
        node = node.this
    if node.args.get("db") or isinstance(node.this, exp.Star):
        return None
    return node, replace(trace, zones=zones, shifts=shifts, days_after=after)


def _source(query: exp.Select, column: exp.Column) -> exp.Expr | None:
    """The relation of FROM or of an inner join that the column comes from."""
    from_ = query.args.get("from_")
    joins: list[exp.Join] = query.args.get("joins") or []
    if from_ is None or any(join.side in ("RIGHT", "FULL") or join.method for join in joins):
        return None
    if not column.table:
        return _relation(from_) if not joins else None
    if from_.this.alias_or_name == column.table:
        return _relation(from_)
    for join in joins:
        if join.this.alias_or_name == column.table and not join.side and join.kind in ("", "INNER", "CROSS"):
            return _relation(join)
    return None


def _relation(clause: exp.Expr) -> exp.Expr | None:
    relation = clause.this
    return relation if isinstance(relation, exp.Expr) else None


def _into_source(query: exp.Select, column: exp.Column, source: exp.Expr, trace: _Trace) -> bool:
    alias = source.args.get("alias")
    if source.args.get("pivots") or source.args.get("sample") or (alias and alias.columns):
        return False
    if isinstance(source, exp.Subquery):
        return _narrow(source, column.name, trace)
    if not isinstance(source, exp.Table) or not source.name:
        return False
    if not source.db:
        return _into_cte(source, column, trace)
    name = f"{source.db}.{source.name}"
    view = trace.models.get(name)
    if view is not None and view.header.kind == "view":
        return _into_view(source, column, view, trace)
    kind = columns(trace.con, name).get(column.name)
    if kind not in _LITERALS:
        return False
    query.where(_ranges(column, kind, trace), copy=False)
    return True


def _into_cte(source: exp.Table, column: exp.Column, trace: _Trace) -> bool:
    """Into a WITH clause that nothing else reads."""
    ctes = [cte for cte in trace.tree.find_all(exp.CTE) if cte.alias == source.name]
    reads = [table for table in trace.tree.find_all(exp.Table) if not table.db and table.name == source.name]
    if len(ctes) != 1 or len(reads) != 1 or ctes[0].args["alias"].columns:
        return False
    return _narrow(ctes[0].this, column.name, trace)


def _into_view(source: exp.Table, column: exp.Column, view: Model, trace: _Trace) -> bool:
    """Put the view's own SELECT in its place and go on there."""
    tree = view.bound_query(trace.tenant)
    if not _narrow(tree, column.name, replace(trace, tree=tree)):
        return False
    source.replace(
        exp.Subquery(this=tree, alias=exp.TableAlias(this=exp.to_identifier(source.alias_or_name)))
    )
    return True


def _ranges(column: exp.Column, kind: str, trace: _Trace) -> exp.Expr:
    """What the column must lie in: each run of windows, wider by a day for every change of zone.

    A moment that is cast to a day without naming a zone is shifted by the session's.
    """
    local = kind != "TIMESTAMPTZ"
    slack = trace.shifts + int(trace.zones % 2 == int(local))
    runs: list[list[date]] = []
    for start in sorted(trace.windows):
        low = start - timedelta(days=slack)
        high = start + timedelta(days=trace.days_after + slack)
        if runs and low <= runs[-1][1]:
            runs[-1][1] = max(runs[-1][1], high)
        else:
            runs.append([low, high])
    if len(runs) > MAX_RANGES:
        runs = [[runs[0][0], max(high for _, high in runs)]]
    zone = "" if local else "+00"
    time = "" if kind == "DATE" else f" 00:00:00{zone}"

    def bound(day: date) -> exp.Expr:
        return exp.cast(exp.Literal.string(f"{day.isoformat()}{time}"), _LITERALS[kind], dialect="duckdb")

    return exp.or_(
        *(
            exp.and_(exp.GTE(this=column.copy(), expression=bound(low)),
                     exp.LT(this=column.copy(), expression=bound(high)))
            for low, high in runs
        )
    )  # fmt: skip
