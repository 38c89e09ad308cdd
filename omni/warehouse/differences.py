"""What changed between two versions of a model's SELECT, in words, and whether its readers must mind.

Columns added are no matter to whoever reads the others, unless rows are told apart by all their columns
(DISTINCT, UNION) or columns by their place. Everything else, what is not known here included, may give other
rows or values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sqlglot
from sqlglot import exp

_CLAUSES = {
    "distinct": "DISTINCT",
    "from_": "FROM",
    "joins": "JOIN",
    "laterals": "LATERAL",
    "where": "WHERE",
    "group": "GROUP BY",
    "having": "HAVING",
    "windows": "WINDOW",
    "qualify": "QUALIFY",
    "order": "ORDER BY",
    "limit": "LIMIT",
    "offset": "OFFSET",
}
_BY_PLACE = ("group", "order")
"""Clauses in which a number stands for the column at that place."""


@dataclass(frozen=True)
class Change:
    """One difference: in words, and whether it can change what readers of the old columns get."""

    text: str
    breaking: bool


@dataclass(frozen=True)
class _Place:
    """Where a SELECT stands: how to name it, and what its columns are to those around it.

    Attributes:
        where: the start of every message.
        placed: whether its columns are told by their place.
        whole: whether its rows are told apart by all their columns.
    """

    where: str = ""
    placed: bool = False
    whole: bool = False


def differences(old: str, new: str) -> list[Change]:
    """Compare two SELECTs in DuckDB's dialect by their parts; layout and comments do not count.

    Returns:
        Columns added, removed, renamed or computed differently, and clauses that differ, in each SELECT of
        the statement; empty if they mean the same.
    """
    before, after = (sqlglot.parse_one(text, read="duckdb") for text in (old, new))
    assert isinstance(before, exp.Query)
    assert isinstance(after, exp.Query)
    parts_before, parts_after = dict(_parts(before)), dict(_parts(after))
    found: list[Change] = []
    if _recursive(before) != _recursive(after):
        found.append(Change("WITH RECURSIVE added or removed", True))
    for name in dict.fromkeys([*parts_before, *parts_after]):
        one, other = parts_before.get(name), parts_after.get(name)
        where = f"WITH {name}: " if name else ""
        if one is None or other is None:
            found.append(Change(f"{where}{'added' if one is None else 'removed'}", one is not None))
        else:
            place = _Place(where, bool(name), bool(name) and _passes_on_all(after))
            found += _compare(one, other, place)
    return found


def _recursive(query: exp.Query) -> bool:
    found = query.args.get("with_") or query.args.get("with")
    return bool(found and found.args.get("recursive"))


def _passes_on_all(query: exp.Query) -> bool:
    """Whether a column more in a WITH may change which rows there are: `*` under DISTINCT or in a UNION."""
    star = any(p.is_star for select in query.find_all(exp.Select) for p in select.selects)
    return star and bool(query.find(exp.Distinct, exp.SetOperation))


def _parts(query: exp.Query) -> Iterator[tuple[str, exp.Expr]]:
    for cte in query.ctes:
        names = ", ".join(cte.alias_column_names)
        yield f"{cte.alias} ({names})" if names else cte.alias, cte.this
    yield "", query


def _compare(old: exp.Expr, new: exp.Expr, place: _Place) -> Iterator[Change]:
    if isinstance(old, exp.SetOperation) and isinstance(new, exp.SetOperation):
        yield from _compare_branches(old, new, place)
    elif isinstance(old, exp.Select) and isinstance(new, exp.Select):
        yield from _columns(old, new, place)
        yield from _clauses(old, new, place)
    elif _sql(old) != _sql(new):
        yield Change(f"{place.where}another shape of query", True)


def _compare_branches(old: exp.SetOperation, new: exp.SetOperation, place: _Place) -> Iterator[Change]:
    branches = list(_branches(old)), list(_branches(new))
    if len(branches[0]) != len(branches[1]):
        text = f"{place.where}{len(branches[0])} branches of its {_kind(old)} became {len(branches[1])}"
        yield Change(text, True)
        return
    if _shape(old) != _shape(new):
        told = (
            f"{_kind(old)} became {_kind(new)}" if _kind(old) != _kind(new) else "branches joined otherwise"
        )
        yield Change(f"{place.where}{told}", True)
    yield from _clauses(old, new, place)
    whole = any(not _keeps_all(n) for n in new.find_all(exp.SetOperation)) or place.whole
    for number, (one, other) in enumerate(zip(*branches, strict=True), 1):
        yield from _compare(one, other, _Place(f"{place.where}branch {number}: ", True, whole))


def _keeps_all(query: exp.SetOperation) -> bool:
    return isinstance(query, exp.Union) and not query.args.get("distinct")


def _kind(query: exp.SetOperation) -> str:
    return query.key.upper() + ("" if query.args.get("distinct") else " ALL")


def _shape(query: exp.Expr) -> tuple[object, ...]:
    """How the branches of a UNION are put together, the branches themselves left out."""
    if isinstance(query, exp.SetOperation):
        own = [
            f"{key}: {_text(query, key)}"
            for key in sorted(query.args)
            if key not in {"this", "expression", "with_", "with", *_CLAUSES} and query.args[key]
        ]
        return (_kind(query), *own, _shape(query.left), _shape(query.right))
    if isinstance(query, exp.Subquery):
        own = [_text(query, key) for key in sorted(query.args) if key != "this" and query.args[key]]
        return (*own, *_shape(query.this)) if own else _shape(query.this)
    return ()


def _branches(query: exp.Expr) -> Iterator[exp.Expr]:
    if isinstance(query, exp.SetOperation):
        for side in (query.left, query.right):
            yield from _branches(side)
    elif isinstance(query, exp.Subquery):
        yield from _branches(query.unnest())
    else:
        yield query


def _clauses(old: exp.Query, new: exp.Query, place: _Place) -> Iterator[Change]:
    """Differences of what follows the columns, and of anything else a query may hold."""
    apart = {"this", "expression", "expressions", "distinct"}
    apart |= set() if place.where else {"with_", "with"}  # those of the statement are compared one by one
    if isinstance(old, exp.Select):
        apart.discard("distinct")
    else:
        apart |= {"by_name", "side", "kind", "on"}  # of its shape
    for key in dict.fromkeys([*_CLAUSES, *old.args, *new.args]):
        if key in apart or (text := _text(old, key)) == (now := _text(new, key)):
            continue
        verb = "added" if not text else "removed" if not now else "changed"
        clause = _CLAUSES.get(key, key.strip("_").upper())
        yield Change(f"{place.where}{clause} {verb}", key != "order" or _order_matters(new))


def _order_matters(query: exp.Query) -> bool:
    """Whether the order decides which rows there are."""
    distinct = query.args.get("distinct")
    first = isinstance(distinct, exp.Distinct) and distinct.args.get("on")
    return bool(first or any(query.args.get(key) for key in ("limit", "offset", "fetch")))


def _columns(old: exp.Select, new: exp.Select, place: _Place) -> Iterator[Change]:
    before, after, where = _projections(old), _projections(new), place.where
    whole = place.whole or _rows_by_columns(new)
    kept = [name for name in before if name in after], [name for name in after if name in before]
    removed = [name for name in before if name not in after]
    added = [name for name in after if name not in before]
    between = place.placed and list(after)[: len(before)] != list(before)
    for name in list(removed):
        same = next((other for other in added if after[other] == before[name]), None)
        if same:
            yield Change(f"{where}column {name} renamed to {same}", True)
            removed.remove(name)
            added.remove(same)
    for name in removed:
        yield Change(f"{where}column {name} removed", True)
    for name in added:
        breaking = whole or between or _more_than_a_column(after[name], new)
        yield Change(f"{where}column {name} added", breaking)
    if kept[0] != kept[1]:
        yield Change(f"{where}columns in another order", place.placed)
    for name in before:
        if name in after and before[name] != after[name]:
            yield Change(f"{where}column {name} computed differently", True)


def _rows_by_columns(select: exp.Select) -> bool:
    """Whether which rows there are depends on which columns there are: DISTINCT, GROUP BY ALL."""
    distinct, group = select.args.get("distinct"), select.args.get("group")
    return bool((distinct and not distinct.args.get("on")) or (group and group.args.get("all")))


def _more_than_a_column(column: str, select: exp.Select) -> bool:
    """Whether it stands for many columns, or decides how many rows there are: UNNEST, a total of all rows."""
    expression = sqlglot.parse_one(column, read="duckdb")
    total = not select.args.get("group") and any(
        not isinstance(found.parent, (exp.Window, exp.Filter)) for found in expression.find_all(exp.AggFunc)
    )
    many = any(not isinstance(star.parent, exp.Count) for star in expression.find_all(exp.Star))
    return total or many or expression.find(exp.Unnest, exp.Explode, exp.Columns) is not None


def _projections(select: exp.Select) -> dict[str, str]:
    """By output name, its expression as text."""
    found: dict[str, str] = {}
    for place, projection in enumerate(select.selects, 1):
        inner = projection.this if isinstance(projection, exp.Alias) else projection
        text = _sql(inner)
        name = text if projection.is_star else projection.alias_or_name or text
        found[name if name not in found else f"{name} at {place}"] = text
    return found


def _text(query: exp.Expr, key: str) -> str:
    value = query.args.get(key) or query.args.get(key.rstrip("_"))
    nodes = value if isinstance(value, list) else [value] if value else []
    if key in _BY_PLACE and isinstance(query, exp.Select):
        nodes = [_spelt_out(node, query) for node in nodes]
    return " ".join(_sql(n) if isinstance(n, exp.Expr) else str(n) for n in nodes)


def _spelt_out(clause: exp.Expr, select: exp.Select) -> exp.Expr:
    """GROUP BY or ORDER BY with the columns that its numbers stand for."""
    spelt = clause.copy()
    columns = select.selects
    for item in spelt.expressions:
        number = item.this if isinstance(item, exp.Ordered) else item
        if isinstance(number, exp.Literal) and number.is_int and 1 <= int(number.this) <= len(columns):
            column = columns[int(number.this) - 1]
            number.replace(column.this.copy() if isinstance(column, exp.Alias) else column.copy())
    return spelt


def _sql(node: exp.Expr) -> str:
    return node.sql("duckdb", comments=False)
