"""The spool: accepted events on disk, safe before they are acknowledged, in segments that are loaded once.

A segment is a file of frames. A frame is one append: its length, its checksum, what was counted and refused
(JSON), the events (Arrow). `append` returns after fsync, and the next frame is written only then: whatever
was acknowledged is a whole prefix of the file, and a torn tail was never acknowledged. A writer holds a lock
on the segment it writes (`.open`), which the system frees when the process dies, however it dies; a sealed
segment (`.seg`) is complete and changes no more. A writer that seals ends the segment with a mark: what is
not whole before the mark, or before a whole frame, is damage and no torn tail.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from omni.errors import StorageError
from omni.files import private_folder
from omni.settings import settings
from omni.tenancy import Tenant

MAGIC = b"OMNIEV1\n"
HEAD = struct.Struct("<II")
LENGTH = struct.Struct("<I")
SEAL_BYTES = 64 * 1024 * 1024
"""A segment of this size is sealed by itself."""
LARGEST = 1 << 30
"""Bytes of a frame; more is refused, and a length above it is damage."""
EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
"""No event is older: such times are mistakes, and days before the year 1 cannot be counted with."""
BEGINNING = b'{"letters":'
"""How the notes of every frame begin, to find the next frame behind damage."""
STALE_SECONDS = 3600.0
"""After so long a file that never got its name is a dead process's."""
MEASURE_SECONDS = 1.0
"""How long a measured size of the folder holds, beside what is written here."""

SCHEMA: Any = pa.schema(
    [
        *((name, pa.string()) for name in ("source", "event_id", "account", "actor_id", "session_id")),
        ("event", pa.string()),
        ("properties", pa.string()),
        ("occurred_at", pa.timestamp("us", "UTC")),
        ("received_at", pa.timestamp("us", "UTC")),
    ]
)
"""The contract's columns, in the order they are spooled."""

log = logging.getLogger(__name__)
_numbers = itertools.count()


class Letter(msgspec.Struct, frozen=True):
    """An event that could not be taken: its key as far as it is known, and why; nothing of its content."""

    key: str
    column: str
    reason: str


class Notes(msgspec.Struct):
    """What goes with a frame's events."""

    letters: list[Letter] = []
    dropped: dict[str, int] = {}
    end: bool = False
    """The mark: the writer sealed the segment here."""


class NoSegment(StorageError):
    """A file of the spool is none of its segments."""


@dataclass(frozen=True)
class Batch:
    """Events that were read together.

    Attributes:
        rows: of `SCHEMA`.
        letters: those that were refused.
        dropped: how many properties were dropped, by "event: why".
    """

    rows: Any
    letters: list[Letter] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to keep."""
        return not (self.rows.num_rows or self.letters or self.dropped)

    @property
    def bytes(self) -> int:
        """About how many bytes it takes in the spool."""
        letters = sum(len(one.key) + len(one.column) + len(one.reason) + 50 for one in self.letters)
        return int(self.rows.nbytes) + letters


def merged(batches: Sequence[Batch]) -> Batch:
    """Several batches as one, so that one write and one fsync keep them all."""
    if len(batches) == 1:
        return batches[0]
    table = pa.Table.from_batches([batch.rows for batch in batches], SCHEMA).combine_chunks()
    whole = table.to_batches()
    rows = whole[0] if whole else pa.RecordBatch.from_pylist([], SCHEMA)
    letters = [letter for batch in batches for letter in batch.letters]
    return Batch(rows, letters, sum((batch.dropped for batch in batches), Counter[str]()))


def spool_folder(tenant: Tenant) -> Path:
    """Where a tenant's segments lie."""
    return tenant.home / "spool" / "events"


class Spool:
    """Writes one tenant's events; its methods may be called from several threads.

    Args:
        folder: where the segments lie; other processes may write there too, each segments of its own.
        seal_bytes: size at which a segment is sealed.
        largest: bytes of the largest frame that is taken.
        most_bytes: what may lie in the folder, in all; None: as much as the disk holds.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seal_bytes: int = SEAL_BYTES,
        largest: int = LARGEST,
        most_bytes: int | None = None,
    ) -> None:
        self.folder = folder
        self._seal_bytes = seal_bytes
        self._largest = largest
        self._most_bytes = most_bytes
        self._used, self._measured = 0, float("-inf")
        self._lock = threading.Lock()
        self._handle: int | None = None
        self._path: Path | None = None
        self._size = 0

    @classmethod
    def of(cls, tenant: Tenant, *, most_bytes: int | None = None) -> Spool:
        """A tenant's spool. Segments that a dead process left open are sealed."""
        folder = spool_folder(tenant)
        for path in (settings().home, settings().home / "tenants", tenant.home, folder.parent, folder):
            private_folder(path)
        recover(folder)
        return cls(folder, most_bytes=most_bytes)

    def append(self, batch: Batch) -> None:
        """Keep a batch; once this returns it survives any crash.

        Raises:
            StorageError: it could not be written, is too large or the spool is full; nothing of it is
                acknowledged.
        """
        if batch.empty:
            return
        payload = _payload(Notes(batch.letters, dict(batch.dropped)), batch.rows)
        if len(payload) > self._largest:
            raise StorageError(
                f"{len(payload)} bytes of events at once; at most {self._largest} can be kept. They were not "
                "accepted; send fewer at a time."
            )
        with self._lock:
            self._make_room(len(payload))
            try:
                if self._handle is None:
                    self._open()
                assert self._handle is not None
                _write(self._handle, _frame(payload), self._size)
                os.fsync(self._handle)
            except OSError as error:
                self._give_up()
                raise StorageError(
                    f"Events cannot be written to {self.folder}: {error.strerror or error}. They were not "
                    "accepted; free space or make the folder writable."
                ) from error
            self._size += HEAD.size + len(payload)
            if self._size >= self._seal_bytes:
                try:
                    self._seal()
                except StorageError as error:  # the events are safe all the same
                    log.error("%s", error)  # noqa: TRY400

    def seal(self) -> Path | None:
        """Close the open segment so that it can be loaded; None if it holds nothing."""
        with self._lock:
            return self._seal()

    def _make_room(self, size: int) -> None:
        if self._most_bytes is None:
            return
        if time.monotonic() - self._measured > MEASURE_SECONDS:
            self._used, self._measured = spool_bytes(self.folder), time.monotonic()
        if self._used + size > self._most_bytes:
            raise StorageError(
                f"The spool {self.folder} is full: {self._used} of {self._most_bytes} bytes. Nothing more is "
                "accepted until events are loaded (omni events load); OMNI_EVENTS__SPOOL_BYTES is the limit."
            )
        self._used += size

    def _open(self) -> None:
        name = f"{time.time_ns():020d}-{os.getpid()}-{next(_numbers)}"
        hidden = self.folder / f".{name}.new"
        handle = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._handle, self._path, self._size = handle, hidden, len(MAGIC)
        # Locked before it has its name: nobody can take it for a dead process's.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write(handle, MAGIC, 0)
        self._path = hidden.rename(self.folder / f"{name}.open")
        _sync_folder(self.folder)

    def _seal(self) -> Path | None:
        if self._handle is None or self._path is None or self._size <= len(MAGIC):
            return None
        self._mark()
        try:
            sealed = self._path.rename(self._path.with_suffix(".seg"))
        except OSError as error:
            raise StorageError(f"Cannot seal {self._path}: {error.strerror or error}") from error
        # Whatever comes now, the segment may be loaded and removed: nothing more may be written to it.
        handle, self._handle, self._path = self._handle, None, None
        with suppress(OSError):
            os.close(handle)
        try:
            _sync_folder(self.folder)
        except OSError as error:
            raise StorageError(
                f"{sealed} is sealed, but its folder could not be made safe: {error.strerror or error}"
            ) from error
        return sealed

    def _mark(self) -> None:
        """Say that the segment ends here. Without the mark it is read as one that a dead process left."""
        assert self._handle is not None
        mark = _frame(_payload(Notes(end=True)))
        try:
            _write(self._handle, mark, self._size)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._handle, self._size)

    def _give_up(self) -> None:
        """After a failed write: keep what was acknowledged, and begin another segment next time."""
        if self._handle is None or self._path is None:
            return
        with suppress(OSError):
            os.ftruncate(self._handle, self._size)
            if self._size <= len(MAGIC):
                self._path.unlink()
            else:
                self._path.rename(self._path.with_suffix(".seg"))
        os.close(self._handle)
        self._handle = self._path = None


def _payload(notes_of: Notes, rows: Any = None) -> bytes:
    notes = msgspec.json.encode(notes_of)
    body = rows.serialize().to_pybytes() if rows is not None and rows.num_rows else b""
    # Arrow reads without copying where its bytes begin on a multiple of eight.
    notes += b" " * (-(LENGTH.size + HEAD.size + len(notes)) % 8)
    return LENGTH.pack(len(notes)) + notes + bytes(body)


def _frame(payload: bytes) -> bytes:
    return HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def _write(handle: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, at)
        view, at = view[written:], at + written


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def recover(folder: Path) -> list[Path]:
    """Seal the segments that dead processes left open; those of living ones are left alone."""
    sealed = []
    for path in sorted(folder.glob("*.open")):
        try:
            handle = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and path.stat().st_ino == os.fstat(handle).st_ino:
                sealed.append(path.rename(path.with_suffix(".seg")))
        except BlockingIOError:
            pass  # its writer lives
        finally:
            os.close(handle)
    for path in folder.glob(".*.new"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()
    if sealed:
        _sync_folder(folder)
    return sealed


def spool_bytes(folder: Path) -> int:
    """Bytes of everything in a spool's folder."""
    used = 0
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):
            used += path.stat().st_size
    return used


def sealed_segments(folder: Path) -> list[Path]:
    """Segments that may be loaded, oldest first."""
    return sorted(folder.glob("*.seg"))


def damaged_segments(folder: Path) -> list[Path]:
    """Files that were put aside because something in them cannot be read."""
    return sorted(folder.glob("*.bad"))


@dataclass(frozen=True)
class Segment:
    """A segment's content: events, refusals, counts.

    `cut` bytes at its end are torn and were left out: nobody was told that they are kept. `lost` bytes are
    damaged although they were acknowledged.
    """

    path: Path
    rows: Any
    letters: list[Letter]
    dropped: Counter[str]
    cut: int
    lost: int = 0

    @property
    def name(self) -> str:
        """What the segment is remembered by."""
        return self.path.stem


def read_segment(path: Path) -> Segment:
    """Read everything of a segment that is whole.

    Raises:
        NoSegment: it is no segment.
        StorageError: it cannot be read now.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(f"Cannot read the segment {path}: {error.strerror or error}") from error
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise NoSegment(f"{path} is no segment of events; move it out of the spool")
    batches: list[Any] = []
    letters: list[Letter] = []
    dropped: Counter[str] = Counter()
    end, lost = min(len(MAGIC), len(data)), 0
    for notes, rows, start, after in _frames(data):
        letters += notes.letters
        dropped.update(notes.dropped)
        if rows is not None:
            batches.append(rows)
        lost, end = lost + start - end, after
    cut = len(data) - end
    if lost:
        log.error("%s: %d bytes of accepted events are damaged and cannot be read", path.name, lost)
    if cut:
        log.warning("%s: %d torn bytes at its end were left out; nobody was told they are kept", path.name,
                    cut)  # fmt: skip
    return Segment(path, pa.Table.from_batches(batches, SCHEMA), letters, dropped, cut, lost)


def _frames(data: bytes) -> Iterator[tuple[Notes, Any, int, int]]:
    """Each whole frame's notes and rows, where it begins and ends; damage between them is skipped."""
    view, at = memoryview(data), len(MAGIC)
    while at + HEAD.size <= len(view):
        if (frame := _whole_frame(view, at)) is not None:
            notes, rows, after = frame
            yield notes, rows, at, after
            at = after
        elif (found := data.find(BEGINNING, at + 1 + HEAD.size + LENGTH.size)) >= 0:
            at = found - HEAD.size - LENGTH.size
        else:
            return


def _whole_frame(view: memoryview, at: int) -> tuple[Notes, Any, int] | None:
    length, checksum = HEAD.unpack_from(view, at)
    payload = view[at + HEAD.size : at + HEAD.size + length]
    if not LENGTH.size <= length <= LARGEST or len(payload) < length or zlib.crc32(payload) != checksum:
        return None
    size = LENGTH.size + LENGTH.unpack_from(payload)[0]
    try:
        notes = msgspec.json.decode(payload[LENGTH.size : size], type=Notes)
        rows = pa.ipc.read_record_batch(pa.py_buffer(payload[size:]), SCHEMA) if length > size else None
    except (msgspec.DecodeError, pa.ArrowException, OSError):
        return None
    return notes, rows, at + HEAD.size + length
