"""HubSpot's description of an object type against its contract: what is missing, what is new."""

from __future__ import annotations

from typing import Any

from omni.errors import SchemaError
from omni.sources.http import Http, need
from omni.sources.hubspot_objects import TOP_LEVEL, VERSION, properties, type_of
from omni.sources.vendor import Field, table_object
from omni.warehouse.contracts import Contract, Type

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

TYPES: dict[str, Type] = {
    "number": "float",
    "bool": "boolean",
    "date": "date",
    "datetime": "timestamp",
    "json": "json",
}
"""Property types and the contract type of a new column for them; any other is text."""


def _declared(http: Http, tables: list[Contract]) -> dict[str, Any]:
    """The account's properties of an object type, by name; values are null in archived ones."""
    where = f"properties of {table_object(tables)}"
    body = http.get(f"/crm/properties/{VERSION}/{type_of(http, table_object(tables))}", {})
    found = {need(p, "name", str, where): p for p in need(body, "results", list, where)}
    return {name: p for name, p in found.items() if not p.get("archived")}


def _kind(found: Any, where: str) -> str:
    """A property's type; a single checkbox counts as bool, however it is declared."""
    kind = need(found, "type", str, where)
    return "bool" if kind == "enumeration" and found.get("fieldType") == "booleancheckbox" else kind


def check(http: Http, tables: list[Contract]) -> list[str]:
    """Compare the contract with the properties the account declares.

    Returns:
        What is worth reporting: enumeration values the contract does not know, calculated properties.

    Raises:
        SchemaError: a property is missing, or has a type that does not fit the column's.
    """
    parent = tables[0]
    where = f"properties of {table_object(tables)}"
    declared = _declared(http, tables)
    problems, notices = [], []
    for path, name in properties(parent, dropped=True).items():
        column = parent.columns[name]
        found = declared.get(path)
        if found is None:
            if not column.optional and path not in TOP_LEVEL:
                problems.append(f"property {path!r} (column {name}) is missing")
            continue
        kind = _kind(found, where)
        if column.type != "string" and kind not in FITTING[column.type]:
            problems.append(f"property {path!r} (column {name}: {column.type}) is now of type {kind!r}")
        if column.accepted and kind == "enumeration":
            values = {str(option.get("value")) for option in found.get("options") or []}
            if unknown := sorted(values - set(column.accepted)):
                notices.append(f"{parent.table}.{name}: HubSpot also offers {', '.join(unknown)}")
        if found.get("calculated") and not path.startswith("hs_"):
            notices.append(
                f"{parent.table}.{name}: HubSpot calculates {path!r}, and its changes move no modification "
                "date; only a full read brings them all"
            )
    if problems:
        raise SchemaError(misfit(parent, problems))
    return notices


def misfit(parent: Contract, problems: list[str]) -> str:
    """What to say where HubSpot and a contract disagree."""
    return (
        f"HubSpot no longer fits the contract of {parent.table}: {'; '.join(problems)}. Restore it in "
        "HubSpot, or change the contract in data/contracts: another `from` or type, or `optional: true`."
    )


def fields(http: Http, tables: list[Contract]) -> dict[str, Field]:
    """The properties the account made itself and the contract does not know, by name.

    HubSpot's own, some hundreds, only come with a contract that names them.
    """
    where = f"properties of {table_object(tables)}"
    known = set(properties(tables[0], dropped=True)) | {"id", "archived"}
    return {
        name: Field(
            TYPES.get(_kind(found, where), "string"),
            sensitive=found.get("dataSensitivity", "non_sensitive") != "non_sensitive",
        )
        for name, found in _declared(http, tables).items()
        if not found.get("hubspotDefined") and name not in known
    }
