"""Bring the tenant's vendor data in."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from flows.settings import RUNNER
from tasks import crm
from tasks.connections import connected
from tasks.run import running


@flow(name="ingest-crm", flow_run_name="ingest {tenant}", task_runner=RUNNER)
def ingest_crm(tenant: str, full: bool = False) -> State[Any]:
    """Read every stream of the tenant's vendors since its cursor and load it.

    Args:
        tenant: whose; a file `data/tenants/<tenant>.yml`.
        full: read everything again and remove what the vendors no longer have.
    """
    with running("ingest_crm", tenant, full=full) as run, connected(run.tenant):
        crm.ingest(run)
        run.resolve()
    return run.outcome()
