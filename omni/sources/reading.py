"""One window of one stream on its way into a folder: taken up where a killed run left it, and verified."""

from __future__ import annotations

import gc
import json
import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from omni.errors import CountMismatch, SchemaError, SourceError, StorageError
from omni.security.hashing import Hasher
from omni.sources.connection import Connection
from omni.sources.parts import PROGRESS, Parts
from omni.sources.records import Shield, column_name
from omni.sources.vendor import Page, Vendor, Window
from omni.tenancy import Tenant
from omni.warehouse.contracts import Column, Contract, Personal
from omni.warehouse.staged import MANIFEST, Staged

PART_ROWS = 5_000
"""Records typed and written together: bounds memory, and keeps files large enough to read fast."""

log = logging.getLogger(__name__)

_lock = threading.Lock()
_readers = 0
_usual = gc.get_threshold()

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Reading:
    """One window of one stream on its way into a folder; attributes as `extract` takes them.

    `tables` are the contracts it fills, the parent's first; `account` is the host it is read from. `follow`:
    note before reading where the vendor's record of changes stands, so that it can be asked on from there
    (`omni.sources.following`).
    """

    tenant: Tenant
    vendor: Vendor[Any]
    stream: str
    tables: list[Contract]
    folder: Path
    window: Window
    run_id: str
    moves_cursor: bool
    follow: bool = False
    account: str = ""

    def run(self, connection: Connection, progress: Progress | None = None) -> Staged:
        """Read it, or take up what is there; see `extract`."""
        if done := self.finished():
            return done
        with _few_collections(), self.vendor.open(connection) as client:
            parts = self.taken_up()
            if parts is not None:
                try:
                    return _read(self, client, parts, progress)
                except (SourceError, SchemaError, CountMismatch) as error:
                    log.warning(
                        "%s %s: starting over, as going on failed: %s", self.vendor.name, self.stream, error
                    )
            return _read(self, client, self.begun(), progress)

    def heading(self) -> dict[str, Any]:
        """What is being read, as noted beside the files."""
        since = self.window.since
        return {
            "tenant": self.tenant.tenant,
            "vendor": self.vendor.name,
            "stream": self.stream,
            "since": since.isoformat() if since else None,
            "until": self.window.until.isoformat(),
            "run_id": self.run_id,
            "identity": self.identity(),
        }

    def identity(self) -> str:
        """Tells a reading of other contracts, of another account, or of another kind from this one."""
        declared = [contract.model_dump(mode="json") for contract in self.tables]
        return sha256(json.dumps([declared, self.account, self.moves_cursor]).encode()).hexdigest()

    def finished(self) -> Staged | None:
        """A whole folder of this window, or of one that a killed run read and never loaded."""
        try:
            staged = Staged.load(self.folder)
        except (OSError, ValueError, TypeError, KeyError):
            return None
        if staged.asked is not None or staged.identity != self.identity():
            return None
        if not self._fits(staged.tenant, staged.vendor, staged.stream, staged.since, staged.until):
            return None
        return staged if staged.run_id == self.run_id else replace(staged, run_id=self.run_id).save()

    def _fits(self, tenant: str, vendor: str, stream: str, since: datetime | None, until: datetime) -> bool:
        mine = (self.tenant.tenant, self.vendor.name, self.stream, self.window.since)
        if (tenant, vendor, stream, since) != mine:
            return False
        # A window that ended earlier will do where the next one goes on from its end.
        return until == self.window.until or (self.moves_cursor and until < self.window.until)

    def taken_up(self) -> Parts | None:
        """What a killed run left of this window, if it can be gone on with."""
        try:
            note = json.loads((self.folder / PROGRESS).read_text(encoding="utf-8"))
            since = datetime.fromisoformat(note["since"]) if note["since"] else None
            until = datetime.fromisoformat(note["until"])
            if note["identity"] != self.identity() or note["tally"]["resume"] is None:
                return None
            if not self._fits(note["tenant"], note["vendor"], note["stream"], since, until):
                return None
            parts = replace(self._parts(), until=until).restore(note["tally"])
        except (OSError, ValueError, TypeError, KeyError):
            return None
        log.info("%s %s: going on behind %s records", self.vendor.name, self.stream, parts.tally.read)
        return parts

    def begun(self) -> Parts:
        """An empty folder to fill."""
        _clear(self.folder)
        return self._parts()

    def _parts(self) -> Parts:
        declared = self.tables
        shield = Shield(Hasher.for_tenant(self.tenant.tenant), _cipher(self.tenant, declared))
        notice = self.vendor.fields is None
        whole = self.window.since is None and self.moves_cursor
        return Parts(self.folder, declared, self.window.until, shield, notice_new_fields=notice, whole=whole)

    def complete(self, parts: Parts, *, asked: tuple[str, ...] | None = None) -> Staged:
        """The manifest, written when everything else is."""
        parts.finish()
        tally = parts.tally
        _report(parts)
        staged = Staged(
            tenant=self.tenant.tenant,
            vendor=self.vendor.name,
            stream=self.stream,
            run_id=self.run_id,
            folder=self.folder,
            tables=tally.files,
            rows=tally.rows,
            rejected=tally.rejected,
            source_rows=tally.read + tally.uncounted,
            since=self.window.since,
            until=parts.until,
            asked=asked,
            moves_cursor=self.moves_cursor,
            columns=tally.learned,
            gone=tuple(tally.gone),
            identity=self.identity(),
            token=tally.token,
        ).save()
        (self.folder / PROGRESS).unlink(missing_ok=True)
        return staged


@contextmanager
def _few_collections() -> Iterator[None]:
    """Let Python look for cycles seldom: records have none, and looking through millions costs a third."""
    global _readers, _usual
    with _lock:
        if _readers == 0:
            _usual = gc.get_threshold()
            gc.set_threshold(max(_usual[0], 200_000), *_usual[1:])
        _readers += 1
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if _readers == 0:
                gc.set_threshold(*_usual)


def _cipher(tenant: Tenant, declared: list[Contract]) -> Any:
    """The subjects' keys, where a contract encrypts."""
    columns = [column for contract in declared for column in contract.personal_columns.values()]
    if not any(column.personal and column.personal.protect == "encrypt" for column in columns):
        return None
    from omni.security.encryption import SubjectKeys

    return SubjectKeys(tenant.tenant)


def _read(reading: Reading, client: Any, parts: Parts, progress: Progress | None) -> Staged:
    """Write all parts and verify."""
    vendor, window = reading.vendor, Window(reading.window.since, parts.until)
    if window.since is not None and window.since == window.until:
        parts.write(counted=False, resume=None)
        return reading.complete(parts)
    for notice in vendor.check(client, parts.tables):
        log.warning("%s", notice)
    learn(reading, client, parts)
    if not parts.tally.parts:
        if reading.follow and vendor.changes:
            parts.tally.token = vendor.changes(client, parts.tables, None).resume
        parts.tally.expected = vendor.count(client, parts.tables, window)
    heading = reading.heading() | {"until": parts.until.isoformat()}
    pages = vendor.read(client, parts.tables, window, parts.tally.resume)
    for counted, resume in _gather(pages, parts, progress):
        parts.write(counted=counted, resume=resume)
        parts.save(heading)
    if not parts.tally.parts:
        parts.write(counted=False, resume=None)
    _verify(vendor, client, window, parts)
    vendor.check(client, parts.tables)  # again, in case fields changed while we read
    log.info("%s: %s", parts.parent, getattr(client, "counters", parts.tally.read))
    return reading.complete(parts)


def learn(reading: Reading, client: Any, parts: Parts) -> None:
    """Read the account's own fields too, or refuse them, as the contract says."""
    vendor, parent = reading.vendor, parts.tables[0]
    policy = parent.evolution.new_fields
    if vendor.fields is None or policy in ("discard", "quarantine"):
        return
    found = vendor.fields(client, parts.tables)
    if found and policy == "freeze":
        raise SchemaError(
            f"{parent.table}: {vendor.title} has {', '.join(sorted(found))}, which the contract does not "
            "declare. Add it to the contract in data/contracts, or let evolution.new_fields allow it."
        )
    extra: dict[str, Column] = {}
    for path, field in sorted(found.items()):
        # What the vendor marks as sensitive, and nobody here declared, is noticed but not kept.
        hidden = Personal(category="undeclared", subject="unknown", protect="drop")
        secret = hidden if field.sensitive else None
        name = column_name(path, {*parent.columns, *extra})
        extra[name] = Column(type=field.type, optional=True, personal=secret, **{"from": path})
    parts.learn(extra)


def _gather(pages: Iterable[Page], parts: Parts, progress: Progress | None) -> Iterator[tuple[bool, Any]]:
    """Take pages until there are enough rows for a part; yields whether they count and where to go on."""
    counted, resume = True, parts.tally.resume
    for page in pages:
        if page.counted != counted and parts.waiting:
            yield counted, resume
        counted, resume = page.counted, page.resume
        parts.take(page.records, page.rejected, page.gone)
        if progress and page.records:
            progress(len(parts.seen))
        if parts.waiting >= PART_ROWS:
            yield counted, resume
    if parts.waiting:
        yield counted, resume


def _report(parts: Parts) -> None:
    """Tell of values that the contracts do not list (they are kept), and of those that were not kept."""
    for column, values in parts.tally.unknown.items():
        shown = [value[:40] for value in values[:10]]
        log.warning("%s holds values its contract does not know: %s", column, shown)
    for column, count in parts.tally.discarded.items():
        log.warning("%s: %s values are not of its type", column, count)


def _verify(vendor: Vendor[Any], client: Any, window: Window, parts: Parts) -> None:
    """Compare what was read with the vendor's count, and count again if the source moved meanwhile.

    Records that changed after the window's end while we read may or may not be in the vendor's count.
    """
    read, late, expected = parts.tally.read, parts.tally.late, parts.tally.expected
    surely = read - parts.tally.unsure
    if expected is None or surely <= expected <= read + late:
        return
    again = vendor.count(client, parts.tables, window)
    low, high = sorted((expected, expected if again is None else again))
    if low <= read + late and surely <= high:
        return
    raise CountMismatch(
        f"{parts.parent}: read {read} records, but {vendor.title} says the window holds {again} "
        f"({expected} before reading). Nothing was loaded; run again, and if it repeats, look for filters or "
        "permissions that hide records."
    )


def _clear(folder: Path) -> None:
    try:
        if folder.exists():
            (folder / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise StorageError(
            f"Cannot prepare {folder}: {error.strerror or error}. Free space or make the folder writable."
        ) from None
