"""Publish the snapshot and the dashboards."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from flows.settings import RUNNER
from tasks import publishing
from tasks.run import running


@flow(name="publish-dashboards", flow_run_name="dashboards {tenant}", task_runner=RUNNER)
def publish_dashboards(tenant: str) -> State[Any]:
    """Publish the snapshot and draw the dashboard from it.

    Args:
        tenant: whose; a file `data/tenants/<tenant>.yml`.
    """
    with running("publish_dashboards", tenant) as run:
        publishing.publish_dashboards(run, publishing.publish_all(run, []))
    return run.outcome()
