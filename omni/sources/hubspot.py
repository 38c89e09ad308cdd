"""HubSpot's CRM objects: https://developers.hubspot.com/docs/api-reference.

A first load lists all objects (100 a page). Later loads search on the modification date (200 a page). A
search pages no further than 10,000 results, so a larger window goes on from the last timestamp seen; and
where 10,000 objects share one millisecond, that millisecond is read by object id. Search shows changes
only after a while, hence `LAG`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from omni.errors import SchemaError, SourceError
from omni.sources.connection import Connection
from omni.sources.http import Again, Dialect, Http, Reply, describe, need, retry_after
from omni.sources.hubspot_links import attach, linked, listed, next_page
from omni.sources.limits import Limit
from omni.sources.parse import EPOCH_START, moment
from omni.sources.records import Record
from omni.sources.vendor import Vendor, Window, cursor_path, table_object
from omni.warehouse.contracts import Contract, Type

VERSION = "2026-09"
LAG = timedelta(hours=1)
LIST_LIMIT = 100
SEARCH_LIMIT = 200
SEARCH_DEPTH = 10_000
MAX_QUERY = 2_000
"""Characters of a query string that every proxy on the way lets pass."""

TOP_LEVEL = {
    "createdate": "createdAt",
    "hs_createdate": "createdAt",
    "lastmodifieddate": "updatedAt",
    "hs_lastmodifieddate": "updatedAt",
}
"""Properties that not every object type declares, and the field of the record that says the same."""

FITTING: dict[Type, set[str]] = {
    "integer": {"number"},
    "float": {"number"},
    "decimal": {"number"},
    "boolean": {"bool"},
    "date": {"date"},
    "timestamp": {"datetime"},
    "json": {"json", "string"},
}
"""Contract types and the property types that can fill them; text takes any."""

MILLISECOND = timedelta(milliseconds=1)


def properties(parent: Contract, *, dropped: bool = False) -> dict[str, str]:
    """Property name to column name, from the contract.

    Args:
        parent: the object's contract.
        dropped: include columns whose values are never kept; they are not even asked for.
    """
    return {
        column.path or name: name
        for name, column in parent.columns.items()
        if (column.path or name) not in ("id", "archived")
        and (dropped or not (column.personal and column.personal.protect == "drop"))
    }


def associations(tables: list[Contract]) -> list[str]:
    """Object types whose links the child tables hold."""
    found = []
    for child in tables[1:]:
        kind, _, name = ((child.source and child.source.rows) or "").partition(".")
        if kind != "associations" or not name:
            raise SchemaError(f"{child.table}: source.rows should be associations.<object type>")
        found.append(name)
    return found


def _where(tables: list[Contract]) -> str:
    return f"HubSpot {table_object(tables)}"


def check(http: Http, tables: list[Contract]) -> list[str]:
    """Compare the contract with the properties the account declares.

    Returns:
        What is worth reporting: enumeration values the contract does not know.

    Raises:
        SchemaError: a property is missing, or has a type that does not fit the column's.
    """
    parent = tables[0]
    where = f"properties of {table_object(tables)}"
    body = http.get(f"/crm/properties/{VERSION}/{table_object(tables)}", {})
    declared = {need(p, "name", str, where): p for p in need(body, "results", list, where)}
    problems, notices = [], []
    for path, name in properties(parent, dropped=True).items():
        column = parent.columns[name]
        found = declared.get(path)
        if found is None:
            if not column.optional and path not in TOP_LEVEL:
                problems.append(f"property {path!r} (column {name}) is missing")
            continue
        kind = need(found, "type", str, where)
        checkbox = kind == "enumeration" and found.get("fieldType") == "booleancheckbox"
        if column.type != "string" and ("bool" if checkbox else kind) not in FITTING[column.type]:
            problems.append(f"property {path!r} (column {name}: {column.type}) is now of type {kind!r}")
        if column.accepted and kind == "enumeration":
            values = {str(option.get("value")) for option in found.get("options") or []}
            if unknown := sorted(values - set(column.accepted)):
                notices.append(f"{parent.table}.{name}: HubSpot also offers {', '.join(unknown)}")
    if problems:
        raise SchemaError(_misfit(parent, problems))
    return notices


def _misfit(parent: Contract, problems: list[str]) -> str:
    return (
        f"HubSpot no longer fits the contract of {parent.table}: {'; '.join(problems)}. Restore it in "
        "HubSpot, or change the contract in data/contracts: another `from` or type, or `optional: true`."
    )


def count(http: Http, tables: list[Contract], window: Window) -> int:
    """Objects (not archived) that HubSpot says were last changed within the window."""
    start = None if window.since is None else _milliseconds(window.since)
    filters = _range(tables, start, _milliseconds(window.until))
    body = _search_page(http, tables, filters, limit=1)
    return need(body, "total", int, _where(tables))


def read(http: Http, tables: list[Contract], window: Window) -> Iterator[list[Record]]:
    """Objects in batches: all of them without `window.since`, else those changed since.

    Records near a seam of two searches may come twice. Without `since`, also those changed after
    `until` come.

    Raises:
        SchemaError: a property that was asked for comes with no record at all.
    """
    if window.since is None or cursor_path(tables[0]) is None:
        pages = _listed(http, tables, archived=False)
    else:
        pages = _searched(http, tables, _milliseconds(window.since), _milliseconds(window.until))
    parent, some = tables[0], False
    # HubSpot answers null for a property without value; one that is never mentioned does not exist.
    unseen = {path for path, name in properties(parent).items() if not parent.columns[name].optional}
    for page in pages:
        some = True
        for record in page if unseen else ():
            unseen.difference_update(record)
        yield page
    if some and unseen:
        raise SchemaError(_misfit(parent, [f"no record has property {path!r}" for path in sorted(unseen)]))


def archived(http: Http, tables: list[Contract], window: Window) -> Iterator[list[Record]]:
    """Objects archived within the window; HubSpot lists them for about 90 days."""
    for batch in _listed(http, tables, archived=True):
        kept = []
        for record in batch:
            when = _moment(record.get("archivedAt") or record.get("updatedAt"), _where(tables))
            if (window.since is None or when >= window.since) and when < window.until:
                kept.append(record)
        if kept:
            yield kept


def _flat(record: Any, where: str) -> Record:
    """A record's properties beside its own fields; missing dates are filled from its own."""
    identity = need(record, "id", str, where)
    flat: Record = {**need(record, "properties", dict, where)}
    for name, own in TOP_LEVEL.items():
        if flat.get(name) is None and own in record:
            flat[name] = record[own]
    flat |= {
        "id": identity,
        "archived": need(record, "archived", bool, where),
        "updatedAt": record.get("updatedAt"),
        "archivedAt": record.get("archivedAt"),
        "associations": {},
    }
    return flat


def _listed(http: Http, tables: list[Contract], *, archived: bool) -> Iterator[list[Record]]:
    where, object_name = _where(tables), table_object(tables)
    names, links = list(properties(tables[0])), associations(tables)
    params = {"limit": str(LIST_LIMIT), "archived": str(archived).lower(), "properties": ",".join(names)}
    if links:
        params["associations"] = ",".join(links)
    by_post = sum(len(key) + len(value) + 2 for key, value in params.items()) > MAX_QUERY
    if by_post:
        params["properties"] = "hs_object_id"
    after = None
    while True:
        body = http.get(f"/crm/objects/{VERSION}/{object_name}", params | ({"after": after} if after else {}))
        results = need(body, "results", list, where)
        records = [_flat(result, where) for result in results]
        for link in links:
            path = _links_path(tables, link)
            attach(records, link, listed(http, path, link, results, f"{where} links to {link}"))
        if by_post:
            records = _with_properties(http, tables, records, names, archived=archived)
        if records:
            yield records
        after = next_page(body, after, where)
        if after is None:
            return


def _with_properties(
    http: Http, tables: list[Contract], records: list[Record], names: list[str], *, archived: bool
) -> list[Record]:
    """Fill the properties of at most 100 records by a batch read, whose body may be of any length."""
    where = _where(tables)
    content = {"inputs": [{"id": record["id"]} for record in records], "properties": names}
    path = f"/crm/objects/{VERSION}/{table_object(tables)}/batch/read"
    body = http.post(path, content, {"archived": str(archived).lower()})
    filled = {
        record["id"]: record for record in (_flat(r, where) for r in need(body, "results", list, where))
    }
    return [
        filled[record["id"]] | {"associations": record["associations"]}
        for record in records
        if record["id"] in filled
    ]


def _range(tables: list[Contract], start: int | None, end: int) -> list[dict[str, str]]:
    """Search filters for `start <= cursor < end`, in milliseconds; none without a cursor."""
    cursor = cursor_path(tables[0])
    if cursor is None:
        return []
    filters = [{"propertyName": cursor, "operator": "LT", "value": str(end)}]
    if start is not None:
        filters.insert(0, {"propertyName": cursor, "operator": "GTE", "value": str(start)})
    return filters


def _search_page(
    http: Http,
    tables: list[Contract],
    filters: list[dict[str, str]],
    *,
    limit: int = SEARCH_LIMIT,
    sort: str | None = None,
    after: str | None = None,
) -> Any:
    content: dict[str, Any] = {
        "filterGroups": [{"filters": filters}] if filters else [],
        "properties": list(properties(tables[0])),
        "limit": limit,
    }
    if sort:
        content["sorts"] = [{"propertyName": sort, "direction": "ASCENDING"}]
    if after:
        content["after"] = after
    return http.post(f"/crm/objects/{VERSION}/{table_object(tables)}/search", content)


def _searched(http: Http, tables: list[Contract], start: int, end: int) -> Iterator[list[Record]]:
    """All changes in [start, end), in milliseconds."""
    where, cursor = _where(tables), cursor_path(tables[0]) or ""
    after, depth = None, 0
    while start < end:
        body = _search_page(http, tables, _range(tables, start, end), sort=cursor, after=after)
        records = _found(http, tables, body)
        if records:
            yield records
        after = next_page(body, after, where)
        if after is None:
            return
        depth = int(after) if after.isdigit() else depth + len(records)
        if depth + SEARCH_LIMIT <= SEARCH_DEPTH and records:
            continue
        if not records:
            raise SourceError(f"{where}: an empty page promises another one.")
        last = _milliseconds(_moment(records[-1].get(cursor), where))
        if last < start:
            raise SourceError(f"{where}: search results are not sorted by {cursor}.")
        if last == start:
            yield from _one_millisecond(http, tables, start)
            last = start + 1
        start, after, depth = last, None, 0


def _one_millisecond(http: Http, tables: list[Contract], when: int) -> Iterator[list[Record]]:
    """All changes of one millisecond, by object id, however many."""
    last = "0"
    while True:
        filters = [
            *_range(tables, when, when + 1),
            {"propertyName": "hs_object_id", "operator": "GT", "value": last},
        ]
        body = _search_page(http, tables, filters, sort="hs_object_id")
        records = _found(http, tables, body)
        if not records:
            return
        yield records
        if records[-1]["id"] == last:
            raise SourceError(f"{_where(tables)}: search by object id does not advance.")
        last = records[-1]["id"]


def _found(http: Http, tables: list[Contract], body: Any) -> list[Record]:
    where = _where(tables)
    records = [_flat(result, where) for result in need(body, "results", list, where)]
    for link in associations(tables):
        ids = [record["id"] for record in records]
        attach(records, link, linked(http, _links_path(tables, link), ids, f"{where} links to {link}"))
    return records


def _links_path(tables: list[Contract], link: str) -> str:
    return f"/crm/associations/{VERSION}/{table_object(tables)}/{link}/batch/read"


def _milliseconds(when: datetime) -> int:
    return (when - EPOCH_START) // MILLISECOND


def _moment(text: Any, where: str) -> datetime:
    try:
        return moment(str(text))
    except (ValueError, OverflowError) as error:
        raise SourceError(f"{where}: a record's modification date is {error}.") from None


def _limits(connection: Connection) -> tuple[Limit, ...]:
    return (
        Limit(connection.requests_per_10s, 10.0),
        Limit(connection.searches_per_second, 1.0, "/search"),
    )


def _judge(reply: Reply, _where: str) -> None:
    if reply.status == 429 and isinstance(reply.body, dict) and reply.body.get("policyName") == "DAILY":
        # Waiting seldom helps before midnight, so it counts as a failure, of which few are borne.
        said = describe(reply)
        raise Again(f"the account's calls of today are used up{said}", wait=retry_after(reply.headers))


HUBSPOT = Vendor(
    name="hubspot",
    dialect=Dialect(
        title="HubSpot",
        headers=lambda token: {"Authorization": f"Bearer {token}"},
        limits=_limits,
        advice=(
            "Check the private app's access token and its read scopes, then set it in the tenant's HubSpot "
            "block or in OMNI_HUBSPOT__TOKEN."
        ),
        judge=_judge,
    ),
    lag=LAG,
    resolution=MILLISECOND,
    check=check,
    count=count,
    read=read,
    archived=archived,
)
