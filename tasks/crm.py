"""Bringing vendors' data in: every stream is read in parallel with the others, then loaded in turn."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from omni import tenancy
from omni.sources.extract import extract, window_end
from omni.telemetry import Progress, emit
from omni.warehouse.database import open_warehouse
from omni.warehouse.load import cursor_of, load
from omni.warehouse.staged import Staged
from tasks.connections import connection, now
from tasks.policy import Handle, step
from tasks.run import Run, Step

STAGE = "ingest"


@step(STAGE, "read {vendor} {stream}", retries=2)
def read_stream(tenant: str, vendor: str, stream: str, run_id: str, full: bool) -> Handle:
    """Read what changed in a stream since its cursor into a staged folder."""
    owner = tenancy.get(tenant)
    with open_warehouse(owner) as warehouse, warehouse.cursor() as con:
        since = None if full else cursor_of(con, vendor, stream)
    label = f"read {vendor} {stream}"
    staged = extract(
        owner,
        vendor,
        stream,
        connection(tenant, vendor),
        since=since,
        until=window_end(vendor, now(owner, vendor)),
        run_id=run_id,
        folder=owner.home / "staged" / run_id / f"{vendor}-{stream}",
        progress=lambda rows: emit(Progress(STAGE, label, "running", rows=rows)),
    )
    return {"folder": str(staged.folder), "read": sum(staged.rows.values()), "rejected": staged.rejected}


@step(STAGE, "load {vendor} {stream}")
def load_stream(tenant: str, vendor: str, stream: str, handle: Handle) -> Handle:
    """Merge a staged folder, then remove it."""
    staged = Staged.load(Path(handle["folder"]))
    with open_warehouse(tenancy.get(tenant)) as warehouse:
        loaded = load(warehouse, staged)
    shutil.rmtree(staged.folder)
    with suppress(OSError):
        staged.folder.parent.rmdir()  # the last stream of the run leaves it empty
    return {
        "vendor": vendor,
        "stream": stream,
        "rows": sum(table.changed for table in loaded),
        "read": handle["read"],
        "rejected": staged.rejected,
        "source_rows": staged.source_rows,
        "tables": {
            table.table: {"inserted": table.inserted, "updated": table.updated, "deleted": table.deleted}
            for table in loaded
        },
    }


def ingest(run: Run) -> dict[tuple[str, str], Step]:
    """Submit the reading and loading of every stream of the tenant.

    Returns:
        The loading step of each (vendor, stream).
    """
    leftovers = run.tenant.home / "staged"
    if leftovers.exists():
        shutil.rmtree(leftovers)
    loads = {}
    for vendor, streams in run.tenant.sources.items():
        for stream in streams:
            read = run.submit(
                STAGE,
                read_stream,
                f"read {vendor} {stream}",
                run.tenant.tenant,
                vendor,
                stream,
                run.run_id,
                run.full,
            )
            loads[vendor, stream] = run.submit(
                STAGE,
                load_stream,
                f"load {vendor} {stream}",
                run.tenant.tenant,
                vendor,
                stream,
                read,
                after=[read],
            )
    return loads
