"""Report on compliance."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from flows.settings import RUNNER
from tasks import publishing
from tasks.run import running


@flow(name="report-compliance", flow_run_name="compliance {tenant}", task_runner=RUNNER)
def report_compliance(tenant: str) -> State[Any]:
    """Publish the snapshot, run the automatic checks and write the report.

    Args:
        tenant: whose; a file `data/tenants/<tenant>.yml`.
    """
    with running("report_compliance", tenant) as run:
        publishing.report_compliance(run, publishing.publish_all(run, []))
    return run.outcome()
