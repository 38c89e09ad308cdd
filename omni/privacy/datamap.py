"""The data map: which tables hold personal data, declared or derived, and what the contracts say of it.

Contracts declare personal columns of the tables that are loaded. What becomes of them in derived tables is
read from the models' SQL, so no second list can grow stale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omni.warehouse.contracts import Contract, Personal
from omni.warehouse.lineage import Carried, Through, carried_columns
from omni.warehouse.models import Model, in_order


@dataclass(frozen=True)
class Declared:
    """A personal column as its contract declares it."""

    table: str
    column: str
    personal: Personal
    lawful_basis: str | None
    retention: str | None
    owner: str


@dataclass(frozen=True)
class Derived:
    """A derived column that holds something of a declared one.

    Attributes:
        through: `copied` (the value, perhaps trimmed or cast), `computed` (a count or comparison of it), or
            `assumed` (the SQL could not be followed).
    """

    table: str
    column: str
    source: Declared
    through: Through


@dataclass(frozen=True)
class Entry:
    """A table of the warehouse, whether or not it holds personal data."""

    table: str
    kind: str
    owner: str
    description: str


@dataclass(frozen=True)
class DataMap:
    """Every declared table, with the personal columns in it."""

    entries: tuple[Entry, ...]
    declared: tuple[Declared, ...]
    derived: tuple[Derived, ...]

    def personal_columns(self) -> dict[str, frozenset[str]]:
        """By table, the columns that hold personal data or something computed from it."""
        found: dict[str, set[str]] = {}
        held = [(d.table, d.column) for d in self.declared] + [(d.table, d.column) for d in self.derived]
        for table, column in held:
            found.setdefault(table, set()).add(column)
        return {table: frozenset(names) for table, names in sorted(found.items())}

    def clear_columns(self) -> dict[str, frozenset[str]]:
        """By table, the columns that may hold readable personal data: declared `protect: clear`."""
        found: dict[str, set[str]] = {}
        for declared in self.declared:
            if declared.personal.protect == "clear":
                found.setdefault(declared.table, set()).add(declared.column)
        for derived in self.derived:
            if derived.source.personal.protect == "clear" and derived.through != "computed":
                found.setdefault(derived.table, set()).add(derived.column)
        return {table: frozenset(names) for table, names in sorted(found.items())}

    def inventory(self) -> list[dict[str, Any]]:
        """One row per table for a report: what it is, whose, and its personal columns in plain values."""
        columns: dict[str, list[dict[str, Any]]] = {entry.table: [] for entry in self.entries}
        for declared in self.declared:
            columns[declared.table].append(_described(declared.column, declared) | {"through": "loaded"})
        for derived in self.derived:
            origin = f"{derived.source.table}.{derived.source.column}"
            columns[derived.table].append(
                _described(derived.column, derived.source) | {"through": derived.through, "from": origin}
            )
        return [
            {
                "table": entry.table,
                "kind": entry.kind,
                "owner": entry.owner,
                "description": " ".join(entry.description.split()),
                "personal": sorted(columns[entry.table], key=lambda c: (c["column"], c.get("from", ""))),
            }
            for entry in self.entries
        ]


def _described(column: str, declared: Declared) -> dict[str, Any]:
    personal = declared.personal
    return {
        "column": column,
        "category": personal.category,
        "subject": personal.subject,
        "protect": personal.protect,
        "on_erase": personal.on_erase,
        "reason": personal.reason,
        "lawful_basis": declared.lawful_basis,
        "retention": declared.retention,
    }


def build_map(contracts: Mapping[str, Contract], models: Mapping[str, Model]) -> DataMap:
    """Trace every declared personal column through every model.

    Args:
        contracts: by table.
        models: derived tables by name, metrics' rollups included if they are to be covered.

    Raises:
        ConfigError: a model reads a table that neither a contract nor a model declares.
    """
    declared = {
        (table, name): Declared(
            table, name, column.personal, contract.lawful_basis, contract.retention, contract.owner
        )
        for table, contract in sorted(contracts.items())
        for name, column in contract.columns.items()
        if column.personal is not None
    }
    known: dict[str, dict[str, Carried]] = {}
    for table, name in declared:
        known.setdefault(table, {})[name] = {(table, name): "copied"}
    schema: dict[str, dict[str, str]] = {table: c.column_types() for table, c in contracts.items()}
    derived: list[Derived] = []
    for model in in_order(models, contracts):
        reach = {parent: schema[parent] for parent in model.parents if parent in schema}
        found = carried_columns(model.query, known, reach)
        known[model.name] = found
        schema[model.name] = _output_columns(model, reach)
        derived += [
            Derived(model.name, column, declared[origin], through)
            for column, origins in found.items()
            for origin, through in sorted(origins.items())
        ]
    entries = [
        Entry(c.table, "loaded" if c.source else "result", c.owner, c.description) for c in contracts.values()
    ]
    entries += [Entry(m.name, m.header.kind, m.header.owner, m.header.description) for m in models.values()]
    return DataMap(
        tuple(sorted(entries, key=lambda entry: entry.table)),
        tuple(declared.values()),
        tuple(sorted(derived, key=lambda d: (d.table, d.column, d.source.table, d.source.column))),
    )


def _output_columns(model: Model, reach: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """A model's columns; their types do not matter for tracing. A bare `*` gives those of all it reads."""
    names = model.query.named_selects
    if "*" in names:
        names = [name for name in names if name != "*"] + [c for columns in reach.values() for c in columns]
    return dict.fromkeys(names, "VARCHAR")
