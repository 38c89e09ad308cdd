"""Webhooks in and out: acting on the inbox, and sending what subscribers are owed."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from itertools import count

from prefect.states import Completed, Failed, State
from pydantic import SecretStr

from omni import tenancy
from omni.errors import TerminalError
from omni.settings import settings
from omni.sources.connection import Connection
from omni.sources.extract import reread
from omni.sources.vendors import vendor_named
from omni.tenancy import Tenant
from omni.warehouse.database import open_warehouse
from omni.warehouse.load import load
from omni.webhooks import deliveries, inbox
from omni.webhooks.drain import Act, drain
from omni.webhooks.hints import MAPPINGS
from tasks.connections import connection
from tasks.policy import Handle, step
from tasks.run import Run, Step

STAGE = "webhooks"


def waiting(tenant: str) -> dict[str, int]:
    """Senders with events to act upon, and the last one's number; forgets what is old."""
    tenancy.get(tenant)
    inbox.forget()
    return inbox.waiting(tenant)


def _reading(owner: Tenant, vendor: str, run_id: str) -> Act:
    """How objects of a vendor are read again and loaded: one folder and one transaction for each call."""
    numbers = count(1)
    landed = vendor not in MAPPINGS
    name = "webhooks" if landed else vendor
    account = (
        Connection(name, "", SecretStr(""), options={"tenant": owner.tenant})
        if landed
        else connection(owner.tenant, vendor)
    )

    def act(stream: str, ids: list[str]) -> int:
        attempt = f"{run_id}-{vendor}-{next(numbers)}"
        folder = owner.home / "staged" / run_id / f"webhooks-{attempt}"
        try:
            staged = reread(owner, name, stream, account, ids, run_id=attempt, folder=folder)
            with open_warehouse(owner) as warehouse:
                return sum(table.changed for table in load(warehouse, staged))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return act


@step(STAGE, "drain {vendor}")
def drain_sender(tenant: str, vendor: str, upto: int, run_id: str) -> Handle:
    """Read again what a sender's events hint at."""
    owner = tenancy.get(tenant)
    streams = owner.sources.get(vendor, [])

    def unread(stream: str) -> str | None:
        if vendor not in MAPPINGS:
            return None
        if stream not in streams:
            return f"{vendor} {stream} is not among the tenant's streams"
        return None if vendor_named(vendor).reread else f"{vendor} cannot look single objects up"

    # A sender whose account is not read here has nothing to reach, and needs no connection.
    act: Act = _reading(owner, vendor, run_id) if streams or vendor not in MAPPINGS else lambda *_: 0
    drained = drain(tenant, vendor, upto, act, unread)
    if drained.reasons:
        raise TerminalError(
            f"{drained.done} of {drained.events} events acted upon; {drained.failed} will be tried again, "
            f"{drained.dead} were given up (omni webhooks replay --failed). {'; '.join(drained.reasons[:3])}"
        )
    return asdict(drained)


def drain_inbox(run: Run, senders: dict[str, int]) -> list[Step]:
    """Submit the draining of every sender."""
    return [
        run.submit(STAGE, drain_sender, f"drain {vendor}", run.tenant.tenant, vendor, upto, run.run_id)
        for vendor, upto in senders.items()
    ]


@step(STAGE, "deliver hooks of {tenant}")
def deliver_hooks(tenant: str) -> Handle:
    """Send what a tenant's subscribers are owed."""
    return dict(deliveries.deliver(tenant, loopback=settings().webhooks.loopback))


def deliver_owed(tenant: str) -> State[Handle]:
    """Deliver if anything is owed. Given up deliveries fail the run once; receivers that are down do not."""
    tenancy.get(tenant)
    deliveries.forget()
    if not deliveries.waiting(tenant):
        return Completed(message="nothing is owed")
    outcome = deliver_hooks(tenant)
    said = ", ".join(f"{number} {what}" for what, number in outcome.items() if number) or "nothing sent"
    if outcome["dead"]:
        return Failed(message=f"{said}. Look: omni webhooks list; again: omni webhooks replay --outgoing")
    return Completed(message=said)
