"""Keep the metrics of usage events up to date every few seconds."""

from __future__ import annotations

from typing import Any

from prefect import State, flow

from tasks import usage


@flow(name="roll-up-live", flow_run_name="live {tenant}")
def roll_up_live(tenant: str, every: float = 5.0, seconds: float = 0.0) -> State[Any]:
    """Load what was collected and bring the live metrics up to date, turn after turn.

    Args:
        tenant: whose; a file `data/tenants/<tenant>.yml`.
        every: seconds from one turn to the next.
        seconds: how long to go on; one turn only when 0.
    """
    return usage.turns(tenant, every, seconds)
