"""One stream of one vendor to a folder of Parquet files, verified against the vendor's own count."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from omni.errors import ConfigError, CountMismatch, StorageError
from omni.files import write_atomic
from omni.security.hashing import Hasher
from omni.sources.connection import Connection
from omni.sources.http import Http
from omni.sources.hubspot import HUBSPOT
from omni.sources.parse import EPOCH_START
from omni.sources.parts import Parts
from omni.sources.records import Record
from omni.sources.shopify import SHOPIFY
from omni.sources.vendor import Vendor, Window
from omni.tenancy import Tenant
from omni.warehouse.contracts import Contract, contracts
from omni.warehouse.staged import MANIFEST, REJECTED, Staged

VENDORS: dict[str, Vendor] = {vendor.name: vendor for vendor in (HUBSPOT, SHOPIFY)}
PART_ROWS = 5_000
"""Records typed and written together: bounds memory, and keeps files large enough to read fast."""

log = logging.getLogger(__name__)


def vendor_named(name: str) -> Vendor:
    """A vendor.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in VENDORS:
        raise ConfigError(f"Unknown vendor {name!r}. Known: {', '.join(VENDORS)}.")
    return VENDORS[name]


def streams(vendor: str) -> list[str]:
    """The vendor's objects that contracts exist for, sorted."""
    vendor_named(vendor)
    sources = (contract.source for contract in contracts().values())
    return sorted({source.object for source in sources if source and source.vendor == vendor})


def tables(vendor: str, stream: str) -> list[Contract]:
    """The contracts a stream fills: the parent table first, then its children by name.

    Raises:
        ConfigError: no contract, or no single parent, reads this stream.
    """
    if stream not in (known := streams(vendor)):
        raise ConfigError(f"Unknown {vendor} stream {stream!r}. Known: {', '.join(known)}.")
    found = [
        contract
        for contract in contracts().values()
        if contract.source and (contract.source.vendor, contract.source.object) == (vendor, stream)
    ]
    parents = [contract for contract in found if contract.parent is None]
    if len(parents) != 1:
        raise ConfigError(f"{vendor} {stream}: expected one contract without a parent, found {len(parents)}.")
    children = sorted((contract for contract in found if contract.parent), key=lambda child: child.table)
    return parents + children


def window_end(vendor: str, now: datetime) -> datetime:
    """Where a window that is read `now` ends: the vendor's lag ago, in steps its filter can tell apart."""
    found = vendor_named(vendor)
    return _floor(now - found.lag, found)


def _floor(when: datetime, vendor: Vendor) -> datetime:
    if when.tzinfo is None:
        raise ValueError("a window's bounds need a time zone")
    return when - (when - EPOCH_START) % vendor.resolution


def extract(
    tenant: Tenant,
    vendor: str,
    stream: str,
    connection: Connection,
    *,
    since: datetime | None,
    until: datetime,
    run_id: str,
    folder: Path,
    progress: Callable[[int], None] | None = None,
) -> Staged:
    """Read one stream's window into a folder.

    A complete folder of the same run and window is returned as it is; anything else found there is removed.

    Args:
        tenant: whose data it is; its key hashes personal columns.
        vendor: for example "hubspot".
        stream: for example "contacts".
        connection: the account.
        since: start of the window, inclusive; None reads everything.
        until: end of the window, exclusive; see `window_end`. Both are cut to the vendor's resolution.
        run_id: the run it belongs to.
        folder: where to write; nothing else may use it.
        progress: called with the number of records read so far.

    Raises:
        CountMismatch: not as many records as the vendor says the window holds.
        SchemaError: the vendor's fields no longer fit the contracts.
        AuthError, SourceError, TransientError: the vendor refused, answered badly, or failed too often.
        StorageError: the folder cannot be written.
        ConfigError: there is no such vendor or stream.
    """
    chosen = vendor_named(vendor)
    start = None if since is None else _floor(since, chosen)
    end = _floor(until, chosen)
    window = Window(start, end if start is None else max(start, end))
    wanted = tables(vendor, stream)
    if done := _finished(folder, tenant.tenant, vendor, stream, run_id, window):
        return done
    _clear(folder)
    parts = Parts(folder, wanted, window.until, Hasher.for_tenant(tenant.tenant))
    with Http(connection, chosen.dialect) as http:
        source_rows = _read(chosen, http, window, parts, progress)
    _report(parts)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in parts.rejected)
    write_atomic(folder / REJECTED, lines)
    return Staged(
        tenant=tenant.tenant,
        vendor=vendor,
        stream=stream,
        run_id=run_id,
        folder=folder,
        tables=parts.files,
        rows=parts.rows,
        rejected=len(parts.rejected),
        source_rows=source_rows,
        since=window.since,
        until=window.until,
    ).save()


def _read(
    vendor: Vendor,
    http: Http,
    window: Window,
    parts: Parts,
    progress: Callable[[int], None] | None,
) -> int:
    """Write all parts and verify; returns the number of the vendor's records in the window."""
    if window.since is not None and window.since == window.until:
        for contract in parts.tables:
            parts.files[contract.table], parts.rows[contract.table] = [], 0
        return 0
    for notice in vendor.check(http, parts.tables):
        log.warning("%s", notice)
    seen: set[str] = set()
    expected = vendor.count(http, parts.tables, window)
    read = 0
    for batch in _distinct(vendor.read(http, parts.tables, window), seen, progress):
        read += parts.add(batch, whole=True)
    _verify(vendor, http, window, parts, read, expected)
    if vendor.archived:
        for batch in _distinct(vendor.archived(http, parts.tables, window), seen, progress):
            read += parts.add(batch, whole=False)
    if not parts.parts:
        parts.add([], whole=False)
    vendor.check(http, parts.tables)  # again, in case fields changed while we read
    log.info("%s: %s", parts.parent, http.counters)
    return read


def _report(parts: Parts) -> None:
    """Tell of values that the contracts do not list; they are kept."""
    for column, values in parts.unknown.items():
        if values:
            shown = [value[:40] for value in sorted(values)[:10]]
            log.warning("%s holds values its contract does not know: %s", column, shown)


def _distinct(
    pages: Iterator[list[Record]], seen: set[str], progress: Callable[[int], None] | None
) -> Iterator[list[Record]]:
    """Pages gathered to parts, each record once.

    The first reading of a record stands: a change in between carries a later date and so belongs to the
    next window.
    """
    waiting: list[Record] = []
    for page in pages:
        for record in page:
            if record["id"] not in seen:
                seen.add(record["id"])
                waiting.append(record)
        if progress:
            progress(len(seen))
        if len(waiting) >= PART_ROWS:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _verify(vendor: Vendor, http: Http, window: Window, parts: Parts, read: int, expected: int) -> None:
    """Compare what was read with the vendor's count, and count again if the source moved meanwhile.

    Records that changed after the window's end while we read may or may not be in the vendor's count.
    """
    if read <= expected <= read + parts.late:
        return
    again = vendor.count(http, parts.tables, window)
    low, high = sorted((expected, again))
    if low <= read + parts.late and read <= high:
        return
    raise CountMismatch(
        f"{parts.parent}: read {read} records, but {vendor.dialect.title} says the window holds {again} "
        f"({expected} before reading). Nothing was loaded; run again, and if it repeats, look for filters or "
        "permissions that hide records."
    )


def _finished(
    folder: Path, tenant: str, vendor: str, stream: str, run_id: str, window: Window
) -> Staged | None:
    if not (folder / MANIFEST).exists():
        return None
    try:
        staged = Staged.load(folder)
    except (ValueError, TypeError, KeyError):
        return None
    found = (staged.tenant, staged.vendor, staged.stream, staged.run_id, staged.since, staged.until)
    return staged if found == (tenant, vendor, stream, run_id, window.since, window.until) else None


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
