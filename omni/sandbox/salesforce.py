"""Salesforce's REST resources over an org: queries, describe, single records, limits.

Functions of the parsed request that answer a `Reply`, or raise `Refusal` in Salesforce's shape: a list of
`{message, errorCode, fields}`.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from omni.sandbox.reply import Refusal, Reply
from omni.sandbox.salesforce_org import SOAP_TYPES, Invalid, ObjectType, Org, OrgField, Row, long_id
from omni.sandbox.salesforce_soql import QueryError, checked_path, parse, run

VERSION = "68.0"
OLDEST = 31
PAGE = 2_000
MAX_CURSORS = 50
DAILY_LIMIT = 100_000


@dataclass
class Usage:
    """API requests of the last day, and how many there may be."""

    used: int = 0
    allowed: int = DAILY_LIMIT

    @property
    def header(self) -> dict[str, str]:
        """The header every answer carries."""
        return {"Sforce-Limit-Info": f"api-usage={self.used}/{self.allowed}"}


@dataclass
class Cursors:
    """Open query results by locator: what is left is served from here, as it was when the query ran."""

    kept: OrderedDict[str, tuple[list[Any], int]] = field(default_factory=OrderedDict)

    def keep(self, records: list[Any], size: int) -> str:
        """Remember a result; the oldest goes when there are too many."""
        name = f"0r8{secrets.token_hex(6)}AAA"
        self.kept[name] = (records, size)
        while len(self.kept) > MAX_CURSORS:
            self.kept.popitem(last=False)
        return name


def refused(status: int, code: str, message: str, fields: tuple[str, ...] = ()) -> Refusal:
    """An error as Salesforce answers it."""
    entry: dict[str, Any] = {"message": message, "errorCode": code}
    if fields:
        entry["fields"] = list(fields)
    return Refusal(Reply([entry], status))


def invalid(error: Invalid) -> Refusal:
    """A validation's refusal."""
    status = 404 if error.code == "NOT_FOUND" else 400
    return refused(status, error.code, error.message, error.fields)


def missing() -> Refusal:
    """There is nothing at this address."""
    return refused(404, "NOT_FOUND", "The requested resource does not exist")


def check_version(version: str) -> None:
    """Refuse versions the instance does not speak.

    Raises:
        Refusal: 404.
    """
    if not re.fullmatch(r"\d\d\.0", version) or not OLDEST <= int(version[:2]) <= int(VERSION[:2]):
        raise missing()


def object_type(org: Org, name: str) -> ObjectType:
    """An object of the org.

    Raises:
        Refusal: 404, there is none of that name.
    """
    if (kind := org.type_named(name)) is None:
        raise missing()
    return kind


def query(
    org: Org, cursors: Cursors, version: str, params: Mapping[str, str], options: str, *, deleted: bool
) -> Reply:
    """The first page of a query.

    Args:
        org: the org.
        cursors: where the rest is kept.
        version: of the API, for addresses.
        params: the request's; `q` is the query.
        options: the header Sforce-Query-Options, such as `batchSize=200`.
        deleted: include the recycle bin (queryAll).

    Raises:
        Refusal: the query is malformed or names what the org lacks.
    """
    if "q" not in params:
        raise refused(400, "MALFORMED_QUERY", "A query string has to be specified")
    try:
        parsed = parse(org, params["q"])
    except QueryError as error:
        raise refused(400, error.code, error.message) from None
    rows = run(org, parsed, deleted=deleted)
    if parsed.count:
        return Reply({"totalSize": len(rows), "done": True, "records": []})
    records = [record(org, parsed.kind, row, parsed.fields, version) for row in rows]
    found = re.search(r"batchSize\s*=\s*(\d+)", options)
    size = min(max(int(found.group(1)), 200), PAGE) if found else PAGE
    locator = cursors.keep(records, size) if len(records) > size else ""
    return _page(records, locator, 0, size, version)


def query_more(cursors: Cursors, version: str, locator: str) -> Reply:
    """A further page of an open result.

    Raises:
        Refusal: the locator is unknown or too old.
    """
    name, _, start = locator.rpartition("-")
    if name not in cursors.kept or not start.isdigit():
        raise refused(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
    records, size = cursors.kept[name]
    return _page(records, name, int(start), size, version)


def _page(records: list[Any], locator: str, start: int, size: int, version: str) -> Reply:
    end = start + size
    body: dict[str, Any] = {"totalSize": len(records), "done": end >= len(records)}
    if end < len(records):
        body["nextRecordsUrl"] = f"/services/data/v{version}/query/{locator}-{end}"
    return Reply({**body, "records": records[start:end]})


def record(org: Org, kind: ObjectType, row: Row, paths: tuple[str, ...], version: str) -> dict[str, Any]:
    """A record as REST shows it: relationships nested, each level with its attributes."""
    found: dict[str, Any] = {"attributes": _attributes(kind, row, version)}
    for path in paths:
        step, _, rest = path.partition(".")
        if not rest:
            spelled = kind.named(path)
            assert spelled is not None
            value = org.value_at(kind, row, path)
            found[path] = json_value(spelled, value)
            continue
        link = kind.relation(step)
        assert link is not None
        assert link.target is not None
        target = org.types[link.target]
        other = org.rows[target.name].get(row[link.name] or "")
        if other is None:
            found[step] = None
            continue
        nested = record(org, target, other, (rest,), version)
        found[step] = _merged(found[step], nested) if isinstance(found.get(step), dict) else nested
    return found


def _merged(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    both = {**left, **right}
    for key in left.keys() & right.keys():
        if isinstance(left[key], dict) and isinstance(right[key], dict):
            both[key] = _merged(left[key], right[key])
    return both


def _attributes(kind: ObjectType, row: Row, version: str) -> dict[str, str]:
    return {"type": kind.name, "url": f"/services/data/v{version}/sobjects/{kind.name}/{row['Id']}"}


def json_value(found: OrgField, value: Any) -> Any:
    """A value as JSON answers hold it."""
    if value is not None and found.type == "datetime":
        return f"{value[:-1]}+0000"
    return value


def describe_global(org: Org, version: str) -> Reply:
    """All objects."""
    found = [_summary(kind, version) for kind in org.types.values()]
    return Reply({"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": found})


def _summary(kind: ObjectType, version: str) -> dict[str, Any]:
    root = f"/services/data/v{version}/sobjects/{kind.name}"
    return {
        "name": kind.name,
        "label": kind.name,
        "custom": kind.name.endswith("__c"),
        "keyPrefix": kind.prefix,
        "queryable": True,
        "retrieveable": True,
        "createable": True,
        "updateable": True,
        "deletable": kind.named("IsDeleted") is not None,
        "urls": {"sobject": root, "describe": f"{root}/describe", "rowTemplate": f"{root}/{{ID}}"},
    }


def describe(org: Org, version: str, name: str) -> Reply:
    """An object's fields.

    Raises:
        Refusal: there is no such object.
    """
    kind = object_type(org, name)
    return Reply({**_summary(kind, version), "fields": [_field(kind, f) for f in kind.fields]})


def _field(kind: ObjectType, found: OrgField) -> dict[str, Any]:
    compound = next((f.name for f in kind.fields if found.name in f.parts.values()), None)
    writable = found.set_by == "user" and not found.calculated and not found.parts
    return {
        "name": found.name,
        "label": found.name.removesuffix("__c").replace("_", " "),
        "type": found.type,
        "soapType": SOAP_TYPES.get(found.type, "xsd:string"),
        "length": 18 if found.type in ("id", "reference") else found.length if not found.parts else 0,
        "precision": 18 if found.type in ("double", "currency", "percent") else 0,
        "scale": 2 if found.type in ("double", "currency", "percent") else 0,
        "calculated": found.calculated,
        "custom": found.custom,
        "compoundFieldName": compound,
        "nillable": not found.required and found.type not in ("id", "boolean"),
        "createable": writable,
        "updateable": writable,
        "externalId": found.external_id,
        "idLookup": found.external_id or found.type == "id",
        "unique": found.external_id,
        "filterable": found.type not in ("address", "textarea"),
        "sortable": found.type not in ("address", "textarea"),
        "referenceTo": [found.target] if found.target else [],
        "relationshipName": found.relationship,
        "picklistValues": [
            {"value": v, "label": v, "active": True, "defaultValue": False, "validFor": None}
            for v in found.values
        ],
    }


def get_record(org: Org, version: str, name: str, key: str, fields: str | None) -> Reply:
    """One record, all its fields or those named.

    Raises:
        Refusal: no such object, record or field.
    """
    kind = object_type(org, name)
    row = org.rows[kind.name].get(long_id(key))
    if row is None:
        raise missing()
    if row.get("IsDeleted"):
        raise refused(404, "ENTITY_IS_DELETED", "entity is deleted")
    try:
        names = [f.strip() for f in fields.split(",")] if fields else [f.name for f in kind.fields]
        paths = tuple(checked_path(org, kind, n)[0] for n in names)
    except QueryError as error:
        raise refused(400, error.code, error.message) from None
    return Reply(record(org, kind, row, paths, version))


def write(work: Callable[[], Reply]) -> Reply:
    """Do a write; a validation's refusal becomes Salesforce's answer.

    Raises:
        Refusal: validation refused it.
    """
    try:
        return work()
    except Invalid as error:
        raise invalid(error) from None


def create_record(org: Org, name: str, values: Row) -> Reply:
    """Create a record from a JSON body."""
    kind = object_type(org, name)
    return write(lambda: Reply({"id": org.insert(kind.name, values), "success": True, "errors": []}, 201))


def change_record(org: Org, name: str, key: str, values: Row) -> Reply:
    """Set fields of a record from a JSON body."""
    kind = object_type(org, name)

    def work() -> Reply:
        org.change(kind.name, key, values)
        return Reply(None, 204)

    return write(work)


def delete_record(org: Org, name: str, key: str) -> Reply:
    """Put a record into the recycle bin."""
    kind = object_type(org, name)

    def work() -> Reply:
        org.delete(kind.name, key)
        return Reply(None, 204)

    return write(work)


def external_key(org: Org, name: str, field_name: str, value: str) -> str:
    """The id of the record an external id names; empty where there is none.

    Raises:
        Refusal: the field is no external id, or several records carry the value (300).
    """
    kind = object_type(org, name)
    found = kind.named(field_name)
    if found is None or not found.external_id:
        message = f"Provided external ID field does not exist or is not accessible: {field_name}"
        raise refused(400, "NOT_FOUND", message)
    there = org.by_external(kind.name, found.name, value)
    if len(there) > 1:
        raise refused(300, "DUPLICATE_EXTERNAL_ID", "more than one record found")
    return there[0] if there else ""


def upsert_record(org: Org, name: str, field_name: str, value: str, values: Row) -> Reply:
    """Create or change the record an external id names; raises as `external_key` and `write`."""
    kind, there = object_type(org, name), external_key(org, name, field_name, value)

    def work() -> Reply:
        if there:
            org.change(kind.name, there, values)
            return Reply({"id": there, "success": True, "errors": [], "created": False})
        made = org.insert(kind.name, {**values, field_name: value})
        return Reply({"id": made, "success": True, "errors": [], "created": True}, 201)

    return write(work)


def limits(usage: Usage) -> Reply:
    """What is left of the day."""
    left = max(usage.allowed - usage.used, 0)
    return Reply(
        {
            "DailyApiRequests": {"Max": usage.allowed, "Remaining": left},
            "DailyBulkV2QueryJobs": {"Max": 10_000, "Remaining": 10_000},
            "DailyBulkV2QueryFileStorageMB": {"Max": 976_562, "Remaining": 976_562},
        }
    )
