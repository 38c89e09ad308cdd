"""Running flows from the command line: server, flow, progress, closing summary."""

from __future__ import annotations

import ast
import difflib
import importlib
import json
import os
from collections.abc import Mapping
from typing import Any

import typer
from rich.console import Console

from omni import tenancy
from omni.cli.display import display
from omni.cli.summary import print_summary
from omni.errors import ConfigError
from omni.orchestrator.environment import apply_environment
from omni.orchestrator.server import Server, server
from omni.settings import PROJECT
from omni.tenancy import Tenant


def flow_names() -> list[str]:
    """Flows that can be run: the files of `flows/` that declare one of their own name."""
    files = (
        path for path in (PROJECT / "flows").glob("*.py") if f"def {path.stem}(" in path.read_text("utf-8")
    )
    return sorted(path.stem for path in files)


def _parameters(name: str, *, needed: bool = False) -> list[str]:
    """A flow's parameters, or those without a default; read from its source, as importing takes seconds."""
    tree = ast.parse((PROJECT / "flows" / f"{name}.py").read_text(encoding="utf-8"))
    return [
        argument.arg
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == name
        for argument in node.args.args[: len(node.args.args) - len(node.args.defaults) if needed else None]
    ]


def run_flow(
    name: str,
    companies: list[str],
    *,
    full: bool,
    ephemeral: bool,
    quiet: bool,
    as_json: bool,
    verbose: bool,
    parameters: Mapping[str, Any] | None = None,
) -> bool:
    """Run a flow for each company, one after the other.

    Returns:
        Whether every run ended well.

    Raises:
        ConfigError: unknown flow or company, or a parameter the flow does not take.
    """
    known = flow_names()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ConfigError(f"There is no flow {name!r}.{hint} Flows: {', '.join(known)}")
    if full and "full" not in _parameters(name):
        raise ConfigError(f"Flow {name} takes no --full: it always works on what changed")
    if missing := sorted(set(_parameters(name, needed=True)) - {"tenant", *(parameters or {})}):
        raise ConfigError(
            f"Flow {name} needs {', '.join(missing)}, which `omni run` cannot give; it has a command of its "
            "own, see `omni --help`"
        )
    tenants = [tenancy.get(company) for company in companies]
    console = Console(stderr=as_json)
    apply_environment()
    if not verbose:
        # The terminal belongs to the display; the logs still go to the server.
        os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    if not quiet:
        console.print("Looking for a Prefect server …", style="dim")
    good = True
    with server(ephemeral=ephemeral) as prefect:
        os.environ["PREFECT_API_URL"] = prefect.url
        if not quiet:
            console.print(_where(prefect, ephemeral=ephemeral), highlight=False)
        for tenant in tenants:
            given = {"tenant": tenant.tenant, **({"full": True} if full else {}), **(parameters or {})}
            summary = _run(name, prefect, tenant, console, given, quiet=quiet or as_json)
            good = good and summary["status"] == "done"
            if as_json:
                typer.echo(json.dumps(summary, indent=1))
            elif not quiet or summary["status"] != "done":
                print_summary(console, summary)
    return good


def _where(prefect: Server, *, ephemeral: bool) -> str:
    if ephemeral:
        return f"Prefect server for this run only: {prefect.ui_url}"
    if prefect.started:
        return f"Started a local Prefect server, left running: {prefect.ui_url}  (omni server stop ends it)"
    return f"Prefect server: {prefect.ui_url}"


def _run(
    name: str,
    prefect: Server,
    tenant: Tenant,
    console: Console,
    parameters: dict[str, Any],
    *,
    quiet: bool,
) -> dict[str, Any]:
    flow = getattr(importlib.import_module(f"flows.{name}"), name)
    with display(console, f"{name} of {tenant.title}", quiet=quiet):
        state = flow(**parameters, return_state=True)
    run_id = state.state_details.flow_run_id
    path = tenant.home / "runs" / f"{run_id}.json"
    if path.exists():
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        prefect.expect(run_id, summary["tasks"])
        return summary
    done = state.is_completed()  # it found nothing to do, or its steps need no summary
    outcome = {"status": "done", "error": None} if done else {"status": "failed", "error": state.message}
    return {"flow": name, "tenant": tenant.tenant, **outcome, "stages": {}}
