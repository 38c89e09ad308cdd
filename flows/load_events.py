"""Load the usage events that were collected."""

from __future__ import annotations

from typing import Any

from prefect import State, flow
from prefect.states import Completed

from flows.settings import RUNNER
from omni.errors import WarehouseLocked
from tasks import usage
from tasks.run import running


@flow(name="load-events", flow_run_name="events {tenant}", task_runner=RUNNER)
def load_events(tenant: str) -> State[Any]:
    """Load what waits in the tenant's spool of events. The models that read them are built by the night.

    Args:
        tenant: whose; a file `data/tenants/<tenant>.yml`.
    """
    if not usage.waiting(tenant):
        return Completed(message="nothing waits")
    try:
        with running("load_events", tenant) as run:
            usage.load_waiting(run)
    except WarehouseLocked:
        return Completed(message="another run writes the warehouse; the events wait for the next time")
    return run.outcome()
