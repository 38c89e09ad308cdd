"""Build the warehouse's models."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from flows.settings import RUNNER
from tasks import models
from tasks.run import running


@flow(name="build-models", flow_run_name="models {tenant}", task_runner=RUNNER)
def build_models(tenant: str) -> State[Any]:
    """Bring every model up to date, in the order their SQL demands.

    Args:
        tenant: whose; a file `data/tenants/<tenant>.yml`.
    """
    with running("build_models", tenant) as run:
        models.build_models(run, {})
    return run.outcome()
