"""Reading the experiments."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from omni import tenancy
from omni.experiments.analysis import RESULTS, analyse
from omni.experiments.declaration import experiments
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
    with open_warehouse(tenancy.get(tenant)) as warehouse:
        with warehouse.cursor() as con:
            inputs = fingerprint(con, {experiment.table for experiment in declared}, declared)
            if (known := step_is_fresh(con, STAGE, inputs)) is not None:
                return known | {"rows": 0}
            empty = pl.DataFrame(schema=RESULTS)
            results = pl.concat([empty, *(analyse(con, experiment) for experiment in declared)])
        summary = {"results": results.select(SHOWN).to_dicts()}
        with warehouse.transaction() as write:
            rows = replace_table(write, contracts()[TABLE], results, run_id)
            finish_step(write, STAGE, inputs, run_id, summary)
    return summary | {"rows": rows}


def analyse_experiments(run: Run, built: Mapping[str, Step]) -> list[Step]:
    """Submit the analysis; it waits for the tables of units."""
    tables = {experiment.table for experiment in experiments().values()}
    after = [built[table] for table in sorted(tables) if table in built]
    return [run.submit(STAGE, analyse_all, "analyse", run.tenant.tenant, run.run_id, after=after)]
