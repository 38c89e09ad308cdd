"""Vendors' records to typed frames by contract, with personal columns protected on the way."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Protocol

import polars as pl

from omni.errors import ConfigError, SchemaError
from omni.security.hashing import Hasher
from omni.sources.parse import MALFORMED, NOTE, parse, polars_type
from omni.warehouse.contracts import Column, Contract

Record = dict[str, Any]

PARENT = "^."
"""A path that starts so is the parent record's."""

GATHERED = 500
"""Records whose values are moved into columns together: few enough to be in the processor's caches still."""

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
        rejected: `{"table", "key", "column", "reason"}` of each row left out, free of values; of a child's
            row also its "parent"'s key.
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
    """Type a batch of records at once; see `Batch`."""
    batch = Batch(tables, shield, notice_new_fields=notice_new_fields)
    batch.add(records)
    return batch.typed()


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


@dataclass
class _Columns:
    """One table's cells, column by column and page by page; text is kept as a series, which is compact."""

    contract: Contract
    height: int = 0
    pages: dict[str, list[pl.Series | list[Any]]] = field(default_factory=dict)

    def add(self, rows: list[Any], above: list[Record]) -> None:
        """Take a page's rows; `above` are their parent records."""
        whole = _all_at_once(rows, self.contract)
        for path in self.paths():
            cells = whole[path] if path in whole else _cells(rows, above, path)
            self.put(path, cells)
        self.height += len(rows)

    def paths(self) -> list[str]:
        """Where the columns come from; each path once, columns that are never kept left out."""
        columns = self.contract.columns.items()
        return list(dict.fromkeys(column.path or name for name, column in columns if _is_kept(column)))

    def put(self, path: str, cells: list[Any]) -> None:
        """Take one column of a page."""
        if not cells:
            return
        kept: pl.Series | list[Any] = cells
        if cells[0] is None or cells[0].__class__ is str:
            with suppress(TypeError, ValueError, OverflowError):  # some cell is no text
                kept = pl.Series(cells, dtype=pl.String, strict=True)
        self.pages.setdefault(path, []).append(kept)

    def joined(self, path: str) -> pl.Series | list[Any]:
        """A whole column: a series where every cell is text or null."""
        pages = self.pages.get(path, [])
        series = [page for page in pages if isinstance(page, pl.Series)]
        if pages and len(series) == len(pages):
            return pl.concat(series)
        return [cell for page in pages for cell in (page.to_list() if isinstance(page, pl.Series) else page)]

    def key(self, index: int) -> str:
        """A row's key as text, for finding it at the vendor; parts of a key are joined by `|`."""
        parts = []
        for name in self.contract.key:
            column = self.contract.columns[name]
            cell = self._cell(column.path or name, index) if column.personal is None else None
            plain = isinstance(cell, (str, int)) and column.personal is None
            parts.append(str(cell).encode(errors="replace").decode()[:200] if plain else "?")
        return "|".join(parts)

    def _cell(self, path: str, index: int) -> Any:
        for page in self.pages[path]:
            if index < len(page):
                return page[index]
            index -= len(page)
        return None


class Batch:
    """Records on their way to typed frames.

    Each page's values are moved into columns at once, while they are in the processor's caches, so that the
    records themselves can go. A row with a value that does not parse is rejected with its first such column,
    or treated as the contract's `evolution` says; rows of child tables go with their parent.

    Args:
        tables: the parent's contract, then those of its nested lists. Paths of their columns lead into the
            records.
        shield: protects personal columns.
        notice_new_fields: look for fields of the records that the contract does not declare.
        learned: columns that were already made for such fields, by field.
    """

    def __init__(
        self,
        tables: list[Contract],
        shield: Shield,
        *,
        notice_new_fields: bool = False,
        learned: Mapping[str, str] | None = None,
    ) -> None:
        self._shield = shield
        self._parent = _Columns(tables[0])
        self._children = [(_Columns(child), rows_path(child), list[int]()) for child in tables[1:]]
        self._bad: dict[int, tuple[str, str]] = {}
        self._new = _NewFields(tables, learned or {}) if notice_new_fields else None
        self._waiting: list[Record] = []

    def __len__(self) -> int:
        return self._parent.height + len(self._waiting)

    def add(self, records: list[Record]) -> None:
        """Take a page of records."""
        self._waiting += records
        if len(self._waiting) >= GATHERED:
            self._gather()

    def _gather(self) -> None:
        """Move the waiting records' values into columns."""
        if not self._waiting:
            return
        records, self._waiting = self._waiting, []
        start = self._parent.height
        if self._new is not None:
            self._new.look(records, start)
        self._parent.add(records, [])
        for columns, path, owners in self._children:
            rows: list[Any] = []
            above: list[Record] = []
            for index, items in enumerate(_at(records, path)):
                if isinstance(items, list):
                    rows += items
                    above += [records[index]] * len(items)
                    owners.extend([start + index] * len(items))
                elif items is not None:
                    self._bad.setdefault(start + index, (path, "a list was expected"))
            columns.add(rows, above)

    def typed(self) -> Typed:
        """The frames, and the rows that are left out.

        Raises:
            SchemaError: a value that the contract's `evolution` freezes out.
        """
        self._gather()
        result = Typed()
        carrying = self._new.settle(self._parent, result) if self._new else {}
        frame, bad = _table(result, self._parent, self._shield)
        for index, name in carrying.items():
            bad.setdefault(index, (name, "a field the contract does not declare"))
        for index, problem in self._bad.items():
            bad.setdefault(index, problem)
        _put(result, self._parent, frame, bad)
        for columns, _, owners in self._children:
            frame, failures = _table(result, columns, self._shield)
            orphan = (columns.contract.parent_key or "", "its parent was rejected")
            if bad:
                failures |= {row: orphan for row, index in enumerate(owners) if index in bad}
            parents = {row: self._parent.key(owners[row]) for row in failures}
            _put(result, columns, frame, failures, parents)
        return result


class _NewFields:
    """Fields of the parent's records that its contract does not declare, as `evolution.new_fields` says."""

    def __init__(self, tables: list[Contract], learned: Mapping[str, str]) -> None:
        parent, *children = tables
        self._learned = learned
        known = {(column.path or name).partition(".")[0] for name, column in parent.columns.items()}
        self._known = known | {rows_path(child).partition(".")[0] for child in children} | {"id"}
        self._policy = parent.evolution.new_fields
        self._found: dict[str, dict[int, Any]] = {}
        self._carrying: dict[int, str] = {}

    def look(self, records: list[Record], start: int) -> None:
        """Notice a page's; `start` is the number of records before it."""
        if self._policy == "discard":
            return
        for index, record in enumerate(records, start):
            for name in record.keys() - self._known:
                if not name.startswith("_") and record[name] is not None:
                    self._found.setdefault(name, {})[index] = record[name]
                    self._carrying.setdefault(index, name)

    def settle(self, parent: _Columns, result: Typed) -> dict[int, str]:
        """Add their columns to the parent's; returns the rows to reject, with the field of each."""
        table = parent.contract.table
        if not self._found or self._policy == "quarantine":
            return self._carrying
        if self._policy == "freeze":
            raise SchemaError(
                f"{table}: the source sends {', '.join(sorted(self._found))}, which the contract does not "
                "declare. Add it to the contract in data/contracts, or let evolution.new_fields allow it."
            )
        extra: dict[str, Column] = {}
        for name in sorted(self._found):
            taken = {*parent.contract.columns, *extra, *self._learned.values()}
            column = self._learned.get(name) or column_name(name, taken)
            extra[column] = Column(type="string", optional=True, **{"from": name})
            cells: list[Any] = [None] * parent.height
            for index, value in self._found[name].items():
                text = json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value
                cells[index] = text
            parent.put(name, cells)
        result.learned.setdefault(table, {}).update(extra)
        parent.contract = parent.contract.with_columns(extra)
        return {}


def _table(result: Typed, table: _Columns, shield: Shield) -> tuple[pl.DataFrame, dict[int, tuple[str, str]]]:
    """All rows, null where a value did not parse, and those rows' first failing column and reason."""
    contract = table.contract
    columns: dict[str, pl.Series] = {}
    bad: dict[int, tuple[str, str]] = {}
    for name, column in contract.columns.items():
        if not _is_kept(column):
            kind = polars_type(column.type, column.decimals)
            columns[name] = pl.Series(name, [None] * table.height, dtype=kind)
            continue
        cells = table.joined(column.path or name)
        series, problems = parse(cells, column.type, column.decimals)
        if problems and column.nullable and name not in contract.key:
            problems = _misfits(result, columns, contract, name, cells, problems)
        if column.personal and column.personal.protect == "hash":
            series = pl.Series(shield.hasher.digests(series.to_list()), dtype=pl.String)
        if not column.nullable and series.null_count():
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
    cells: pl.Series | list[Any],
    problems: dict[int, str],
) -> dict[int, str]:
    """Treat values that are not of their column's type; returns those that reject their rows."""
    policy = contract.evolution.misfits
    if policy == "freeze":
        reason = next(iter(problems.values()))
        raise SchemaError(
            f"{contract.table}.{name}: {len(problems)} values do not fit, the first: {reason}. Change the "
            "contract in data/contracts, or let evolution.misfits allow it."
        )
    if policy == "quarantine" or (policy == "evolve" and contract.columns[name].personal):
        return problems
    where = f"{contract.table}.{name}"
    result.discarded[where] = result.discarded.get(where, 0) + len(problems)
    if policy == "evolve":
        texts: list[str | None] = [None] * len(cells)
        for index in problems:
            cell = cells[index]
            if cell is not MALFORMED:
                texts[index] = cell.partition(NOTE)[0] if isinstance(cell, str) else json.dumps(cell)
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
    table: _Columns,
    frame: pl.DataFrame,
    bad: dict[int, tuple[str, str]],
    parents: Mapping[int, str] | None = None,
) -> None:
    contract = table.contract
    if bad:
        where = sorted(bad)
        result.rejected += [
            {"table": contract.table, "key": table.key(index)}
            | dict(zip(("column", "reason"), bad[index], strict=True))
            | ({"parent": parents[index]} if parents else {})
            for index in where
        ]
        keep = pl.repeat(True, frame.height, dtype=pl.Boolean, eager=True).scatter(where, False)
        frame = frame.filter(keep)
    result.frames[contract.table] = frame
