"""Drafting the statements of partners. Approving and paying them is a person's: `omni partners`."""

from __future__ import annotations

from datetime import date, timedelta

from omni import tenancy
from omni.errors import NotEnoughData
from omni.partners.accounts import last_day, money, month_of
from omni.partners.report import write_lines
from omni.partners.statements import statements
from omni.tenancy import Tenant
from omni.warehouse.publish import open_snapshot
from omni.warehouse.versions import complete_through
from tasks.policy import Handle, step
from tasks.run import Run, Step

STAGE = "partners"


@step(STAGE, "statements")
def draft_statements(tenant: str, month: str | None) -> Handle:
    """Draft a month's statements from the snapshot and write them line by line; nothing is approved."""
    owner = tenancy.get(tenant)
    with open_snapshot(owner) as con:
        asked = month_of(month) if month else _last_whole(owner, complete_through(con, owner.timezone))
        found = statements(owner, con, asked)
    drafts = [one for one in found if one.approved_at is None]
    return {
        "rows": sum(len(one.lines) for one in drafts),
        "month": f"{asked:%Y-%m}",
        "drafts": {one.partner_id: f"{money(one.cents)} {one.currency}" for one in drafts},
        "approved": len(found) - len(drafts),
        "path": str(write_lines(owner, asked, found)),
    }


def _last_whole(tenant: Tenant, through: date | None) -> date:
    """The first day of the last month whose data are complete."""
    if through is None:
        raise NotEnoughData(f"No source of {tenant.tenant} was read to its end yet; run `omni nightly` first")
    first = through.replace(day=1)
    return first if through == last_day(through) else (first - timedelta(days=1)).replace(day=1)


def submit(run: Run, month: str | None = None) -> Step:
    """Submit the drafting of a month's statements; of the last whole month by default."""
    return run.submit(STAGE, draft_statements, "statements", run.tenant.tenant, month)
