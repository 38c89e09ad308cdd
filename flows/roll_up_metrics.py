"""Roll the metrics up by day."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from flows.settings import RUNNER
from tasks import models
from tasks.run import running


@flow(name="roll-up-metrics", flow_run_name="metrics {tenant}", task_runner=RUNNER)
def roll_up_metrics(tenant: str) -> State[Any]:
    """Bring every metric's daily series up to date.

    Args:
        tenant: whose; a file `data/tenants/<tenant>.yml`.
    """
    with running("roll_up_metrics", tenant) as run:
        models.roll_up_metrics(run, {})
    return run.outcome()
