"""Checks whose answer moves with the clock: they are asked every night, whatever was built."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from omni import tenancy
from omni.catalogue.project import all_models
from omni.warehouse.check_runs import Checked, check_tables, refuse_failed
from omni.warehouse.contracts import contracts
from omni.warehouse.database import open_warehouse
from tasks.policy import Handle, step
from tasks.run import Run, Step

STAGE = "checks"


def _declared() -> dict[str, Checked]:
    """Tables with a freshness check."""
    tables = {c.table: Checked(c.checks, c.key) for c in contracts().values()}
    tables |= {m.name: Checked(m.header.checks, m.header.grain) for m in all_models().values()}
    return {name: one for name, one in tables.items() if any(check.freshness for check in one.checks)}


@step(STAGE, "freshness")
def check_freshness(tenant: str, run_id: str) -> Handle:
    """Look how old the newest rows are and keep the results; a failed error fails the step."""
    with open_warehouse(tenancy.get(tenant)) as warehouse:
        results = check_tables(warehouse, _declared(), run_id, at=datetime.now(UTC), timed=True)
    warned = refuse_failed(results, "its source has sent nothing new")
    return {"rows": 0, "checked": len(results), "failing": [str(result) for result in warned]}


def check_all(run: Run, after: Iterable[Step]) -> list[Step]:
    """Submit the look at freshness, where any is declared; it waits for the builds, however they end."""
    if not _declared():
        return []
    return [
        run.submit(STAGE, check_freshness, "freshness", run.tenant.tenant, run.run_id, regardless_of=after)
    ]
