"""HubSpot's CRM objects and associations, read side.

Serves the date-versioned paths and their v3 and v4 twins from the same functions. Values are strings or
null; errors have HubSpot's shape. Records are listed by id, so `after` is the last id of the page before.
"""

from __future__ import annotations

import uuid
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from starlette.datastructures import QueryParams

from omni.sandbox.company import Company, CrmObjects, CrmRecord, crm_time
from omni.sandbox.crm_schema import SINGULAR, TYPE_IDS, modified_property
from omni.sandbox.reply import Refusal, Reply

LIST_LIMIT, BATCH_LIMIT, ASSOCIATIONS_PAGE = 100, 100, 500
URL_LIMIT = 8_192
"""Longest request target in characters; longer ones get 414."""

_DEFAULTS = {
    "contacts": ("email", "firstname", "lastname"),
    "companies": ("name", "domain"),
    "deals": ("dealname", "amount", "closedate", "pipeline", "dealstage"),
    "tickets": ("subject", "content", "hs_pipeline", "hs_pipeline_stage", "hs_ticket_priority"),
}
PORTAL = "p9000001"
"""Precedes the names of types the account made, in full."""
_LINK_TYPES = {("deals", "contacts"): 3, ("contacts", "deals"): 4, ("deals", "companies"): 341}
_LINK_TYPES |= {("companies", "deals"): 342, ("tickets", "contacts"): 16, ("contacts", "tickets"): 15}


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
    """One CRM type as served. What is written here never reaches the company it was made from."""

    def __init__(self, objects: CrmObjects) -> None:
        self.name = objects.name
        self.properties = {p.name: p for p in objects.properties}
        self.by_id = {r.id: r for r in objects.records}
        self.live = [r for r in objects.records if r.archived_ms is None]
        self.archived = [r for r in objects.records if r.archived_ms is not None]
        self.merged: dict[str, str] = {}
        """Ids that were merged into another record, and that record's."""
        self.version = 0
        """Grows with every change."""

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

    def find(self, key: str, *, archived: bool = False) -> CrmRecord | None:
        """A record by id, or the one its id was merged into."""
        while key in self.merged:
            key = self.merged[key]
        record = self.by_id.get(key)
        return record if record is not None and (record.archived_ms is not None) == archived else None

    def put(self, record: CrmRecord) -> None:
        """Add a record, or replace the one of its id."""
        self.drop(record.id)
        self.by_id[record.id] = record
        gone = record.archived_ms is not None
        ids, records = (self.archived_ids, self.archived) if gone else (self.live_ids, self.live)
        place = bisect_right(ids, int(record.id))
        ids.insert(place, int(record.id))
        records.insert(place, record)

    def drop(self, key: str) -> None:
        """Forget a record."""
        self.version += 1
        if (old := self.by_id.pop(key, None)) is None:
            return
        gone = old.archived_ms is not None
        ids, records = (self.archived_ids, self.archived) if gone else (self.live_ids, self.live)
        place = bisect_right(ids, int(key)) - 1
        del ids[place], records[place]


class Account:
    """A HubSpot account that holds a company's CRM, and what was written to it since."""

    def __init__(self, company: Company) -> None:
        self._company = company
        self._types: dict[str, Objects] = {}
        self._links: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {}
        self._names = dict(_aliases(company.crm))
        self.owners = company.owners

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the types it has."""
        return tuple(self._company.crm)

    def objects(self, kind: str) -> Objects:
        """A type by its name, in the singular too, or by its number.

        Raises:
            Refusal: 400, the account has no such type.
        """
        name = self._names.get(kind.lower())
        if name is None:
            raise invalid(f"Unable to infer object type from: {kind}")
        if name not in self._types:
            self._types[name] = Objects(self._company.crm[name])
        return self._types[name]

    def linked(self, source: str, target: str, key: str) -> tuple[str, ...]:
        """Ids a record is associated with."""
        changed = self._links.get((source, target), {})
        if key in changed:
            return changed[key]
        return self._company.associations.get((source, target), {}).get(key, ())

    def link(self, source: str, target: str, key: str, others: tuple[str, ...]) -> None:
        """Set the ids a record is associated with, from both sides."""
        old = self.linked(source, target, key)
        self._links.setdefault((source, target), {})[key] = others
        for other in {*old, *others}:
            kept = tuple(i for i in self.linked(target, source, other) if i != key)
            back = (*kept, key) if other in others else kept
            self._links.setdefault((target, source), {})[other] = back


def _aliases(kinds: Iterable[str]) -> Iterator[tuple[str, str]]:
    """What each type may be called in a path."""
    for kind in kinds:
        yield kind, kind
        yield SINGULAR.get(kind, f"{PORTAL}_{kind}"), kind
        if kind in TYPE_IDS:
            yield TYPE_IDS[kind], kind


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
    """A parameter that is a comma-separated list, or given several times, or both."""
    given = params.getlist(key) if isinstance(params, QueryParams) else [params.get(key, "")]
    return [name.strip() for text in given for name in text.split(",") if name.strip()]


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
    for asked in targets:
        target = account.objects(asked).name
        ids = account.linked(kind, target, body["id"])
        if ids:
            label = f"{SINGULAR.get(kind, kind)}_to_{SINGULAR.get(target, target)}"
            links[asked] = {"results": [{"id": i, "type": label} for i in ids]}
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
    results = [_with_links(account, objects.name, shown(r, names), targets) for r in page]
    body: dict[str, Any] = {"results": results}
    if start + limit < len(records):
        last = page[-1].id
        body["paging"] = {"next": {"after": last, "link": f"{path}?after={last}&limit={limit}"}}
    return Reply(body)


def get_object(account: Account, kind: str, key: str, params: Mapping[str, str]) -> Reply:
    """One record by id."""
    objects = account.objects(kind)
    archived = params.get("archived", "false").lower() == "true"
    record = objects.find(identified(objects, key, params.get("idProperty")), archived=archived)
    if record is None:
        raise problem(404, "resource not found", "OBJECT_NOT_FOUND")
    body = shown(record, objects.wanted(names_in(params, "properties")))
    return Reply(_with_links(account, objects.name, body, names_in(params, "associations")))


def identified(objects: Objects, key: str, by: str | None) -> str:
    """The id of the record whose unique property `by` has this value; empty when there is none.

    Raises:
        Refusal: 400, the property is not unique.
    """
    if by is None or by == "hs_object_id":
        return key
    if not (by in objects.properties and objects.properties[by].unique):
        raise invalid(f"Property {by} is not a unique property of {objects.name}")
    return index(objects, by).get(key.strip().lower(), "")


def index(objects: Objects, by: str) -> dict[str, str]:
    """Ids of the live records by their value of a property."""
    values = ((record.properties.get(by), record.id) for record in objects.live)
    return {value.strip().lower(): key for value, key in values if value}


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


def batch(results: list[Any], errors: list[dict[str, Any]]) -> Reply:
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
    by = body.get("idProperty")
    known = index(objects, by) if by and by != "hs_object_id" else None
    for entry in inputs_of(body):
        key = str(entry["id"])
        record = objects.find(key if known is None else known.get(key.lower(), ""), archived=archived)
        if record is None:
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
    return batch(results, errors)


def _unlinked(source: str, target: str, key: str) -> dict[str, Any]:
    names = SINGULAR.get(source, source), SINGULAR.get(target, target)
    return {
        "status": "error",
        "category": "OBJECT_NOT_FOUND",
        "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND",
        "message": f"No {names[1]} is associated with {names[0]} {key}.",
        "context": {"fromObjectId": [key], "fromObjectType": [source], "toObjectType": [target]},
    }


def batch_associations(account: Account, source: str, target: str, body: Mapping[str, Any]) -> Reply:
    """What records are associated with, paged per record by `after`; 207 names those without any."""
    source, target = account.objects(source).name, account.objects(target).name
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
    return batch(results, errors)
