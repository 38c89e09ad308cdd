"""Batches of records to numbered Parquet files, atomically, with nothing personal in the clear.

After each part a note of how far reading came is written beside the files, so that a reading that was
killed goes on behind its last whole part.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import polars as pl

from omni.files import replacing, write_atomic
from omni.sources.records import Batch, Record, Shield
from omni.sources.vendor import cursor_column
from omni.warehouse.contracts import Column, Contract
from omni.warehouse.staged import REJECTED

PROGRESS = "progress.json"
SEEN = "seen-{:05d}.bin"
DIGEST = 16


@dataclass
class Tally:
    """What was written so far; survives a crash.

    Attributes:
        files: table name to its files, in the order written.
        rows: table name to rows written.
        rejected: rows left out.
        unknown: column to values that its contract's `accepted` lacks.
        discarded: column to values that did not fit it and are null.
        learned: table name to columns beside the contract's.
        read: the window's records among those the vendor counts, rejected ones included.
        uncounted: the same of those it leaves out of its count.
        late: records changed after the window's end.
        unsure: records rejected among those read; they may be late.
        gone: ids that the source says it no longer has.
        parts: parts written.
        expected: how many the vendor said the window holds, before reading.
        resume: where reading goes on.
        token: where following the source's changes goes on, taken before reading began.
    """

    files: dict[str, list[str]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    rejected: int = 0
    unknown: dict[str, list[str]] = field(default_factory=dict)
    discarded: dict[str, int] = field(default_factory=dict)
    learned: dict[str, dict[str, Any]] = field(default_factory=dict)
    read: int = 0
    uncounted: int = 0
    late: int = 0
    unsure: int = 0
    gone: list[str] = field(default_factory=list)
    parts: int = 0
    expected: int | None = None
    resume: Any = None
    token: Any = None


@dataclass
class Parts:
    """A stream's files as they grow.

    Attributes:
        path: the folder.
        tables: the parent's contract, then its children's; columns learnt from the vendor included.
        until: the window's end; later changes belong to the next window.
        shield: protects personal columns.
        notice_new_fields: look for undeclared fields in the records.
        whole: everything is read, so that what is absent is gone; late records then are kept, not left to the
            next window.
        tally: what was written.
        seen: digests of the records' ids: each record is taken once.
    """

    path: Path
    tables: list[Contract]
    until: datetime
    shield: Shield
    notice_new_fields: bool = False
    whole: bool = False
    tally: Tally = field(default_factory=Tally)
    seen: set[bytes] = field(default_factory=set)
    _new: list[bytes] = field(default_factory=list)
    _batch: Batch | None = None
    _rejected: list[dict[str, str]] = field(default_factory=list)

    @property
    def parent(self) -> str:
        """Name of the parent table."""
        return self.tables[0].table

    def take(
        self,
        records: list[Record],
        rejected: Iterable[dict[str, str]] = (),
        gone: Iterable[str] = (),
    ) -> None:
        """Take a page's records, those seen before left out, rows that could not become records, and losses.

        The first reading of a record stands: a later change is the next window's.
        """
        kept = []
        for record in records:
            digest = blake2b(str(record["id"]).encode(errors="replace"), digest_size=DIGEST).digest()
            if digest not in self.seen:
                self.seen.add(digest)
                self._new.append(digest)
                kept.append(record)
        if self._batch is None:
            known = self.tally.learned.get(self.parent, {})
            self._batch = Batch(
                self.tables,
                self.shield,
                notice_new_fields=self.notice_new_fields,
                learned={column["from"]: name for name, column in known.items() if column.get("from")},
            )
        self._batch.add(kept)
        self._rejected += rejected
        self.tally.gone += gone

    @property
    def waiting(self) -> int:
        """Rows taken and not yet written."""
        return (0 if self._batch is None else len(self._batch)) + len(self._rejected)

    def write(self, *, counted: bool, resume: Any) -> None:
        """Write what was taken as one part, then note where to go on.

        Args:
            counted: the vendor counts them, and they may hold changes after the window's end.
            resume: where reading goes on behind them; None where it cannot.
        """
        if self._batch is None:
            self.take([])
        assert self._batch is not None
        batch, self._batch = self._batch.typed(), None
        rejected, self._rejected = self._rejected, []
        tally = self.tally
        frames = batch.frames
        late = 0
        if counted and (cursor := cursor_column(self.tables[0])):
            late, in_time = self._without_late(frames, cursor)
            frames = frames if self.whole else in_time
        for contract in self.tables:
            self._write(contract, frames[contract.table])
        left_out = [*rejected, *batch.rejected]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in left_out)
        if lines:
            write_atomic(self.path / f"rejected-{tally.parts:05d}.jsonl", lines)
        for table, columns in batch.learned.items():
            known = tally.learned.setdefault(table, {})
            known |= {name: column.model_dump(mode="json", by_alias=True) for name, column in columns.items()}
        for column_, count in batch.discarded.items():
            tally.discarded[column_] = tally.discarded.get(column_, 0) + count
        tally.rejected += len(left_out)
        lost = sum(row["table"] == self.parent for row in left_out)
        of_parent = frames[self.parent].height + lost
        if counted:
            tally.read += of_parent - (late if self.whole else 0)
            tally.late += late
            tally.unsure += lost
        else:
            tally.uncounted += of_parent
        write_atomic(self.path / SEEN.format(tally.parts), b"".join(self._new))
        self._new.clear()
        tally.parts += 1
        tally.resume = resume

    def save(self, heading: dict[str, Any]) -> None:
        """Note how far reading came; `heading` says what is being read."""
        write_atomic(self.path / PROGRESS, json.dumps(heading | {"tally": asdict(self.tally)}))

    def restore(self, tally: dict[str, Any]) -> Self:
        """Take up what an earlier process noted."""
        self.tally = Tally(**tally)
        for number in range(self.tally.parts):
            digests = (self.path / SEEN.format(number)).read_bytes()
            self.seen.update(digests[n : n + DIGEST] for n in range(0, len(digests), DIGEST))
        return self

    def finish(self) -> None:
        """Gather the rejected rows into one file and drop what only resuming needs."""
        pieces = [self.path / f"rejected-{n:05d}.jsonl" for n in range(self.tally.parts)]
        write_atomic(self.path / REJECTED, b"".join(p.read_bytes() for p in pieces if p.exists()))
        for number, piece in enumerate(pieces):
            piece.unlink(missing_ok=True)
            (self.path / SEEN.format(number)).unlink(missing_ok=True)

    def learn(self, extra: dict[str, Column]) -> None:
        """Read these columns of the parent beside its contract's."""
        if extra:
            self.tables = [self.tables[0].with_columns(extra), *self.tables[1:]]
            self.tally.learned.setdefault(self.parent, {}).update(
                {name: column.model_dump(mode="json", by_alias=True) for name, column in extra.items()}
            )

    def _without_late(
        self, frames: dict[str, pl.DataFrame], cursor: str
    ) -> tuple[int, dict[str, pl.DataFrame]]:
        """How many of the parent's rows changed after the window's end, and the frames without them."""
        parent = self.tables[0]
        rows = frames[self.parent]
        is_late = (pl.col(cursor) >= self.until).fill_null(value=False)
        late = rows.filter(is_late)
        if late.is_empty():
            return 0, frames
        gone = late[parent.key[0]].implode()
        kept = {self.parent: rows.filter(~is_late)}
        for child in self.tables[1:]:
            kept[child.table] = frames[child.table].filter(~pl.col(child.parent_key or "").is_in(gone))
        return late.height, kept

    def _write(self, contract: Contract, frame: pl.DataFrame) -> None:
        files = self.tally.files.setdefault(contract.table, [])
        self.tally.rows[contract.table] = self.tally.rows.get(contract.table, 0) + frame.height
        for name, column in contract.columns.items():
            if column.accepted and not column.personal:
                values = set(frame[name].drop_nulls().unique().to_list()) - set(column.accepted)
                where = f"{contract.table}.{name}"
                if values:
                    self.tally.unknown[where] = sorted(values | set(self.tally.unknown.get(where, [])))
        if frame.is_empty():
            return
        file = f"{contract.table}-{self.tally.parts:05d}.parquet"
        with replacing(self.path / file) as temporary:
            frame.write_parquet(temporary, compression="lz4", statistics=False)
        files.append(file)
