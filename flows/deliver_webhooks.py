"""Tell subscribers of what has happened."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from flows.settings import RUNNER
from tasks import webhooks


@flow(name="deliver-webhooks", flow_run_name="deliver webhooks of {tenant}", task_runner=RUNNER)
def deliver_webhooks(tenant: str) -> State[Any]:
    """Send every delivery that is due to the tenant's subscribers.

    Args:
        tenant: whose; a file `data/tenants/<tenant>.yml`.
    """
    return webhooks.deliver_owed(tenant)
