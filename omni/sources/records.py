"""Vendors' records to typed frames by contract, with personal columns protected on the way."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Protocol

import polars as pl

from omni.errors import ConfigError, SchemaError
from omni.security.hashing import Hasher
from omni.sources.parse import MALFORMED, parse, polars_type
from omni.warehouse.contracts import Column, Contract

Record = dict[str, Any]

PARENT = "^."
"""A path that starts so is the parent record's."""

TEXT_SUFFIX = "__text"
"""Ends the name of the column that keeps what did not fit its own (`evolution.misfits: evolve`)."""


class Cipher(Protocol):
    """Encrypts values under a key of the person's own; `omni.security.encryption.SubjectKeys`."""

    def encrypt(self, subject: str, ids: list[str | None], values: list[str | None]) -> list[str | None]:
        """Each value under its subject's key; None where there is no value or the key was destroyed."""


@dataclass(frozen=True)
class Shield:
    """How personal columns are protected: keyed hashes, and keys of the subjects' own."""

    hasher: Hasher
    cipher: Cipher | None = None


@dataclass
class Typed:
    """A batch in its contracts' columns and types.

    Attributes:
        frames: table name to its rows, in the records' order; columns as the contract orders them.
        rejected: `{"table", "key", "column", "reason"}` of each row left out, free of values.
        learned: table name to columns beside the contract's, as its `evolution` allows.
        discarded: column to the number of values that did not fit it and are null.
    """

    frames: dict[str, pl.DataFrame] = field(default_factory=dict)
    rejected: list[dict[str, str]] = field(default_factory=list)
    learned: dict[str, dict[str, Column]] = field(default_factory=dict)
    discarded: dict[str, int] = field(default_factory=dict)

    def rejected_of(self, table: str) -> int:
        """How many rows of one table were left out."""
        return sum(row["table"] == table for row in self.rejected)


def typed(
    records: list[Record], tables: list[Contract], shield: Shield, *, notice_new_fields: bool = False
) -> Typed:
    """Type a batch of records.

    A row with a value that does not parse is rejected with its first such column, or treated as the
    contract's `evolution` says; rows of child tables go with their parent.

    Args:
        records: top-level objects. Paths of the contracts' columns lead into them.
        tables: the parent's contract, then those of its nested lists.
        shield: protects personal columns.
        notice_new_fields: look for fields of the records that the contract does not declare.

    Raises:
        SchemaError: a field or value that the contract's `evolution` freezes out.
    """
    result = Typed()
    parent, *children = tables
    nested = {child.table: _at(records, rows_path(child)) for child in children}
    no_list = {
        index: child
        for child in children
        for index, rows in enumerate(nested[child.table])
        if not (rows is None or isinstance(rows, list))
    }
    carrying: dict[int, str] = {}
    if notice_new_fields and parent.evolution.new_fields != "discard":
        parent, carrying = _with_new_fields(records, parent, children, result)
    frame, bad = _table(result, records, [], parent, shield)
    for index, name in carrying.items():
        bad.setdefault(index, (name, "a field the contract does not declare"))
    for index, child in no_list.items():
        bad.setdefault(index, (rows_path(child), "a list was expected"))
    _put(result, parent, frame, records, [], bad)
    for child in children:
        rows: list[Any] = []
        owners: list[int] = []
        for index, items in enumerate(nested[child.table]):
            if isinstance(items, list):
                rows += items
                owners += [index] * len(items)
        above = [records[index] for index in owners]
        frame, failures = _table(result, rows, above, child, shield)
        orphan = (child.parent_key or "", "its parent was rejected")
        failures |= {row: orphan for row, index in enumerate(owners) if index in bad}
        _put(result, child, frame, rows, above, failures)
    return result


def rows_path(child: Contract) -> str:
    """Where the parent's records hold a child table's rows.

    Raises:
        ConfigError: the contract does not say.
    """
    if child.source is None or not child.source.rows:
        raise ConfigError(f"{child.table}: a child table needs source.rows")
    return child.source.rows


def column_name(path: str, taken: Collection[str]) -> str:
    """A column's name for a source's field: `"Last Name"` gives `last_name`; never one that is taken."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", path)
    name = re.sub(r"\W+", "_", words).strip("_").lower() or "field"
    name = f"f_{name}" if name[0].isdigit() else name
    unique, n = name, 2
    while unique in taken:
        unique, n = f"{name}_{n}", n + 1
    return unique


def _with_new_fields(
    records: list[Record], parent: Contract, children: list[Contract], result: Typed
) -> tuple[Contract, dict[int, str]]:
    """The contract with columns for new fields, or the rows that carry one and its name."""
    known = {(column.path or name).partition(".")[0] for name, column in parent.columns.items()}
    known |= {rows_path(child).partition(".")[0] for child in children} | {"id"}
    found: dict[str, int] = {}
    carrying: dict[int, str] = {}
    for index, record in enumerate(records):
        for name in record.keys() - known:
            if not name.startswith("_") and record[name] is not None:
                found.setdefault(name, index)
                carrying.setdefault(index, name)
    if not found:
        return parent, {}
    if parent.evolution.new_fields == "freeze":
        raise SchemaError(
            f"{parent.table}: the source sends {', '.join(sorted(found))}, which the contract does not "
            "declare. Add it to the contract in data/contracts, or let evolution.new_fields allow it."
        )
    if parent.evolution.new_fields == "quarantine":
        return parent, carrying
    extra: dict[str, Column] = {}
    for name in sorted(found):
        column = column_name(name, {*parent.columns, *extra})
        extra[column] = Column(type="string", optional=True, **{"from": name})
    result.learned.setdefault(parent.table, {}).update(extra)
    return parent.with_columns(extra), {}


def _table(
    result: Typed, rows: list[Any], above: list[Record], contract: Contract, shield: Shield
) -> tuple[pl.DataFrame, dict[int, tuple[str, str]]]:
    """All rows, null where a value did not parse, and those rows' first failing column and reason."""
    columns: dict[str, pl.Series] = {}
    bad: dict[int, tuple[str, str]] = {}
    learned = result.learned.get(contract.table, {})
    whole = _all_at_once(rows, contract)
    for name, column in contract.columns.items():
        protect = column.personal.protect if column.personal else "clear"
        if protect == "drop":
            kind = polars_type(column.type, column.decimals)
            columns[name] = pl.Series(name, [None] * len(rows), dtype=kind)
            continue
        path = column.path or name
        cells = whole[path] if path in whole else _cells(rows, above, path)
        if name in learned:
            cells = [json.dumps(c, ensure_ascii=False) if isinstance(c, (dict, list)) else c for c in cells]
        series, problems = parse(cells, column.type, column.decimals)
        if problems and column.nullable and name not in contract.key:
            problems = _misfits(result, columns, contract, name, cells, problems)
        if protect == "hash":
            series = pl.Series(shield.hasher.digests(series.to_list()), dtype=pl.String)
        if not column.nullable:
            problems |= {
                index: "no value, but the contract requires one"
                for index in series.is_null().arg_true().to_list()
                if index not in problems
            }
        for index, reason in problems.items():
            bad.setdefault(index, (name, reason))
        columns[name] = series.alias(name)
    return _encrypted(pl.DataFrame(columns), contract, shield), bad


def _misfits(
    result: Typed,
    columns: dict[str, pl.Series],
    contract: Contract,
    name: str,
    cells: list[Any],
    problems: dict[int, str],
) -> dict[int, str]:
    """Treat values that are not of their column's type; returns those that reject their rows."""
    policy = contract.evolution.misfits
    if policy == "freeze":
        index, reason = next(iter(problems.items()))
        raise SchemaError(
            f"{contract.table}.{name}: {len(problems)} values do not fit, the first: {reason}. Change the "
            "contract in data/contracts, or let evolution.misfits allow it."
        )
    if policy == "quarantine" or (policy == "evolve" and contract.columns[name].personal):
        return problems
    where = f"{contract.table}.{name}"
    result.discarded[where] = result.discarded.get(where, 0) + len(problems)
    if policy == "evolve":
        texts = [None] * len(cells)
        for index in problems:
            cell = cells[index]
            texts[index] = None if cell is MALFORMED else cell if isinstance(cell, str) else json.dumps(cell)  # type: ignore[call-overload]
        kept = f"{name}{TEXT_SUFFIX}"
        columns[kept] = pl.Series(kept, texts, dtype=pl.String)
        result.learned.setdefault(contract.table, {})[kept] = Column(type="string", optional=True)
    return {}


def _encrypted(frame: pl.DataFrame, contract: Contract, shield: Shield) -> pl.DataFrame:
    for name, column in contract.columns.items():
        personal = column.personal
        if personal is None or personal.protect != "encrypt":
            continue
        if shield.cipher is None:
            raise ConfigError(f"{contract.table}.{name}: protect: encrypt needs the subjects' keys")
        owner = personal.subject_id or contract.key[0]
        ids = frame[owner].cast(pl.String).to_list()
        values = shield.cipher.encrypt(personal.subject, ids, frame[name].to_list())
        frame = frame.with_columns(pl.Series(name, values, dtype=pl.String))
    return frame


def _all_at_once(rows: list[Any], contract: Contract) -> dict[str, list[Any]]:
    """The columns that are plain keys of the rows, by key; empty where a row lacks one.

    A row's values lie together in memory, so taking them row by row is faster than column by column.
    """
    paths = [column.path or name for name, column in contract.columns.items() if _is_kept(column)]
    keys = list(dict.fromkeys(path for path in paths if "." not in path and not path.startswith(PARENT)))
    if len(keys) < 2 or not rows:
        return {}
    try:
        return dict(zip(keys, map(list, zip(*map(itemgetter(*keys), rows), strict=True)), strict=True))
    except (KeyError, TypeError, IndexError):
        return {}


def _is_kept(column: Column) -> bool:
    return column.personal is None or column.personal.protect != "drop"


def _cells(rows: list[Any], above: list[Record], path: str) -> list[Any]:
    return _at(above, path.removeprefix(PARENT)) if path.startswith(PARENT) else _at(rows, path)


def _at(rows: list[Any], path: str) -> list[Any]:
    """Each row's value at a dotted path: None where there is none."""
    cells = rows
    for key in path.split("."):
        try:
            # Nearly always each has the key; one pass in C is then three times as fast.
            cells = list(map(itemgetter(key), cells))
        except (KeyError, TypeError, IndexError):
            cells = [
                cell.get(key) if cell.__class__ is dict else None if cell is None else MALFORMED
                for cell in cells
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
    """The row's key as text, for finding it at the vendor; parts of a key are joined by `|`."""
    parts = []
    for name in contract.key:
        column = contract.columns[name]
        cell = _cells(rows[index : index + 1], above[index : index + 1], column.path or name)[0]
        plain = isinstance(cell, (str, int)) and column.personal is None
        parts.append(str(cell).encode(errors="replace").decode()[:200] if plain else "?")
    return "|".join(parts)
