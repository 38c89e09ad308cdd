"""Writing exports of published tables and sending them through the outbox."""

from __future__ import annotations

import mimetypes
from datetime import date
from zoneinfo import ZoneInfo

from omni import tenancy
from omni.bi.export_files import Exported, write_export
from omni.bi.exports import Export, export_named, exports_of, facts, file_name
from omni.control.database import now
from omni.declarations import check_leaving
from omni.errors import TerminalError
from omni.messaging import outbox
from omni.messaging.transports import transport_of
from omni.settings import settings
from omni.tenancy import Tenant
from omni.warehouse.publish import open_snapshot
from omni.warehouse.versions import complete_through
from tasks.policy import Handle, step
from tasks.run import Run, Step

STAGE = "exports"


@step(STAGE, "{name}")
def export_table(tenant: str, name: str) -> Handle:
    """Write one export from the snapshot and put it into the outbox; once for each day of data."""
    owner, declared = tenancy.get(tenant), export_named(name, tenant)
    check_leaving(declared)
    with open_snapshot(owner) as con:
        through = complete_through(con, owner.timezone)
        today = now().astimezone(ZoneInfo(owner.timezone)).date()
        path = owner.home / "exports" / file_name(declared, through or today)
        exported = write_export(con, declared, path, declared.format)
    posted = bool(declared.deliver) and outbox.post(
        owner,
        _message(owner, declared, exported, through),
        about=f"export {name} {through or today}",
    )
    return {"rows": exported.rows, "bytes": exported.bytes, "path": str(path), "posted": posted}


def _message(tenant: Tenant, declared: Export, exported: Exported, through: date | None) -> outbox.Message:
    assert declared.deliver is not None
    said = [
        ("Company", tenant.title),
        ("Complete through", through or "unknown"),
        ("Rows", f"{exported.rows:,}"),
        *([("Only where", declared.where)] if declared.where else []),
        ("Questions", declared.owner),
    ]
    media = mimetypes.guess_type(f"x.{declared.format}")[0] or "application/octet-stream"
    return outbox.Message(
        kind=f"export {declared.name}",
        to=tuple(declared.deliver.to),
        subject=declared.deliver.subject or declared.title,
        text="\n\n".join(part for part in (declared.deliver.note, facts(said)) if part) + "\n",
        attachments=(outbox.Attachment(exported.path.name, media, exported.path.read_bytes()),),
    )


@step(STAGE, "outbox", retries=2)
def send_outbox(tenant: str) -> Handle:
    """Send what the outbox holds and is due."""
    owner = tenancy.get(tenant)
    outbox.forget(owner)
    done = outbox.send_due(owner, transport_of(owner), sender=settings().smtp.sender)
    if done.dead:
        raise TerminalError(
            f"{done.dead} messages were given up ({'; '.join(done.reasons[:3])}). Look: omni outbox list; "
            "again: omni outbox retry"
        )
    return {"rows": done.sent, **done.summary()}


def submit(run: Run, name: str | None = None) -> list[Step]:
    """Submit one export, or all of the tenant's that are delivered; then the outbox.

    Raises:
        ConfigError: there is none of that name, or it is not for this tenant.
    """
    tenant = run.tenant.tenant
    chosen = [export_named(name, tenant)] if name else [one for one in exports_of(tenant) if one.deliver]
    written = [run.submit(STAGE, export_table, one.name, tenant, one.name) for one in chosen]
    return [*written, run.submit(STAGE, send_outbox, "outbox", tenant, regardless_of=written)]
