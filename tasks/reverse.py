"""Writing segments and scores back to vendors."""

from __future__ import annotations

from pydantic import SecretStr

from omni import tenancy
from omni.declarations import check_leaving
from omni.destinations.declaration import WriteBack, write_back_named
from omni.destinations.write import write_back
from omni.errors import ConfigError
from omni.sources.connection import Connection
from omni.telemetry import Progress, emit
from tasks.connections import connection
from tasks.policy import Handle, step
from tasks.run import Run, Step

STAGE = "write back"


@step(STAGE, "{name}", retries=2)
def write_rows(tenant: str, name: str, run_id: str, force: bool, replay: bool) -> Handle:
    """Write what is new or changed since the last time; what was written before a failure is not repeated."""
    owner, declared = tenancy.get(tenant), write_back_named(name)
    check_leaving(declared)
    done = write_back(
        owner,
        declared,
        _account(tenant, declared),
        run_id=run_id,
        force=force,
        replay=replay,
        progress=lambda rows: emit(Progress(STAGE, name, "running", rows=rows)),
    )
    return done.summary()


def _account(tenant: str, declared: WriteBack) -> Connection:
    if declared.to.vendor == "hooks":
        return Connection("hooks", "", SecretStr(""), options={"tenant": tenant})
    return connection(tenant, declared.to.vendor)


def submit(run: Run, name: str, *, force: bool = False, replay: bool = False) -> Step:
    """Submit one write-back.

    Raises:
        ConfigError: there is none of that name, or it is not for this tenant.
    """
    declared = write_back_named(name)
    if declared.tenants and run.tenant.tenant not in declared.tenants:
        raise ConfigError(f"write-back {name} is for {', '.join(declared.tenants)}, not {run.tenant.tenant}")
    return run.submit(STAGE, write_rows, name, run.tenant.tenant, name, run.run_id, force, replay)
