"""One stream of one vendor to a folder of Parquet files, verified against the vendor's own count."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from omni.errors import ConfigError, SourceError
from omni.sources.connection import Connection
from omni.sources.parse import EPOCH_START
from omni.sources.reading import PART_ROWS, Progress, Reading, learn
from omni.sources.vendor import Field, Vendor, Window
from omni.sources.vendors import vendor_named
from omni.tenancy import Tenant
from omni.warehouse.contracts import Contract, contracts
from omni.warehouse.staged import Staged


def streams(vendor: str) -> list[str]:
    """The vendor's objects that contracts exist for, sorted.

    Raises:
        ConfigError: there is no such vendor.
    """
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


def _floor(when: datetime, vendor: Vendor[Any]) -> datetime:
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
    moves_cursor: bool = True,
    progress: Progress | None = None,
) -> Staged:
    """Read one stream's window into a folder.

    What a killed run left there of the same stream and `since` is taken up: a whole folder as it is, a part
    behind its last note (its window then ends where the killed run's did). Anything else is removed.

    Args:
        tenant: whose data it is; its keys protect personal columns.
        vendor: for example "hubspot".
        stream: for example "contacts".
        connection: the account.
        since: start of the window, inclusive; None reads everything.
        until: end of the window, exclusive; see `window_end`. Both are cut to the vendor's resolution.
        run_id: the run it belongs to.
        folder: where to write; nothing else may use it.
        moves_cursor: the window follows the last one; False for a backfill, which is read just as asked.
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
    follow = chosen.followed(connection) and start is None and moves_cursor
    account = httpx.URL(connection.base_url).host or connection.base_url
    wanted = tables(vendor, stream)
    reading = Reading(tenant, chosen, stream, wanted, folder, window, run_id, moves_cursor, follow, account)
    return reading.run(connection, progress)


def reread(
    tenant: Tenant,
    vendor: str,
    stream: str,
    connection: Connection,
    ids: Iterable[str],
    *,
    run_id: str,
    folder: Path,
    progress: Progress | None = None,
) -> Staged:
    """Read single records again, as they are now, into a folder; those the vendor no longer has are gone.

    Args:
        ids: the vendor's ids of top-level records.
        tenant, vendor, stream, connection, run_id, folder, progress: as for `extract`.

    Raises:
        SourceError: the vendor cannot look records up by id.
        As `extract`, but for CountMismatch.
    """
    chosen = vendor_named(vendor)
    if chosen.reread is None:
        raise SourceError(
            f"{chosen.title} cannot look single records up; read a window: omni ingest --stream {stream}"
        )
    window = Window(None, _floor(datetime.now(UTC), chosen))
    wanted = tables(vendor, stream)
    reading = Reading(tenant, chosen, stream, wanted, folder, window, run_id, moves_cursor=False)
    asked = list(dict.fromkeys(ids))
    parts = reading.begun()
    with chosen.open(connection) as client:
        learn(reading, client, parts)
        for page in chosen.reread(client, parts.tables, asked):
            parts.take(page.records, page.rejected, page.gone)
            if progress:
                progress(len(parts.seen))
            if parts.waiting >= PART_ROWS:
                parts.write(counted=False, resume=None)
    if parts.waiting or not parts.tally.parts:
        parts.write(counted=False, resume=None)
    return reading.complete(parts, asked=tuple(asked))


@dataclass(frozen=True)
class Plan:
    """What reading a stream would do, found without reading it."""

    window: Window
    records: int | None
    notices: list[str]
    new_fields: dict[str, Field]


def plan(
    vendor: str, stream: str, connection: Connection, *, since: datetime | None, until: datetime
) -> Plan:
    """Ask the vendor what a window holds and whether its fields fit; raises as `extract`."""
    chosen, wanted = vendor_named(vendor), tables(vendor, stream)
    window = Window(None if since is None else _floor(since, chosen), _floor(until, chosen))
    with chosen.open(connection) as client:
        notices = chosen.check(client, wanted)
        new = chosen.fields(client, wanted) if chosen.fields else {}
        return Plan(window, chosen.count(client, wanted, window), notices, new)
