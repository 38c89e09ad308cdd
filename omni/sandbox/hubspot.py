"""HubSpot's CRM objects, properties and associations, read side.

Serves the date-versioned paths and their v3 and v4 twins from the same functions. Values are strings or
null; errors have HubSpot's shape. Records are listed by id, so `after` is the last id of the page before.
"""

from __future__ import annotations

import uuid
from bisect import bisect_right
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from omni.sandbox.company import Company, CrmObjects, CrmRecord, Property, crm_time
from omni.sandbox.crm_schema import modified_property
from omni.sandbox.reply import Refusal, Reply

LIST_LIMIT, BATCH_LIMIT, ASSOCIATIONS_PAGE = 100, 100, 500
URL_LIMIT = 8_192
"""Longest request target in characters; longer ones get 414."""

_DEFAULTS = {
    "contacts": ("email", "firstname", "lastname"),
    "companies": ("name", "domain"),
    "deals": ("dealname", "amount", "closedate", "pipeline", "dealstage"),
}
_FIELD_TYPES = {
    "string": "text",
    "number": "number",
    "bool": "booleancheckbox",
    "date": "date",
    "datetime": "date",
    "enumeration": "select",
}
_SINGULAR = {"contacts": "contact", "companies": "company", "deals": "deal"}
_LINK_TYPES = {("deals", "contacts"): 3, ("contacts", "deals"): 4, ("deals", "companies"): 341}
_LINK_TYPES[("companies", "deals")] = 342


def problem(
    status: int, message: str, category: str, *, headers: Mapping[str, str] | None = None, **more: Any
) -> Refusal:
    """An error in HubSpot's shape."""
    body = {"status": "error", "message": message, "correlationId": str(uuid.uuid4()), "category": category}
    return Refusal(Reply(body | more, status, headers or {}))


def invalid(message: str) -> Refusal:
    """HubSpot's 400."""
    return problem(400, message, "VALIDATION_ERROR")


class Objects:
    """One CRM type, prepared for serving."""

    def __init__(self, objects: CrmObjects) -> None:
        self.name = objects.name
        self.properties = {p.name: p for p in objects.properties}
        self.by_id = {r.id: r for r in objects.records}
        self.live = [r for r in objects.records if r.archived_ms is None]
        self.archived = [r for r in objects.records if r.archived_ms is not None]

    @cached_property
    def live_ids(self) -> list[int]:
        """Ids of the live records, ascending."""
        return [int(r.id) for r in self.live]

    @cached_property
    def archived_ids(self) -> list[int]:
        """Ids of the archived records, ascending."""
        return [int(r.id) for r in self.archived]

    def wanted(self, requested: list[str]) -> list[str]:
        """Names of the properties to answer with: asked for and declared, or the type's usual ones."""
        always = ["hs_object_id", "createdate", modified_property(self.name)]
        names = requested or list(_DEFAULTS.get(self.name, ()))
        return list(dict.fromkeys([*always, *(n for n in names if n in self.properties)]))


class Account:
    """A HubSpot account that holds a company's CRM."""

    def __init__(self, company: Company) -> None:
        self.types = {name: Objects(objects) for name, objects in company.crm.items()}
        self.associations = company.associations

    def objects(self, kind: str) -> Objects:
        """A type by name.

        Raises:
            Refusal: 400, the account has no such type.
        """
        if kind not in self.types:
            raise invalid(f"Unable to infer object type from: {kind}")
        return self.types[kind]

    def linked(self, source: str, target: str, key: str) -> tuple[str, ...]:
        """Ids a record is associated with."""
        return self.associations.get((source, target), {}).get(key, ())


def shown(record: CrmRecord, names: list[str]) -> dict[str, Any]:
    """A record with the named properties, as JSON."""
    values = record.properties
    body: dict[str, Any] = {
        "id": record.id,
        "properties": {name: values.get(name) for name in names},
        "createdAt": crm_time(record.created_ms),
        "updatedAt": crm_time(record.updated_ms),
        "archived": record.archived_ms is not None,
    }
    if record.archived_ms is not None:
        body["archivedAt"] = crm_time(record.archived_ms)
    return body


def names_in(params: Mapping[str, str], key: str) -> list[str]:
    """A comma-separated parameter as a list."""
    return [name.strip() for name in params.get(key, "").split(",") if name.strip()]


def limit_in(value: Any, default: int, most: int) -> int:
    """A page size.

    Raises:
        Refusal: 400, not a whole number from 1 to `most`.
    """
    text = str(default if value is None else value)
    if not text.isdigit() or not 1 <= int(text) <= most:
        raise invalid(f"limit must be a whole number between 1 and {most}, not {text}")
    return int(text)


def _with_links(account: Account, kind: str, body: dict[str, Any], targets: list[str]) -> dict[str, Any]:
    links = {}
    for target in targets:
        ids = account.linked(kind, target, body["id"])
        if ids:
            label = f"{_SINGULAR.get(kind, kind)}_to_{_SINGULAR.get(target, target)}"
            links[target] = {"results": [{"id": i, "type": label} for i in ids]}
    return body | {"associations": links} if links else body


def list_objects(account: Account, kind: str, params: Mapping[str, str], path: str) -> Reply:
    """One page of a type by id."""
    objects = account.objects(kind)
    archived = params.get("archived", "false").lower() == "true"
    ids = objects.archived_ids if archived else objects.live_ids
    records = objects.archived if archived else objects.live
    limit = limit_in(params.get("limit"), 10, LIST_LIMIT)
    after = params.get("after", "0")
    if not after.isdigit():
        raise invalid(f"after is not a paging cursor of this endpoint: {after[:40]}")
    start = bisect_right(ids, int(after))
    page = records[start : start + limit]
    names, targets = objects.wanted(names_in(params, "properties")), names_in(params, "associations")
    for target in targets:
        account.objects(target)
    results = [_with_links(account, kind, shown(r, names), targets) for r in page]
    body: dict[str, Any] = {"results": results}
    if start + limit < len(records):
        last = page[-1].id
        body["paging"] = {"next": {"after": last, "link": f"{path}?after={last}&limit={limit}"}}
    return Reply(body)


def get_object(account: Account, kind: str, key: str, params: Mapping[str, str]) -> Reply:
    """One record by id."""
    objects = account.objects(kind)
    record = objects.by_id.get(key)
    archived = params.get("archived", "false").lower() == "true"
    if record is None or (record.archived_ms is not None) != archived:
        raise problem(404, "resource not found", "OBJECT_NOT_FOUND")
    body = shown(record, objects.wanted(names_in(params, "properties")))
    return Reply(_with_links(account, kind, body, names_in(params, "associations")))


def inputs_of(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The inputs of a batch request.

    Raises:
        Refusal: 400, not a list of at most 100 objects with an id.
    """
    inputs = body.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(i, dict) and "id" in i for i in inputs):
        raise invalid("inputs must be a list of objects with an id")
    if len(inputs) > BATCH_LIMIT:
        raise invalid(f"The maximum number of inputs supported in a batch request is {BATCH_LIMIT}")
    return inputs


def _batch(results: list[Any], errors: list[dict[str, Any]]) -> Reply:
    """A batch's answer: 200, or 207 when some inputs failed."""
    now = crm_time(0)
    body: dict[str, Any] = {"status": "COMPLETE", "results": results, "startedAt": now, "completedAt": now}
    if errors:
        body |= {"numErrors": len(errors), "errors": errors}
    return Reply(body, 207 if errors else 200)


def batch_read(account: Account, kind: str, body: Mapping[str, Any], params: Mapping[str, str]) -> Reply:
    """Records by id, at most a hundred; 207 names those that are missing."""
    objects = account.objects(kind)
    archived = params.get("archived", "false").lower() == "true"
    names = objects.wanted([str(n) for n in body.get("properties") or []])
    results, missing = [], []
    for entry in inputs_of(body):
        record = objects.by_id.get(str(entry["id"]))
        if record is None or (record.archived_ms is not None) != archived:
            missing.append(str(entry["id"]))
        else:
            results.append(shown(record, names))
    errors: list[dict[str, Any]] = []
    if missing:
        errors.append(
            {
                "status": "error",
                "category": "OBJECT_NOT_FOUND",
                "message": "Could not get some records, they may be deleted or not exist.",
                "context": {"ids": missing},
            }
        )
    return _batch(results, errors)


def _unlinked(source: str, target: str, key: str) -> dict[str, Any]:
    names = _SINGULAR.get(source, source), _SINGULAR.get(target, target)
    return {
        "status": "error",
        "category": "OBJECT_NOT_FOUND",
        "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND",
        "message": f"No {names[1]} is associated with {names[0]} {key}.",
        "context": {"fromObjectId": [key], "fromObjectType": [source], "toObjectType": [target]},
    }


def batch_associations(account: Account, source: str, target: str, body: Mapping[str, Any]) -> Reply:
    """What records are associated with, paged per record by `after`; 207 names those without any."""
    for kind_name in (source, target):
        account.objects(kind_name)
    number = _LINK_TYPES.get((source, target), 1)
    kind = {"category": "HUBSPOT_DEFINED", "typeId": number, "label": None}
    results, errors = [], []
    for entry in inputs_of(body):
        key, after = str(entry["id"]), str(entry.get("after") or "0")
        ids = account.linked(source, target, key)
        if not ids:
            errors.append(_unlinked(source, target, key))
            continue
        start = int(after) if after.isdigit() else 0
        page = ids[start : start + ASSOCIATIONS_PAGE]
        result: dict[str, Any] = {
            "from": {"id": key},
            "to": [{"toObjectId": i, "associationTypes": [kind]} for i in page],
        }
        if start + ASSOCIATIONS_PAGE < len(ids):
            result["paging"] = {"next": {"after": str(start + ASSOCIATIONS_PAGE)}}
        results.append(result)
    return _batch(results, errors)


def _definition(objects: Objects, prop: Property, order: int) -> dict[str, Any]:
    standard = prop.name.startswith("hs_") or prop.name in ("createdate", "lastmodifieddate")
    group = f"{_SINGULAR.get(objects.name, objects.name)}information"
    return {
        "name": prop.name,
        "label": prop.label,
        "type": prop.type,
        "fieldType": "calculation_equation" if prop.calculated else _FIELD_TYPES[prop.type],
        "description": "",
        "groupName": group,
        "options": [
            {"label": o.replace("_", " ").title(), "value": o, "displayOrder": n, "hidden": False}
            for n, o in enumerate(prop.options)
        ],
        "displayOrder": order,
        "calculated": prop.calculated,
        "externalOptions": False,
        "hasUniqueValue": prop.name == "hs_object_id",
        "hidden": False,
        "hubspotDefined": standard,
        "formField": not standard,
        "dataSensitivity": "non_sensitive",
        "archived": False,
    }


def list_properties(account: Account, kind: str) -> Reply:
    """Definitions of the properties the account has for a type."""
    objects = account.objects(kind)
    return Reply({"results": [_definition(objects, p, n) for n, p in enumerate(objects.properties.values())]})


def get_property(account: Account, kind: str, name: str) -> Reply:
    """Definition of one property."""
    objects = account.objects(kind)
    if name not in objects.properties:
        raise problem(404, f"Property {name} does not exist for object type {kind}", "OBJECT_NOT_FOUND")
    return Reply(_definition(objects, objects.properties[name], 0))
