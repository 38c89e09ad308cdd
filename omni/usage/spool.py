"""The spool: accepted events on disk, safe before they are acknowledged, in segments that are loaded once.

A segment is a file of frames. A frame is one append: its length, its checksum, what was counted and refused
(JSON), the events (Arrow). `append` returns after fsync, and the next frame is written only then: whatever
was acknowledged is a whole prefix of the file, and a torn tail was never acknowledged. A writer holds a lock
on the segment it writes (`.open`), which the system frees when the process dies, however it dies; a sealed
segment (`.seg`) is complete and changes no more.
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
"""Bytes of a frame; a length above it is damage."""

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
    """

    def __init__(self, folder: Path, *, seal_bytes: int = SEAL_BYTES) -> None:
        self.folder = folder
        self._seal_bytes = seal_bytes
        self._lock = threading.Lock()
        self._handle: int | None = None
        self._path: Path | None = None
        self._size = 0

    @classmethod
    def of(cls, tenant: Tenant) -> Spool:
        """A tenant's spool. Segments that a dead process left open are sealed."""
        folder = spool_folder(tenant)
        for path in (settings().home, settings().home / "tenants", tenant.home, folder.parent, folder):
            private_folder(path)
        recover(folder)
        return cls(folder)

    def append(self, batch: Batch) -> None:
        """Keep a batch; once this returns it survives any crash.

        Raises:
            StorageError: it could not be written; nothing of it is acknowledged.
        """
        if batch.empty:
            return
        payload = _payload(batch)
        with self._lock:
            try:
                if self._handle is None:
                    self._open()
                assert self._handle is not None
                _write(self._handle, HEAD.pack(len(payload), zlib.crc32(payload)) + payload, self._size)
                os.fsync(self._handle)
            except OSError as error:
                self._give_up()
                raise StorageError(
                    f"Events cannot be written to {self.folder}: {error.strerror or error}. They were not "
                    "accepted; free space or make the folder writable."
                ) from error
            self._size += HEAD.size + len(payload)
            if self._size >= self._seal_bytes:
                self._seal()

    def seal(self) -> Path | None:
        """Close the open segment so that it can be loaded; None if it holds nothing."""
        with self._lock:
            return self._seal()

    def _open(self) -> None:
        name = f"{time.time_ns():020d}-{os.getpid()}-{next(_numbers)}"
        hidden = self.folder / f".{name}.new"
        handle = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._handle, self._path, self._size = handle, hidden, len(MAGIC)
        # Locked before it has its name: nobody can take it for a dead process's.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write(handle, MAGIC, 0)
        self._path = self.folder / f"{name}.open"
        hidden.rename(self._path)
        _sync_folder(self.folder)

    def _seal(self) -> Path | None:
        if self._handle is None or self._path is None or self._size <= len(MAGIC):
            return None
        sealed = self._path.with_suffix(".seg")
        try:
            self._path.rename(sealed)
            _sync_folder(self.folder)
        except OSError as error:
            raise StorageError(f"Cannot seal {self._path}: {error.strerror or error}") from error
        os.close(self._handle)
        self._handle = self._path = None
        return sealed

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


def _payload(batch: Batch) -> bytes:
    notes = msgspec.json.encode(Notes(batch.letters, dict(batch.dropped)))
    body = batch.rows.serialize().to_pybytes() if batch.rows.num_rows else b""
    # Arrow reads without copying where its bytes begin on a multiple of eight.
    notes += b" " * (-(LENGTH.size + HEAD.size + len(notes)) % 8)
    return LENGTH.pack(len(notes)) + notes + bytes(body)


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
    if sealed:
        _sync_folder(folder)
    return sealed


def sealed_segments(folder: Path) -> list[Path]:
    """Segments that may be loaded, oldest first."""
    return sorted(folder.glob("*.seg"))


@dataclass(frozen=True)
class Segment:
    """A segment's content: events, refusals, counts; `cut` bytes at its end are torn and were left out."""

    path: Path
    rows: Any
    letters: list[Letter]
    dropped: Counter[str]
    cut: int

    @property
    def name(self) -> str:
        """What the segment is remembered by."""
        return self.path.stem


def read_segment(path: Path) -> Segment:
    """Read a segment up to where it is whole.

    Raises:
        StorageError: it cannot be read, or it is no segment.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(f"Cannot read the segment {path}: {error.strerror or error}") from error
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise StorageError(f"{path} is no segment of events; move it out of the spool")
    batches: list[Any] = []
    letters: list[Letter] = []
    dropped: Counter[str] = Counter()
    end = min(len(MAGIC), len(data))
    for payload, after in _frames(data):
        size = LENGTH.size + LENGTH.unpack_from(payload)[0]
        notes = msgspec.json.decode(payload[LENGTH.size : size], type=Notes)
        letters += notes.letters
        dropped.update(notes.dropped)
        if len(payload) > size:
            batches.append(pa.ipc.read_record_batch(pa.py_buffer(payload[size:]), SCHEMA))
        end = after
    if len(data) > end:
        log.warning("%s: %d torn bytes at its end were left out; nobody was told they are kept", path.name,
                    len(data) - end)  # fmt: skip
    return Segment(path, pa.Table.from_batches(batches, SCHEMA), letters, dropped, len(data) - end)


def _frames(data: bytes) -> Iterator[tuple[memoryview, int]]:
    """Each whole frame's payload and where it ends; stops at the first that is not whole."""
    view, at = memoryview(data), len(MAGIC)
    while at + HEAD.size <= len(view):
        length, checksum = HEAD.unpack_from(view, at)
        payload = view[at + HEAD.size : at + HEAD.size + length]
        if not LENGTH.size <= length <= LARGEST or len(payload) < length or zlib.crc32(payload) != checksum:
            return
        at += HEAD.size + length
        yield payload, at
