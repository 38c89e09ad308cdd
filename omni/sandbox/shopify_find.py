"""Finding rows of the shop: Shopify's search syntax, sort keys, and paging by the last row seen."""

from __future__ import annotations

import base64
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from omni.sandbox.company import Node, Shop
from omni.sandbox.shopify_stock import LOCATIONS, stock

Key = tuple[Any, int]

_TERM = re.compile(
    r"""\s*(?:(?P<and>AND)(?=\s)|(?P<field>\w+):(?P<op>>=|<=|>|<)?(?P<value>'[^']*'|"[^"]*"|[^\s'"()]+))"""
)
_TIMES = {"created_at": "createdAt", "updated_at": "updatedAt", "processed_at": "processedAt"}
_SORT_FIELDS = {"CREATED_AT": "createdAt", "UPDATED_AT": "updatedAt", "PROCESSED_AT": "processedAt"}
_COMPARE: dict[str | None, Callable[[float, float], bool]] = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    None: lambda a, b: a == b,
}


class SearchError(ValueError):
    """A search or cursor that cannot be understood."""


@dataclass(frozen=True)
class Found:
    """Rows in ascending order of their keys, and what the search ignored."""

    rows: list[Node]
    keys: list[Key]
    warnings: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True)
class Page:
    """A page of rows, the cursors of its ends, and whether there is more on either side."""

    rows: Sequence[Node]
    keys: Sequence[Key]
    has_next: bool
    has_previous: bool


def number_of(node: Node) -> int:
    """The number at the end of a global id."""
    return int(node["id"].rsplit("/", 1)[1].partition("?")[0])


def encode(key: Key) -> str:
    """An opaque cursor of a row."""
    value, number = key
    return base64.b64encode(json.dumps({"last_id": number, "last_value": str(value)}).encode()).decode()


def _decode(cursor: str) -> Key:
    try:
        found = json.loads(base64.b64decode(cursor, validate=True))
        return found["last_value"], int(found["last_id"])
    except (ValueError, KeyError, TypeError):
        raise SearchError("Invalid cursor for current pagination sort.") from None


def _seconds(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _terms(query: str) -> list[tuple[str, str | None, str]]:
    """Split a search into (field, operator, value); terms are joined by AND or blanks.

    Raises:
        SearchError: anything else, such as OR, NOT or parentheses, which are not served here.
    """
    terms, at = [], 0
    while query[at:].strip():
        match = _TERM.match(query, at)
        if match is None:
            raise SearchError(f"Search syntax not understood at {query[at : at + 30]!r}")
        if not match["and"]:
            terms.append((match["field"], match["op"], match["value"].strip("'\"")))
        at = match.end()
    return terms


def _tester(field: str, op: str | None, value: str, has: Sequence[str]) -> Callable[[Node], bool] | None:
    """A test of a node, or None where the field cannot be searched by."""
    compare = _COMPARE[op]
    try:
        if field in _TIMES and _TIMES[field] in has:
            name, bound = _TIMES[field], _seconds(value)
            return lambda node: compare(_seconds(node[name]), bound)
        if field == "id":
            number = float(value.rsplit("/", 1)[-1])
            return lambda node: compare(number_of(node), number)
    except ValueError:
        raise SearchError(f"Invalid value {value!r} for {field} in search") from None
    return None


def _type_of(kind: str) -> str:
    return f"/{kind[0].upper()}{kind[1:-1]}/"


class Rows:
    """A shop's rows by kind, searched, sorted and remembered; variants and stock are made when asked for.

    Rows may change while they are served; the company they came from stays as it was.
    """

    kinds = ("orders", "customers", "products", "productVariants", "inventoryItems", "locations")

    def __init__(self, shop: Shop, remembered: int = 12) -> None:
        self._rows: dict[str, list[Node]] = {
            "orders": list(shop.orders),
            "customers": list(shop.customers),
            "products": list(shop.products),
            "locations": list(LOCATIONS),
        }
        self._by_id: dict[str, Node] = {}
        self._found: dict[tuple[str, str, str], Found] = {}
        self._remembered = remembered

    def of(self, kind: str) -> list[Node]:
        """All rows of a kind, in order of id."""
        if kind not in self._rows:
            variants, items = stock(self._rows["products"], self._rows["orders"])
            self._rows |= {"productVariants": variants, "inventoryItems": items}
            self._by_id = {}
        return self._rows[kind]

    def by_id(self, wanted: str) -> Node | None:
        """A row, or an order's refund, by global id."""
        derived = next((k for k in ("productVariants", "inventoryItems") if _type_of(k) in wanted), None)
        if derived and derived not in self._rows:
            self.of(derived)
        if not self._by_id:
            self._by_id = {node["id"]: node for rows in self._rows.values() for node in rows}
            refunds = (refund for order in self.of("orders") for refund in order["refunds"])
            self._by_id |= {refund["id"]: refund for refund in refunds}
        return self._by_id.get(wanted)

    def change(self, wanted: str, changes: Node, moment: str) -> Node | None:
        """Change a row's fields and the time it was last changed; None when there is no such row."""
        return self._replaced(wanted, lambda row: [{**row, **changes, "updatedAt": moment}])

    def delete(self, wanted: str) -> Node | None:
        """Delete a row; None when there is no such row."""
        return self._replaced(wanted, lambda _: [])

    def _replaced(self, wanted: str, by: Callable[[Node], list[Node]]) -> Node | None:
        for rows in self._rows.values():
            for at, row in enumerate(rows):
                if row["id"] == wanted:
                    new = by(row)
                    rows[at : at + 1] = new
                    self._found.clear()
                    self._by_id = {}
                    return new[0] if new else row
        return None

    def find(self, kind: str, query: str | None, sort_key: str) -> Found:
        """Rows that match, ascending by sort key and id.

        Raises:
            SearchError: the search cannot be understood.
        """
        key = (kind, (query or "").strip(), sort_key)
        if key not in self._found:
            while len(self._found) >= self._remembered:
                del self._found[next(iter(self._found))]
            self._found[key] = self._search(*key)
        return self._found[key]

    def _search(self, kind: str, query: str, sort_key: str) -> Found:
        rows, warnings = list(self.of(kind)), []
        has = tuple(rows[0]) if rows else ()
        for field, op, value in _terms(query):
            test = _tester(field, op, value, has)
            if test is None and rows:
                warnings.append(
                    {
                        "field": field,
                        "message": "Invalid search field for this query.",
                        "code": "invalid_field",
                    }
                )
            elif test is not None:
                rows = [row for row in rows if test(row)]
        name = _SORT_FIELDS.get(sort_key)
        keyed = [((row[name] if name else ""), number_of(row)) for row in rows]
        order = sorted(range(len(rows)), key=keyed.__getitem__)
        return Found([rows[n] for n in order], [keyed[n] for n in order], tuple(warnings))


def page_of(found: Found, first: int, after: str | None, *, reverse: bool = False) -> Page:
    """The next `first` rows after a cursor.

    Raises:
        SearchError: the cursor is not one of ours.
    """
    size = len(found.rows)
    if reverse:
        end = size if after is None else bisect_left(found.keys, _decode(after))
        start = max(0, end - first)
        return Page(found.rows[start:end][::-1], found.keys[start:end][::-1], start > 0, end < size)
    start = 0 if after is None else bisect_right(found.keys, _decode(after))
    return Page(
        found.rows[start : start + first], found.keys[start : start + first], start + first < size, start > 0
    )


def whole(rows: Sequence[Node]) -> Found:
    """A nested list as something to page through, by id."""
    return Found(list(rows), [("", number_of(row)) for row in rows])
