"""How each model was defined when it was last built, so that a plan can say what changed since."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from omni.tenancy import Tenant
from omni.warehouse.connection import Connection
from omni.warehouse.contracts import contracts
from omni.warehouse.models import Model

TABLE = "ops.definitions"
Definition = dict[str, Any]


def define(model: Model, tenant: Tenant) -> Definition:
    """A model's SELECT with the tenant's values, what of its header decides rows, its inputs' types."""
    header = model.header
    how = header.model_dump(mode="json", exclude={"owner", "description"}, exclude_defaults=True)
    types = {p: contracts()[p].column_types() for p in model.parents if p in contracts()}
    return {"sql": model.bound(tenant), "how": how, "types": types}


def remember(con: Connection, model: Model, tenant: Tenant) -> None:
    """Keep a model's definition, in the transaction that built it."""
    con.execute(
        f"INSERT INTO {TABLE} (model, definition) VALUES ($1, $2) "
        "ON CONFLICT (model) DO UPDATE SET definition = excluded.definition",
        [model.name, json.dumps(define(model, tenant))],
    )


def remembered(con: Connection) -> dict[str, Definition]:
    """The definitions of the last builds, by model."""
    rows = con.execute(f"SELECT model, definition FROM {TABLE}").fetchall()
    return {model: json.loads(text) for model, text in rows}


def header_changes(old: Definition, new: Definition) -> list[str]:
    """What differs apart from the SQL: parts of the header, types of the columns read."""
    found = [
        f"header: {field} is {new['how'].get(field, 'left out')}, was {old['how'].get(field, 'left out')}"
        for field in dict.fromkeys([*old["how"], *new["how"]])
        if field != "checks" and old["how"].get(field) != new["how"].get(field)
    ]
    if old["how"].get("checks") != new["how"].get("checks"):
        found.append("header: checks changed")
    for table, types in new["types"].items():
        before: Mapping[str, str] = old["types"].get(table, types)
        found += [
            f"contract of {table}: {column} is {kind}, was {before[column]}"
            for column, kind in types.items()
            if column in before and before[column] != kind
        ]
        found += [f"contract of {table}: {column} gone" for column in before if column not in types]
    return found
