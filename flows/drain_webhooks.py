"""Act on the webhooks that have come in."""

from __future__ import annotations

from typing import Any

from prefect import State, flow
from prefect.states import Completed

from flows.settings import RUNNER
from omni.errors import WarehouseLocked
from tasks import webhooks
from tasks.connections import connected
from tasks.run import running


@flow(name="drain-webhooks", flow_run_name="drain webhooks of {tenant}", task_runner=RUNNER)
def drain_webhooks(tenant: str) -> State[Any]:
    """Read again every object that an event in the tenant's inbox hints at, and load it.

    Args:
        tenant: whose; a file `data/tenants/<tenant>.yml`.
    """
    senders = webhooks.waiting(tenant)
    if not senders:
        return Completed(message="nothing waits")
    try:
        with running("drain_webhooks", tenant) as run, connected(run.tenant):
            webhooks.drain_inbox(run, senders)
            run.resolve()
    except WarehouseLocked:
        return Completed(message="another run writes the warehouse; the events wait for the next time")
    return run.outcome()
