"""Build the warehouse's models."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from flows.settings import RUNNER
from tasks import models as stage
from tasks.run import running


@flow(name="build-models", flow_run_name="models {tenant}", task_runner=RUNNER)
def build_models(
    tenant: str, models: list[str] | None = None, since: str | None = None, until: str | None = None
) -> State[Any]:
    """Bring every model up to date, in the order their SQL demands; or some of them, or a range of days.

    Args:
        tenant: whose; a file `data/tenants/<tenant>.yml`.
        models: only these: names or patterns as in `omni models run --select`.
        since: first day (2026-06-01) of a range whose windows are rebuilt even if nothing changed, in the
            incremental models among `models` and in what reads them.
        until: the day after the range's last.
    """
    with running("build_models", tenant) as run:
        if models or since or until:
            stage.rebuild_range(run, models or [], since, until)
        else:
            stage.build_models(run, {})
    return run.outcome()
