"""The SQL a model may use: what yields the same rows on DuckDB and PostgreSQL, whenever it runs.

`lint` says what is wrong and what to write instead. It knows no types: what it cannot see is found by the
tests that build every model on both databases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlglot import exp

from omni.errors import ConfigError
from omni.warehouse.dialect import to_postgres
from omni.warehouse.models import Model

CLOCK = (exp.CurrentDate, exp.CurrentTimestamp, exp.CurrentTime, exp.CurrentDatetime, exp.Localtime)
CLOCK_NAMES = {"now", "today", "get_current_time", "get_current_timestamp", "transaction_timestamp"}
CHANCE = (exp.Rand, exp.Randn, exp.Uuid)
LISTS = (exp.Array, exp.ArrayAgg, exp.Explode, exp.Unnest, exp.Struct, exp.Lambda, exp.Comprehension)
ORDERED_BY_NEED = (exp.RowNumber, exp.Lag, exp.Lead, exp.FirstValue, exp.LastValue, exp.NthValue, exp.Ntile)


def lint(model: Model) -> list[str]:
    """What a model's SQL says that is not portable, each with what to write instead; empty if nothing."""
    if model.header.kind == "seed":
        return []
    found: list[str] = []
    for node in model.query.walk():
        for problem in _problems(node, model):
            if problem not in found:
                found.append(problem)
    if not found:
        try:
            to_postgres(model.query.sql("duckdb", comments=False))
        except ConfigError as error:
            found.append(str(error))
    return found


def refuse_unportable(models: Mapping[str, Model]) -> None:
    """Refuse models whose SQL is not portable.

    Raises:
        ConfigError: naming each model and what to write instead.
    """
    if problems := [f"{model.origin}: {problem}" for model in models.values() for problem in lint(model)]:
        raise ConfigError("\n".join(problems))


def _problems(node: Any, model: Model) -> Iterator[str]:
    for rule in RULES:
        if isinstance(node, exp.ApproxDistinct) and model.name.startswith("metrics."):
            continue  # a metric says that it is approximate, and so does every answer made of it
        if problem := rule(node):
            yield f"{_shown(node)}: {problem}"
    if isinstance(node, exp.Window) and (problem := _window(node, model)):
        yield f"{_shown(node)}: {problem}"


def _shown(node: exp.Expression) -> str:
    text = node.sql("duckdb", comments=False)
    return text if len(text) <= 100 else f"{text[:99]}…"


def _clock(node: exp.Expression) -> str | None:
    if isinstance(node, CLOCK) or (isinstance(node, exp.Anonymous) and node.name.lower() in CLOCK_NAMES):
        return "the table must not depend on when it is built; take the newest date of the data instead"
    if isinstance(node, CHANCE) or (isinstance(node, exp.Anonymous) and node.name.lower() == "setseed"):
        return "the table must not depend on chance; order or hash by the key instead"
    return None


def _functions(node: exp.Expression) -> str | None:
    if isinstance(node, exp.ArgMax | exp.ArgMin):
        return "write row_number() OVER (PARTITION BY … ORDER BY …, key) with QUALIFY … = 1"
    if isinstance(node, exp.ApproxDistinct):
        return "each database guesses otherwise; write count(DISTINCT …)"
    if isinstance(node, exp.ApproxQuantile):
        return "each database guesses otherwise; write quantile_cont"
    if isinstance(node, exp.DateBin):
        return "write date_trunc, or arithmetic on whole minutes"
    if isinstance(node, LISTS):
        return "lists and structs differ; use joins, generate_series and aggregates"
    if isinstance(node, exp.AnyValue | exp.First | exp.Last):
        return "which value it is differs; write min or max, or row_number() with QUALIFY"
    if isinstance(node, exp.DateDiff):
        unit = str(node.args.get("unit") or "DAY").upper()
        if unit not in ("DAY", "MONTH"):
            return "write DATE - DATE for days, or subtract epochs for seconds"
    if isinstance(node, exp.Pivot):
        return "PIVOT is not portable; write one aggregate with FILTER (WHERE …) per column"
    return None


def _clauses(node: exp.Expression) -> str | None:
    if isinstance(node, exp.Star) and any(node.args.get(key) for key in ("except_", "replace", "rename")):
        return "list the columns"
    if isinstance(node, exp.Group) and node.args.get("all"):
        return "GROUP BY ALL is not portable; name what is grouped by"
    if isinstance(node, exp.Order) and any(o.this.sql().upper() == "ALL" for o in node.expressions):
        return "ORDER BY ALL is not portable; name what is ordered by"
    if isinstance(node, exp.Join) and node.method.upper() in ("ASOF", "POSITIONAL"):
        return "join, then keep one row with row_number() and QUALIFY"
    if isinstance(node, exp.SetOperation) and node.args.get("by_name"):
        return "UNION BY NAME is not portable; list the columns of each branch in one order"
    if isinstance(node, exp.Limit | exp.Fetch) and not (node.parent and node.parent.args.get("order")):
        return "which rows remain differs without ORDER BY"
    if isinstance(node, exp.TableSample):
        return "the table must not depend on chance; filter by a hash of the key"
    return None


def _numbers(node: exp.Expression) -> str | None:
    if isinstance(node, exp.IntDiv):
        return "integer division rounds negatives differently; write floor(CAST(a AS DOUBLE) / b)"
    if isinstance(node, exp.Div | exp.Mod) and not _never_zero(node.expression):
        return "by zero it is infinite or null on DuckDB and an error on PostgreSQL; divide by nullif(…, 0)"
    if isinstance(node, exp.Round) and node.args.get("decimals") and not isinstance(node.this, exp.Cast):
        return "rounding depends on the type; write round(CAST(… AS DECIMAL(18, 6)), n) or CAST(… AS DOUBLE)"
    if isinstance(node, exp.PercentileCont | exp.Quantile | exp.Median) and not _is_cast(node.this, "DOUBLE"):
        return "of exact numbers the type differs; write it of CAST(… AS DOUBLE)"
    if isinstance(node, exp.Cast) and node.to.is_type("text") and _is_cast(node.this, "DOUBLE"):
        return "a DOUBLE's text differs; cast to DECIMAL first"
    if isinstance(node, exp.GroupConcat) and node.find(exp.Order) is None:
        return "the order of the parts differs; write string_agg(…, ',' ORDER BY …)"
    return None


def _never_zero(node: exp.Expression) -> bool:
    while isinstance(node, exp.Paren | exp.Cast):
        node = node.this
    if isinstance(node, exp.Literal):
        return bool(node.name.strip("0.") or node.is_string)
    if isinstance(node, exp.Coalesce):
        return all(_never_zero(part) for part in (node.this, *node.expressions))
    return isinstance(node, exp.Nullif) or (isinstance(node, exp.Count) and isinstance(node.this, exp.Star))


def _is_cast(node: exp.Expression, kind: str) -> bool:
    inner = node.this if isinstance(node, exp.Order) else node
    return isinstance(inner, exp.Cast) and inner.to.is_type(kind)


def _dates(node: exp.Expression) -> str | None:
    if not isinstance(node, exp.TimestampTrunc | exp.DateTrunc):
        return None
    if isinstance(node.this, exp.AtTimeZone):
        return None
    above = node.parent
    while above is not None and not isinstance(above, exp.Select):
        if isinstance(above, exp.Cast):
            return None
        above = above.parent
    return "its type differs; write CAST(date_trunc(…) AS DATE), or truncate … AT TIME ZONE :timezone"


def _window(node: exp.Window, model: Model) -> str | None:
    """A window function that picks rows by their order needs one that leaves no ties."""
    function = node.this.this if isinstance(node.this, exp.IgnoreNulls | exp.RespectNulls) else node.this
    if node.alias and (node.args.get("order") or node.args.get("partition_by")):
        return "a named window is taken as it is: write out PARTITION BY … ORDER BY …"
    if not isinstance(function, ORDERED_BY_NEED) or node.alias or node.args.get("window"):
        return None
    order = node.args.get("order")
    if order is None:
        return "without ORDER BY the order of rows differs"
    named = {
        c.name for part in (order, *node.args.get("partition_by", [])) for c in part.find_all(exp.Column)
    }
    last = [c.name for c in order.expressions[-1].find_all(exp.Column)]
    if set(model.header.grain) <= named or any(_identifies(name) for name in last):
        return None
    if len(node.args.get("partition_by", [])) + len(order.expressions) > 1:
        return None
    return "rows of equal value come in any order; end its ORDER BY with the key"


def _identifies(name: str) -> bool:
    return name == "id" or name.endswith(("_id", "_key", "_no", "number"))


RULES: tuple[Callable[[Any], str | None], ...] = (_clock, _functions, _clauses, _numbers, _dates)
