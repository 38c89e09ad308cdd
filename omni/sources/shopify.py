"""Shopify's GraphQL Admin API: https://shopify.dev/docs/api/admin-graphql.

The query is built from the contracts' paths. Calls are paid in points from a bucket that refills at a
steady rate; each answer says what it cost and what is left, which tells how long to wait.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from omni.errors import AuthError, SchemaError, SourceError
from omni.sources.connection import Connection
from omni.sources.http import Again, Dialect, Http, Reply, need, retry_after
from omni.sources.limits import Limit
from omni.sources.records import PARENT, Record
from omni.sources.vendor import Vendor, Window, cursor_column, table_object
from omni.warehouse.contracts import Contract

VERSION = "2026-10"
PATH = f"/admin/api/{VERSION}/graphql.json"
LAG = timedelta(minutes=5)
PAGE_SIZES = (250, 100, 50, 25, 10)
"""Records a page asks for: the first that the shop allows one query to cost."""
NESTED = 10
"""Rows of a nested connection asked for with each record; the rest is fetched page by page."""
NESTED_PAGE = 250
CONNECTIONS = {"lineItems"}
"""Nested lists that come in pages. Others, such as an order's refunds, come whole."""

NO_FIELD = re.compile(
    r"Field '\w+' doesn't exist on type|Cannot query field|must (not )?have a (sub-?)?selection"
)

Tree = dict[str, "Tree"]


class TooCostly(SourceError):
    """The query may cost more than the shop allows one query."""


def fields(contract: Contract) -> Tree:
    """The GraphQL fields a contract reads, as a tree; values that are never kept are not asked for."""
    tree: Tree = {"id": {}}
    for name, column in contract.columns.items():
        path = column.path or name
        if path.startswith(PARENT) or (column.personal and column.personal.protect == "drop"):
            continue
        branch = tree
        for part in path.split("."):
            branch = branch.setdefault(part, {})
    return tree


def selection(tree: Tree) -> str:
    """A tree of fields in GraphQL's notation."""
    return " ".join(name + (f" {{ {selection(inner)} }}" if inner else "") for name, inner in tree.items())


def query(tables: list[Contract]) -> str:
    """The query for pages of a stream, nested lists included."""
    name = table_object(tables)
    parts = [selection(fields(tables[0]))]
    for child in tables[1:]:
        rows, inner = _rows(child), selection(fields(child))
        parts.append(f"{rows}{_page(inner, str(NESTED))}" if rows in CONNECTIONS else f"{rows} {{ {inner} }}")
    page = _page(" ".join(parts), "$first, after: $after, query: $query, sortKey: UPDATED_AT")
    return f"query($first: Int!, $after: String, $query: String) {{ {name}{page} }}"


def nested_query(tables: list[Contract], child: Contract) -> str:
    """The query for further pages of one record's nested list."""
    page = _page(selection(fields(child)), "$first, after: $after")
    record = _record_field(tables)
    return f"query($id: ID!, $first: Int!, $after: String) {{ {record}(id: $id) {{ {_rows(child)}{page} }} }}"


def _page(inner: str, arguments: str) -> str:
    return f"(first: {arguments}) {{ nodes {{ {inner} }} pageInfo {{ hasNextPage endCursor }} }}"


def _rows(child: Contract) -> str:
    if child.source is None or not child.source.rows:
        raise SchemaError(f"{child.table}: a child table needs source.rows")
    return child.source.rows


def _record_field(tables: list[Contract]) -> str:
    return table_object(tables).removesuffix("s")


def search_terms(window: Window) -> str:
    """Shopify's search syntax for the window."""
    terms = [f"updated_at:<'{_iso(window.until)}'"]
    if window.since is not None:
        terms.insert(0, f"updated_at:>='{_iso(window.since)}'")
    return " AND ".join(terms)


def _iso(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def check(_http: Http, _tables: list[Contract]) -> list[str]:
    """Nothing to do beforehand: Shopify itself refuses a query for fields that do not exist."""
    return []


def count(http: Http, tables: list[Contract], window: Window) -> int:
    """Records that Shopify says were last changed within the window.

    Raises:
        SourceError: Shopify only estimates the number.
    """
    field = f"{_record_field(tables)}sCount"
    text = f"query($query: String) {{ {field}(query: $query, limit: null) {{ count precision }} }}"
    data = _ask(http, tables, text, {"query": _filter(tables, window)})
    where = _where(tables)
    if need(data, f"{field}.precision", str, where) != "EXACT":
        raise SourceError(f"{where}: Shopify gives no exact count, so the load cannot be verified.")
    return need(data, f"{field}.count", int, where)


def read(http: Http, tables: list[Contract], window: Window) -> Iterator[list[Record]]:
    """The window's records in batches, with their nested lists complete."""
    name, where, text = table_object(tables), _where(tables), query(tables)
    sizes = iter(PAGE_SIZES)
    size = next(sizes)
    after: str | None = None
    while True:
        variables = {"first": size, "after": after, "query": _filter(tables, window)}
        try:
            data = _ask(http, tables, text, variables)
        except TooCostly:
            smaller = next(sizes, None)
            if smaller is None:
                raise
            size = smaller
            continue
        records = [_complete(http, tables, node) for node in need(data, f"{name}.nodes", list, where)]
        if records:
            yield records
        after = _next(data[name], after, where)
        if after is None:
            return


def _filter(tables: list[Contract], window: Window) -> str | None:
    return search_terms(window) if cursor_column(tables[0]) else None


def _where(tables: list[Contract]) -> str:
    return f"Shopify {table_object(tables)}"


def _complete(http: Http, tables: list[Contract], node: Any) -> Record:
    """A record with plain lists in place of nested pages."""
    where = _where(tables)
    record: Record = node
    need(record, "id", str, where)
    for child in tables[1:]:
        rows = _rows(child)
        if rows not in CONNECTIONS:
            need(record, rows, list, where)
            continue
        page = need(record, rows, dict, where)
        items = list(need(page, "nodes", list, where))
        after = _next(page, None, where)
        while after is not None:
            variables = {"id": record["id"], "first": NESTED_PAGE, "after": after}
            data = _ask(http, tables, nested_query(tables, child), variables)
            page = need(data, f"{_record_field(tables)}.{rows}", dict, where)
            items += need(page, "nodes", list, where)
            after = _next(page, after, where)
        record[rows] = items
    return record


def _next(page: Any, before: str | None, where: str) -> str | None:
    if not need(page, "pageInfo.hasNextPage", bool, where):
        return None
    after = need(page, "pageInfo.endCursor", str, where)
    if after == before:
        raise SourceError(f"{where}: paging does not advance.")
    return after


def _ask(http: Http, tables: list[Contract], text: str, variables: dict[str, Any]) -> dict[str, Any]:
    """One query; returns its `data`."""
    where = _where(tables)
    body = http.post(PATH, {"query": text, "variables": variables})
    if errors := (body.get("errors") if isinstance(body, dict) else None):
        _refuse(errors, tables)
    data = need(body, "data", dict, where)
    for value in data.values():
        problems = value.get("userErrors") if isinstance(value, dict) else None
        if problems:
            raise SourceError(f"{where}: {_messages(problems)}")
    if ignored := (body.get("extensions") or {}).get("search"):
        # Shopify leaves a search term out that it does not know, and answers as if it had not been there.
        raise SourceError(f"{where}: Shopify ignored part of the search: {str(ignored)[:300]}")
    if wait := _shortage(body):
        http.hold(wait)
    return data


def _refuse(errors: Any, tables: list[Contract]) -> None:
    where, codes, said = _where(tables), _codes(errors), _messages(errors)
    if "MAX_COST_EXCEEDED" in codes:
        raise TooCostly(f"{where}: a page of {PAGE_SIZES[-1]} records costs more than one query may: {said}")
    if "ACCESS_DENIED" in codes:
        raise AuthError(f"{where}: access refused: {said}. {ADVICE}")
    if codes & {"undefinedField", "selectionMismatch"} or NO_FIELD.search(said):
        names = ", ".join(table.table for table in tables)
        raise SchemaError(
            f"{where} no longer fits the contracts of {names}: {said}. Correct the `from` paths in "
            "data/contracts."
        )
    raise SourceError(f"{where}: {said}")


def _codes(errors: Any) -> set[str]:
    found = errors if isinstance(errors, list) else []
    return {
        str((error.get("extensions") or {}).get("code")) for error in found if isinstance(error, dict)
    } - {"None"}


def _messages(errors: Any) -> str:
    if not isinstance(errors, list):
        return str(errors)[:300]
    return "; ".join(str(e.get("message") if isinstance(e, dict) else e)[:200] for e in errors[:3])


def _shortage(body: Any) -> float:
    """Seconds until the bucket holds what the last query asked for; 0 when it does or nothing is said."""
    try:
        cost = body["extensions"]["cost"]
        bucket = cost["throttleStatus"]
        missing = float(cost["requestedQueryCost"]) - float(bucket["currentlyAvailable"])
        rate = float(bucket["restoreRate"])
    except (KeyError, TypeError, ValueError):
        return 0.0
    return missing / rate if missing > 0 and rate > 0 else 0.0


def _judge(reply: Reply, where: str) -> None:
    answered = reply.headers.get("x-shopify-api-version")
    if answered and answered != VERSION:
        raise SourceError(
            f"{where}: Shopify answered with version {answered} instead of {VERSION}, which it no longer (or "
            "not yet) serves; field meanings may differ. Update omni and its VERSION."
        )
    errors = reply.body.get("errors") if isinstance(reply.body, dict) else None
    codes = _codes(errors)
    if "THROTTLED" in codes:
        wait = _shortage(reply.body) or retry_after(reply.headers)
        raise Again("throttled", wait=wait, throttled=True)
    if "INTERNAL_SERVER_ERROR" in codes:
        raise Again(f"Shopify failed inside: {_messages(errors)}")


def _limits(connection: Connection) -> tuple[Limit, ...]:
    return (Limit(connection.requests_per_10s, 10.0),)


ADVICE = (
    "Check the Admin API access token and its read scopes (read_orders, read_customers, read_products), then "
    "set it in the tenant's Shopify block or in OMNI_SHOPIFY__TOKEN."
)

SHOPIFY = Vendor(
    name="shopify",
    dialect=Dialect(
        title="Shopify",
        headers=lambda token: {"X-Shopify-Access-Token": token},
        limits=_limits,
        advice=ADVICE,
        judge=_judge,
    ),
    lag=LAG,
    resolution=timedelta(seconds=1),
    check=check,
    count=count,
    read=read,
)
