"""How steps run: names, retries, progress. What they do lives in `omni`.

A step is a Prefect task around a function that takes and returns handles: names, counts, paths. Its
task run is named after what it works on, it is retried only for errors that may pass by themselves, and
it tells listeners in this process when it starts and ends.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from prefect import Task, task
from prefect.client.schemas.objects import TaskRun
from prefect.states import State

from omni.errors import TransientError
from omni.telemetry import Progress, emit

Handle = dict[str, Any]
"""What goes between steps: names, counts and paths, as JSON would hold them."""

RETRY_DELAYS = [2.0, 10.0, 30.0]


def is_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed attempt is worth another."""
    try:
        state.result()
    except TransientError:
        return True
    except Exception:  # noqa: BLE001  whatever else went wrong will go wrong again
        return False
    return False


def step(
    stage: str, label: str, *, retries: int = 0, tags: tuple[str, ...] = ()
) -> Callable[[Callable[..., Handle]], Task[..., Handle]]:
    """Make a function a step of a stage.

    Args:
        stage: the part of the night it belongs to.
        label: names one run of it; a template over its parameters, e.g. `"{vendor} {stream}"`.
        retries: how often a TransientError is tried again.
        tags: concurrency tags.
    """

    def decorate(function: Callable[..., Handle]) -> Task[..., Handle]:
        signature = inspect.signature(function)

        @wraps(function)
        def observed(*args: Any, **kwargs: Any) -> Handle:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            name = label.format(**bound.arguments)
            emit(Progress(stage, name, "running"))
            try:
                result = function(*args, **kwargs)
            except Exception as error:
                emit(Progress(stage, name, "failed", message=str(error)))
                raise
            emit(Progress(stage, name, "done", rows=int(result.get("written", result.get("rows", 0)))))
            return result

        made: Task[..., Handle] = task(
            observed,
            name=function.__name__,
            task_run_name=label,
            retries=retries,
            retry_delay_seconds=RETRY_DELAYS[:retries] or None,
            retry_jitter_factor=0.2 if retries else None,
            retry_condition_fn=is_transient if retries else None,
            tags=[stage, *tags],
            persist_result=False,
        )
        return made

    return decorate
