"""The night: everything for one tenant, each stage as soon as what it needs is there."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from flows.settings import RUNNER
from tasks import anomaly, attribution, checks, crm, documents, experiments, models, predictions, publishing
from tasks.connections import connected
from tasks.run import Run, running


def stages(run: Run) -> None:
    """Submit every stage. A failed step stops only what needs it; publishing always happens."""
    loads = crm.ingest(run)
    indexed = documents.index_documents(run)
    built = models.build_models(run, loads)
    rolled = models.roll_up_metrics(run, built)
    results = [
        *predictions.train_models(run, built),
        *experiments.analyse_experiments(run, built),
        *attribution.attribute_all(run, built),
        *checks.check_all(run, built.values()),
        *anomaly.detect_anomalies(run, rolled),
    ]
    published = publishing.publish_all(
        run, [*loads.values(), *indexed, *built.values(), *rolled.values(), *results]
    )
    reported = publishing.report_compliance(run, published)
    publishing.publish_dashboards(run, published, [reported])


@flow(name="nightly", flow_run_name="night of {tenant}", task_runner=RUNNER)
def nightly(tenant: str, full: bool = False) -> State[Any]:
    """Run the whole night for one tenant.

    Args:
        tenant: whose; a file `data/tenants/<tenant>.yml`.
        full: read everything again and remove what the vendors no longer have.
    """
    with running("nightly", tenant, full=full) as run, connected(run.tenant):
        stages(run)
        run.resolve()
    return run.outcome()
