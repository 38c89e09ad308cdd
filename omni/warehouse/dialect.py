"""SQL is written once, in DuckDB's dialect; here it becomes PostgreSQL's or Spark's.

What both databases say differently is rewritten (`dialect_postgres`); what has no equal is refused with what
to write instead. What a caller of `to_postgres` must see to:

- The session's TimeZone is UTC, and its database sorts text by code point: both engines then agree.
- UBIGINT becomes NUMERIC(20), HUGEINT NUMERIC(38), JSON JSONB (its text is not kept as it was written).
- `CREATE OR REPLACE TABLE` becomes two statements; `statements` gives them one by one.
- `INSERT … BY NAME` needs the names of its columns: `by_name`.
- Tables named without a schema and created TEMP live in `pg_temp`; `temp.x` is such a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import sqlglot
from sqlglot import exp

from omni.errors import ConfigError
from omni.warehouse.dialect_postgres import Generator, apply_rules, refuse

SYSTEM = {"pg_temp", "pg_catalog", "information_schema"}


@lru_cache(maxsize=4096)
def statements(sql: str, prefix: str = "") -> tuple[str, ...]:
    """One DuckDB statement as the PostgreSQL statements that do the same, in order.

    Args:
        sql: one statement; `$1` … stay as they are (only the last statement has any).
        prefix: put before every schema's name, e.g. `acme_`: `core.orders` becomes `acme_core.orders`.

    Raises:
        ConfigError: it does not parse, or says what PostgreSQL cannot; the message says what to write.
    """
    return tuple(_write(node) for node in _translated(_parsed(sql), prefix))


def to_postgres(sql: str, prefix: str = "") -> str:
    """`statements` as one text, separated by semicolons."""
    return ";\n".join(statements(sql, prefix))


def to_spark(sql: str, types: Mapping[str, Mapping[str, str]]) -> str:
    """One SELECT in DuckDB's dialect as Spark's (4.0 or newer, ANSI mode, session zone UTC).

    Args:
        sql: the SELECT; a model's, so within what `omni.warehouse.portable` allows.
        types: columns and their DuckDB types of every table it reads, by `schema.table`.

    Raises:
        ConfigError: it does not parse, reads what `types` does not have, or says what Spark cannot.
    """
    from omni.warehouse import dialect_spark

    node = _parsed(sql)
    _refuse(node)
    node = dialect_spark.apply_rules(dialect_spark.typed(node, types))
    dialect_spark.name_branches(node)
    for cte in node.find_all(exp.CTE):
        cte.set("materialized", None)  # a hint that Spark does not know
    try:
        return node.sql("spark", comments=False, unsupported_level=sqlglot.ErrorLevel.RAISE)
    except sqlglot.errors.UnsupportedError as error:
        raise ConfigError(f"The SQL does not run on Spark: {str(error).splitlines()[0]}") from None


@dataclass(frozen=True)
class ByName:
    """An INSERT whose columns are those its SELECT yields.

    Attributes:
        probe: a PostgreSQL SELECT of no rows; its column names are what `insert` takes.
        table: the target, as PostgreSQL names it.
        select: the SELECT in PostgreSQL's dialect.
    """

    probe: str
    table: str
    select: str

    def insert(self, columns: tuple[str, ...] | list[str]) -> str:
        """The statement with its columns named."""
        listed = ", ".join('"' + column.replace('"', '""') + '"' for column in columns)
        return f"INSERT INTO {self.table} ({listed}) {self.select}"


@lru_cache(maxsize=1024)
def by_name(sql: str, prefix: str = "") -> ByName | None:
    """The parts of an `INSERT INTO t BY NAME SELECT …`; None for any other statement."""
    if "by name" not in " ".join(sql.lower().split()):
        return None
    node = _parsed(sql)
    if not isinstance(node, exp.Insert) or not node.args.get("by_name"):
        return None
    select = _write(_translated(cast("exp.Expression", node.expression.copy()), prefix)[-1])
    (target,) = _translated(cast("exp.Expression", node.this.copy()), prefix)
    return ByName(f"SELECT * FROM ({select}) AS named LIMIT 0", _write(target), select)


def _parsed(sql: str) -> exp.Expression:
    try:
        found = [node for node in sqlglot.parse(sql, read="duckdb") if node is not None]
    except sqlglot.errors.SqlglotError as error:
        raise ConfigError(f"The SQL does not parse: {str(error).splitlines()[0]}") from None
    if len(found) != 1:
        raise ConfigError(f"{len(found)} SQL statements where one was expected: {sql[:80]}")
    if isinstance(found[0], exp.Command):
        raise refuse(f"{sql.split()[0]} …", "sqlglot does not understand the statement")
    return cast("exp.Expression", found[0])


def _write(node: exp.Expression) -> str:
    generator = Generator(dialect="postgres", comments=False, unsupported_level=sqlglot.ErrorLevel.RAISE)
    try:
        return str(generator.generate(node))
    except sqlglot.errors.UnsupportedError as error:
        raise ConfigError(f"The SQL does not run on PostgreSQL: {str(error).splitlines()[0]}") from None


def _translated(node: exp.Expression, prefix: str) -> list[exp.Expression]:
    _refuse(node)
    _name_subqueries(node)
    for select in list(node.find_all(exp.Select)):
        _expand_all(select)
    _pull_names(node)
    _semi_using(node)
    node = apply_rules(node)
    _name_schemas(node, prefix)
    if isinstance(node, exp.Insert):
        _qualify_conflict(node)
    if isinstance(node, exp.Create):
        return _create(node)
    return [node]


def _refuse(node: exp.Expression) -> None:
    if isinstance(node, exp.Insert) and node.args.get("by_name"):
        raise refuse("INSERT … BY NAME", "name the columns, or use omni.warehouse.dialect.by_name")
    if isinstance(node, exp.Insert) and node.args.get("alternative"):
        raise refuse("INSERT OR …", "use ON CONFLICT (key) DO UPDATE SET …")
    for star in node.find_all(exp.Star):
        if star.args.get("except_") or star.args.get("replace") or star.args.get("rename"):
            raise refuse("* EXCLUDE / REPLACE / RENAME", "list the columns")
    for select in node.find_all(exp.Select):
        if select.args.get("qualify") and select.is_star and _is_seen_whole(select):
            raise refuse("QUALIFY beside *", "list the columns, or number the rows in a subquery")
    for join in node.find_all(exp.Join):
        if join.method.upper() in ("ASOF", "POSITIONAL"):
            raise refuse(f"{join.method.upper()} JOIN", "rank the matches with row_number() and QUALIFY")


def _is_seen_whole(select: exp.Select) -> bool:
    """Whether the number that QUALIFY compares could show up as one more column of the result."""
    if not isinstance(select.parent, exp.CTE | exp.Subquery):
        return True
    others = (other for other in select.root().find_all(exp.Select) if other is not select)
    return any(other.is_star for other in others)


def _name_subqueries(node: exp.Expression) -> None:
    """Before version 16, PostgreSQL asks for a name of every subquery that is read from."""
    for number, subquery in enumerate(list(node.find_all(exp.Subquery))):
        if isinstance(subquery.parent, exp.From | exp.Join) and not subquery.alias:
            subquery.set("alias", exp.TableAlias(this=exp.to_identifier(f"unnamed_{number}")))


def _expand_all(select: exp.Select) -> None:
    """GROUP BY ALL and ORDER BY ALL, written out."""
    outputs = [e.unalias() for e in select.expressions]
    starred = any(
        isinstance(e, exp.Star) or (e.find(exp.Star) and isinstance(e, exp.Column)) for e in outputs
    )
    group, order = select.args.get("group"), select.args.get("order")
    if group is not None and group.args.get("all"):
        if starred:
            raise refuse("GROUP BY ALL beside *", "list the columns")
        keys = [e.copy() for e in outputs if not e.find(exp.AggFunc) and not isinstance(e, exp.Literal)]
        select.set("group", exp.Group(expressions=keys) if keys else None)
    if order is not None and any(o.this.sql().upper() == "ALL" for o in order.expressions):
        if starred:
            raise refuse("ORDER BY ALL beside *", "list the columns")
        how = order.expressions[0]
        places = [
            exp.Ordered(this=exp.Literal.number(n), desc=how.args.get("desc"), nulls_first=False)
            for n in range(1, len(outputs) + 1)
        ]
        select.set("order", exp.Order(expressions=places))


def _pull_names(node: exp.Expression) -> None:
    """`FROM (a UNION ALL BY NAME b) AS r`: of each branch just the columns of r that are read, by name."""
    for union in list(node.find_all(exp.SetOperation)):
        if not union.args.get("by_name"):
            continue
        top = union
        while isinstance(top.parent, exp.SetOperation):
            top = top.parent
        subquery = top.parent
        outer = top.find_ancestor(exp.Select)
        if not isinstance(subquery, exp.Subquery) or outer is None or not subquery.alias:
            raise refuse("UNION BY NAME", "list the columns of each branch in one order")
        columns = [c for c in outer.find_all(exp.Column) if c.find_ancestor(exp.Select) is outer]
        names = sorted({c.name for c in columns if c.table == subquery.alias})
        if any(not c.table or c.is_star for c in columns) or outer.is_star or not names:
            raise refuse("UNION BY NAME", "list the columns of each branch in one order")
        _narrow(top, names)


def _narrow(node: exp.Expression, names: list[str]) -> None:
    for side in ("this", "expression"):
        branch = node.args[side].unnest()
        if isinstance(branch, exp.SetOperation):
            _narrow(branch, names)
            continue
        columns = [exp.column(name, table="branch", quoted=True) for name in names]
        node.set(side, exp.select(*columns).from_(exp.Subquery(this=branch.copy(), alias="branch")))
    node.set("by_name", False)


def _semi_using(node: exp.Expression) -> None:
    """SEMI and ANTI JOIN … USING with the condition spelled out: sqlglot knows only ON."""
    for join in node.find_all(exp.Join):
        using = join.args.get("using")
        if join.kind not in ("SEMI", "ANTI") or not using:
            continue
        select = join.find_ancestor(exp.Select)
        left = select.args["from_"].this.alias_or_name if select else ""
        right = join.this.alias_or_name
        pairs = [
            exp.EQ(this=exp.column(c.name, table=left), expression=exp.column(c.name, table=right))
            for c in using
        ]
        join.set("using", None)
        join.set("on", exp.and_(*pairs))


def _name_schemas(node: exp.Expression, prefix: str) -> None:
    for named in node.find_all(exp.Table, exp.Column):
        schema = named.args.get("db")
        if schema is None:
            continue
        if schema.name == "temp":
            named.set("db", exp.to_identifier("pg_temp"))
        elif prefix and schema.name not in SYSTEM:
            named.set("db", exp.to_identifier(prefix + schema.name, quoted=schema.args.get("quoted")))
    if prefix and isinstance(node, exp.Create | exp.Drop) and node.args.get("kind") == "SCHEMA":
        schema = node.this
        name = schema.args.get("db") or schema.this
        name.set("this", prefix + name.name) if not name.name.startswith(prefix) else None
    for call in node.find_all(exp.Anonymous):
        if prefix and call.name.lower() in ("nextval", "currval", "setval") and call.expressions:
            call.expressions[0].replace(exp.Literal.string(prefix + call.expressions[0].name))


def _qualify_conflict(node: exp.Insert) -> None:
    """In DO UPDATE a bare column is the stored one; PostgreSQL asks for its table."""
    conflict = node.args.get("conflict")
    if conflict is None:
        return
    target = node.this.this if isinstance(node.this, exp.Schema) else node.this
    for assignment in conflict.expressions:
        value = assignment.expression if isinstance(assignment, exp.EQ) else assignment
        for column in list(value.find_all(exp.Column)):
            if not column.table:
                column.set("table", exp.to_identifier(target.alias_or_name))


def _create(node: exp.Create) -> list[exp.Expression]:
    replace = bool(node.args.get("replace"))
    kind = str(node.args.get("kind") or "").upper()
    properties = node.args.get("properties")
    temporary = properties is not None and properties.find(exp.TemporaryProperty) is not None
    target = node.this.this if isinstance(node.this, exp.Schema) else node.this
    if temporary:
        target.set("db", None)
    if not replace or (kind == "VIEW" and not temporary):
        return [node]
    node.set("replace", False)
    old = target.copy()
    old.set("alias", None)
    if temporary:
        old.set("db", exp.to_identifier("pg_temp"))
    return [exp.Drop(tables=[old], kind=kind, exists=True), node]
