"""Write the declared exports and send them."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from flows.settings import RUNNER
from tasks import exports
from tasks.run import running


@flow(name="deliver-exports", flow_run_name="exports of {tenant}", task_runner=RUNNER)
def deliver_exports(tenant: str, name: str | None = None) -> State[Any]:
    """Write exports from the published tables and deliver them through the outbox.

    Args:
        tenant: whose; a file `data/tenants/<tenant>.yml`.
        name: which; a file `data/exports/<name>.yml`. All that are delivered by default.
    """
    with running("deliver_exports", tenant) as run:
        exports.submit(run, name)
        run.resolve()
    return run.outcome()
