"""Salesforce's objects: https://developer.salesforce.com/docs/platform/api-rest/guide.

Every object is read the same way: fields from its contract, a window on the field that moves when a record
changes, ordered by it and by Id. Small windows come over REST (2,000 records a page), large ones as a job of
Bulk API 2.0, and what Bulk does not serve over REST again. Records in the recycle bin come along where the
contract has IsDeleted; emptied from it they are gone without trace. Formula fields change without moving any
date.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from omni.errors import CountMismatch, SchemaError, SourceError
from omni.sources import salesforce_bulk as bulk
from omni.sources.http import need
from omni.sources.records import Record
from omni.sources.salesforce_calls import VERSION, Client, Refused, opened
from omni.sources.salesforce_query import CURSORS, Selection, checked_id, field_at, paths, selection
from omni.sources.vendor import Field, Page, Vendor, Window, cursor_path, table_object
from omni.warehouse.contracts import Contract, Type

__all__ = ["VENDOR", "VERSION", "check", "count", "fields", "read", "reread"]

LAG = timedelta(minutes=5)
"""A transaction's records appear when it ends, with the time it began."""
MILLISECOND = timedelta(milliseconds=1)
REREAD_IDS = 200

FITTING: dict[Type, set[str]] = {
    "integer": {"int", "long", "double"},
    "float": {"double", "percent", "currency", "int", "long"},
    "decimal": {"currency", "double", "percent", "int", "long"},
    "boolean": {"boolean"},
    "date": {"date"},
    "timestamp": {"datetime"},
    "json": {"address", "location", "complexvalue", "anyType", "json", "string", "textarea"},
}
"""Contract types and the field types that can fill them; text takes any."""

TYPES: dict[str, Type] = {
    "boolean": "boolean",
    "int": "integer",
    "long": "integer",
    "double": "float",
    "percent": "float",
    "currency": "decimal",
    "date": "date",
    "datetime": "timestamp",
    "address": "json",
    "location": "json",
}
"""Field types and the contract type of a column made for one; text for all others."""
SENSITIVE = {"email", "phone", "encryptedstring"}
UNREADABLE = {"base64"}

log = logging.getLogger(__name__)


def check(client: Client, tables: list[Contract]) -> list[str]:
    """Compare the contract with the fields the org describes.

    Returns:
        What is worth reporting: a better cursor, formula fields, picklist values the contract does not know,
        columns the org classifies as personal and the contract does not.

    Raises:
        SchemaError: the object or a field is missing, or has a type that does not fit the column's.
    """
    parent, name = tables[0], table_object(tables)
    client.described.clear()
    problems, notices = [], _cursor_notices(client, parent, name)
    for path, column_name in paths(parent).items():
        column = parent.columns[column_name]
        found = field_at(client, name, path)
        if found is None:
            if not column.optional:
                problems.append(f"field {path!r} (column {column_name}) is missing or hidden from our user")
            continue
        kind = need(found, "type", str, f"Salesforce describe {name}")
        if column.personal is None and path in client.classified(name):
            notices.append(
                f"{parent.table}.{column_name}: Salesforce classifies it as personal or confidential"
            )
        if column.type != "string" and kind not in FITTING[column.type]:
            problems.append(f"field {path!r} (column {column_name}: {column.type}) is now of type {kind!r}")
        if found.get("calculated"):
            notices.append(
                f"{parent.table}.{column_name}: a formula; its changes come with the record's next one"
            )
        if column.accepted and kind in ("picklist", "multipicklist"):
            values = {str(v.get("value")) for v in found.get("picklistValues") or [] if v.get("active", True)}
            if unknown := sorted(values - set(column.accepted)):
                notices.append(f"{parent.table}.{column_name}: Salesforce also offers {', '.join(unknown)}")
    if problems:
        raise SchemaError(
            f"Salesforce no longer fits the contract of {parent.table}: {'; '.join(problems)}. Restore it "
            "in Salesforce, grant our user access to it, or change the contract in data/contracts: another "
            "`from` or type, or `optional: true`."
        )
    return notices


def _cursor_notices(client: Client, parent: Contract, name: str) -> list[str]:
    used = cursor_path(parent)
    there = client.fields(name)
    best = next((cursor for cursor in CURSORS if cursor in there), None)
    if used == best:
        return []
    if used is None:
        return [f"{parent.table}: read whole each time; {best} would tell what changed"]
    return [f"{parent.table}: {best} moves with more changes than {used}"]


def fields(client: Client, tables: list[Contract]) -> dict[str, Field]:
    """The account's own fields (`__c`) that the contract does not declare, typed as described."""
    declared, object_name = paths(tables[0]), table_object(tables)
    classified = client.classified(object_name)
    return {
        name: Field(_type_of(found), found.get("type") in SENSITIVE or name in classified)
        for name, found in client.fields(object_name).items()
        if name.endswith("__c") and name not in declared and found.get("type") not in UNREADABLE
    }


def _type_of(found: Mapping[str, Any]) -> Type:
    kind = TYPES.get(str(found.get("type")), "string")
    fine = found.get("scale")
    # A decimal column keeps two decimals.
    return "float" if kind == "decimal" and isinstance(fine, int) and fine > 2 else kind


def _query(client: Client, soql: str, *, deleted: bool) -> Any:
    return client.get("/queryAll" if deleted else "/query", {"q": soql})


def count(client: Client, tables: list[Contract], window: Window) -> int:
    """Records Salesforce says were last changed within the window, those in the recycle bin included where
    they are read."""
    return _counted(client, selection(client, tables), window)


def _counted(client: Client, chosen: Selection, window: Window) -> int:
    body = _query(client, chosen.counting(chosen.counted(window)), deleted=chosen.deleted)
    return need(body, "totalSize", int, f"Salesforce {chosen.object}")


def read(client: Client, tables: list[Contract], window: Window, resume: Any) -> Iterator[Page]:
    """Records changed within the window (all there are without `since`), oldest change first over REST.

    Raises:
        CountMismatch: not as many records came as Salesforce said while they came.
        SourceError: Salesforce refused a query, or a Bulk job failed.
    """
    chosen = selection(client, tables)
    at: dict[str, Any] = resume or {}
    if "job" in at or (not at and _large(client, chosen, window)):
        try:
            if "job" in at:
                place = bulk.Place(**at)
            else:
                soql = chosen.soql(chosen.window(window), ordered=False)
                place = bulk.create(client, soql, deleted=chosen.deleted)
                yield Page([], place.token())
            promised = bulk.wait(client, place.job)
        except bulk.Unserved as reason:
            log.info("Salesforce %s: read over REST, as Bulk refuses it: %s", chosen.object, reason)
            at = {}
        else:
            yield from bulk.results(client, place, promised)
            return
    yield from _by_rest(client, chosen, window, at or None)


def _large(client: Client, chosen: Selection, window: Window) -> bool:
    """Whether a window is better read by a Bulk job."""
    if chosen.compound:
        return False
    if chosen.too_long(chosen.soql(chosen.window(window))):
        return True
    return _counted(client, chosen, window) >= client.bulk_from


def _by_rest(
    client: Client, chosen: Selection, window: Window, place: Mapping[str, str] | None
) -> Iterator[Page]:
    """Pages of a query; where its locator has expired, of a new one behind the last record."""
    where = f"Salesforce {chosen.object}"
    begun = place
    while True:
        conditions = chosen.window(window) if place is None else chosen.behind(window, place)
        body = _query(client, chosen.soql(conditions), deleted=chosen.deleted)
        promised, seen = need(body, "totalSize", int, where), 0
        while True:
            records = _records(body, where)
            seen += len(records)
            if records:
                place = chosen.place(records[-1])
            yield Page(records, place)
            if need(body, "done", bool, where):
                if seen != promised:
                    raise CountMismatch(f"{where}: {seen} records came of {promised}. Run again.")
                return
            try:
                body = client.http.get(need(body, "nextRecordsUrl", str, where), {})
            except Refused as error:
                if error.code != "INVALID_QUERY_LOCATOR" or place == begun:
                    raise
                begun = place
                break


def _records(body: Any, where: str) -> list[Record]:
    records: list[Record] = need(body, "records", list, where)
    for record in records:
        record["id"] = need(record, "Id", str, where)
    return records


def reread(client: Client, tables: list[Contract], ids: list[str]) -> Iterator[Page]:
    """Records by id as they are now, in the recycle bin too where the contract has IsDeleted.

    Raises:
        SourceError: an id is none of Salesforce's.
    """
    chosen = selection(client, tables)
    for start in range(0, len(ids), REREAD_IDS):
        listed = ", ".join(f"'{checked_id(identity)}'" for identity in ids[start : start + REREAD_IDS])
        soql = chosen.soql([f"Id IN ({listed})"], ordered=False)
        if chosen.too_long(soql):
            raise SourceError(
                f"Salesforce {chosen.object}: too many fields to look records up; read a window instead."
            )
        body = _query(client, soql, deleted=chosen.deleted)
        while True:
            yield Page(_records(body, f"Salesforce {chosen.object}"))
            if need(body, "done", bool, "Salesforce"):
                break
            body = client.http.get(need(body, "nextRecordsUrl", str, "Salesforce"), {})


VENDOR: Vendor[Client] = Vendor(
    name="salesforce",
    title="Salesforce",
    open=opened,
    lag=LAG,
    resolution=MILLISECOND,
    check=check,
    count=count,
    read=read,
    reread=reread,
    fields=fields,
)
