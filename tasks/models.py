"""Building the warehouse's models, each a task of its own, in the order their SQL demands."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from omni import tenancy
from omni.bi.daily import rollup_models
from omni.settings import settings
from omni.warehouse.contracts import contracts
from omni.warehouse.database import open_warehouse
from omni.warehouse.models import Model, cached_models, in_order
from omni.warehouse.runner import build
from tasks.policy import Handle, step
from tasks.run import Run, Step

STAGE = "models"
METRICS = "metrics"


def all_models() -> dict[str, Model]:
    """The project's models and those its metrics stand for."""
    return _all_models(settings().data)


@cache
def _all_models(data: Path) -> dict[str, Model]:
    return cached_models(data / "models") | rollup_models(data / "metrics")


@step(STAGE, "{model}")
def build_model(tenant: str, model: str, run_id: str) -> Handle:
    """Bring one model up to date if something it reads changed."""
    return _build(tenant, model, run_id)


@step(METRICS, "{model}")
def roll_up(tenant: str, model: str, run_id: str) -> Handle:
    """Bring one metric's daily series up to date."""
    return _build(tenant, model, run_id)


def _build(tenant: str, model: str, run_id: str) -> Handle:
    models = all_models()
    with open_warehouse(tenancy.get(tenant)) as warehouse:
        return build(warehouse, models[model], models, run_id).summary()


def build_models(run: Run, loads: Mapping[tuple[str, str], Step]) -> dict[str, Step]:
    """Submit every model; each waits for the streams and models it reads."""
    return _submit(run, cached_models(settings().data / "models"), _loads_by_table(loads), {})


def roll_up_metrics(run: Run, built: Mapping[str, Step]) -> dict[str, Step]:
    """Submit every metric's rollup; each waits for the model it measures."""
    return _submit(run, rollup_models(settings().data / "metrics"), {}, built)


def _submit(
    run: Run, models: Mapping[str, Model], loads: Mapping[str, Step], built: Mapping[str, Step]
) -> dict[str, Step]:
    everything = all_models()
    steps: dict[str, Step] = {}
    for model in in_order(models, {*contracts(), *everything}):
        ready = ChainMap(steps, dict(built), dict(loads))
        stage, task = (METRICS, roll_up) if model.name.startswith("metrics.") else (STAGE, build_model)
        steps[model.name] = run.submit(
            stage, task, model.name, run.tenant.tenant, model.name, run.run_id,
            after=[ready[parent] for parent in model.parents if parent in ready],
        )  # fmt: skip
    return steps


def _loads_by_table(loads: Mapping[tuple[str, str], Step]) -> dict[str, Step]:
    return {
        contract.table: loads[contract.source.vendor, contract.source.object]
        for contract in contracts().values()
        if contract.source and (contract.source.vendor, contract.source.object) in loads
    }
