"""Vendors' records to typed frames by contract, with personal columns protected on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import polars as pl

from omni.errors import ConfigError
from omni.security.hashing import Hasher
from omni.sources.parse import MALFORMED, POLARS_TYPES, parse
from omni.warehouse.contracts import Column, Contract

Record = dict[str, Any]

PARENT = "^."
"""A path that starts so is the parent record's."""


@dataclass
class Typed:
    """A batch in its contracts' columns and types.

    Attributes:
        frames: table name to its rows, in the records' order; columns as the contract orders them.
        rejected: `{"table", "key", "column", "reason"}` of each row left out, free of values.
    """

    frames: dict[str, pl.DataFrame] = field(default_factory=dict)
    rejected: list[dict[str, str]] = field(default_factory=list)

    def rejected_of(self, table: str) -> int:
        """How many rows of one table were left out."""
        return sum(row["table"] == table for row in self.rejected)


def typed(records: list[Record], tables: list[Contract], hasher: Hasher) -> Typed:
    """Type a batch of records.

    A row with a value that does not parse is rejected with its first such column; rows of child tables go
    with their parent.

    Args:
        records: top-level objects. Paths of the contracts' columns lead into them.
        tables: the parent's contract, then those of its nested lists.
        hasher: keys the hashes of personal columns.
    """
    result = Typed()
    parent, *children = tables
    nested = {child.table: _at(records, _rows_path(child)) for child in children}
    no_list = {
        index: child
        for child in children
        for index, rows in enumerate(nested[child.table])
        if not (rows is None or isinstance(rows, list))
    }
    frame, bad = _table(records, [], parent, hasher)
    for index, child in no_list.items():
        bad.setdefault(index, (_rows_path(child), "a list was expected"))
    _put(result, parent, frame, records, [], bad)
    for child in children:
        rows: list[Any] = []
        owners: list[int] = []
        for index, items in enumerate(nested[child.table]):
            if isinstance(items, list):
                rows += items
                owners += [index] * len(items)
        above = [records[index] for index in owners]
        frame, failures = _table(rows, above, child, hasher)
        orphan = (child.parent_key or "", "its parent was rejected")
        failures |= {row: orphan for row, index in enumerate(owners) if index in bad}
        _put(result, child, frame, rows, above, failures)
    return result


def _rows_path(child: Contract) -> str:
    if child.source is None or not child.source.rows:
        raise ConfigError(f"{child.table}: a child table needs source.rows")
    return child.source.rows


def _table(
    rows: list[Any], above: list[Record], contract: Contract, hasher: Hasher
) -> tuple[pl.DataFrame, dict[int, tuple[str, str]]]:
    """All rows, null where a value did not parse, and those rows' first failing column and reason."""
    columns: dict[str, pl.Series] = {}
    bad: dict[int, tuple[str, str]] = {}
    for name, column in contract.columns.items():
        protect = column.personal.protect if column.personal else "clear"
        if protect == "drop":
            columns[name] = pl.Series(name, [None] * len(rows), dtype=POLARS_TYPES[column.type])
            continue
        series, problems = parse(_cells(rows, above, column.path or name), column.type)
        if protect == "hash":
            series = _hashed(series, contract, name, column, hasher)
        if not column.nullable:
            problems |= {
                index: "no value, but the contract requires one"
                for index in series.is_null().arg_true().to_list()
                if index not in problems
            }
        for index, reason in problems.items():
            bad.setdefault(index, (name, reason))
        columns[name] = series.alias(name)
    return pl.DataFrame(columns), bad


def _hashed(series: pl.Series, contract: Contract, name: str, column: Column, hasher: Hasher) -> pl.Series:
    if column.type != "string":
        raise ConfigError(f"{contract.table}.{name}: protect: hash needs type string, not {column.type}")
    return pl.Series(hasher.digests(series.to_list()), dtype=pl.String)


def _cells(rows: list[Any], above: list[Record], path: str) -> list[Any]:
    return _at(above, path.removeprefix(PARENT)) if path.startswith(PARENT) else _at(rows, path)


def _at(rows: list[Any], path: str) -> list[Any]:
    """Each row's value at a dotted path: None where there is none."""
    cells = rows
    for key in path.split("."):
        cells = [
            cell.get(key) if cell.__class__ is dict else None if cell is None else MALFORMED for cell in cells
        ]
    return cells


def _put(
    result: Typed,
    contract: Contract,
    frame: pl.DataFrame,
    rows: list[Any],
    above: list[Record],
    bad: dict[int, tuple[str, str]],
) -> None:
    if bad:
        where = sorted(bad)
        result.rejected += [
            {"table": contract.table, "key": _key(rows, above, contract, index)}
            | dict(zip(("column", "reason"), bad[index], strict=True))
            for index in where
        ]
        keep = pl.repeat(True, frame.height, dtype=pl.Boolean, eager=True).scatter(where, False)
        frame = frame.filter(keep)
    result.frames[contract.table] = frame


def _key(rows: list[Any], above: list[Record], contract: Contract, index: int) -> str:
    """The row's key as text, for finding it at the vendor."""
    parts = []
    for name in contract.key:
        column = contract.columns[name]
        cell = _cells(rows[index : index + 1], above[index : index + 1], column.path or name)[0]
        plain = isinstance(cell, (str, int)) and column.personal is None
        parts.append(str(cell).encode(errors="replace").decode()[:200] if plain else "?")
    return "/".join(parts)
