"""Batches of records to numbered Parquet files, atomically, with nothing personal in the clear."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import polars as pl

from omni.files import replacing
from omni.security.hashing import Hasher
from omni.sources.records import Record, typed
from omni.sources.vendor import cursor_column
from omni.warehouse.contracts import Contract


@dataclass
class Parts:
    """A stream's files as they grow.

    Attributes:
        path: the folder.
        tables: the parent's contract, then its children's.
        until: the window's end; later changes belong to the next window.
        hasher: keys the hashes of personal columns.
        files: table name to its files, in the order written.
        rows: table name to rows written.
        rejected: rows left out, as `records.Typed.rejected`.
        unknown: column to values that its contract's `accepted` lacks.
        late: records left to the next window.
        parts: parts written.
    """

    path: Path
    tables: list[Contract]
    until: datetime
    hasher: Hasher
    files: dict[str, list[str]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    rejected: list[dict[str, str]] = field(default_factory=list)
    unknown: dict[str, set[str]] = field(default_factory=dict)
    late: int = 0
    parts: int = 0

    @property
    def parent(self) -> str:
        """Name of the parent table."""
        return self.tables[0].table

    def add(self, records: list[Record], *, whole: bool) -> int:
        """Write one part.

        Args:
            records: distinct ones.
            whole: they may hold changes after the window's end, which are left to the next window.

        Returns:
            Records of the window among them, rejected ones included.
        """
        batch = typed(records, self.tables, self.hasher)
        frames = batch.frames
        if whole and (cursor := cursor_column(self.tables[0])):
            frames = self._without_late(frames, cursor)
        for contract in self.tables:
            self._write(contract, frames[contract.table])
        self.parts += 1
        self.rejected += batch.rejected
        return frames[self.parent].height + batch.rejected_of(self.parent)

    def _without_late(self, frames: dict[str, pl.DataFrame], cursor: str) -> dict[str, pl.DataFrame]:
        parent = self.tables[0]
        rows = frames[self.parent]
        late = rows.filter(pl.col(cursor) >= self.until)
        if late.is_empty():
            return frames
        self.late += late.height
        gone = late[parent.key[0]].implode()
        kept = {self.parent: rows.filter(~pl.col(parent.key[0]).is_in(gone))}
        for child in self.tables[1:]:
            kept[child.table] = frames[child.table].filter(~pl.col(child.parent_key or "").is_in(gone))
        return kept

    def _write(self, contract: Contract, frame: pl.DataFrame) -> None:
        files = self.files.setdefault(contract.table, [])
        self.rows[contract.table] = self.rows.get(contract.table, 0) + frame.height
        for name, column in contract.columns.items():
            if column.accepted and not column.personal:
                values = set(frame[name].drop_nulls().unique().to_list())
                self.unknown.setdefault(f"{contract.table}.{name}", set()).update(
                    values - set(column.accepted)
                )
        if frame.is_empty():
            return
        file = f"{contract.table}-{self.parts:05d}.parquet"
        with replacing(self.path / file) as temporary:
            frame.write_parquet(temporary, compression="zstd")
        files.append(file)
