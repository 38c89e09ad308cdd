"""The columns of every table and what each is made of: one graph over contracts and models."""

from __future__ import annotations

import difflib
import graphlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from omni.errors import ConfigError
from omni.warehouse.contracts import Contract
from omni.warehouse.lineage import Reading, Through, read_columns
from omni.warehouse.models import VALIDITY, Model

Column = tuple[str, str]
"""Table and column."""


@dataclass(frozen=True)
class Graph:
    """Tables, their columns, and how models make one from another.

    Attributes:
        columns: by table, the names of its columns in order.
        readings: by model, what its SELECT reads and makes.
        unknown: tables that models read although nothing declares them, by model.
    """

    columns: Mapping[str, list[str]]
    readings: Mapping[str, Reading]
    unknown: Mapping[str, tuple[str, ...]]

    def above(self, column: Column) -> dict[Column, Through]:
        """The columns a column is made of, one step up."""
        reading = self.readings.get(column[0])
        return dict(reading.made_of.get(column[1], {})) if reading else {}

    def below(self, column: Column) -> dict[Column, Through]:
        """The columns made of a column, one step down."""
        return self._below.get(column, {})

    @cached_property
    def _below(self) -> dict[Column, dict[Column, Through]]:
        found: dict[Column, dict[Column, Through]] = {}
        for model, reading in self.readings.items():
            for column, origins in reading.made_of.items():
                for origin, through in origins.items():
                    found.setdefault(origin, {})[model, column] = through
        return found

    def sources(self, column: Column) -> list[Column]:
        """The columns of loaded tables that a column goes back to."""
        found: dict[Column, None] = {}
        seen: set[Column] = set()
        waiting = [column]
        while waiting:
            here = waiting.pop()
            if here in seen:
                continue
            seen.add(here)
            above = self.above(here)
            waiting += above
            if not above and here != column and here[0] not in self.readings:
                found[here] = None
        return sorted(found)


def build_graph(
    contracts: Mapping[str, Contract],
    models: Mapping[str, Model],
    without: Iterable[Column] = (),
) -> Graph:
    """Follow every column through every model.

    Args:
        contracts: by table.
        models: by name, in any order.
        without: columns to leave out, as if they were gone or had another name.

    Raises:
        ConfigError: a column to leave out does not exist, or models read each other in a circle.
    """
    gone = set(without)
    types = {
        table: {n: kind for n, kind in contract.column_types().items() if (table, n) not in gone}
        for table, contract in contracts.items()
    }
    readings: dict[str, Reading] = {}
    unknown: dict[str, tuple[str, ...]] = {}
    for model in _ordered(models):
        if lost := tuple(parent for parent in model.parents if parent not in types):
            unknown[model.name] = lost
        reading = _read(model, {p: types[p] for p in model.parents if p in types})
        readings[model.name] = reading
        made = dict.fromkeys(reading.columns, "VARCHAR")
        if model.header.kind == "snapshot":
            made |= VALIDITY
        types[model.name] = {n: kind for n, kind in made.items() if (model.name, n) not in gone}
    _refuse_unknown(gone, contracts, readings, types)
    return Graph({table: list(columns) for table, columns in types.items()}, readings, unknown)


_READ: dict[tuple[str, str], Reading] = {}
"""Readings of this process: a question about one column leaves most models as they were."""


def _read(model: Model, schema: Mapping[str, Mapping[str, str]]) -> Reading:
    key = (model.sql, repr({table: list(columns) for table, columns in schema.items()}))
    if key not in _READ:
        _READ[key] = read_columns(model.query, schema)
    return _READ[key]


def _refuse_unknown(
    gone: Iterable[Column],
    contracts: Mapping[str, Contract],
    readings: Mapping[str, Reading],
    types: Mapping[str, Mapping[str, str]],
) -> None:
    for table, column in sorted(gone):
        if table not in types:
            raise ConfigError(f"No contract and no model declares {table}{did_you_mean(table, types)}")
        made = readings[table].columns if table in readings else list(contracts[table].column_types())
        if column not in made:
            raise ConfigError(f"{table} has no column {column!r}{did_you_mean(column, made)}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The rest of a message about an unknown name: the nearest known one, if any is near."""
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _ordered(models: Mapping[str, Model]) -> list[Model]:
    """As `in_order`, without minding tables that nobody declares."""
    graph = {name: [p for p in model.parents if p in models] for name, model in models.items()}
    try:
        return [models[name] for name in graphlib.TopologicalSorter(graph).static_order()]
    except graphlib.CycleError as error:
        raise ConfigError(f"Models read each other in a circle: {' -> '.join(error.args[1])}") from None
