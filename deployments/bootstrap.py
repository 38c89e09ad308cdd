"""Prepares a server for this project: `python -m deployments.bootstrap`. Running it again changes nothing.

It makes the work pools that `prefect.yaml` names, gives their flow runs the project's Prefect settings
(a worker starts flow runs in a temporary folder, where `prefect.toml` is not seen), and registers the
block types.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import yaml

from omni.errors import ConfigError, OmniError
from omni.orchestrator.environment import apply_environment, project_settings
from omni.orchestrator.server import Server, server
from omni.settings import PROJECT

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

POOL_TYPE = "process"


def pools() -> list[str]:
    """Work pools that deployments name."""
    document = yaml.safe_load((PROJECT / "prefect.yaml").read_text(encoding="utf-8"))
    return sorted({deployment["work_pool"]["name"] for deployment in document["deployments"]})


def run_settings() -> dict[str, str]:
    """The project's settings a flow run needs; those of the server are the server's."""
    chosen = {k: v for k, v in project_settings().items() if not k.startswith("PREFECT_SERVER_")}
    return {**chosen, "DO_NOT_TRACK": "1"}


def _with_settings(template: dict[str, Any]) -> dict[str, Any]:
    variables = template["variables"]
    env = variables["properties"]["env"]
    changed = {**env, "default": {**(env.get("default") or {}), **run_settings()}}
    return {
        **template,
        "variables": {**variables, "properties": {**variables["properties"], "env": changed}},
    }


def make_pool(client: SyncPrefectClient, name: str) -> str:
    """Make a work pool or bring its settings up to date; what others changed in it stays.

    Raises:
        ConfigError: a pool of that name is of another type.
    """
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        template = _with_settings(ProcessWorker.get_default_base_job_template())
        client.create_work_pool(WorkPoolCreate(name=name, type=POOL_TYPE, base_job_template=template))
        return "created"
    if pool.type != POOL_TYPE:
        raise ConfigError(
            f"Work pool {name!r} is of type {pool.type!r}, but the deployments need {POOL_TYPE!r}. "
            "Name another pool in prefect.yaml."
        )
    template = _with_settings(pool.base_job_template)
    if template == pool.base_job_template:
        return "as it should be"
    client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))
    return "settings brought up to date"


def register_blocks() -> list[str]:
    """Register the project's block types; returns their names."""
    from blocks.lookup import block_types

    classes = block_types()
    for block_class in classes:
        block_class.register_type_and_schema()
    return [block_class.get_block_type_name() for block_class in classes]


def bootstrap(running: Server) -> list[str]:
    """Prepare a server; returns what was done, line by line."""
    from prefect.client.orchestration import get_client

    done = [f"server: {running.ui_url}" + (" (started)" if running.started else "")]
    with get_client(sync_client=True) as client:
        done += [f"work pool {name}: {make_pool(client, name)}" for name in pools()]
    done.append(f"block types: {', '.join(register_blocks())}")
    return done


def main() -> int:
    """Prepare the server and say what comes next."""
    try:
        with server(ephemeral=False) as running:
            apply_environment()
            os.environ["PREFECT_API_URL"] = running.url
            lines = [running.note] if running.note else []
            lines += bootstrap(running)
    except OmniError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    lines += [
        "Next, in this folder:",
        '  eval "$(python -m omni.orchestrator env)"',
        f"  export PREFECT_API_URL={running.url}",
        "  prefect --no-prompt deploy --all",
        *(f"  prefect worker start --pool {name}" for name in pools()),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
