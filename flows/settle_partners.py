"""Draft the monthly statements of partners."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from flows.settings import RUNNER
from tasks import partners
from tasks.run import running


@flow(name="settle-partners", flow_run_name="partners of {tenant}", task_runner=RUNNER)
def settle_partners(tenant: str, month: str | None = None) -> State[Any]:
    """Draft partners' statements from the published tables; a person approves them (`omni partners approve`).

    Args:
        tenant: whose; a file `data/tenants/<tenant>.yml`.
        month: of which month, as 2026-05; the last one whose data are complete by default.
    """
    with running("settle_partners", tenant) as run:
        partners.submit(run, month)
        run.resolve()
    return run.outcome()
