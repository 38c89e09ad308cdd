"""Watch the metrics."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from flows.settings import RUNNER
from tasks import anomaly
from tasks.run import running


@flow(name="detect-anomalies", flow_run_name="anomalies {tenant}", task_runner=RUNNER)
def detect_anomalies(tenant: str) -> State[Any]:
    """Flag the days on which a watched metric left its expected range.

    Args:
        tenant: whose; a file `data/tenants/<tenant>.yml`.
    """
    with running("detect_anomalies", tenant) as run:
        anomaly.detect_anomalies(run, {})
    return run.outcome()
