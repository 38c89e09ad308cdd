"""One statement of DuckDB's as PostgreSQL's, and what running it takes beyond sending it.

`omni.warehouse.dialect` translates. Here parameters get numbers, and statements that make, replace or drop a
table or view are told apart, because row security, rights and dependent views must be seen to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import sqlglot
from sqlglot import exp

from omni.errors import ConfigError
from omni.warehouse import dialect

Kind = Literal["plain", "definition", "create_table", "create_view", "drop", "by_name"]

_PARAMETERS = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|\$(\w+)|(\?)")
_VIEW = re.compile(r"^CREATE (?:OR REPLACE )?VIEW (.+?) AS ", re.DOTALL)


@dataclass(frozen=True)
class Statement:
    """A statement for PostgreSQL.

    Attributes:
        sql: the statement; of `by_name` see there.
        parameters: which of the caller's parameters are `$1`, `$2` …: a position or a name.
        kind: what it does that needs more than running it.
        target: the permanent table or view it makes or drops, as (schema, name) in PostgreSQL.
        by_name: the parts of an INSERT BY NAME.
        source: of a view, its SELECT as it was given, in DuckDB's dialect.
    """

    sql: str
    parameters: tuple[int | str, ...] = ()
    kind: Kind = "plain"
    target: tuple[str, str] | None = None
    by_name: dialect.ByName | None = None
    source: str = ""


@lru_cache(maxsize=4096)
def translate(sql: str, prefix: str) -> tuple[Statement, ...]:
    """A script in DuckDB's dialect as PostgreSQL's statements.

    Args:
        sql: one statement or several.
        prefix: of the tenant's schemas: `core` becomes `<prefix>core`.

    Raises:
        ConfigError: it does not parse, or has no equivalent.
    """
    numbered, parameters = _numbered(sql)
    try:
        trees = [tree for tree in sqlglot.parse(numbered, read="duckdb") if tree is not None]
    except sqlglot.errors.SqlglotError as error:
        raise ConfigError(f"The SQL does not parse: {str(error).splitlines()[0]}") from None
    if len(trees) == 1:
        return _statements(numbered, trees[0], parameters, prefix)
    scripted = [_statements(tree.sql("duckdb"), tree, parameters, prefix) for tree in trees]
    return tuple(statement for part in scripted for statement in part)


def bind_literals(sql: str, literals: list[str]) -> str:
    """Put literals in the place of `$1` …, where PostgreSQL takes no parameters."""
    return _PARAMETERS.sub(lambda m: literals[int(m[1]) - 1] if m[1] else m[0], sql)


def _numbered(sql: str) -> tuple[str, tuple[int | str, ...]]:
    """Number every parameter in the order of its first use; of each, which of the caller's it is."""
    order: dict[int | str, int] = {}
    anonymous = 0

    def number(match: re.Match[str]) -> str:
        nonlocal anonymous
        name, mark = match[1], match[2]
        if not name and not mark:
            return match[0]
        if mark:
            key: int | str = anonymous
            anonymous += 1
        else:
            key = int(name) - 1 if name.isdigit() else name
        return f"${order.setdefault(key, len(order) + 1)}"

    return _PARAMETERS.sub(number, sql), tuple(order)


def _statements(
    sql: str, tree: exp.Expr, parameters: tuple[int | str, ...], prefix: str
) -> tuple[Statement, ...]:
    if named := dialect.by_name(sql, prefix):
        return (Statement(named.select, parameters, "by_name", by_name=named),)
    *before, last = dialect.statements(sql, prefix)
    match tree:
        case exp.Create() if str(tree.kind).upper() in ("TABLE", "VIEW"):
            target = None if _is_temporary(tree) else _permanent(tree.this, prefix)
            drops = [Statement(text, kind="drop", target=target) for text in before]
            if str(tree.kind).upper() == "TABLE":
                return (*drops, Statement(last, parameters, "create_table", target))
            return (*drops, *_view(tree, last, parameters, target))
        case exp.Create() | exp.Alter():
            return (Statement(last, parameters, "definition"),)
        case exp.Drop() if str(tree.kind).upper() in ("TABLE", "VIEW"):
            (named,) = tree.args.get("tables") or [tree.this]
            return (Statement(last, kind="drop", target=_permanent(named, prefix)),)
        case _:
            return (Statement(last, parameters),)


def _view(
    tree: exp.Create, sql: str, parameters: tuple[int | str, ...], target: tuple[str, str] | None
) -> tuple[Statement, ...]:
    """A permanent view acts with the rights of who asks, or it would lead around row security."""
    if target is None:
        return (Statement(sql, parameters, "create_view"),)
    made = _VIEW.sub(r"CREATE VIEW \1 WITH (security_invoker = true) AS ", sql)
    created = Statement(made, parameters, "create_view", target, source=tree.expression.sql("duckdb"))
    if not tree.args.get("replace"):
        return (created,)
    # PostgreSQL's CREATE OR REPLACE VIEW refuses other columns.
    dropped = Statement(f'DROP VIEW IF EXISTS "{target[0]}"."{target[1]}"', kind="drop", target=target)
    return dropped, created


def _is_temporary(tree: exp.Create) -> bool:
    properties = tree.args.get("properties")
    return properties is not None and properties.find(exp.TemporaryProperty) is not None


def _permanent(named: exp.Expr | None, prefix: str) -> tuple[str, str] | None:
    """Schema and name of a table that is not temporary."""
    if isinstance(named, exp.Schema):
        named = named.this
    if isinstance(named, exp.Table) and named.db and named.db != "temp":
        return prefix + named.db, named.name
    return None
