"""HubSpot's description of an account: properties, the types it made itself, and its owners."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from omni.sandbox.company import Property
from omni.sandbox.crm_schema import SINGULAR, TYPE_IDS, is_custom
from omni.sandbox.hubspot import PORTAL, Account, Objects, invalid, limit_in, problem
from omni.sandbox.reply import Reply

OWNERS_LIMIT = 500
_FIELD_TYPES = {
    "string": "text",
    "number": "number",
    "bool": "booleancheckbox",
    "date": "date",
    "datetime": "date",
    "enumeration": "select",
}


def _definition(objects: Objects, prop: Property, order: int) -> dict[str, Any]:
    standard = not prop.custom
    group = f"{SINGULAR.get(objects.name, objects.name)}information"
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
        "hasUniqueValue": prop.unique or prop.name == "hs_object_id",
        "hidden": False,
        "hubspotDefined": standard,
        "formField": not standard,
        "dataSensitivity": "sensitive" if prop.sensitive else "non_sensitive",
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


def create_property(account: Account, kind: str, body: Mapping[str, Any]) -> Reply:
    """Give a type one more property."""
    objects = account.objects(kind)
    name, sort = str(body.get("name") or ""), str(body.get("type") or "")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or sort not in _FIELD_TYPES:
        raise invalid("A property needs a name of lower-case letters, digits and underscores, and a type")
    if name in objects.properties:
        raise problem(409, f'A property named "{name}" already exists.', "OBJECT_ALREADY_EXISTS")
    options = tuple(str(option["value"]) for option in body.get("options") or ())
    made = Property(
        name,
        sort,
        str(body.get("label") or name),
        options,
        custom=True,
        unique=bool(body.get("hasUniqueValue")),
        sensitive=body.get("dataSensitivity", "non_sensitive") != "non_sensitive",
    )
    objects.properties[name] = made
    return Reply(_definition(objects, made, len(objects.properties)), 201)


def archive_property(account: Account, kind: str, name: str) -> Reply:
    """Take a property away, values and all."""
    objects = account.objects(kind)
    if objects.properties.pop(name, None) is None:
        raise problem(404, f"Property {name} does not exist for object type {kind}", "OBJECT_NOT_FOUND")
    objects.version += 1
    return Reply(None, 204)


def list_schemas(account: Account) -> Reply:
    """The types the account made itself."""
    return Reply({"results": [_schema(account, kind) for kind in account.kinds if is_custom(kind)]})


def get_schema(account: Account, kind: str) -> Reply:
    """One of them, by name or number."""
    return Reply(_schema(account, account.objects(kind).name))


def _schema(account: Account, kind: str) -> dict[str, Any]:
    objects = account.objects(kind)
    number = TYPE_IDS.get(kind, "2-39999999")
    title = kind.replace("_", " ").title()
    return {
        "id": number.partition("-")[2],
        "objectTypeId": number,
        "name": kind,
        "fullyQualifiedName": f"{PORTAL}_{kind}",
        "labels": {"singular": title.removesuffix("s"), "plural": title},
        "primaryDisplayProperty": "hs_object_id",
        "requiredProperties": [],
        "searchableProperties": [],
        "secondaryDisplayProperties": [],
        "properties": [_definition(objects, p, n) for n, p in enumerate(objects.properties.values())],
        "associations": [],
        "archived": False,
    }


def list_owners(account: Account, params: Mapping[str, str]) -> Reply:
    """A page of the account's users."""
    archived = params.get("archived", "false").lower() == "true"
    limit = limit_in(params.get("limit"), 100, OWNERS_LIMIT)
    after = params.get("after", "0")
    if not after.isdigit():
        raise invalid(f"after is not a paging cursor of this endpoint: {after[:40]}")
    email = params.get("email")
    found = [o for o in account.owners if o["archived"] == archived and email in (None, o["email"])]
    later = [owner for owner in found if int(owner["id"]) > int(after)]
    body: dict[str, Any] = {"results": later[:limit]}
    if len(later) > limit:
        body["paging"] = {"next": {"after": later[limit - 1]["id"]}}
    return Reply(body)


def get_owner(account: Account, key: str, params: Mapping[str, str]) -> Reply:
    """One user by id."""
    archived = params.get("archived", "false").lower() == "true"
    for owner in account.owners:
        if owner["id"] == key and owner["archived"] == archived:
            return Reply(owner)
    raise problem(404, "resource not found", "OBJECT_NOT_FOUND")
