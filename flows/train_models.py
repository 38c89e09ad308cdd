"""Train, gate and score the predictions."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from flows.settings import RUNNER
from tasks import predictions
from tasks.run import running


@flow(name="train-models", flow_run_name="train {tenant}", task_runner=RUNNER)
def train_models(tenant: str) -> State[Any]:
    """Train on what is known, promote if the gate allows, score every lead with the champion.

    Args:
        tenant: whose; a file `data/tenants/<tenant>.yml`.
    """
    with running("train_models", tenant) as run:
        predictions.train_models(run, {})
    return run.outcome()
