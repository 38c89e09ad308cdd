"""Hand out conversions over marketing channels."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from flows.settings import RUNNER
from tasks import attribution
from tasks.run import running


@flow(name="attribute-conversions", flow_run_name="attribution {tenant}", task_runner=RUNNER)
def attribute_conversions(tenant: str) -> State[Any]:
    """Attribute conversions by what would be lost without a channel; the rules are models already.

    Args:
        tenant: whose; a file `data/tenants/<tenant>.yml`.
    """
    with running("attribute_conversions", tenant) as run:
        attribution.attribute_all(run, {})
    return run.outcome()
