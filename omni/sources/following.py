"""Following a vendor's own record of changes, beside windows by update time, so that deletions arrive.

The ids it tells are read again as the records are now; those not found are gone. Where it goes on is stored
with the rows, in their transaction, so a crash in between reads the same changes again.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from omni.errors import HistoryLost, SourceError
from omni.sources.connection import Connection
from omni.sources.extract import extract, reread, tables
from omni.sources.reading import Progress
from omni.sources.vendor import Vendor
from omni.sources.vendors import vendor_named
from omni.tenancy import Tenant
from omni.warehouse.staged import Staged

MOST = 1_000_000
"""Ids one run takes; a stream that is written without a pause goes on with the next."""

log = logging.getLogger(__name__)


def follow(
    tenant: Tenant,
    vendor: str,
    stream: str,
    connection: Connection,
    token: Any,
    *,
    until: datetime,
    run_id: str,
    folder: Path,
    progress: Progress | None = None,
) -> Staged:
    """Read what was written or deleted since a token into a folder; everything where there is none to go on.

    Args:
        token: as the last load stored it; None, or one the vendor no longer knows, reads everything.
        until: end of that reading's window.
        tenant, vendor, stream, connection, run_id, folder, progress: as for `extract`.

    Raises:
        SourceError: the vendor keeps no record of changes.
        As `extract`.
    """
    chosen = vendor_named(vendor)
    if chosen.changes is None:
        raise SourceError(f"{chosen.title} keeps no record of changes; windows are all there is")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        ids, resume = _told(chosen, stream, connection, token)
    except HistoryLost as lost:
        log.warning("%s %s: reading everything. %s", vendor, stream, lost)
        return extract(
            tenant, vendor, stream, connection,
            since=None, until=until, run_id=run_id, folder=folder, progress=progress,
        )  # fmt: skip
    staged = reread(tenant, vendor, stream, connection, ids, run_id=run_id, folder=folder, progress=progress)
    return replace(staged, token=resume).save()


def _told(vendor: Vendor[Any], stream: str, connection: Connection, token: Any) -> tuple[list[str], Any]:
    if token is None:
        raise HistoryLost(f"{vendor.title} {stream}: its changes were not followed so far.")
    assert vendor.changes is not None
    ids: dict[str, None] = {}
    with vendor.open(connection) as client:
        wanted = tables(vendor.name, stream)
        more = True
        while more and len(ids) < MOST:
            found = vendor.changes(client, wanted, token)
            ids.update(dict.fromkeys(found.ids))
            token, more = found.resume, found.more
    return list(ids), token
