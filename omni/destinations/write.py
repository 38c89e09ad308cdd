"""Writing back: plan, guard, send in batches, and note each batch before it is sent and once it is there.

After a crash or a lost answer the vendor may hold the earlier content or the new one. Such rows are sent
again whatever they hold by then, under the same tokens if they are the same, to destinations where that
changes nothing.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from omni.destinations.declaration import WriteBack
from omni.destinations.ledger import intend, known_rows, record, settle
from omni.destinations.plan import Plan, plan
from omni.sources.connection import Connection
from omni.tenancy import Tenant

MODULES = {
    "hubspot": "omni.destinations.hubspot",
    "salesforce": "omni.destinations.salesforce",
    "hooks": "omni.destinations.webhook",
}

log = logging.getLogger(__name__)

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Written:
    """What a run did: rows written and refused, beside what the plan found."""

    written: int
    rejected: int
    planned: dict[str, int]

    def summary(self) -> dict[str, int]:
        """Counts only."""
        return {"written": self.written, "rejected": self.rejected, **self.planned}


def planned(tenant: Tenant, declared: WriteBack, *, replay: bool = False) -> Plan:
    """What there is to write; raises as `plan.plan`."""
    return plan(tenant, declared, known_rows(tenant.tenant, declared), replay=replay)


def write_back(
    tenant: Tenant,
    declared: WriteBack,
    connection: Connection,
    *,
    run_id: str,
    force: bool = False,
    replay: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Write what is new or changed since the last time.

    Args:
        tenant: whose.
        declared: the write-back.
        connection: the destination's account.
        run_id: noted with each row.
        force: pass the declaration's limits.
        replay: try dead letters again.
        progress: called with the number of rows dealt with so far.

    Raises:
        ConfigError: nothing is published, or more rows than the limits allow.
        SchemaError: the destination lacks a property, or keys are not unique.
        AuthError, SourceError, TransientError: the destination refused or failed; what it took is noted.
    """
    found = planned(tenant, declared, replay=replay)
    if not force:
        found.guard()
    settle(tenant.tenant, declared, found.settled)
    module: ModuleType = importlib.import_module(MODULES[declared.to.vendor])
    items, written, rejected = found.items, 0, 0
    if not items:
        return Written(0, 0, found.summary())
    with module.opened(connection) as client:
        module.check(client, declared)
        for start in range(0, len(items), module.BATCH):
            part = items[start : start + module.BATCH]
            before = intend(tenant.tenant, declared, part, run_id)
            outcome = module.send(client, declared, part)
            record(tenant.tenant, declared, outcome, run_id, before)
            written += len(outcome.written)
            rejected += len(outcome.refused)
            if progress:
                progress(written + rejected)
    if rejected:
        log.warning("write-back %s: %s of %s rows were refused", declared.name, rejected, len(items))
    return Written(written, rejected, found.summary())
