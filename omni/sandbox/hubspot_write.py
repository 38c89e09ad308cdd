"""HubSpot's CRM objects, write side: values are checked as the account's properties say.

A batch refuses whole (400) when an input is wrong, unless its inputs carry an `objectWriteTraceId`: then the
others are written and the answer (207) names the wrong ones by it, as HubSpot does.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from omni.sandbox.company import CrmRecord, Property, crm_time
from omni.sandbox.crm_schema import modified_property
from omni.sandbox.hubspot import (
    BATCH_LIMIT,
    Account,
    Objects,
    batch,
    identified,
    index,
    invalid,
    problem,
    shown,
)
from omni.sandbox.reply import Refusal, Reply

Body = Mapping[str, Any]
Values = dict[str, str | None]


def _now() -> int:
    return int(time.time() * 1000)


def _checked(objects: Objects, given: Any) -> Values:
    """Property values as they are stored.

    Raises:
        Refusal: 400, naming every property that is unknown, read-only or has a value that does not fit.
    """
    if not isinstance(given, dict):
        raise invalid("properties must be an object")
    values: Values = {}
    wrong: list[tuple[str, str, str]] = []
    fixed = {"hs_object_id", "createdate", modified_property(objects.name)}
    for name, value in given.items():
        found = objects.properties.get(name)
        if found is None:
            wrong.append((name, "PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist'))
        elif found.calculated or name in fixed:
            wrong.append(
                (name, "READ_ONLY_VALUE", f'"{name}" is a read only property; its value cannot be set')
            )
        else:
            try:
                values[name] = _stored(found, value)
            except ValueError as error:
                wrong.append((name, str(error), f"{json.dumps(value)} was not a valid {found.type}."))
    if not wrong:
        return values
    listed = [{"isValid": False, "message": m, "error": code, "name": name} for name, code, m in wrong]
    raise problem(
        400,
        f"Property values were not valid: {json.dumps(listed)}",
        "VALIDATION_ERROR",
        errors=[{"message": m, "code": code, "context": {"propertyName": [name]}} for name, code, m in wrong],
    )


def _stored(found: Property, value: Any) -> str | None:
    """A value as text, None where it clears the property.

    Raises:
        ValueError: HubSpot's code of why it does not fit.
    """
    if isinstance(value, bool):
        value = str(value).lower()
    if value is None or value == "":
        return None
    if isinstance(value, (dict, list)):
        raise ValueError("INVALID_STRING")  # noqa: TRY004
    text = str(value)
    if found.type == "number" and not _is_number(text):
        raise ValueError("INVALID_INTEGER")
    if found.type in ("enumeration", "bool") and found.options and text not in found.options:
        raise ValueError("INVALID_OPTION")
    if found.type == "date":
        return _moment(text, "INVALID_DATE")[:10]
    return _moment(text, "INVALID_LONG") if found.type == "datetime" else text


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _moment(text: str, code: str) -> str:
    if text.lstrip("-").isdigit():
        return crm_time(int(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(code) from None
    return crm_time(int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000))


def _answer(objects: Objects, record: CrmRecord, values: Values, **more: Any) -> dict[str, Any]:
    return shown(record, objects.wanted(list(values))) | more


def _created(objects: Objects, values: Values) -> CrmRecord:
    for name, value in values.items():
        if objects.properties[name].unique and value and (key := identified(objects, value, name)):
            raise problem(409, f"{objects.name} already exists. Existing ID: {key}", "CONFLICT")
    now = _now()
    key = str(max((int(k) for k in (*objects.by_id, *objects.merged)), default=0) + 1)
    standard: dict[str, str | None] = {
        "hs_object_id": key,
        "createdate": crm_time(now),
        modified_property(objects.name): crm_time(now),
    }
    record = CrmRecord(key, values | standard, now, now)
    objects.put(record)
    return record


def _changed(objects: Objects, old: CrmRecord, values: Values, *, archived: bool = False) -> CrmRecord:
    """A record with these values, modified now, restored unless it is to be archived."""
    now = max(_now(), old.updated_ms + 1)
    properties = old.properties | values | {modified_property(objects.name): crm_time(now)}
    record = replace(old, properties=properties, updated_ms=now, archived_ms=now if archived else None)
    objects.put(record)
    return record


def _need(objects: Objects, key: str, *, archived: bool = False) -> CrmRecord:
    record = objects.find(key, archived=archived)
    if record is None:
        raise problem(404, "resource not found", "OBJECT_NOT_FOUND", context={"ids": [key]})
    return record


def create(account: Account, kind: str, body: Body) -> Reply:
    """A new record."""
    objects = account.objects(kind)
    values = _checked(objects, body.get("properties", {}))
    return Reply(_answer(objects, _created(objects, values), values), 201)


def update(account: Account, kind: str, key: str, body: Body, by: str | None) -> Reply:
    """New values for a record, found by id or by a unique property."""
    objects = account.objects(kind)
    record = _need(objects, identified(objects, key, by))
    values = _checked(objects, body.get("properties", {}))
    return Reply(_answer(objects, _changed(objects, record, values), values))


def archive(account: Account, kind: str, key: str) -> Reply:
    """Put a record away; doing it twice is no error."""
    objects = account.objects(kind)
    if (record := objects.find(key)) is not None:
        _changed(objects, record, {}, archived=True)
    return Reply(None, 204)


def restore(account: Account, kind: str, key: str) -> Reply:
    """Bring an archived record back. Only people can, in HubSpot's own pages."""
    objects = account.objects(kind)
    record = _changed(objects, _need(objects, key, archived=True), {})
    return Reply(_answer(objects, record, {}))


def merge(account: Account, kind: str, body: Body) -> Reply:
    """Two records become a new one under a new id; asking for either old id finds it."""
    objects = account.objects(kind)
    keys = str(body.get("primaryObjectId")), str(body.get("objectIdToMerge"))
    first, second = (_need(objects, key) for key in keys)
    if first.id == second.id:
        raise invalid("A record cannot be merged with itself")
    earlier = [r.properties.get("hs_merged_object_ids") for r in (first, second)]
    gone = ";".join([first.id, second.id, *(ids for ids in earlier if ids)])
    values = {
        name: first.properties.get(name) or second.properties.get(name)
        for name in objects.properties
        if first.properties.get(name) or second.properties.get(name)
    }
    for old in (first, second):
        objects.drop(old.id)
    fresh = _created(objects, {n: v for n, v in values.items() if not objects.properties[n].unique})
    unique = {n: v for n, v in values.items() if objects.properties[n].unique}
    kept = replace(fresh, properties=fresh.properties | unique | {"hs_merged_object_ids": gone})
    objects.put(kept)
    for old in (first, second):
        objects.merged[old.id] = kept.id
    for target in account.kinds:
        both = dict.fromkeys(
            i for old in (first, second) for i in account.linked(objects.name, target, old.id)
        )
        for old in (first, second):
            account.link(objects.name, target, old.id, ())
        account.link(objects.name, target, kept.id, tuple(both))
    return Reply(_answer(objects, kept, {}))


def forget(account: Account, kind: str, body: Body) -> Reply:
    """Delete a person's record for good."""
    objects = account.objects(kind)
    key = identified(objects, str(body.get("objectId")), body.get("idProperty"))
    if (record := objects.by_id.get(key)) is not None:
        objects.drop(record.id)
        for target in account.kinds:
            account.link(objects.name, target, record.id, ())
    return Reply(None, 204)


def _each(body: Body, write: Callable[[Body], dict[str, Any]]) -> Reply:
    """Write every input; what happens to wrong ones the module's first lines say."""
    inputs = body.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(entry, dict) for entry in inputs):
        raise invalid("inputs must be a list of objects")
    if len(inputs) > BATCH_LIMIT:
        raise invalid(f"The maximum number of inputs supported in a batch request is {BATCH_LIMIT}")
    results, errors = [], []
    for entry in inputs:
        trace = entry.get("objectWriteTraceId")
        try:
            results.append(write(entry) | ({"objectWriteTraceId": trace} if trace else {}))
        except Refusal as refusal:
            if not trace:
                raise
            said = refusal.reply.payload
            context = {"objectWriteTraceId": [trace], **(said.get("context") or {})}
            kept = {k: said[k] for k in ("status", "category", "message", "errors") if k in said}
            errors.append({**kept, "context": context})
    return batch(results, errors)


def _atomically(objects: Objects, body: Body, write: Callable[[Body], dict[str, Any]]) -> Reply:
    """As `_each`, leaving no trace of a batch that is refused whole."""
    before = dict(objects.by_id)
    try:
        return _each(body, write)
    except Refusal:
        for key in [key for key in objects.by_id if key not in before]:
            objects.drop(key)
        for key, record in before.items():
            if objects.by_id.get(key) is not record:
                objects.put(record)
        raise


def batch_create(account: Account, kind: str, body: Body) -> Reply:
    """New records."""
    objects = account.objects(kind)

    def write(entry: Body) -> dict[str, Any]:
        values = _checked(objects, entry.get("properties", {}))
        return _answer(objects, _created(objects, values), values)

    reply = _atomically(objects, body, write)
    return replace(reply, status=201) if reply.status == 200 else reply


def batch_update(account: Account, kind: str, body: Body) -> Reply:
    """New values for records, each found by id or by a unique property."""
    objects = account.objects(kind)

    def write(entry: Body) -> dict[str, Any]:
        key = identified(objects, str(entry.get("id")), entry.get("idProperty"))
        record = _need(objects, key)
        values = _checked(objects, entry.get("properties", {}))
        return _answer(objects, _changed(objects, record, values), values)

    return _atomically(objects, body, write)


def batch_upsert(account: Account, kind: str, body: Body) -> Reply:
    """New values for records found by a unique property, new records where none is found."""
    objects = account.objects(kind)
    indexes: dict[str, dict[str, str]] = {}

    def write(entry: Body) -> dict[str, Any]:
        by, key = entry.get("idProperty"), str(entry.get("id"))
        if not isinstance(by, str) or not (by in objects.properties and objects.properties[by].unique):
            raise invalid(f"idProperty {by} is not a unique property of {objects.name}")
        values = _checked(objects, entry.get("properties", {})) | _checked(objects, {by: key})
        known = indexes.setdefault(by, index(objects, by))
        found = objects.find(known.get(key.strip().lower(), ""))
        record = _changed(objects, found, values) if found else _created(objects, values)
        known[key.strip().lower()] = record.id
        return _answer(objects, record, values, new=found is None)

    return _atomically(objects, body, write)


def batch_archive(account: Account, kind: str, body: Body) -> Reply:
    """Put records away."""

    def write(entry: Body) -> dict[str, Any]:
        archive(account, kind, str(entry.get("id")))
        return {}

    _each(body, write)
    return Reply(None, 204)
