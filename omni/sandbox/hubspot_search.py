"""HubSpot's CRM search: filter groups, sorts, free text, and the cap of 10,000 results.

A group matches when all its filters do, the search when any group does. Records without a value match
NOT_HAS_PROPERTY only. Archived records are never found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from omni.sandbox.company import CrmRecord
from omni.sandbox.hubspot import Account, Objects, invalid, limit_in, problem, shown
from omni.sandbox.reply import Reply

SEARCH_LIMIT, SEARCH_CAP = 200, 10_000
GROUPS, FILTERS, FILTERS_IN_ALL = 5, 10, 25

Value = float | str
Test = Callable[[Value | None], bool]

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "EQ": lambda a, b: bool(a == b),
    "NEQ": lambda a, b: bool(a != b),
    "LT": lambda a, b: bool(a < b),
    "LTE": lambda a, b: bool(a <= b),
    "GT": lambda a, b: bool(a > b),
    "GTE": lambda a, b: bool(a >= b),
    "CONTAINS_TOKEN": lambda a, b: _has_token(str(a), str(b)),
    "NOT_CONTAINS_TOKEN": lambda a, b: not _has_token(str(a), str(b)),
}
OPERATORS = (*_COMPARE, "BETWEEN", "IN", "NOT_IN", "HAS_PROPERTY", "NOT_HAS_PROPERTY")


def _has_token(value: str, pattern: str) -> bool:
    """Whether one of the value's words equals the pattern, `*` standing for any letters at either end."""
    words = [*value.replace("@", " ").replace(".", " ").split(), value]
    bare = pattern.strip("*")
    before, behind = pattern.startswith("*"), pattern.endswith("*")
    if before and behind:
        return bare in value
    if before or behind:
        return any(w.endswith(bare) if before else w.startswith(bare) for w in words)
    return bare in words


@lru_cache(maxsize=200_000)
def comparable(kind: str, text: str) -> Value:
    """A property's text as what it is compared by: numbers and times as numbers, the rest in lower case.

    Times are milliseconds since the epoch or ISO 8601.

    Raises:
        ValueError: the text is no number or time although the type says so.
    """
    if kind == "number":
        return float(text)
    if kind in ("date", "datetime"):
        if text.lstrip("-").isdigit():
            return float(text)
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000
    return text.lower()


def _test(objects: Objects, entry: Mapping[str, Any]) -> tuple[str, str, Test]:
    """A filter as property name, its type, and a test of the comparable value.

    Raises:
        Refusal: 400, unknown property or operator, missing or unreadable value.
    """
    name, operator = str(entry.get("propertyName")), str(entry.get("operator"))
    if name not in objects.properties:
        raise invalid(f"Property {name} does not exist for object type {objects.name}")
    if operator not in OPERATORS:
        raise invalid(f"Operator {operator} is not one of {', '.join(OPERATORS)}")
    kind = objects.properties[name].type
    try:
        return name, kind, _predicate(kind, operator, entry)
    except (KeyError, TypeError, ValueError):
        raise invalid(f"Filter on {name} with operator {operator} has a missing or invalid value") from None


def _predicate(kind: str, operator: str, entry: Mapping[str, Any]) -> Test:
    if operator == "HAS_PROPERTY":
        return lambda value: value is not None
    if operator == "NOT_HAS_PROPERTY":
        return lambda value: value is None
    if operator in ("IN", "NOT_IN"):
        listed = {comparable(kind, str(v)) for v in entry["values"]}
        inside = operator == "IN"
        return lambda value: value is not None and (value in listed) is inside
    low = comparable(kind, str(entry["value"]))
    if operator == "BETWEEN":
        high = comparable(kind, str(entry["highValue"]))
        return lambda value: value is not None and low <= value <= high  # type: ignore[operator]
    compare = _COMPARE[operator]
    return lambda value: value is not None and compare(value, low)


def _value(record: CrmRecord, name: str, kind: str) -> Value | None:
    text = record.properties.get(name)
    return None if text is None else comparable(kind, text)


def _groups(objects: Objects, body: Mapping[str, Any]) -> list[list[tuple[str, str, Test]]]:
    groups = [list(g.get("filters") or []) for g in body.get("filterGroups") or []]
    if (
        len(groups) > GROUPS
        or any(len(g) > FILTERS for g in groups)
        or sum(map(len, groups)) > FILTERS_IN_ALL
    ):
        raise invalid(
            f"Too many filters: at most {GROUPS} groups of {FILTERS} filters, {FILTERS_IN_ALL} in all"
        )
    return [[_test(objects, f) for f in group] for group in groups]


def _sorted(objects: Objects, found: list[CrmRecord], sorts: list[Any]) -> list[CrmRecord]:
    """By the one sort there may be, records without a value last; else oldest first."""
    if len(sorts) > 1:
        raise invalid("At most one sort is supported")
    entry = sorts[0] if sorts else {"propertyName": "createdate"}
    entry = {"propertyName": entry} if isinstance(entry, str) else entry
    name, down = str(entry.get("propertyName")), entry.get("direction") == "DESCENDING"
    if name not in objects.properties:
        raise invalid(f"Property {name} does not exist for object type {objects.name}")
    kind = objects.properties[name].type
    known = [r for r in found if r.properties.get(name) is not None]
    empty = [r for r in found if r.properties.get(name) is None]
    known.sort(key=lambda r: _value(r, name, kind), reverse=down)  # type: ignore[arg-type,return-value]
    return known + empty


def _find(objects: Objects, body: Mapping[str, Any]) -> list[CrmRecord]:
    found = objects.live
    groups = _groups(objects, body)
    if groups:
        found = [
            record
            for record in found
            if any(all(test(_value(record, name, kind)) for name, kind, test in group) for group in groups)
        ]
    text = str(body.get("query") or "").strip().lower()
    if text:
        found = [r for r in found if any(v and text in v.lower() for v in r.properties.values())]
    return _sorted(objects, found, list(body.get("sorts") or []))


class Searches:
    """Finds, and remembers the last few results, so that paging does not search anew."""

    def __init__(self, account: Account, remembered: int = 16) -> None:
        self._account = account
        self._found: dict[str, list[CrmRecord]] = {}
        self._remembered = remembered

    def search(self, kind: str, body: Mapping[str, Any]) -> Reply:
        """One page of a search; `after` is an offset.

        Raises:
            Refusal: 400, the search is malformed or reaches beyond 10,000 results.
        """
        objects = self._account.objects(kind)
        limit = limit_in(body.get("limit"), 10, SEARCH_LIMIT)
        after = str(body.get("after") or "0")
        if not after.isdigit():
            raise invalid(f"after is not a paging cursor of this endpoint: {after[:40]}")
        start = int(after)
        if start + limit > SEARCH_CAP:
            raise problem(
                400, f"Paging through more than {SEARCH_CAP} results is not supported", "VALIDATION_ERROR"
            )
        key = json.dumps(
            [objects.name, objects.version, *(body.get(k) for k in ("filterGroups", "sorts", "query"))],
            sort_keys=True,
        )
        if key not in self._found:
            while len(self._found) >= self._remembered:
                del self._found[next(iter(self._found))]
            try:
                self._found[key] = _find(objects, body)
            except (AttributeError, TypeError):
                raise invalid("Invalid input JSON: filterGroups or sorts have the wrong shape") from None
        found = self._found[key]
        names = objects.wanted([str(n) for n in body.get("properties") or []])
        page: dict[str, Any] = {
            "total": len(found),
            "results": [shown(r, names) for r in found[start : start + limit]],
        }
        if start + limit < len(found):
            page["paging"] = {"next": {"after": str(start + limit)}}
        return Reply(page)
