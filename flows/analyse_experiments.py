"""Read the experiments."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from flows.settings import RUNNER
from tasks import experiments
from tasks.run import running


@flow(name="analyse-experiments", flow_run_name="experiments {tenant}", task_runner=RUNNER)
def analyse_experiments(tenant: str) -> State[Any]:
    """Compare every experiment's arms with the control on its declared outcomes.

    Args:
        tenant: whose; a file `data/tenants/<tenant>.yml`.
    """
    with running("analyse_experiments", tenant) as run:
        experiments.analyse_experiments(run, {})
    return run.outcome()
