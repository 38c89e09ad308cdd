"""What changed between two versions of a model's SELECT, in words, and whether its readers must mind.

Columns added are no matter to whoever reads the others; everything else may give other rows or values.
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
_HARMLESS = ("ORDER BY",)


@dataclass(frozen=True)
class Change:
    """One difference: in words, and whether it can change what readers of the old columns get."""

    text: str
    breaking: bool


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
    for name in dict.fromkeys([*parts_before, *parts_after]):
        one, other = parts_before.get(name), parts_after.get(name)
        where = f"WITH {name}: " if name else ""
        if one is None or other is None:
            found.append(Change(f"{where}{'added' if one is None else 'removed'}", one is not None))
        else:
            found += _compare(one, other, where)
    return found


def _parts(query: exp.Query) -> Iterator[tuple[str, exp.Query]]:
    for cte in query.ctes:
        if isinstance(cte.this, exp.Query):
            yield cte.alias, cte.this
    yield "", query


def _compare(old: exp.Query, new: exp.Query, where: str) -> Iterator[Change]:
    if isinstance(old, exp.SetOperation) and isinstance(new, exp.SetOperation):
        branches = list(_branches(old)), list(_branches(new))
        if len(branches[0]) != len(branches[1]):
            text = f"{where}{len(branches[0])} branches of its {old.key.upper()} became {len(branches[1])}"
            yield Change(text, True)
            return
        for number, (one, other) in enumerate(zip(*branches, strict=True), 1):
            yield from _compare(one, other, f"{where}branch {number}: ")
        return
    if not isinstance(old, exp.Select) or not isinstance(new, exp.Select):
        if old.sql("duckdb", comments=False) != new.sql("duckdb", comments=False):
            yield Change(f"{where}another shape of query", True)
        return
    yield from _columns(old, new, where)
    for key, clause in _CLAUSES.items():
        if (text := _text(old, key)) != (now := _text(new, key)):
            verb = "added" if not text else "removed" if not now else "changed"
            yield Change(f"{where}{clause} {verb}", clause not in _HARMLESS)


def _branches(query: exp.Query) -> Iterator[exp.Query]:
    if isinstance(query, exp.SetOperation):
        for side in (query.left, query.right):
            yield from _branches(side)
    elif isinstance(query, exp.Subquery):
        yield from _branches(query.unnest())  # type: ignore[arg-type]
    else:
        yield query


def _columns(old: exp.Select, new: exp.Select, where: str) -> Iterator[Change]:
    before, after = _projections(old), _projections(new)
    removed = [name for name in before if name not in after]
    added = [name for name in after if name not in before]
    for name in list(removed):
        same = next((other for other in added if after[other] == before[name]), None)
        if same:
            yield Change(f"{where}column {name} renamed to {same}", True)
            removed.remove(name)
            added.remove(same)
    for name in removed:
        yield Change(f"{where}column {name} removed", True)
    for name in added:
        yield Change(f"{where}column {name} added", name.endswith("*"))
    for name in before:
        if name in after and before[name] != after[name]:
            yield Change(f"{where}column {name} computed differently", True)


def _projections(select: exp.Select) -> dict[str, str]:
    """By output name, its expression as text."""
    found = {}
    for projection in select.selects:
        inner = projection.this if isinstance(projection, exp.Alias) else projection
        text = inner.sql("duckdb", comments=False)
        found[text if projection.is_star else projection.alias_or_name or text] = text
    return found


def _text(select: exp.Select, key: str) -> str:
    value = select.args.get(key) or select.args.get(key.rstrip("_"))
    nodes = value if isinstance(value, list) else [value] if value is not None else []
    return " ".join(n.sql("duckdb", comments=False) if isinstance(n, exp.Expr) else str(n) for n in nodes)
