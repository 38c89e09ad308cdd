"""Bring the tenant's vendor data in."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from flows.settings import RUNNER
from tasks import crm
from tasks.connections import connected
from tasks.run import running


@flow(name="ingest-crm", flow_run_name="ingest {tenant}", task_runner=RUNNER)
def ingest_crm(
    tenant: str,
    full: bool = False,
    streams: list[str] | None = None,
    since: str | None = None,
    until: str | None = None,
    replay: bool = False,
) -> State[Any]:
    """Read streams of the tenant's vendors since their cursors, or over a backfill's window, and load them.

    Args:
        tenant: whose; a file `data/tenants/<tenant>.yml`.
        full: read everything again and remove what the vendors no longer have.
        streams: only these, as `vendor`, `stream` or `vendor.stream`.
        since: start of a backfill, ISO 8601 with zone; cursors stay where they are.
        until: end of a backfill.
        replay: instead, read the records again whose rows lie in the dead letters.
    """
    selection = crm.Selection(tuple(streams or ()), since, until)
    with running("ingest_crm", tenant, full=full) as run, connected(run.tenant):
        if replay:
            crm.replay_dead_letters(run, selection)
        else:
            crm.ingest(run, selection)
        run.resolve()
    return run.outcome()
