"""HubSpot's search: what changed within a window, however much.

HubSpot's own paging is not used: it counts places in the result, and a record that is edited meanwhile leaves
its place to the next one, so that a page would begin one too far. It also ends at 10,000 results. Each page
is a search of its own from the last record's modification date on; a millisecond that fills a page is read
by object id, as it may hold any number of objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omni.errors import SourceError
from omni.sources.http import Http, need
from omni.sources.hubspot_links import next_page
from omni.sources.hubspot_objects import (
    MERGED,
    associations,
    flat,
    milliseconds,
    modified,
    objects_path,
    place,
    properties,
    with_links,
)
from omni.sources.records import Record
from omni.sources.vendor import Page, Window, cursor_path
from omni.warehouse.contracts import Contract

SEARCH_LIMIT = 200


def count(http: Http, tables: list[Contract], window: Window) -> int:
    """Objects (not archived) that HubSpot says were last changed within the window."""
    start = None if window.since is None else milliseconds(window.since)
    body = _page(http, tables, _range(tables, start, milliseconds(window.until)), limit=1)
    return need(body, "total", int, place(tables))


def _range(tables: list[Contract], start: int | None, end: int) -> list[dict[str, str]]:
    """Search filters for `start <= cursor < end`, in milliseconds; none without a cursor."""
    cursor = cursor_path(tables[0])
    if cursor is None:
        return []
    filters = [{"propertyName": cursor, "operator": "LT", "value": str(end)}]
    if start is not None:
        filters.insert(0, {"propertyName": cursor, "operator": "GTE", "value": str(start)})
    return filters


def _page(
    http: Http,
    tables: list[Contract],
    filters: list[dict[str, str]],
    *,
    limit: int = SEARCH_LIMIT,
    sort: str | None = None,
) -> Any:
    content: dict[str, Any] = {
        "filterGroups": [{"filters": filters}] if filters else [],
        "properties": list(dict.fromkeys([*properties(tables[0]), MERGED])),
        "limit": limit,
    }
    if sort:
        content["sorts"] = [{"propertyName": sort, "direction": "ASCENDING"}]
    return http.post(f"{objects_path(http, tables)}/search", content)


def changes(
    http: Http, tables: list[Contract], start: int, end: int, last_id: str | None = None
) -> Iterator[Page]:
    """All changes in [start, end), in milliseconds; those at which a page ends come twice.

    Args:
        http: the account.
        tables: the stream's contracts.
        start: where to begin.
        end: where to end.
        last_id: of the millisecond `start`, the objects behind this one only.

    Raises:
        SourceError: HubSpot does not sort as asked, or promises more than it gives.
    """
    where, cursor = place(tables), cursor_path(tables[0]) or ""
    if last_id is not None:
        yield from _one_millisecond(http, tables, start, last_id)
        start += 1
    while start < end:
        body = _page(http, tables, _range(tables, start, end), sort=cursor)
        records = _found(http, tables, body)
        if next_page(body, None, where) is None:
            yield Page(records, {"archived": None})
            return
        if not records:
            raise SourceError(f"{where}: an empty page promises another one.")
        last = milliseconds(modified(records[-1], tables))
        if last < start:
            raise SourceError(f"{where}: search results are not sorted by {cursor}.")
        if last > start:
            yield Page(records, {"start": last})
            start = last
            continue
        # There may be more of this millisecond than was shown, even more than a search can show.
        yield Page(records, {"start": start, "last": "0"})
        yield from _one_millisecond(http, tables, start, "0")
        start += 1


def _one_millisecond(http: Http, tables: list[Contract], when: int, last: str) -> Iterator[Page]:
    """All changes of one millisecond, by object id, however many."""
    while True:
        filters = [
            *_range(tables, when, when + 1),
            {"propertyName": "hs_object_id", "operator": "GT", "value": last},
        ]
        body = _page(http, tables, filters, sort="hs_object_id")
        records = _found(http, tables, body)
        if not records:
            return
        if records[-1]["id"] == last:
            raise SourceError(f"{place(tables)}: search by object id does not advance.")
        last = records[-1]["id"]
        yield Page(records, {"start": when, "last": last})


def _found(http: Http, tables: list[Contract], body: Any) -> list[Record]:
    where = place(tables)
    records = [flat(result, where) for result in need(body, "results", list, where)]
    with_links(http, tables, records, associations(tables))
    return records
