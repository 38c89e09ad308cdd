"""`omni models run`: building models in this process, with a line for each that did something."""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, date, datetime
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from omni import tenancy
from omni.catalogue.project import all_models
from omni.errors import ConfigError
from omni.warehouse.build import Outcome, build_models
from omni.warehouse.database import Warehouse, open_warehouse
from omni.warehouse.quick import without_pandas
from omni.warehouse.selection import select_models

MARKS = {"done": ("✓", "green"), "failed": ("✗", "bold red"), "blocked": ("–", "yellow")}
FLOW = "build_models"


def run_models(
    company: str,
    select: list[str],
    since: datetime | None,
    until: datetime | None,
    *,
    batch_days: int,
    full: bool,
    publish: bool,
    quiet: bool,
    as_json: bool,
) -> bool:
    """Build the selected models and print what became of them.

    Args:
        company: whose.
        select: patterns of `select_models`.
        since: first day of a range to rebuild.
        until: the day after the range's last.
        batch_days: days of the range rebuilt at a time.
        full: forget what was built, so that all of it is built whole.
        publish: write the snapshot for readers when everything went well.
        quiet: print failures only.
        as_json: print the summary as JSON instead.

    Returns:
        Whether all went well.

    Raises:
        ConfigError: an unknown model or company, or half a range.
    """
    tenant = tenancy.get(company)
    models = all_models()
    chosen = select_models(models, select)
    days = backfill_range(since, until)
    if full and days:
        raise ConfigError("--full builds everything: leave out --since and --until")
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    started = time.monotonic()
    with without_pandas(), open_warehouse(tenant) as warehouse:
        run_id = f"models-{uuid.uuid4()}"
        began = datetime.now(UTC)
        _record(warehouse, run_id, began, None)
        if full:
            _forget(warehouse, chosen)
        outcomes: list[Outcome] = []

        def told(outcome: Outcome) -> None:
            outcomes.append(outcome)
            if not as_json:
                _tell(console, outcome, quiet=quiet)

        summary = {"tenant": tenant.tenant, "flow": FLOW, "run_id": run_id, "status": "failed"}
        try:
            build_models(
                warehouse, models, select=chosen if select else None, since=days and days[0],
                until=days and days[1], batch_days=batch_days, run_id=run_id, on_built=told,
            )  # fmt: skip
            good = all(outcome.status == "done" for outcome in outcomes)
            summary["status"] = "done" if good else "failed"
            if good and publish:
                from omni.warehouse.publish import publish as write_snapshot

                write_snapshot(warehouse)
        finally:
            _record(warehouse, run_id, began, summary | _counts(outcomes, time.monotonic() - started))
    summary |= _counts(outcomes, time.monotonic() - started)
    if as_json:
        typer.echo(json.dumps(summary, indent=1, default=str))
    elif not quiet or summary["status"] != "done":
        _close(console, tenant.title, summary)
    return summary["status"] == "done"


def backfill_range(since: datetime | None, until: datetime | None) -> tuple[date, date] | None:
    """The days to rebuild, the second not included; None if no range was given.

    Raises:
        ConfigError: only one end was given, or the range is empty.
    """
    if since is None and until is None:
        return None
    if since is None or until is None:
        raise ConfigError("A range to rebuild needs both --since and --until (the day after the last)")
    if since >= until:
        raise ConfigError(
            f"The range [{since:%Y-%m-%d}, {until:%Y-%m-%d}) is empty; --until is the day after the last"
        )
    return since.date(), until.date()


def _forget(warehouse: Warehouse, names: list[str]) -> None:
    """Make the models new: their tables stay for readers until they are replaced."""
    with warehouse.transaction() as con:
        for name in names:
            con.execute("DELETE FROM ops.models WHERE model = $1", [name])


def _record(warehouse: Warehouse, run_id: str, began: datetime, summary: dict[str, Any] | None) -> None:
    with warehouse.transaction() as con:
        con.execute("DELETE FROM ops.runs WHERE run_id = $1", [run_id])
        con.execute(
            "INSERT INTO ops.runs VALUES ($1, $2, $3, $4, $5, $6)",
            [
                run_id, FLOW, began, datetime.now(UTC) if summary else None,
                summary["status"] if summary else "running",
                json.dumps(summary, default=str) if summary else None,
            ],
        )  # fmt: skip


def _counts(outcomes: list[Outcome], seconds: float) -> dict[str, Any]:
    counted: dict[str, int] = {}
    for outcome in outcomes:
        what = outcome.built.action if outcome.built else outcome.status
        counted[what] = counted.get(what, 0) + 1
    return {
        "seconds": round(seconds, 2),
        "models": len(outcomes),
        "counts": counted,
        "built": [o.built.summary() for o in outcomes if o.built and o.built.action != "skip"],
        "problems": {
            o.model: {"status": o.status, "reason": o.reason} for o in outcomes if o.status != "done"
        },
    }


def _tell(console: Console, outcome: Outcome, *, quiet: bool) -> None:
    built = outcome.built
    mark, style = MARKS[outcome.status]
    if built is None:
        console.print(
            Text(f"{mark} ", style=style).append(f"{outcome.model}: {outcome.reason}", style="default")
        )
        return
    for check in built.failing_checks:
        console.print(Text("! ", style="yellow").append(check, style="default"))
    if quiet or built.action == "skip":
        return
    what = built.action if built.action == "view" else f"{built.action}, {built.rows:,} rows"
    same = "" if built.changed else ", as before"
    console.print(
        Text(f"{mark} ", style=style)
        .append(f"{outcome.model} ", style="default")
        .append(f"{what}{same} in {built.seconds:.2f} s: {built.reason}", style="dim")
    )


def _close(console: Console, title: str, summary: dict[str, Any]) -> None:
    counted = ", ".join(f"{n} {what}" for what, n in summary["counts"].items()) or "nothing selected"
    style = "green" if summary["status"] == "done" else "bold red"
    console.print(
        Text(summary["status"], style=style).append(
            f": {summary['models']} models of {title} ({counted}) in {summary['seconds']:.1f} s",
            style="default",
        )
    )
