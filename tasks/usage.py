"""Usage events: loading what the collector keeps in its spool, and the turns that keep metrics live."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict

from prefect.states import Completed, Failed, State

from omni import tenancy
from omni.catalogue.project import all_models
from omni.tenancy import Tenant
from omni.usage.live import LOCK_SECONDS, Live, Turn, run_turns, select_live, take_turn
from omni.usage.load import load_events
from omni.usage.spool import recover, sealed_segments, spool_folder
from omni.warehouse.database import open_warehouse
from tasks.policy import Handle, step
from tasks.run import Run, Step

STAGE = "events"


def waiting(tenant: str) -> int:
    """Segments that wait to be loaded; those of dead processes are sealed first."""
    folder = spool_folder(tenancy.get(tenant))
    recover(folder)
    return len(sealed_segments(folder))


@step(STAGE, "load events")
def load_spool(tenant: str, run_id: str) -> Handle:
    """Load every sealed segment of the tenant's spool."""
    owner = tenancy.get(tenant)
    with open_warehouse(owner) as warehouse:
        loaded = load_events(warehouse, sealed_segments(spool_folder(owner)), run_id=run_id)
    days = [day.isoformat() for day in loaded.days]
    return asdict(loaded) | {"days": days, "written": loaded.inserted, "repeated": loaded.repeated}


def load_waiting(run: Run) -> Step:
    """Submit the loading of the spool."""
    return run.submit(STAGE, load_spool, "load events", run.tenant.tenant, run.run_id)


def _live(owner: Tenant) -> Live:
    models = all_models()
    # A flow's turn may wait as long as it takes others to finish a step.
    return Live(owner, models, select_live(models), lock_seconds=10 * LOCK_SECONDS)


def turns(tenant: str, every: float, seconds: float) -> State[Handle]:
    """Take turns for some time, at least one; fails if the last turn or models of it did."""
    live = _live(tenancy.get(tenant))
    taken: list[Turn] = []
    if seconds <= 0:
        taken.append(take_turn(live))
    else:
        stop = threading.Event()
        timer = threading.Timer(seconds, stop.set)
        timer.start()
        try:
            run_turns(live, every, stop, taken.append)
        finally:
            timer.cancel()
    return outcome(taken)


def outcome(taken: Sequence[Turn]) -> State[Handle]:
    """What became of some turns: the last one tells, for what failed before it was tried again."""
    inserted = sum(turn.loaded.inserted for turn in taken)
    said = (
        f"{inserted} events in {len(taken)} turns, {sum(turn.status == 'locked' for turn in taken)} left out"
    )
    if failed := sum(turn.status == "failed" for turn in taken):
        said += f", {failed} failed"
    problems = taken[-1].problems if taken else {"live": "no turn went well; see the log"}
    if problems:
        return Failed(message=f"{said}. {'; '.join(f'{name}: {why}' for name, why in problems.items())}")
    return Completed(message=said)
