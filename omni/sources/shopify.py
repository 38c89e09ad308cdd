"""Shopify's GraphQL Admin API: https://shopify.dev/docs/api/admin-graphql.

The query is built from the contracts' paths. A stream is read in pages; a first load of many records runs as
a bulk operation instead (`shopify_bulk`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from omni.errors import SourceError
from omni.sources.http import need
from omni.sources.records import Record
from omni.sources.shopify_bulk import Unusable, read_bulk
from omni.sources.shopify_calls import PATH, VERSION, Shop, TooCostly, ask, open_shop
from omni.sources.shopify_query import (
    CONNECTIONS,
    MIDDLE,
    QUANTITIES,
    SCOPES_QUERY,
    WITHIN,
    count_query,
    counted_by,
    direct,
    fields,
    filter_of,
    indirect,
    nested_query,
    query,
    record_field,
    reread_query,
    rows_of,
    type_name,
    unfiltered_count,
    where_of,
    within_query,
)
from omni.sources.vendor import Page, Vendor, Window, cursor_column, table_object
from omni.warehouse.contracts import Contract

__all__ = ["PATH", "VENDOR", "VERSION", "nested_query", "query"]

LAG = timedelta(minutes=5)
PAGE_SIZES = (250, 100, 50, 25, 10)
"""Records a page asks for: the first that the shop allows one query to cost."""
NESTED_PAGE = 250
WITHIN_IDS = 50
WITHIN_FIRST = 50
"""Rows whose own lists are asked for at once, and how many of each; longer ones are paged through."""
ALL_ORDERS = "read_all_orders"
UNCOUNTED = {"inventoryItems"}
"""Objects Shopify gives no number of. There is one inventory item for each variant."""


def check(shop: Shop, tables: list[Contract]) -> list[str]:
    """Whether the token sees the whole history; Shopify itself refuses a query for fields that do not exist.

    Without the scope `read_all_orders` the shop shows, and counts, the last 60 days' orders only.
    """
    if table_object(tables) != "orders":
        return []
    where = where_of(tables)
    data = ask(shop, tables, SCOPES_QUERY, {})
    scopes = need(data, "currentAppInstallation.accessScopes", list, where)
    if {"handle": ALL_ORDERS} in scopes:
        return []
    return [f"{where}: the token lacks the scope {ALL_ORDERS}; Shopify shows it the last 60 days only."]


def count(shop: Shop, tables: list[Contract], window: Window) -> int | None:
    """Records that Shopify says were last changed within the window; None where it does not count them.

    Raises:
        SourceError: Shopify only estimates the number.
    """
    if table_object(tables) in UNCOUNTED or (unfiltered_count(tables) and window.since is not None):
        return None
    return _counted(shop, tables, f"{record_field(tables)}sCount", counted_by(tables, window))


def _counted(shop: Shop, tables: list[Contract], field: str, terms: str | None) -> int:
    where = where_of(tables)
    data = ask(shop, tables, count_query(field), {"query": terms})
    if need(data, f"{field}.precision", str, where) != "EXACT":
        raise SourceError(f"{where}: Shopify gives no exact count, so the load cannot be verified.")
    return need(data, f"{field}.count", int, where)


def read(shop: Shop, tables: list[Contract], window: Window, resume: Any) -> Iterator[Page]:
    """The window's records in pages, with their nested lists complete; without `since` later ones too.

    A token to go on from is a page's cursor, or a bulk operation and how much of its result was read. Where
    that operation's result is gone, reading starts again from the beginning.
    """
    whole = window.since is None or cursor_column(tables[0]) is None
    bulk = isinstance(resume, dict) or (resume is None and whole and _many(shop, tables, window))
    while bulk:
        try:
            for page in read_bulk(shop, tables, window, resume):
                yield Page(_completed(shop, tables, page.records), page.resume)
            return
        except Unusable:
            # What cannot be gone on with is started anew; what fails from its start is read in pages.
            bulk, resume = resume is not None, None
    yield from _read_pages(shop, tables, window, resume)


def _many(shop: Shop, tables: list[Contract], window: Window) -> bool:
    """Whether a load is large enough for a bulk operation."""
    if table_object(tables) in UNCOUNTED:
        return _counted(shop, tables, "productVariantsCount", None) > shop.bulk_above
    return (count(shop, tables, window) or 0) > shop.bulk_above


def _read_pages(shop: Shop, tables: list[Contract], window: Window, after: str | None) -> Iterator[Page]:
    name, where, text = table_object(tables), where_of(tables), query(tables)
    sizes = iter(PAGE_SIZES)
    size = next(sizes)
    while True:
        variables = {"first": size, "after": after, "query": filter_of(tables, window)}
        try:
            data = ask(shop, tables, text, variables)
        except TooCostly:
            smaller = next(sizes, None)
            if smaller is None:
                raise
            size = smaller
            continue
        records = _completed(shop, tables, need(data, f"{name}.nodes", list, where))
        after = _next(data[name], after, where)
        yield Page(records, after)
        if after is None:
            return


def reread(shop: Shop, tables: list[Contract], ids: list[str]) -> Iterator[Page]:
    """Records by id, as they are now; those that were deleted are left out.

    Args:
        shop: the shop.
        tables: the stream's contracts.
        ids: global ids, or their numbers alone, as webhooks give them.

    Raises:
        SourceError: an id is of another kind.
    """
    where, kind, text = where_of(tables), type_name(tables), reread_query(tables)
    wanted = list(dict.fromkeys(_global_id(i, kind, where) for i in ids))
    sizes = iter(PAGE_SIZES)
    size, at = next(sizes), 0
    while at < len(wanted):
        try:
            data = ask(shop, tables, text, {"ids": wanted[at : at + size]})
        except TooCostly:
            smaller = next(sizes, None)
            if smaller is None:
                raise
            size = smaller
            continue
        found = [node for node in need(data, "nodes", list, where) if node is not None]
        at += size
        yield Page(_completed(shop, tables, found))


def _global_id(text: str, kind: str, where: str) -> str:
    if re.fullmatch(r"[0-9]{1,20}", text):
        return f"gid://shopify/{kind}/{text}"
    if not re.fullmatch(rf"gid://shopify/{kind}/[0-9]{{1,20}}(\?[\w=&]*)?", text):
        raise SourceError(f"{where}: an id to read again is not of the kind gid://shopify/{kind}/<number>.")
    return text


def _completed(shop: Shop, tables: list[Contract], nodes: list[Any]) -> list[Record]:
    """Records with plain and complete lists in place of nested pages."""
    records = [_complete(shop, tables, node) for node in nodes]
    for child in indirect(tables):
        _fill(shop, tables, child, records)
    return records


def _complete(shop: Shop, tables: list[Contract], node: Any) -> Record:
    where = where_of(tables)
    record: Record = node
    need(record, "id", str, where)
    for child in direct(tables):
        rows = rows_of(child)
        if rows in CONNECTIONS and not isinstance(record.get(rows), list):
            record[rows] = _nested(shop, tables, child, record)
        if QUANTITIES in fields(child):
            for item in need(record, rows, list, where):
                _name_quantities(item, where)
        need(record, rows, list, where)
    return record


def _nested(shop: Shop, tables: list[Contract], child: Contract, record: Record) -> list[Any]:
    """All rows of a nested connection whose first page came with the record."""
    where, rows = where_of(tables), rows_of(child)
    page = need(record, rows, dict, where)
    items = list(need(page, "nodes", list, where))
    after = _next(page, None, where)
    while after is not None:
        variables = {"id": record["id"], "first": NESTED_PAGE, "after": after}
        data = ask(shop, tables, nested_query(tables, child), variables)
        if data.get(record_field(tables), False) is None:
            return items  # deleted meanwhile: it is gone from the next count and window as well
        page = need(data, f"{record_field(tables)}.{rows}", dict, where)
        items += need(page, "nodes", list, where)
        after = _next(page, after, where)
    return items


def _name_quantities(item: Any, where: str) -> None:
    """`[{name, quantity}]` to `{name: quantity}`, once."""
    listed = item.get(QUANTITIES) if isinstance(item, dict) else None
    if isinstance(listed, list):
        item[QUANTITIES] = {need(q, "name", str, where): need(q, "quantity", int, where) for q in listed}


def _fill(shop: Shop, tables: list[Contract], child: Contract, records: list[Record]) -> None:
    """Put the rows of a list within a list into the record; each names the row it lies in."""
    where, rows = where_of(tables), rows_of(child)
    owners: dict[str, Record] = {}
    for record in records:
        record[rows] = []
        for middle in need(record, WITHIN[rows], list, where):
            owners[need(middle, "id", str, where)] = record
    ids = list(owners)
    for at in range(0, len(ids), WITHIN_IDS):
        variables: dict[str, Any] = {"ids": ids[at : at + WITHIN_IDS], "first": WITHIN_FIRST, "after": None}
        try:
            data = ask(shop, tables, within_query(child), variables)
        except TooCostly:
            for one in variables["ids"]:
                _fill_one(shop, tables, child, one, owners[one])
            continue
        for middle in need(data, "nodes", list, where):
            if middle is None:
                continue
            page, owner = need(middle, rows, dict, where), owners[need(middle, "id", str, where)]
            if need(page, "pageInfo.hasNextPage", bool, where):
                _fill_one(shop, tables, child, middle["id"], owner)
            else:
                owner[rows] += _within(page, middle["id"], where)


def _fill_one(shop: Shop, tables: list[Contract], child: Contract, one: str, owner: Record) -> None:
    where, rows = where_of(tables), rows_of(child)
    after: str | None = None
    while True:
        variables = {"ids": [one], "first": NESTED_PAGE, "after": after}
        [middle] = need(ask(shop, tables, within_query(child), variables), "nodes", list, where)
        if middle is None:
            return
        page = need(middle, rows, dict, where)
        owner[rows] += _within(page, one, where)
        after = _next(page, after, where)
        if after is None:
            return


def _within(page: Any, middle: str, where: str) -> list[Record]:
    return [{**item, MIDDLE: middle} for item in need(page, "nodes", list, where)]


def _next(page: Any, before: str | None, where: str) -> str | None:
    if not need(page, "pageInfo.hasNextPage", bool, where):
        return None
    after = need(page, "pageInfo.endCursor", str, where)
    if after == before:
        raise SourceError(f"{where}: paging does not advance.")
    return after


VENDOR = Vendor(
    name="shopify",
    title="Shopify",
    open=open_shop,
    lag=LAG,
    resolution=timedelta(seconds=1),
    check=check,
    count=count,
    read=read,
    reread=reread,
)
