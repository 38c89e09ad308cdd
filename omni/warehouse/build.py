"""Building many models without an orchestrator: in order, each on its own, ranges in batches.

A model that fails stops only what reads it. Whatever was built stays, so running again continues.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import duckdb

from omni.errors import ConfigError, OmniError
from omni.warehouse.catalog import stored_tables
from omni.warehouse.contracts import contracts
from omni.warehouse.database import Warehouse
from omni.warehouse.models import Model, in_order
from omni.warehouse.runner import Built, backfill, build
from omni.warehouse.selection import descendants
from omni.warehouse.versions import forget_seen_changes

BATCH_DAYS = 30
"""Days of one batch of a backfill unless told otherwise."""


@dataclass(frozen=True)
class Outcome:
    """What became of one model: `built` if it is done, else why not."""

    model: str
    status: Literal["done", "failed", "blocked"]
    built: Built | None = None
    reason: str = ""


def build_models(
    warehouse: Warehouse,
    models: Mapping[str, Model],
    *,
    select: Collection[str] | None = None,
    since: date | None = None,
    until: date | None = None,
    batch_days: int = BATCH_DAYS,
    run_id: str,
    on_built: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Bring models up to date, in the order their SQL demands.

    Args:
        warehouse: open for writing.
        models: every model of the project, by name.
        select: names of those to build, no others (see `omni.warehouse.selection`); all by default.
        since: first day of a range whose windows are rebuilt whether or not anything changed, in every
            incremental_by_time model that is selected and those that read it.
        until: the day after the range's last.
        batch_days: the range is rebuilt in batches of about so many days, each a transaction of its own.
        run_id: kept with what is built.
        on_built: told of every model as it ends.

    Returns:
        One outcome per model, in the order they were built.

    Raises:
        ConfigError: an unknown model, half a range, or a range for a model that has no time.
    """
    ordered = in_order(models, _tables(warehouse))
    chosen = chosen_models(models, ordered, select, since, until)
    outcomes: dict[str, Outcome] = {}
    for model in ordered:
        if model.name not in chosen:
            continue
        outcome = _one(warehouse, model, models, outcomes, since, until, batch_days, run_id)
        outcomes[model.name] = outcome
        if on_built:
            on_built(outcome)
    with warehouse.transaction() as con:
        forget_seen_changes(con)
    return list(outcomes.values())


def _tables(warehouse: Warehouse) -> set[str]:
    """What a model may read besides other models: what a contract declares and what is there."""
    with warehouse.cursor() as con:
        return {*contracts(), *(f"{schema}.{name}" for schema, name in stored_tables(con))}


def chosen_models(
    models: Mapping[str, Model],
    ordered: Sequence[Model],
    select: Collection[str] | None,
    since: date | None,
    until: date | None,
) -> set[str]:
    """Names of the models to build; with a range also of those that read the selected ones.

    Args:
        models: every model, by name.
        ordered: the same, parents first.
        select: names; None for all.
        since: see `build_models`.
        until: see `build_models`.

    Raises:
        ConfigError: as `build_models`.
    """
    chosen = set(models) if select is None else set(select)
    if unknown := sorted(chosen - set(models)):
        raise ConfigError(f"No model is named {', '.join(unknown)}; `omni models list` lists them")
    if since is None and until is None:
        return chosen
    if since is None or until is None or since >= until:
        raise ConfigError(f"A range needs a first day and the day after its last: [{since}, {until}) is none")
    if select is not None:
        for name in sorted(chosen):
            if models[name].header.kind != "incremental_by_time":
                raise ConfigError(
                    f"{models[name].origin}: a model of kind {models[name].header.kind} has no windows to "
                    "rebuild, only incremental_by_time has. Build it without a range of days"
                )
    return descendants(models, [model.name for model in ordered], chosen)


def _one(
    warehouse: Warehouse,
    model: Model,
    models: Mapping[str, Model],
    outcomes: Mapping[str, Outcome],
    since: date | None,
    until: date | None,
    batch_days: int,
    run_id: str,
) -> Outcome:
    for parent in model.parents:
        if parent in outcomes and outcomes[parent].status != "done":
            return Outcome(model.name, "blocked", reason=f"needs {parent}")
    try:
        if since and until and model.header.kind == "incremental_by_time":
            built = backfill(warehouse, model, models, since, until, batch_days, run_id)
        else:
            built = build(warehouse, model, models, run_id)
    except (OmniError, duckdb.Error) as error:
        return Outcome(model.name, "failed", reason=f"{type(error).__name__}: {error}")
    return Outcome(model.name, "done", built)
