"""PostgreSQL's words for what DuckDB says: one rule per construct that sqlglot leaves to fail or to differ.

A rule takes a node of the parsed statement and returns what stands in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlglot import exp
from sqlglot.generators.postgres import PostgresGenerator

from omni.errors import ConfigError

Rule = Callable[[Any], exp.Expression]

TYPES: dict[exp.DType, str] = {
    exp.DType.UBIGINT: "DECIMAL(20, 0)",
    exp.DType.INT128: "DECIMAL(38, 0)",
    exp.DType.UINT128: "DECIMAL(39, 0)",
    exp.DType.UINT: "BIGINT",
    exp.DType.USMALLINT: "INT",
    exp.DType.UTINYINT: "SMALLINT",
    exp.DType.JSON: "JSONB",
}
"""Types PostgreSQL has no equal of. JSON becomes JSONB because that one can be compared."""

EPOCH_MONDAY = "2000-01-03"
"""Where DuckDB's time_bucket begins to count for widths other than months."""


class Generator(PostgresGenerator):
    """sqlglot's PostgreSQL with `$1` for parameters."""

    def placeholder_sql(self, expression: exp.Placeholder) -> str:
        """A parameter as it was written: the driver's business, not the dialect's."""
        return f"${expression.name}" if expression.name else "?"

    def parameter_sql(self, expression: exp.Parameter) -> str:
        """A parameter as it was written."""
        return f"${expression.name}"


def refuse(what: str, instead: str) -> ConfigError:
    """The error for SQL that has no PostgreSQL form."""
    return ConfigError(f"{what} does not run on PostgreSQL: {instead}")


def call(name: str, *arguments: exp.Expression) -> exp.Anonymous:
    """A function call, written as it is named."""
    return exp.Anonymous(this=name, expressions=list(arguments))


def cast(node: exp.Expression, kind: str) -> exp.Expression:
    """`CAST(node AS kind)`, kind in DuckDB's words."""
    return exp.Cast(this=node, to=exp.DataType.build(kind, dialect="duckdb"))


def text(value: str) -> exp.Expression:
    """A string literal."""
    return exp.Literal.string(value)


def _type(node: exp.DataType) -> exp.Expression:
    if isinstance(node.this, exp.DType) and node.this in TYPES:
        return exp.DataType.build(TYPES[node.this], dialect="postgres")
    return node


def _jsonb(node: exp.Expression) -> exp.Expression:
    return exp.Cast(this=node, to=exp.DataType.build("JSONB", dialect="postgres"))


def _json(node: exp.JSONExtract | exp.JSONExtractScalar) -> exp.Expression:
    as_text = isinstance(node, exp.JSONExtractScalar)
    path = node.expression
    if isinstance(path, exp.JSONPath):
        parts = [part for part in path.expressions if not isinstance(part, exp.JSONPathRoot)]
        simple = all(
            isinstance(p, exp.JSONPathKey | exp.JSONPathSubscript) and isinstance(p.this, str | int)
            for p in parts
        )
        if not simple:
            raise refuse(f"the JSON path {path.sql('duckdb')}", "name keys and positions only")
        keys = ", ".join(f"'{str(p.this).replace(chr(39), chr(39) * 2)}'" for p in parts)
        kind = exp.JSONBExtractScalar if as_text else exp.JSONBExtract
        return exp.Paren(this=kind(this=_jsonb(node.this), expression=exp.var(f"ARRAY[{keys}]::TEXT[]")))
    found = call("jsonb_path_query_first", _jsonb(node.this), cast_to(path, "JSONPATH"))
    if not as_text:
        return found
    return exp.Paren(this=exp.JSONBExtractScalar(this=found, expression=text("{}")))


def cast_to(node: exp.Expression, kind: str) -> exp.Expression:
    """A cast to a type that only PostgreSQL knows."""
    return exp.Cast(this=node, to=exp.DataType.build(kind, dialect="postgres", udt=True))


def _arg_extreme(descending: bool) -> Rule:
    def rule(node: exp.ArgMax | exp.ArgMin) -> exp.Expression:
        if node.args.get("count"):
            raise refuse("arg_max with a count", "rank with row_number() and QUALIFY")
        value, by = node.this, node.expression
        if isinstance(by, exp.Order):
            by = by.this
        known = exp.And(
            this=exp.Is(this=value.copy(), expression=exp.null()).not_(),
            expression=exp.Is(this=by.copy(), expression=exp.null()).not_(),
        )
        return _first_of(value, [exp.Ordered(this=by.copy(), desc=descending)], known)

    return rule


def _first_of(
    value: exp.Expression, order: list[exp.Expression], known: exp.Expression | None
) -> exp.Expression:
    listed: exp.Expression = exp.ArrayAgg(
        this=exp.Order(this=value.copy(), expressions=order) if order else value.copy()
    )
    if known is not None:
        listed = exp.Filter(this=listed, expression=exp.Where(this=known))
    return exp.Bracket(this=exp.Paren(this=listed), expressions=[exp.Literal.number(1)], offset=1, safe=False)


def _first(node: exp.First) -> exp.Expression:
    inner = node.this
    if not isinstance(inner, exp.Order):
        raise refuse("first() without an order", "use min, max or any_value")
    return _first_of(inner.this, [o.copy() for o in inner.expressions], None)


def _last(node: exp.Last) -> exp.Expression:
    inner = node.this
    if not isinstance(inner, exp.Order):
        raise refuse("last() without an order", "use min, max or any_value")
    turned = [
        exp.Ordered(
            this=o.this.copy(), desc=not o.args.get("desc"), nulls_first=not o.args.get("nulls_first")
        )
        for o in inner.expressions
    ]
    return _first_of(inner.this, list(turned), None)


def _ignore_nulls(node: exp.IgnoreNulls) -> exp.Expression:
    return call("any_value", node.this.this) if isinstance(node.this, exp.AnyValue) else node


def _distinct_count(node: exp.ApproxDistinct) -> exp.Expression:
    return exp.Count(this=exp.Distinct(expressions=[node.this]))


def _percentile(node: exp.PercentileCont | exp.Quantile | exp.ApproxQuantile) -> exp.Expression:
    share = node.expression if isinstance(node, exp.PercentileCont) else node.args["quantile"]
    return _within(node.this, share, node)


def _median(node: exp.Median) -> exp.Expression:
    return _within(node.this, exp.Literal.number("0.5"), node)


def _within(value: exp.Expression, share: exp.Expression, node: exp.Expression) -> exp.Expression:
    if isinstance(node.parent, exp.WithinGroup):
        return node
    order = exp.Order(expressions=[exp.Ordered(this=value, nulls_first=False)])
    return exp.WithinGroup(this=exp.PercentileCont(this=share), expression=order)


def _of_doubles(node: exp.Expression) -> exp.Expression:
    """avg, stddev and their kin are DOUBLE in DuckDB; of exact numbers PostgreSQL makes NUMERIC."""
    # The cast goes inside, so that FILTER and OVER stay with their aggregate.
    inner = node.copy()
    inner.set("this", cast(node.this.copy(), "DOUBLE"))
    return inner


def _bucket(node: exp.DateBin) -> exp.Expression:
    width = node.this
    unit = str(width.args.get("unit") or width.name).upper() if isinstance(width, exp.Interval) else ""
    if not isinstance(width, exp.Interval) or "MONTH" in unit or "YEAR" in unit or "QUARTER" in unit:
        raise refuse("time_bucket with months or a computed width", "use date_trunc")
    origin = node.args.get("zone") or cast(text(EPOCH_MONDAY), "TIMESTAMP")
    return call("date_bin", width, node.expression, origin)


def _extract(node: exp.Extract) -> exp.Expression:
    part = node.name.upper()
    inner: exp.Expression = node.copy()
    if part.startswith("EPOCH"):
        return cast(inner, "DOUBLE")
    if part in ("SECOND", "SECONDS"):
        inner = exp.Floor(this=inner)
    return cast(inner, "BIGINT")


def _part(part: str) -> Rule:
    def rule(node: exp.Expression) -> exp.Expression:
        return cast(exp.Extract(this=exp.var(part), expression=node.this), "BIGINT")

    return rule


def _epoch(node: exp.TimeToUnix) -> exp.Expression:
    return cast(exp.Extract(this=exp.var("EPOCH"), expression=node.this), "DOUBLE")


def _difference(node: exp.DateDiff) -> exp.Expression:
    """date_diff counts the boundaries between two moments, not the whole units."""
    unit = str(node.args.get("unit") or "DAY").upper().rstrip("S")
    late, early = node.this, node.expression
    if unit == "DAY":
        return exp.Paren(this=exp.Sub(this=cast(late, "DATE"), expression=cast(early, "DATE")))
    if unit in ("HOUR", "MINUTE", "SECOND"):
        seconds = {"HOUR": 3600, "MINUTE": 60, "SECOND": 1}[unit]
        gap = exp.Paren(this=exp.Sub(this=_trunc(unit, late), expression=_trunc(unit, early)))
        epoch = exp.Extract(this=exp.var("EPOCH"), expression=gap)
        whole = exp.Div(this=epoch, expression=exp.Literal.number(seconds), typed=True, safe=False)
        return cast(whole if seconds > 1 else epoch, "BIGINT")
    if unit in ("MONTH", "QUARTER", "YEAR"):
        per_year = {"MONTH": 12, "QUARTER": 4, "YEAR": 1}[unit]
        ends = [_count_of(unit, per_year, moment) for moment in (late, early)]
        return exp.Paren(this=exp.Sub(this=ends[0], expression=ends[1]))
    raise refuse(
        f"date_diff in {unit.lower()}",
        "use day, month, year, hour, minute or second; of weeks subtract the Mondays",
    )


def _trunc(unit: str, moment: exp.Expression) -> exp.Expression:
    return call("date_trunc", text(unit.lower()), moment.copy())


def _count_of(unit: str, per_year: int, moment: exp.Expression) -> exp.Expression:
    def part(name: str) -> exp.Expression:
        return cast(exp.Extract(this=exp.var(name), expression=moment.copy()), "BIGINT")

    years = exp.Mul(this=part("YEAR"), expression=exp.Literal.number(per_year))
    return exp.Paren(this=years if unit == "YEAR" else exp.Add(this=years, expression=part(unit)))


def interval(node: exp.Interval) -> exp.Expression:
    """An interval of a computed length as that many intervals of one."""
    amount = node.this
    if amount is None or isinstance(amount, exp.Literal):
        return node
    unit = exp.Interval(this=text("1"), unit=node.args["unit"].copy())
    return exp.Paren(this=exp.Mul(this=exp.Paren(this=amount.unnest()), expression=unit))


def _to_days(node: exp.ToDays) -> exp.Expression:
    unit = exp.Interval(this=text("1"), unit=exp.var("DAY"))
    return exp.Paren(this=exp.Mul(this=exp.Paren(this=node.this), expression=unit))


def _try_cast(node: exp.TryCast) -> exp.Expression:
    kind = node.to.sql("postgres")
    valid = call("pg_input_is_valid", cast(node.this.copy(), "VARCHAR"), text(kind))
    inner = exp.Cast(this=cast(node.this.copy(), "VARCHAR"), to=node.to)
    return exp.Case(ifs=[exp.If(this=valid, true=inner)])


def _contains(node: exp.Contains) -> exp.Expression:
    return exp.Paren(
        this=exp.GT(this=call("strpos", node.this, node.expression), expression=exp.Literal.number(0))
    )


def _ends_with(node: exp.EndsWith) -> exp.Expression:
    tail = call("right", node.this, call("length", node.expression.copy()))
    return exp.Paren(this=exp.EQ(this=tail, expression=node.expression))


def _regexp_extract(node: exp.RegexpExtract) -> exp.Expression:
    group = node.args.get("group") or exp.Literal.number(0)
    pattern = node.expression
    if not (isinstance(pattern, exp.Literal) and isinstance(group, exp.Literal)):
        raise refuse("regexp_extract with a computed pattern", "write the pattern as a literal")
    if group.name == "0":
        pattern, place = text(f"({pattern.name})"), 1
    else:
        place = int(group.name)
    found = exp.Bracket(
        this=exp.Paren(this=call("regexp_match", node.this, pattern)),
        expressions=[exp.Literal.number(place)],
        offset=1,
        safe=False,
    )
    empty = exp.Coalesce(this=found, expressions=[text("")])
    null = exp.Is(this=node.this.copy(), expression=exp.null())
    return exp.Case(ifs=[exp.If(this=null.not_(), true=empty)])


def _upper(node: exp.Upper) -> exp.Expression:
    """DuckDB's capital of ß is ẞ; PostgreSQL leaves it."""
    return exp.Upper(this=call("replace", node.this, text("ß"), text("ẞ")))


def _round(node: exp.Round) -> exp.Expression:
    """PostgreSQL rounds only exact numbers to places; a DOUBLE goes half away from zero, as in DuckDB."""
    places, value = node.args.get("decimals"), node.this
    if _is_double(value):
        factor = exp.Literal.number(f"1e{places.name if places is not None else 0}")
        scaled = exp.Mul(this=exp.Paren(this=value.copy()), expression=factor)
        whole = exp.Floor(this=exp.Add(this=exp.Abs(this=scaled), expression=exp.Literal.number("0.5")))
        signed = exp.Mul(this=call("sign", cast(value.copy(), "DOUBLE")), expression=cast(whole, "DOUBLE"))
        return exp.Paren(this=exp.Div(this=signed, expression=cast(factor.copy(), "DOUBLE"), typed=True))
    if places is None:
        return node
    return call("round", cast_to(value, "NUMERIC"), places)


def _is_double(node: exp.Expression) -> bool:
    while isinstance(node, exp.Paren):
        node = node.this
    if isinstance(node, exp.Cast):
        return bool(node.to.this in (exp.DType.DOUBLE, exp.DType.FLOAT))
    if isinstance(node, exp.Div | exp.Avg | exp.Stddev | exp.StddevSamp | exp.StddevPop | exp.Ln | exp.Exp):
        return True
    if isinstance(node, exp.Mul | exp.Add | exp.Sub | exp.Coalesce | exp.Nullif | exp.Neg | exp.Abs):
        return any(_is_double(child) for child in node.iter_expressions())
    return False


def _anonymous(node: exp.Anonymous) -> exp.Expression:
    name = node.name.lower()
    if name == "hash":
        given = node.expressions
        whole = given[0] if len(given) == 1 and _is_row(given[0]) else call("ROW", *given)
        return call("hashtextextended", cast(whole, "VARCHAR"), exp.Literal.number(0))
    if name == "row":
        return call("ROW", *node.expressions)
    if name.startswith(("read_", "list_", "struct_", "map_", "array_", "duckdb_")) or name in REFUSED:
        raise refuse(f"{name}()", REFUSED.get(name, "use joins, aggregates and window functions"))
    return node


REFUSED = {
    "format": "use || or concat",
    "printf": "use || or concat",
    "datesub": "use date_diff or a subtraction",
    "date_sub": "use date_diff or a subtraction",
    "histogram": "use GROUP BY",
    "max_by": "use row_number() and QUALIFY",
}


def _sha(node: exp.SHA2) -> exp.Expression:
    digest = call("sha256", call("convert_to", node.this, text("UTF8")))
    return call("encode", digest, text("hex"))


def _is_row(node: exp.Expression) -> bool:
    return isinstance(node, exp.Anonymous) and node.name.lower() == "row"


def _odd(what: str, instead: str) -> Rule:
    def rule(_: exp.Expression) -> exp.Expression:
        raise refuse(what, instead)

    return rule


RULES: dict[type[exp.Expression], Rule] = {
    exp.DataType: _type,
    exp.JSONExtract: _json,
    exp.JSONExtractScalar: _json,
    exp.ArgMax: _arg_extreme(descending=True),
    exp.ArgMin: _arg_extreme(descending=False),
    exp.First: _first,
    exp.Last: _last,
    exp.IgnoreNulls: _ignore_nulls,
    exp.ApproxDistinct: _distinct_count,
    exp.PercentileCont: _percentile,
    exp.Quantile: _percentile,
    exp.ApproxQuantile: _percentile,
    exp.Median: _median,
    exp.Avg: _of_doubles,
    exp.Stddev: _of_doubles,
    exp.StddevSamp: _of_doubles,
    exp.StddevPop: _of_doubles,
    exp.Variance: _of_doubles,
    exp.VariancePop: _of_doubles,
    exp.DateBin: _bucket,
    exp.Extract: _extract,
    exp.Year: _part("YEAR"),
    exp.Month: _part("MONTH"),
    exp.Day: _part("DAY"),
    exp.Hour: _part("HOUR"),
    exp.DayOfWeek: _part("DOW"),
    exp.DayOfWeekIso: _part("ISODOW"),
    exp.TimeToUnix: _epoch,
    exp.DateDiff: _difference,
    exp.Interval: interval,
    exp.ToDays: _to_days,
    exp.TryCast: _try_cast,
    exp.Contains: _contains,
    exp.EndsWith: _ends_with,
    exp.RegexpExtract: _regexp_extract,
    exp.Round: _round,
    exp.Upper: _upper,
    exp.Anonymous: _anonymous,
    exp.SHA2: _sha,
    exp.ReadParquet: _odd("read_parquet()", "load the file first"),
    exp.ReadCSV: _odd("read_csv()", "load the file first"),
    exp.Struct: _odd("a struct", "use columns, or a JSON column"),
    exp.Lambda: _odd("a lambda", "unnest the list and aggregate"),
    exp.Comprehension: _odd("a list comprehension", "unnest the list and aggregate"),
    exp.Pivot: _odd("PIVOT", "write one aggregate with FILTER (WHERE …) per column"),
    exp.TableSample: _odd("a sample", "filter by a hash of the key"),
}


def apply_rules(node: exp.Expression) -> exp.Expression:
    """Replace every node that a rule covers, innermost first."""
    for child in list(node.iter_expressions()):
        apply_rules(child)
    rule = RULES.get(type(node))
    if rule is None:
        return node
    parent, key, index = node.parent, node.arg_key, node.index
    replaced = rule(node)
    if replaced is not node and parent is not None:
        parent.set(str(key), replaced, index)
    return replaced
