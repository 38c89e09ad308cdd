"""The three small languages of metrics: a filter on a model's rows, a condition of a query, arithmetic.

All are SQL, parsed; what they may not hold is refused here, so that no text of a declaration or of a user
reaches the database as it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import sqlglot
from sqlglot import exp

_UNSAFE = (exp.Query, exp.AggFunc, exp.Window, exp.Placeholder, exp.Parameter)
_CONDITION = (
    exp.And, exp.Or, exp.Not, exp.Paren, exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.In,
    exp.Between, exp.Is, exp.Like, exp.ILike, exp.Neg, exp.Null, exp.Boolean, exp.Literal, exp.Column,
    exp.Identifier, exp.Lower, exp.Upper, exp.Cast, exp.DataType, exp.NullSafeEQ, exp.NullSafeNEQ,
)  # fmt: skip
_ARITHMETIC = (
    exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Paren, exp.Neg, exp.Literal, exp.Column, exp.Identifier,
)  # fmt: skip

_TRUTHS = ("true", "false", "t", "f", "yes", "no", "y", "n", "on", "off")


def parse_filter(sql: str, field: str = "filter") -> exp.Condition:
    """A condition on a model's own columns.

    Raises:
        ValueError: it does not parse, or holds a subquery, aggregate, parameter or table name.
    """
    condition = _parsed(sql, field, "a SQL condition")
    if next(condition.find_all(*_UNSAFE), None):
        raise ValueError(
            f"{field}: only conditions on the model's own columns; no subquery, aggregate, parameter"
        )
    if any(column.table for column in condition.find_all(exp.Column)):
        raise ValueError(f"{field}: columns are named without their table")
    return condition


def parse_where(sql: str, known: Sequence[str]) -> exp.Condition:
    """A condition of a query on dimensions: comparisons, IN, BETWEEN, LIKE, IS NULL, AND, OR, NOT.

    Args:
        sql: for example `channel = 'web' AND customer.country IN ('DE', 'AT')`.
        known: the dimensions that may be named.

    Raises:
        ValueError: it does not parse, names another column, or holds anything else.
    """
    condition = _parsed(sql, "where", "a condition")
    if (other := _other_than(condition, _CONDITION)) is not None:
        raise ValueError(
            f"where: {other!r} is not allowed; compare dimensions with values, "
            "as in channel = 'web' AND country IN ('DE', 'AT')"
        )
    for name in columns_of(condition):
        if name not in known:
            raise ValueError(f"where: no dimension {name!r}; it has: {', '.join(known) or 'none'}")
    if not columns_of(condition):
        raise ValueError("where: it names no dimension")
    return condition


def parse_arithmetic(sql: str) -> exp.Condition:
    """An expression over metrics: names, numbers, + - * / and parentheses.

    Raises:
        ValueError: it does not parse or holds anything else.
    """
    expression = _parsed(sql, "measure.expression", "an expression")
    other = _other_than(expression, _ARITHMETIC)
    texts = [literal.sql() for literal in expression.find_all(exp.Literal) if literal.is_string]
    if other is not None or texts:
        raise ValueError(
            f"measure.expression: {other or texts[0]!r} is not allowed; "
            "metrics, numbers, + - * / and parentheses are"
        )
    if any(column.table for column in expression.find_all(exp.Column)):
        raise ValueError("measure.expression: metrics are named without a schema")
    if not columns_of(expression):
        raise ValueError("measure.expression: it names no metric")
    return expression


def _other_than(expression: exp.Expr, allowed: tuple[type[exp.Expr], ...]) -> str | None:
    """The first part of an expression that is none of the allowed kinds."""
    return next((n.sql("duckdb") for n in expression.walk() if not isinstance(n, allowed)), None)


def _parsed(sql: str, field: str, what: str) -> exp.Condition:
    try:
        return sqlglot.parse_one(sql, read="duckdb", into=exp.Condition)
    except sqlglot.errors.SqlglotError as error:
        raise ValueError(f"{field}: not {what}: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise ValueError(f"{field}: nested too deeply") from None


def columns_of(expression: exp.Expr) -> list[str]:
    """The columns it names, each once, `table.column` where a table is named, in order of appearance."""
    found = [
        f"{column.table}.{column.name}" if column.table else column.name
        for column in expression.find_all(exp.Column)
    ]
    return list(dict.fromkeys(found))


def render(expression: exp.Expr, name: Callable[[str], str], *, safe_division: bool = False) -> str:
    """The expression as DuckDB SQL.

    Args:
        expression: parsed by one of the functions above; stays as it is.
        name: the SQL that stands for a column, given as `columns_of` gives it.
        safe_division: a division by zero gives null.
    """

    tree = expression.copy()
    if safe_division:
        for division in list(tree.find_all(exp.Div)):
            below = exp.Nullif(this=exp.paren(division.expression), expression=exp.Literal.number(0))
            division.set("expression", below)

    def named(node: exp.Expr) -> exp.Expr:
        if not isinstance(node, exp.Column):
            return node
        full = f"{node.table}.{node.name}" if node.table else node.name
        return sqlglot.parse_one(name(full), read="duckdb")

    return tree.transform(named).sql("duckdb", comments=False)


def single_member(condition: exp.Condition) -> tuple[str, str] | None:
    """Dimension and member if the condition is `dimension = 'member'` and no more.

    None too if the text may be a number, a date or a truth value, of which one value has several texts.
    """
    inner = condition.unnest()
    if not isinstance(inner, exp.EQ):
        return None
    column, value = inner.this, inner.expression
    if not isinstance(column, exp.Column) or not isinstance(value, exp.Literal) or not value.is_string:
        return None
    member = str(value.this)
    if any(letter.isdigit() for letter in member) or member.lower() in _TRUTHS:
        return None
    return columns_of(column)[0], member


def is_linear(expression: exp.Expr) -> bool:
    """Whether it only adds, subtracts and scales by numbers, so that it adds up where its parts do."""
    match expression:
        case exp.Paren() | exp.Neg():
            return is_linear(expression.this)
        case exp.Add() | exp.Sub():
            # A constant term would be added once per part.
            return all(
                columns_of(side) and is_linear(side) for side in (expression.this, expression.expression)
            )
        case exp.Mul():
            sides = (expression.this, expression.expression)
            return sum(bool(columns_of(side)) for side in sides) == 1 and all(map(is_linear, sides))
        case exp.Div():
            return not columns_of(expression.expression) and is_linear(expression.this)
        case _:
            return True
