"""As much of SOQL as clients that read whole objects need.

`SELECT fields | COUNT() FROM object [WHERE …] [ORDER BY …] [LIMIT n] [OFFSET n]`, with relationship paths,
`AND OR NOT ( )`, the comparisons, `IN`, `NOT IN`, `LIKE`, and literals for text, numbers, booleans, null,
dates and times. Text compares without regard to case, ids exactly, as Salesforce does it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from omni.sandbox.salesforce_org import NUMBERS, ObjectType, Org, OrgField, Row, long_id, org_time

TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>'(?:[^'\\]|\\.)*')
  | (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d))
  | (?P<date>\d{4}-\d\d-\d\d)
  | (?P<number>[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
  | (?P<word>[A-Za-z_][A-Za-z0-9_.]*)
  | (?P<sign><=|>=|!=|<>|[=<>(),])
)""",
    re.VERBOSE,
)
ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
MAX_DEPTH = 50
MAX_RELATIONS = 5

Test = Callable[[Row], bool]


class QueryError(Exception):
    """SOQL that Salesforce refuses, with its code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Query:
    """A parsed query; `count` is whether it asks for COUNT() only."""

    kind: ObjectType
    fields: tuple[str, ...]
    count: bool
    where: Test | None
    order: tuple[tuple[str, bool, bool], ...]
    limit: int | None
    offset: int


@dataclass
class _Tokens:
    items: list[tuple[str, str]]
    at: int = 0

    def peek(self) -> tuple[str, str]:
        return self.items[self.at] if self.at < len(self.items) else ("end", "")

    def next(self) -> tuple[str, str]:
        item = self.peek()
        self.at += 1
        return item

    def take(self, *words: str) -> bool:
        """Whether the next tokens are these words or signs; if so they are taken."""
        upcoming = self.items[self.at : self.at + len(words)]
        if [text.upper() for kind, text in upcoming if kind in ("word", "sign")] != list(words):
            return False
        self.at += len(words)
        return True

    def expect(self, *words: str) -> None:
        if not self.take(*words):
            raise malformed(f"unexpected token: '{self.peek()[1] or '<EOF>'}', expecting {' '.join(words)}")


def malformed(message: str) -> QueryError:
    """The error of a query that does not parse."""
    return QueryError("MALFORMED_QUERY", message)


def _tokens(text: str) -> _Tokens:
    items, at = [], 0
    end = len(text.rstrip())
    while at < end:
        match = TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise malformed(f"line 1:{at} no viable alternative at character '{text[at]}'")
        items.append((match.lastgroup, match.group(match.lastgroup)))
        at = match.end()
    return _Tokens(items)


def parse(org: Org, text: str) -> Query:
    """Read a query against an org's objects.

    Raises:
        QueryError: it is malformed, or names what the org does not have.
    """
    tokens = _tokens(text)
    tokens.expect("SELECT")
    count = tokens.take("COUNT", "(", ")")
    names = [] if count else [_name(tokens)]
    while not count and tokens.take(","):
        names.append(_name(tokens))
    tokens.expect("FROM")
    object_name = _name(tokens)
    kind = org.type_named(object_name)
    if kind is None:
        raise QueryError("INVALID_TYPE", f"sObject type '{object_name}' is not supported.")
    fields = tuple(checked_path(org, kind, name)[0] for name in names)
    where = _either(org, kind, tokens, 0) if tokens.take("WHERE") else None
    order = _order(org, kind, tokens) if tokens.take("ORDER", "BY") else ()
    limit = _whole(tokens) if tokens.take("LIMIT") else None
    offset = _whole(tokens) if tokens.take("OFFSET") else 0
    if tokens.peek()[0] != "end":
        raise malformed(f"unexpected token: '{tokens.peek()[1]}'")
    return Query(kind, fields, count, where, order, limit, offset)


def run(org: Org, query: Query, *, deleted: bool) -> list[Row]:
    """The records a query finds, in its order."""
    rows = [r for r in org.living(query.kind, deleted=deleted) if query.where is None or query.where(r)]
    for path, descending, nulls_last in reversed(query.order):

        def key(row: Row, path: str = path) -> Any:
            value = org.value_at(query.kind, row, path)
            return value.lower() if isinstance(value, str) and path.split(".")[-1] != "Id" else value

        empty = [row for row in rows if key(row) is None]
        full = sorted((row for row in rows if key(row) is not None), key=key, reverse=descending)
        rows = full + empty if nulls_last else empty + full
    end = None if query.limit is None else query.offset + query.limit
    return rows[query.offset : end]


def checked_path(org: Org, kind: ObjectType, path: str) -> tuple[str, OrgField]:
    """A path in the org's own spelling, and the field it leads to.

    Raises:
        QueryError: INVALID_FIELD.
    """
    *steps, last = path.split(".")
    spelled = []
    if len(steps) > MAX_RELATIONS:
        raise malformed(f"more than {MAX_RELATIONS} relationship levels")
    if steps and steps[0].lower() == kind.name.lower() and kind.relation(steps[0]) is None:
        steps = steps[1:]
    for step in steps:
        link = kind.relation(step)
        if link is None or link.target is None:
            raise QueryError("INVALID_FIELD", f"Didn't understand relationship '{step}' in field path.")
        spelled.append(link.relationship or "")
        kind = org.types[link.target]
    found = kind.named(last)
    if found is None:
        raise QueryError("INVALID_FIELD", f"No such column '{last}' on entity '{kind.name}'.")
    return ".".join([*spelled, found.name]), found


def _name(tokens: _Tokens) -> str:
    kind, text = tokens.next()
    if kind != "word" or text.upper() in ("FROM", "WHERE", "SELECT"):
        raise malformed(f"unexpected token: '{text or '<EOF>'}'")
    return text


def _whole(tokens: _Tokens) -> int:
    kind, text = tokens.next()
    if kind != "number" or not text.isdigit():
        raise malformed(f"expecting a number, found '{text}'")
    return int(text)


def _order(org: Org, kind: ObjectType, tokens: _Tokens) -> tuple[tuple[str, bool, bool], ...]:
    found = []
    while True:
        path, field = checked_path(org, kind, _name(tokens))
        if field.type in ("address", "textarea"):
            raise QueryError("INVALID_FIELD", f"field '{path}' can not be sorted in a query call")
        descending = tokens.take("DESC")
        if not descending:
            tokens.take("ASC")
        nulls_last = tokens.take("NULLS", "LAST")
        if not nulls_last:
            tokens.take("NULLS", "FIRST")
        found.append((path, descending, nulls_last))
        if not tokens.take(","):
            return tuple(found)


def _either(org: Org, kind: ObjectType, tokens: _Tokens, depth: int) -> Test:
    """One condition, or several joined by AND or by OR; Salesforce wants parentheses to mix them."""
    first = _condition(org, kind, tokens, depth)
    for word, join in (("AND", all), ("OR", any)):
        tests = [first]
        while tokens.take(word):
            tests.append(_condition(org, kind, tokens, depth))
        if len(tests) > 1:
            if tokens.peek()[1].upper() in ("AND", "OR"):
                raise malformed("AND and OR need parentheses where they mix")
            return lambda row, tests=tests, join=join: join(test(row) for test in tests)  # type: ignore[misc]
    return first


def _condition(org: Org, kind: ObjectType, tokens: _Tokens, depth: int) -> Test:
    if depth > MAX_DEPTH:
        raise malformed("too many nested parentheses")
    if tokens.take("NOT"):
        inner = _condition(org, kind, tokens, depth + 1)
        return lambda row: not inner(row)
    if tokens.take("("):
        inner = _either(org, kind, tokens, depth + 1)
        tokens.expect(")")
        return inner
    path, field = checked_path(org, kind, _name(tokens))
    if field.type in ("address", "textarea"):
        raise QueryError("INVALID_FIELD", f"field '{path}' can not be filtered in a query call")
    if tokens.take("NOT", "IN"):
        chosen = _list(tokens, field)
        return lambda row: _folded(org.value_at(kind, row, path), field) not in chosen
    if tokens.take("IN"):
        chosen = _list(tokens, field)
        return lambda row: _folded(org.value_at(kind, row, path), field) in chosen
    if tokens.take("LIKE"):
        pattern = _like(_literal(tokens, field))
        return lambda row: bool(pattern.fullmatch(str(org.value_at(kind, row, path) or "")))
    sign = tokens.next()[1]
    if sign not in COMPARE:
        raise malformed(f"unexpected token: '{sign or '<EOF>'}'")
    compare, value = COMPARE[sign], _literal(tokens, field)
    return lambda row: compare(_folded(org.value_at(kind, row, path), field), value)


def _ordered(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda a, b: a is not None and b is not None and test(a, b)


COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<>": lambda a, b: a != b,
    "<": _ordered(lambda a, b: a < b),
    "<=": _ordered(lambda a, b: a <= b),
    ">": _ordered(lambda a, b: a > b),
    ">=": _ordered(lambda a, b: a >= b),
}


def _folded(value: Any, field: OrgField) -> Any:
    exact = field.type in ("id", "reference", "date", "datetime")
    return value.lower() if isinstance(value, str) and not exact else value


def _list(tokens: _Tokens, field: OrgField) -> set[Any]:
    tokens.expect("(")
    chosen = {_literal(tokens, field)}
    while tokens.take(","):
        chosen.add(_literal(tokens, field))
    tokens.expect(")")
    return chosen


def _like(value: Any) -> re.Pattern[str]:
    if not isinstance(value, str):
        raise malformed("LIKE needs text")
    parts = (".*" if c == "%" else "." if c == "_" else re.escape(c) for c in value)
    return re.compile("".join(parts), re.IGNORECASE | re.DOTALL)


def _literal(tokens: _Tokens, field: OrgField) -> Any:
    """A literal as the field's values compare.

    Raises:
        QueryError: it is of another type than the field.
    """
    kind, text = tokens.next()
    if kind == "word" and text.lower() in ("true", "false", "null"):
        if text.lower() == "null":
            return None
        if field.type == "boolean":
            return text.lower() == "true"
    elif kind == "number" and field.type in NUMBERS:
        return float(text)
    elif kind == "time" and field.type == "datetime":
        return org_time(datetime.fromisoformat(text))
    elif kind == "date" and field.type == "date":
        return text
    elif kind == "text" and field.type not in (*NUMBERS, "boolean", "date", "datetime"):
        plain = re.sub(r"\\(.)", lambda m: ESCAPES.get(m.group(1), m.group(1)), text[1:-1], flags=re.DOTALL)
        return long_id(plain) if field.type in ("id", "reference") else plain.lower()
    hint = " and should not be enclosed in quotes" if kind == "text" else ""
    message = f"value of filter criterion for field '{field.name}' must be of type {field.type}{hint}"
    raise QueryError("INVALID_FIELD", message)
