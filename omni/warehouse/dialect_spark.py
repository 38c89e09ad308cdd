"""Spark's words for what DuckDB says.

What DATE - DATE or a cast to a whole number does there depends on types, so the query is typed first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify
from sqlglot.schema import MappingSchema

from omni.errors import ConfigError
from omni.warehouse.dialect_postgres import call, cast, interval, text

Types = Mapping[str, Mapping[str, str]]
"""Columns and their types in DuckDB's words, by `schema.table`."""

WHOLE = ("BIGINT", "INT", "SMALLINT", "TINYINT")


def typed(query: exp.Expression, types: Types) -> exp.Expression:
    """The query with every column's table and every expression's type.

    Raises:
        ConfigError: it reads a table or a column that `types` does not have.
    """
    schema = MappingSchema(dialect="duckdb")
    for table, columns in types.items():
        schema.add_table(exp.to_table(table, dialect="duckdb"), dict(columns), dialect="duckdb")
    try:
        named = qualify(
            query, schema=schema, dialect="duckdb", quote_identifiers=False, validate_qualify_columns=False
        )
        annotated: exp.Expression = annotate_types(named, schema=schema, dialect="duckdb")
    except SqlglotError as error:
        raise ConfigError(f"The query's types are not known: {str(error).splitlines()[0]}") from None
    return annotated


def name_branches(node: exp.Expression) -> None:
    """Give each branch of a UNION the first one's names: Spark fails on a branch that repeats one."""
    for union in node.find_all(exp.SetOperation):
        names, branch = union.named_selects, union.expression.unnest()
        if isinstance(branch, exp.Select):
            pairs = zip(names, branch.expressions, strict=True)
            branch.set("expressions", [exp.alias_(e.unalias(), name, quoted=True) for name, e in pairs])


def apply_rules(node: exp.Expression) -> exp.Expression:
    """Replace every node that a rule covers, innermost first."""
    for child in list(node.iter_expressions()):
        apply_rules(child)
    rule = RULES.get(type(node))
    if rule is None:
        return node
    parent, key, index = node.parent, node.arg_key, node.index
    replaced = rule(node)
    if replaced is not node:
        replaced.type = node.type
        if parent is not None:
            parent.set(str(key), replaced, index)
    return replaced


def _days_between(node: exp.Sub) -> exp.Expression:
    """DATE - DATE is a number of days, not an interval."""
    if _is(node.this, "DATE") and _is(node.expression, "DATE"):
        return cast(call("datediff", node.this, node.expression), "BIGINT")
    return _days_moved(node)


def _days_moved(node: exp.Add | exp.Sub) -> exp.Expression:
    """To a DATE Spark adds an INT only; a DATE and an INTERVAL make a TIMESTAMP in DuckDB."""
    if _is(node.this, "DATE") and _is(node.expression, *WHOLE):
        name = "date_add" if isinstance(node, exp.Add) else "date_sub"
        return call(name, node.this, cast(node.expression, "INTEGER"))
    return node


def _whole(node: exp.Cast) -> exp.Expression:
    """A cast to a whole number rounds; Spark's cuts off."""
    if node.to.is_type(*WHOLE) and (_is(node.this, "DOUBLE", "FLOAT") or isinstance(node.this, exp.Div)):
        node.set("this", call("rint", node.this))
    elif node.to.is_type(*WHOLE) and _is(node.this, "DECIMAL"):
        node.set("this", call("round", node.this, exp.Literal.number(0)))
    return node


def _zone(node: exp.AtTimeZone) -> exp.Expression:
    """Of a moment its clock time in a zone; of a clock time the moment."""
    to_moment = _is(node.this, "TIMESTAMP", "TIMESTAMPNTZ", "DATE") and not _is(node.this, "TIMESTAMPTZ")
    name = "to_utc_timestamp" if to_moment else "from_utc_timestamp"
    return call(name, node.this, node.args["zone"])


def _series(node: exp.Table) -> exp.Expression:
    """`generate_series(a, b, step) AS t(x)` as a table: a sequence, none if it runs backwards."""
    series = node.this
    if not isinstance(series, exp.GenerateSeries):
        return node
    start, end = series.args["start"], series.args["end"]
    forward = exp.LTE(this=start.copy(), expression=end.copy())
    members = exp.Explode(this=exp.If(this=forward, true=series, false=exp.null()))
    alias = node.args.get("alias")
    if isinstance(node.parent, exp.Join):
        return exp.Lateral(this=members, alias=alias)
    return exp.Table(this=members, alias=alias)


def _percentile(node: exp.PercentileCont | exp.Quantile) -> exp.Expression:
    share = node.expression if isinstance(node, exp.PercentileCont) else node.args["quantile"]
    return call("percentile", node.this, share)


def _median(node: exp.Median) -> exp.Expression:
    return call("percentile", node.this, exp.Literal.number("0.5"))


def _of_doubles(node: exp.Expression) -> exp.Expression:
    """avg and its kin are DOUBLE in DuckDB; of a DECIMAL Spark makes a DECIMAL."""
    node.set("this", cast(node.this, "DOUBLE"))
    return node


def _upper(node: exp.Upper) -> exp.Expression:
    """DuckDB's capital of ß is ẞ; Java's is SS."""
    return exp.Upper(this=call("replace", node.this, text("ß"), text("ẞ")))


def _extract(node: exp.Extract) -> exp.Expression:
    part = {"ISODOW": "DAYOFWEEK_ISO", "DOW": "DOW"}.get(node.name.upper(), node.name.upper())
    if part == "DOW":
        return cast(
            exp.Sub(this=call("dayofweek", node.expression), expression=exp.Literal.number(1)), "BIGINT"
        )
    if part == "EPOCH":
        seconds = exp.Div(
            this=cast(_micros(node.expression), "DOUBLE"), expression=exp.Literal.number(1000000)
        )
        return exp.Paren(this=seconds)
    return cast(exp.Extract(this=exp.var(part), expression=node.expression), "BIGINT")


def _micros(moment: exp.Expression) -> exp.Expression:
    """Microseconds since 1970, or between two moments: Spark's intervals have no such number."""
    while isinstance(moment, exp.Paren):
        moment = moment.this
    if isinstance(moment, exp.Sub) and not _is(moment.expression, "INTERVAL"):
        return exp.Paren(this=exp.Sub(this=_micros(moment.this), expression=_micros(moment.expression)))
    return call("unix_micros", cast(moment, "TIMESTAMPTZ"))


def _epoch(node: exp.TimeToUnix) -> exp.Expression:
    return _extract(exp.Extract(this=exp.var("EPOCH"), expression=node.this))


def _trunc(node: exp.TimestampTrunc | exp.DateTrunc) -> exp.Expression:
    unit = node.args["unit"]
    return call("date_trunc", text(unit.name) if isinstance(unit, exp.Var) else unit, node.this)


def _is(node: exp.Expression, *kinds: str) -> bool:
    return node.is_type(*kinds)


RULES: dict[type[exp.Expression], Callable[[Any], exp.Expression]] = {
    exp.Table: _series,
    exp.Sub: _days_between,
    exp.Add: _days_moved,
    exp.Interval: interval,
    exp.Cast: _whole,
    exp.AtTimeZone: _zone,
    exp.PercentileCont: _percentile,
    exp.Quantile: _percentile,
    exp.Median: _median,
    exp.Avg: _of_doubles,
    exp.Stddev: _of_doubles,
    exp.StddevSamp: _of_doubles,
    exp.StddevPop: _of_doubles,
    exp.Upper: _upper,
    exp.Extract: _extract,
    exp.TimeToUnix: _epoch,
    exp.TimestampTrunc: _trunc,
    exp.DateTrunc: _trunc,
}
