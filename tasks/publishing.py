"""What readers get: the snapshot, then the dashboards and the compliance report drawn from it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from omni import tenancy
from omni.bi.dashboards import publish as draw
from omni.bi.metrics import metrics
from omni.catalogue.project import all_models
from omni.compliance.checks import assess
from omni.compliance.facts import Facts
from omni.compliance.report import report
from omni.orchestrator.environment import environment
from omni.privacy.datamap import build_map
from omni.settings import settings
from omni.tenancy import Tenant
from omni.warehouse.contracts import contracts
from omni.warehouse.database import open_warehouse
from omni.warehouse.publish import open_snapshot, publish
from tasks.policy import Handle, step
from tasks.run import Run, Step

SNAPSHOT, DASHBOARDS, COMPLIANCE = "publish", "dashboards", "compliance"


def report_folder(tenant: Tenant) -> Path:
    """Where the tenant's compliance report lies."""
    return tenant.home / "compliance"


@step(SNAPSHOT, "snapshot")
def publish_snapshot(tenant: str) -> Handle:
    """Replace the published snapshot."""
    with open_warehouse(tenancy.get(tenant)) as warehouse:
        published = publish(warehouse)
    return {
        "rows": 0,
        "tables": published.tables,
        "path": str(published.path),
        "rewritten": published.rewritten,
    }


@step(DASHBOARDS, "overview")
def draw_dashboard(tenant: str) -> Handle:
    """Draw the dashboard from the snapshot."""
    owner = tenancy.get(tenant)
    evidence = report_folder(owner) / "report.json"
    with open_snapshot(owner) as con:
        dashboard = draw(con, owner, owner.home / "dashboards", metrics=metrics(), compliance=evidence)
    return {"rows": 0, "path": str(dashboard.path), "panels": dashboard.panels, "bytes": dashboard.bytes}


@step(COMPLIANCE, "report")
def write_report(tenant: str) -> Handle:
    """Collect the evidence and write the report."""
    owner = tenancy.get(tenant)
    models = all_models()
    data_map = build_map(contracts(), models)
    with open_warehouse(owner) as warehouse, open_snapshot(owner) as con, warehouse.cursor() as raw:
        facts = Facts(
            con=con,
            raw=raw,
            tenant=owner,
            contracts=contracts(),
            models=models,
            personal=data_map.personal_columns(),
            clear=data_map.clear_columns(),
            home=settings().home,
            orchestrator=environment(),
            at=datetime.now(UTC),
        )
        written = report(
            assess(facts), data_map.inventory(), owner, report_folder(owner), generated_at=facts.at
        )
    return {
        "rows": 0,
        "passed": written.passed,
        "failed": written.failed,
        "unknown": written.unknown,
        "html": str(written.html),
        "json": str(written.json),
    }


def publish_all(run: Run, after: Iterable[Step]) -> Step:
    """Submit the snapshot; it shows the last good state of whatever failed."""
    return run.submit(SNAPSHOT, publish_snapshot, "snapshot", run.tenant.tenant, regardless_of=after)


def publish_dashboards(run: Run, published: Step, reported: Iterable[Step] = ()) -> Step:
    """Submit the dashboard; it shows the last compliance report there is."""
    return run.submit(
        DASHBOARDS, draw_dashboard, "overview", run.tenant.tenant, after=[published], regardless_of=reported
    )


def report_compliance(run: Run, published: Step) -> Step:
    """Submit the compliance report."""
    return run.submit(COMPLIANCE, write_report, "report", run.tenant.tenant, after=[published])
