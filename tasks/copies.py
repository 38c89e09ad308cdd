"""Copying published tables to a tenant's databases."""

from __future__ import annotations

from omni import tenancy
from omni.declarations import check_leaving
from omni.destinations.copies import copy
from omni.destinations.copy_declaration import copies_of, copy_named
from tasks.connections import connection
from tasks.policy import Handle, step
from tasks.run import Run, Step

STAGE = "copies"


@step(STAGE, "{name}", retries=2)
def copy_rows(tenant: str, name: str, run_id: str) -> Handle:
    """Copy one table if it has changed; readers see the old copy until the new one is whole."""
    declared = copy_named(name, tenant)
    check_leaving(declared)
    account = connection(tenant, declared.destination)
    written = copy(tenancy.get(tenant), declared, account, run_id=run_id)
    unchanged = written is None
    return {
        "table": declared.table,
        "collection": declared.target,
        "written": written or 0,
        "unchanged": unchanged,
    }


def submit(run: Run, name: str | None = None) -> list[Step]:
    """Submit one copy, or all of the tenant's.

    Raises:
        ConfigError: there is none of that name, or it is not for this tenant.
    """
    tenant = run.tenant.tenant
    chosen = [copy_named(name, tenant)] if name else copies_of(tenant)
    return [run.submit(STAGE, copy_rows, one.name, tenant, one.name, run.run_id) for one in chosen]
