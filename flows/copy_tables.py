"""Copy published tables to MongoDB or Firestore."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from flows.settings import RUNNER
from tasks import copies
from tasks.run import running


@flow(name="copy-tables", flow_run_name="copy tables of {tenant}", task_runner=RUNNER)
def copy_tables(tenant: str, name: str | None = None) -> State[Any]:
    """Copy the published tables that have changed since the last time.

    Args:
        tenant: whose; a file `data/tenants/<tenant>.yml`.
        name: which; a file `data/copies/<name>.yml`. All of the tenant's by default.
    """
    with running("copy_tables", tenant) as run:
        copies.submit(run, name)
        run.resolve()
    return run.outcome()
