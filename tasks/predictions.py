"""Training, gating and scoring the declared predictions."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from blocks.lookup import saved
from blocks.registry import ModelRegistry
from omni import tenancy
from omni.errors import NotEnoughData
from omni.ml.classifier import score, train
from omni.ml.dataset import fingerprint as fingerprint_of
from omni.ml.declaration import Prediction, predictions
from omni.ml.registry import Champion, Registry
from omni.warehouse.contracts import contracts
from omni.warehouse.database import open_warehouse
from omni.warehouse.versions import fingerprint, finish_step, step_is_fresh
from omni.warehouse.write import replace_table
from tasks.policy import Handle, step
from tasks.run import Run, Step

STAGE = "predictions"
SHOWN = ("roc_auc", "average_precision", "brier", "lift_at_10", "base_rate")


def registry_of(tenant: str) -> Registry:
    """The registry of the tenant's saved block, else the one of the settings."""
    block = saved(ModelRegistry, tenant)
    return Registry.from_settings() if block is None else block.registry()


@step(STAGE, "{prediction}")
def train_and_score(tenant: str, prediction: str, run_id: str) -> Handle:
    """Train on what is known, promote if the gate allows, score everything with the champion."""
    declared = predictions()[prediction]
    name = f"{tenant}.{prediction}"
    with open_warehouse(tenancy.get(tenant)) as warehouse:
        with warehouse.cursor() as con:
            inputs = fingerprint(con, [declared.table], declared)
            if (known := step_is_fresh(con, f"{STAGE}:{prediction}", inputs)) is not None:
                return known | {"rows": 0}
            features = con.execute(f'SELECT * FROM {declared.table} ORDER BY "{declared.entity}"').pl()
        if features.is_empty():
            return {"rows": 0, "note": f"{declared.table} is empty: nothing to learn from"}
        try:
            trained = train(features, declared)
        except NotEnoughData as error:
            return {"rows": 0, "note": str(error)}
        registry = registry_of(tenant)
        version = registry.log(trained, name, fingerprint_of(features, declared))
        promotion = registry.promote(version, trained)
        champion = registry.load_champion(name)
        summary = {
            "model": name,
            "version": version.version,
            "promoted": promotion.promoted,
            "reason": promotion.reason,
            "champion": champion.version.version if champion else None,
            "metrics": {key: round(trained.metrics[key], 4) for key in SHOWN if key in trained.metrics},
        }
        with warehouse.transaction() as write:
            rows = replace_table(
                write, contracts()[declared.scores], _scores(champion, features, declared), run_id
            )
            finish_step(write, f"{STAGE}:{prediction}", inputs, run_id, summary)
    return summary | {"rows": rows}


def _scores(champion: Champion | None, features: pl.DataFrame, declared: Prediction) -> pl.DataFrame:
    """The champion's scores as the table wants them; no rows while no version was good enough."""
    if champion is None:
        columns = contracts()[declared.scores].columns
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    return score(champion.model, features).with_columns(
        model=pl.lit(champion.version.name), model_version=pl.lit(champion.version.version)
    )


def train_models(run: Run, built: Mapping[str, Step]) -> list[Step]:
    """Submit every prediction; each waits for its table of features."""
    return [
        run.submit(
            STAGE, train_and_score, name, run.tenant.tenant, name, run.run_id,
            after=[built[declared.table]] if declared.table in built else [],
        )
        for name, declared in sorted(predictions().items())
    ]  # fmt: skip
