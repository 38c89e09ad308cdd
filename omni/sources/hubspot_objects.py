"""What reading and searching HubSpot's objects share: names and paths, and how a record looks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

from omni.errors import SchemaError, SourceError
from omni.sources.http import Http, need
from omni.sources.hubspot_links import attach, linked, listed, next_page
from omni.sources.parse import EPOCH_START, moment
from omni.sources.records import Record
from omni.sources.vendor import Page, cursor_path, table_object
from omni.warehouse.contracts import Contract

VERSION = "2026-09"
"""HubSpot's API version, which is part of every path. One is supported for 18 months from its release."""
LIST_LIMIT = BATCH_LIMIT = 100
MAX_QUERY = 2_000
"""Characters of a query string that every proxy on the way lets pass."""
MILLISECOND = timedelta(milliseconds=1)

STANDARD = frozenset(
    [
        "contacts",
        "companies",
        "deals",
        "tickets",
        "leads",
        "products",
        "line_items",
        "quotes",
        "orders",
        "carts",
        "invoices",
        "discounts",
        "fees",
        "taxes",
        "payments",
        "subscriptions",
        "calls",
        "emails",
        "meetings",
        "notes",
        "tasks",
        "communications",
        "postal_mail",
        "appointments",
        "courses",
        "listings",
        "services",
        "goal_targets",
        "feedback_submissions",
        "users",
    ]
)
"""Types that every account has under this name. Of others the account's own number is looked up."""
MERGED = "hs_merged_object_ids"
"""Ids of the records that were merged into this one."""

TOP_LEVEL = {
    "createdate": "createdAt",
    "hs_createdate": "createdAt",
    "lastmodifieddate": "updatedAt",
    "hs_lastmodifieddate": "updatedAt",
}
"""Properties that not every object type declares, and the field of the record that says the same."""

_numbers: WeakKeyDictionary[Http, dict[str, str]] = WeakKeyDictionary()


def place(tables: list[Contract]) -> str:
    """The stream, for messages."""
    return f"HubSpot {table_object(tables)}"


def type_of(http: Http, name: str) -> str:
    """What paths call an object type: a standard one's name, or the number of one the account made.

    Raises:
        SchemaError: the account has none of that name.
    """
    if name in STANDARD or name.partition("-")[0].isdigit():
        return name
    if http not in _numbers:
        where = "HubSpot object schemas"
        body = http.get(f"/crm-object-schemas/{VERSION}/schemas", {})
        found: dict[str, str] = {}
        for schema in need(body, "results", list, where):
            number = need(schema, "objectTypeId", str, where)
            for key in ("name", "fullyQualifiedName"):
                found[str(schema.get(key)).lower()] = number
        _numbers[http] = found
    if name not in _numbers[http]:
        known = ", ".join(sorted(_numbers[http])) or "none"
        raise SchemaError(f"HubSpot has no object type {name!r}. Those this account made: {known}.")
    return _numbers[http][name]


def objects_path(http: Http, tables: list[Contract]) -> str:
    """The path of a stream's objects."""
    return f"/crm/objects/{VERSION}/{type_of(http, table_object(tables))}"


def links_path(http: Http, tables: list[Contract], link: str) -> str:
    """The path that reads associations from a stream's objects to another type's."""
    source, target = type_of(http, table_object(tables)), type_of(http, link)
    return f"/crm/associations/{VERSION}/{source}/{target}/batch/read"


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


def flat(record: Any, where: str) -> Record:
    """A record's properties with its own fields among them; missing dates are filled from its own.

    The record's own dictionary of properties is what comes back: copying millions of values costs as much
    as decoding them.
    """
    result: Record
    try:
        identity, archived, result = record["id"], record["archived"], record["properties"]
    except (KeyError, TypeError):
        identity, archived, result = None, None, {}
    if identity.__class__ is not str or archived.__class__ is not bool or result.__class__ is not dict:
        for name, kind in (("id", str), ("properties", dict), ("archived", bool)):
            need(record, name, kind, where)  # says which
    for name, own in TOP_LEVEL.items():
        if result.get(name) is None and own in record:
            result[name] = record[own]
    result["id"] = identity
    result["archived"] = archived
    result["updatedAt"] = record.get("updatedAt")
    result["archivedAt"] = record.get("archivedAt")
    result["associations"] = {}
    return result


def list_all(
    http: Http, tables: list[Contract], *, archived: bool, after: str | None = None
) -> Iterator[Page]:
    """All objects by id; archived ones for about 90 days after they were."""
    where, path = place(tables), objects_path(http, tables)
    names, links = list(properties(tables[0])), associations(tables)
    inline = [link for link in links if link in STANDARD]
    params = {"limit": str(LIST_LIMIT), "archived": str(archived).lower(), "properties": ",".join(names)}
    if inline:
        params["associations"] = ",".join(inline)
    by_post = sum(len(key) + len(value) + 2 for key, value in params.items()) > MAX_QUERY
    if by_post:
        params["properties"] = "hs_object_id"
    name = "archived" if archived else "list"
    while True:
        body = http.get(path, params | ({"after": after} if after else {}))
        results = need(body, "results", list, where)
        records = [flat(result, where) for result in results]
        for link in inline:
            found = listed(http, links_path(http, tables, link), link, results, f"{where} links to {link}")
            attach(records, link, found)
        with_links(http, tables, records, [link for link in links if link not in inline])
        if by_post:
            filled = {row["id"]: row for row in batch_read(http, tables, _ids(records), archived=archived)}
            records = [
                filled[record["id"]] | {"associations": record["associations"]}
                for record in records
                if record["id"] in filled
            ]
        after = next_page(body, after, where)
        # Behind the last live page come the archived ones, from their beginning.
        yield Page(records, {name: after} if after else None if archived else {"archived": None})
        if after is None:
            return


def _ids(records: list[Record]) -> list[str]:
    return [record["id"] for record in records]


def with_links(http: Http, tables: list[Contract], records: list[Record], links: list[str]) -> None:
    """Fill the records' links to these types by batch reads."""
    for link in links:
        where = f"{place(tables)} links to {link}"
        attach(records, link, linked(http, links_path(http, tables, link), _ids(records), where))


def batch_read(http: Http, tables: list[Contract], ids: list[str], *, archived: bool) -> list[Record]:
    """At most 100 records by id, without links; those not found are missing.

    An id that was merged into another record gives that one, or nothing.

    Raises:
        SourceError: HubSpot could not read some for another reason.
    """
    where = place(tables)
    content = {"inputs": [{"id": key} for key in ids], "properties": list(properties(tables[0]))}
    body = http.post(f"{objects_path(http, tables)}/batch/read", content, {"archived": str(archived).lower()})
    for error in body.get("errors") or []:
        if "NOT_FOUND" not in str(error.get("category")):
            raise SourceError(f"{where}: {str(error.get('message'))[:300]}")
    return [flat(row, where) for row in need(body, "results", list, where)]


def reread(http: Http, tables: list[Contract], ids: list[str]) -> Iterator[Page]:
    """Records by id as they are now, archived ones too; those that were forgotten or merged are missing."""
    links = associations(tables)
    for start in range(0, len(ids), BATCH_LIMIT):
        asked = ids[start : start + BATCH_LIMIT]
        live = list({row["id"]: row for row in batch_read(http, tables, asked, archived=False)}.values())
        with_links(http, tables, live, links)
        # Ids merged into a live record are asked for again in vain; telling them apart would cost as much.
        rest = [key for key in asked if key not in {row["id"] for row in live}]
        away = batch_read(http, tables, rest, archived=True) if rest else []
        with_links(http, tables, away, [] if not away else links)
        yield Page([*live, *away])


def milliseconds(when: datetime) -> int:
    """Since the epoch."""
    return (when - EPOCH_START) // MILLISECOND


def modified(record: Record, tables: list[Contract]) -> datetime:
    """When a record last changed.

    Raises:
        SourceError: it does not say so in a form we know.
    """
    return moment_of(record.get(cursor_path(tables[0]) or "updatedAt"), place(tables))


def moment_of(text: Any, where: str) -> datetime:
    """A record's date.

    Raises:
        SourceError: it is none.
    """
    try:
        return moment(str(text))
    except (ValueError, OverflowError) as error:
        raise SourceError(f"{where}: a record's modification date is {error}.") from None
