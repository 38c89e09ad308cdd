"""Watching the metrics' daily series."""

from __future__ import annotations

from collections.abc import Mapping

from omni import tenancy
from omni.anomaly.detect import Detector, detect_all
from omni.bi.metrics import metrics
from omni.catalogue.project import all_models
from omni.warehouse.contracts import contracts
from omni.warehouse.database import open_warehouse
from omni.warehouse.models import stored_inputs
from omni.warehouse.versions import complete_through, fingerprint, finish_step, step_is_fresh
from omni.warehouse.write import replace_table
from tasks.policy import Handle, step
from tasks.run import Run, Step

STAGE = "anomalies"
TABLE = "anomaly.flags"
LATEST = 5


def watched() -> list[str]:
    """Names of the metrics that declare `watch: true`."""
    return sorted(name for name, metric in metrics().items() if metric.watch)


@step(STAGE, "detect")
def detect(tenant: str, run_id: str) -> Handle:
    """Judge every day of every watched metric and replace the flags."""
    names, models = watched(), all_models()
    owner = tenancy.get(tenant)
    with open_warehouse(owner) as warehouse:
        with warehouse.cursor() as con:
            through = complete_through(con, owner.timezone)
            tables = {table for name in names for table in stored_inputs(models[f"metrics.{name}"], models)}
            inputs = fingerprint(con, tables, names, Detector(), through)
            if (known := step_is_fresh(con, STAGE, inputs)) is not None:
                return known | {"rows": 0}
            flags = detect_all(con, names, through=through)
        latest = flags.sort("day", "metric", descending=[True, False]).head(LATEST)
        summary = {
            "flags": flags.height,
            "critical": flags.filter(flags["severity"] == "critical").height,
            "watched": len(names),
            "latest": [
                row | {"day": row["day"].isoformat()}
                for row in latest.select("metric", "day", "value", "expected", "direction").to_dicts()
            ],
        }
        with warehouse.transaction() as write:
            rows = replace_table(write, contracts()[TABLE], flags, run_id)
            finish_step(write, STAGE, inputs, run_id, summary)
    return summary | {"rows": rows}


def detect_anomalies(run: Run, rolled: Mapping[str, Step]) -> list[Step]:
    """Submit the detection; it waits for all rollups."""
    return [run.submit(STAGE, detect, "detect", run.tenant.tenant, run.run_id, after=rolled.values())]
