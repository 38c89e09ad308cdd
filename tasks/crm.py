"""Bringing vendors' data in: every stream is read in parallel with the others, then loaded in turn."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from omni import tenancy
from omni.errors import CheckFailed, ConfigError, SchemaError
from omni.sources.extract import Plan, extract, plan, reread, tables, window_end
from omni.sources.following import follow
from omni.sources.parts import PROGRESS
from omni.sources.vendors import vendor_named
from omni.telemetry import Progress, emit
from omni.tenancy import Tenant
from omni.warehouse.connection import Connection
from omni.warehouse.database import open_warehouse
from omni.warehouse.dead_letters import waiting
from omni.warehouse.load import already_loaded, cursor_of, last_load, load, token_of
from omni.warehouse.staged import MANIFEST, Staged
from tasks.connections import connection, now
from tasks.policy import Handle, step
from tasks.run import Run, Step

STAGE = "ingest"


@dataclass(frozen=True)
class Selection:
    """Which streams to read, and over which time; by default all, each since its cursor.

    Attributes:
        streams: as `vendor`, `stream` or `vendor.stream`; none means all.
        since: start of a backfill (ISO 8601 with zone), inclusive; leaves cursors where they are.
        until: its end, exclusive.
    """

    streams: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None

    @property
    def is_backfill(self) -> bool:
        """Whether it names a time, and so moves no cursor."""
        return self.since is not None or self.until is not None

    def of(self, tenant: Tenant) -> Iterator[tuple[str, str]]:
        """The tenant's streams that are selected, as vendor and stream.

        Raises:
            ConfigError: a name selects nothing, or a moment is none.
        """
        for text in (self.since, self.until):
            _moment(text)
        every = [(vendor, stream) for vendor, streams in tenant.sources.items() for stream in streams]
        for wanted in self.streams:
            if not any(wanted in (vendor, stream, f"{vendor}.{stream}") for vendor, stream in every):
                known = ", ".join(f"{vendor}.{stream}" for vendor, stream in every)
                raise ConfigError(f"Tenant {tenant.tenant!r} reads no stream {wanted!r}. It reads {known}.")
        for vendor, stream in every:
            if not self.streams or {vendor, stream, f"{vendor}.{stream}"} & set(self.streams):
                yield vendor, stream


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        parsed = None
    if parsed is None or parsed.tzinfo is None:
        raise ConfigError(f"{text!r} is no moment with a zone; write for example 2026-10-01T00:00:00Z")
    return parsed


@step(STAGE, "read {vendor} {stream}", retries=2)
def read_stream(
    tenant: str,
    vendor: str,
    stream: str,
    run_id: str,
    full: bool,
    since: str | None = None,
    until: str | None = None,
) -> Handle:
    """Read what changed in a stream since its cursor, or a backfill's window, into a staged folder."""
    owner = tenancy.get(tenant)
    folder = owner.home / "staged" / f"{vendor}-{stream}"
    backfill = since is not None or until is not None
    with open_warehouse(owner) as warehouse, warehouse.cursor() as con:
        start = None if full else cursor_of(con, vendor, stream, tables(vendor, stream))
        left = _left_behind(folder)
        if (left and already_loaded(con, left)) or _outdated(con, vendor, stream, folder):
            shutil.rmtree(folder)
    label = f"read {vendor} {stream}"
    staged = extract(
        owner,
        vendor,
        stream,
        connection(tenant, vendor),
        since=_moment(since) if backfill else start,
        until=_moment(until) or window_end(vendor, now(owner, vendor)),
        run_id=run_id,
        folder=folder,
        moves_cursor=not backfill,
        progress=lambda rows: emit(Progress(STAGE, label, "running", rows=rows)),
    )
    return {"folder": str(staged.folder), "read": sum(staged.rows.values()), "rejected": staged.rejected}


def _left_behind(folder: Path) -> Staged | None:
    """A whole folder of an earlier run."""
    try:
        return Staged.load(folder)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _outdated(con: Connection, vendor: str, stream: str, folder: Path) -> bool:
    """Whether the stream was loaded since a killed run left this folder: what it holds may be old by now."""
    noted = [path.stat().st_mtime for path in (folder / MANIFEST, folder / PROGRESS) if path.exists()]
    loaded = last_load(con, vendor, stream)
    return bool(noted) and loaded is not None and loaded.timestamp() > max(noted)


@step(STAGE, "load {vendor} {stream}")
def load_stream(tenant: str, vendor: str, stream: str, handle: Handle) -> Handle:
    """Merge a staged folder, then remove it."""
    return _loaded(tenant, vendor, stream, handle)


def _loaded(tenant: str, vendor: str, stream: str, handle: Handle) -> Handle:
    staged = Staged.load(Path(handle["folder"]))
    try:
        with open_warehouse(tenancy.get(tenant)) as warehouse:
            loaded = load(warehouse, staged)
    except (CheckFailed, SchemaError, duckdb.Error):
        shutil.rmtree(staged.folder)  # the next run reads again, perhaps a corrected source
        raise
    shutil.rmtree(staged.folder)
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


@step(STAGE, "follow {vendor} {stream}", retries=2)
def follow_changes(tenant: str, vendor: str, stream: str, run_id: str) -> Handle:
    """Read again what the vendor's record of changes names since the last load, deletions included."""
    owner, label = tenancy.get(tenant), f"follow {vendor} {stream}"
    with open_warehouse(owner) as warehouse, warehouse.cursor() as con:
        token = token_of(con, vendor, stream)
    staged = follow(
        owner,
        vendor,
        stream,
        connection(tenant, vendor),
        token,
        until=window_end(vendor, now(owner, vendor)),
        run_id=run_id,
        folder=owner.home / "staged" / f"{vendor}-{stream}-changes",
        progress=lambda rows: emit(Progress(STAGE, label, "running", rows=rows)),
    )
    return {"folder": str(staged.folder), "read": sum(staged.rows.values()), "rejected": staged.rejected}


@step(STAGE, "load {vendor} {stream} changes")
def load_changes(tenant: str, vendor: str, stream: str, handle: Handle) -> Handle:
    """Merge what was read again, with the place to go on from."""
    return _loaded(tenant, vendor, stream, handle)


def _followed(run: Run, vendor: str, stream: str, loaded: Step) -> Step:
    """Submit the following of a stream's changes behind the load of its window."""
    names, tenant = f"{vendor} {stream}", run.tenant.tenant
    told = run.submit(
        STAGE, follow_changes, f"follow {names}", tenant, vendor, stream, run.run_id, after=[loaded]
    )
    return run.submit(
        STAGE, load_changes, f"load {names} changes", tenant, vendor, stream, told, after=[told]
    )


def ingest(run: Run, selection: Selection | None = None) -> dict[tuple[str, str], Step]:
    """Submit the reading and loading of the tenant's streams.

    Returns:
        The last loading step of each (vendor, stream).

    Raises:
        ConfigError: the selection names no stream or no moment.
    """
    chosen = selection or Selection()
    loads = {}
    for vendor, stream in list(chosen.of(run.tenant)):
        until = chosen.until
        if chosen.since and not until:
            # Named once, so that a retry of the step reads the same window.
            until = window_end(vendor, now(run.tenant, vendor)).isoformat()
        read = run.submit(
            STAGE,
            read_stream,
            f"read {vendor} {stream}",
            run.tenant.tenant,
            vendor,
            stream,
            run.run_id,
            run.full,
            chosen.since,
            until,
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
        follows = vendor_named(vendor).followed(connection(run.tenant.tenant, vendor))
        if follows and not chosen.is_backfill:
            loads[vendor, stream] = _followed(run, vendor, stream, loads[vendor, stream])
    return loads


def plans(tenant: Tenant, selection: Selection, *, full: bool) -> Iterator[tuple[str, str, Plan]]:
    """What reading would do, stream by stream, asked of the vendors and written nowhere."""
    for vendor, stream in list(selection.of(tenant)):
        with open_warehouse(tenant) as warehouse, warehouse.cursor() as con:
            start = None if full else cursor_of(con, vendor, stream, tables(vendor, stream))
        yield (
            vendor,
            stream,
            plan(
                vendor,
                stream,
                connection(tenant.tenant, vendor),
                since=_moment(selection.since) if selection.is_backfill else start,
                until=_moment(selection.until) or window_end(vendor, now(tenant, vendor)),
            ),
        )


@step(STAGE, "replay {vendor} {stream}", retries=2)
def replay_stream(tenant: str, vendor: str, stream: str, keys: list[str], run_id: str) -> Handle:
    """Read records again whose rows lie in the dead letters, and load them."""
    owner = tenancy.get(tenant)
    folder = owner.home / "staged" / f"{vendor}-{stream}-replay"
    staged = reread(owner, vendor, stream, connection(tenant, vendor), keys, run_id=run_id, folder=folder)
    return {"folder": str(folder), "read": sum(staged.rows.values()), "rejected": staged.rejected}


def replay_dead_letters(run: Run, selection: Selection) -> list[Step]:
    """Submit the re-reading of every record that waits in the dead letters."""
    with open_warehouse(run.tenant) as warehouse, warehouse.cursor() as con:
        letters = waiting(con)
    steps = []
    for vendor, stream in list(selection.of(run.tenant)):
        of_stream = [letter for letter in letters if (letter.vendor, letter.stream) == (vendor, stream)]
        keys = sorted({letter.record for letter in of_stream if letter.record is not None})
        if keys:
            name = f"replay {vendor} {stream}"
            read = run.submit(STAGE, replay_stream, name, run.tenant.tenant, vendor, stream, keys, run.run_id)
            load_name = f"load {vendor} {stream}"
            steps.append(
                run.submit(
                    STAGE, load_stream, load_name, run.tenant.tenant, vendor, stream, read, after=[read]
                )
            )
    return steps


def shown(found: Plan) -> dict[str, Any]:
    """A plan as plain values."""
    return {
        "since": found.window.since.isoformat() if found.window.since else None,
        "until": found.window.until.isoformat(),
        "records": found.records,
        "notices": found.notices,
        "new_fields": {path: field.type for path, field in found.new_fields.items()},
    }
