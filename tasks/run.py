"""One run of a flow: its steps, what became of each, and the summary that remains.

Stages submit steps and name what each needs. A failed step stops only what needs it: the rest goes on,
and the run says at the end what failed, what that blocked, and why.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from prefect import Task, allow_failure
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed, State

from omni import tenancy
from omni.files import write_atomic
from omni.telemetry import Progress, emit
from omni.tenancy import Tenant
from omni.warehouse.database import Warehouse, open_warehouse
from omni.warehouse.versions import forget_seen_changes
from tasks.policy import Handle

Status = Literal["done", "failed", "blocked"]


@dataclass
class Step:
    """A submitted step and, once resolved, what became of it."""

    stage: str
    label: str
    after: tuple[Step, ...]
    future: PrefectFuture[Handle]
    status: Status | None = None
    reason: str = ""
    result: Handle = field(default_factory=dict)

    def resolve(self) -> None:
        """Wait for the step and note its outcome; never raises."""
        if self.status is not None:
            return
        self.future.wait()
        state = self.future.state
        if state.is_completed():
            self.status, self.result = "done", self.future.result()
            return
        culprit = next((s for s in self.after if s.status in ("failed", "blocked")), None)
        if state.name == "NotReady" and culprit is not None:
            self.status, self.reason = "blocked", f"needs {culprit.stage}: {culprit.label}"
            emit(Progress(self.stage, self.label, "blocked", message=self.reason))
            return
        self.status, self.reason = "failed", _reason(state)


def _reason(state: State[Any]) -> str:
    try:
        state.result()
    except Exception as error:  # noqa: BLE001  whatever it was is what the summary must say
        return f"{type(error).__name__}: {error}"
    return state.message or state.name or "unknown"


@dataclass
class Run:
    """A run in progress. Stages call `submit`; the flow returns `outcome()`."""

    flow: str
    tenant: Tenant
    run_id: str
    full: bool = False
    steps: list[Step] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    error: str | None = None

    def submit(
        self,
        stage: str,
        task: Task[..., Handle],
        label: str,
        *args: Any,
        after: Iterable[Step] = (),
        regardless_of: Iterable[Step] = (),
    ) -> Step:
        """Submit a step.

        Args:
            stage: the stage it counts under.
            task: what to run.
            label: its name in progress and summary; equals the task's own template.
            args: handles for the task; a Step stands for its result.
            after: steps that must be done first.
            regardless_of: steps to wait for, whatever becomes of them.
        """
        needed = tuple(after)
        emit(Progress(stage, label, "planned"))
        futures = [
            *(needs.future for needs in needed),
            *(allow_failure(ends.future) for ends in regardless_of),
        ]
        values = [arg.future if isinstance(arg, Step) else arg for arg in args]
        step = Step(stage, label, needed, task.submit(*values, wait_for=futures))
        self.steps.append(step)
        return step

    def resolve(self) -> None:
        """Wait for every step."""
        for step in self.steps:
            step.resolve()

    def summary(self) -> dict[str, Any]:
        """The run as plain values: stages in order, their steps' results, failures with reasons."""
        stages: dict[str, dict[str, Any]] = {}
        for step in self.steps:
            stage = stages.setdefault(step.stage, {"status": "done", "steps": {}, "problems": {}})
            if step.status == "done":
                stage["steps"][step.label] = step.result
            else:
                stage["problems"][step.label] = {"status": step.status, "reason": step.reason}
                if stage["status"] != "failed":
                    stage["status"] = step.status
        return {
            "tenant": self.tenant.tenant,
            "flow": self.flow,
            "run_id": self.run_id,
            "status": "done" if not self.error and all(s.status == "done" for s in self.steps) else "failed",
            "error": self.error,
            "started_at": self.started_at.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self.started, 2),
            "tasks": len(self.steps),
            "stages": stages,
        }

    def outcome(self) -> State[Any]:
        """The flow's final state: Completed, or Failed with each failed step and its reason."""
        failed = [step for step in self.steps if step.status == "failed"]
        blocked = sum(step.status == "blocked" for step in self.steps)
        if not failed and not blocked:
            return Completed(message=f"{len(self.steps)} steps done")
        reasons = "; ".join(f"{step.stage} / {step.label}: {step.reason}" for step in failed)
        return Failed(message=f"{len(failed)} steps failed, {blocked} blocked. {reasons}")


def summary_path(tenant: Tenant, run_id: str) -> Path:
    """Where a run's summary lies."""
    return tenant.home / "runs" / f"{run_id}.json"


@contextmanager
def running(flow: str, tenant: str, *, full: bool = False) -> Iterator[Run]:
    """Hold the tenant's warehouse for a run, resolve its steps at the end and keep the summary.

    Raises:
        ConfigError: unknown tenant.
        WarehouseLocked: another process writes it and did not finish in time.
    """
    owner = tenancy.get(tenant)
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise RuntimeError("running() belongs inside a flow")
    run = Run(flow, owner, str(context.flow_run.id), full)
    with open_warehouse(owner) as warehouse:
        _record(warehouse, run, None)
        try:
            yield run
        except BaseException as error:
            run.error = f"{type(error).__name__}: {error}"
            raise
        finally:
            run.resolve()
            summary = run.summary()
            _record(warehouse, run, summary)
            write_atomic(summary_path(owner, run.run_id), json.dumps(summary, indent=1))


def _record(warehouse: Warehouse, run: Run, summary: dict[str, Any] | None) -> None:
    """Write the run's row: as running at the start, with its summary at the end."""
    with warehouse.transaction() as con:
        con.execute(
            "INSERT INTO ops.runs VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (run_id) DO UPDATE SET "
            "finished_at = excluded.finished_at, status = excluded.status, summary = excluded.summary",
            [
                run.run_id,
                run.flow,
                run.started_at,
                datetime.now(UTC) if summary else None,
                summary["status"] if summary else "running",
                json.dumps(summary) if summary else None,
            ],
        )
        if summary:
            forget_seen_changes(con)
