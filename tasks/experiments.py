"""Reading the experiments."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from omni import tenancy
from omni.bi.metrics import metrics
from omni.bi.units import compile_units
from omni.experiments.analysis import RESULTS, analyse
from omni.experiments.declaration import Experiment, experiments
from omni.warehouse.contracts import contracts
from omni.warehouse.database import open_warehouse
from omni.warehouse.versions import fingerprint, finish_step, step_is_fresh
from omni.warehouse.write import replace_table
from tasks.policy import Handle, step
from tasks.run import Run, Step

STAGE = "experiments"
TABLE = "experiments.results"
SHOWN = ("experiment", "outcome", "variant", "effect", "ci_low", "ci_high", "p_value", "decision")


@step(STAGE, "analyse")
def analyse_all(tenant: str, run_id: str) -> Handle:
    """Analyse every declared experiment and replace the results."""
    declared = sorted(experiments().values(), key=lambda experiment: experiment.name)
    owner = tenancy.get(tenant)
    with open_warehouse(owner) as warehouse:
        with warehouse.cursor() as con:
            named = [metrics()[name] for experiment in declared for name in experiment.metrics]
            tables = {experiment.table for experiment in declared} | {m.model for m in named if m.model}
            inputs = fingerprint(con, tables, declared, *([named] if named else []))
            if (known := step_is_fresh(con, STAGE, inputs)) is not None:
                return known | {"rows": 0}
            empty = pl.DataFrame(schema=RESULTS)
            zone = owner.timezone
            results = pl.concat([empty, *(analyse(con, e, _measured(e, zone)) for e in declared)])
        summary = {"results": results.select(SHOWN).to_dicts()}
        with warehouse.transaction() as write:
            rows = replace_table(write, contracts()[TABLE], results, run_id)
            finish_step(write, STAGE, inputs, run_id, summary)
    return summary | {"rows": rows}


def _measured(experiment: Experiment, timezone: str) -> str | None:
    """The units with their values of the metrics that outcomes name; None if they name none."""
    values = {
        outcome.column: (metrics()[outcome.metric], outcome.key, outcome.days)
        for outcome in experiment.outcomes
        if outcome.metric and outcome.key and outcome.days
    }
    return compile_units(experiment.table, values, timezone) if values else None


def analyse_experiments(run: Run, built: Mapping[str, Step]) -> list[Step]:
    """Submit the analysis; it waits for the tables of units."""
    tables = {experiment.table for experiment in experiments().values()}
    tables |= {metrics()[name].model or "" for e in experiments().values() for name in e.metrics}
    after = [built[table] for table in sorted(tables) if table in built]
    return [run.submit(STAGE, analyse_all, "analyse", run.tenant.tenant, run.run_id, after=after)]
