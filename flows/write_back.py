"""Write a segment or score back to a vendor."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from flows.settings import RUNNER
from tasks import reverse
from tasks.connections import connected
from tasks.run import running


@flow(name="write-back", flow_run_name="write {name} of {tenant} back", task_runner=RUNNER)
def write_back(tenant: str, name: str, force: bool = False, replay: bool = False) -> State[Any]:
    """Write the published rows that are new or changed since the last time.

    Args:
        tenant: whose; a file `data/tenants/<tenant>.yml`.
        name: what; a file `data/writebacks/<name>.yml`.
        force: pass the declaration's limits on how much may be written at once.
        replay: try rows again that the vendor refused.
    """
    with running("write_back", tenant) as run, connected(run.tenant):
        reverse.submit(run, name, force=force, replay=replay)
        run.resolve()
    return run.outcome()
