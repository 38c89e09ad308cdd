"""Building the warehouse's models, each a task of its own, in the order their SQL demands."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from datetime import date

from omni import tenancy
from omni.bi.daily import metric_of, of_metric, rollup_models
from omni.bi.funnel_sql import funnel_models
from omni.catalogue.project import all_models
from omni.errors import ConfigError
from omni.settings import settings
from omni.warehouse.build import BATCH_DAYS, chosen_models
from omni.warehouse.contracts import contracts
from omni.warehouse.database import open_warehouse
from omni.warehouse.models import Model, cached_models, in_order
from omni.warehouse.runner import backfill, build
from omni.warehouse.selection import select_models
from tasks.policy import Handle, step
from tasks.run import Run, Step

STAGE = "models"
METRICS = "metrics"


@step(STAGE, "{model}")
def build_model(
    tenant: str, model: str, run_id: str, since: str | None = None, until: str | None = None
) -> Handle:
    """Bring one model up to date if something it reads changed; with a range rebuild its windows anyway."""
    models = all_models()
    if since is None or until is None or models[model].header.kind != "incremental_by_time":
        return _build(tenant, model, run_id)
    days = date.fromisoformat(since), date.fromisoformat(until)
    with open_warehouse(tenancy.get(tenant)) as warehouse:
        return backfill(warehouse, models[model], models, *days, BATCH_DAYS, run_id).summary()


@step(METRICS, "{metric}")
def roll_up(tenant: str, metric: str, run_id: str) -> Handle:
    """Bring one metric's cells and the view of its daily series up to date."""
    models = all_models()
    with open_warehouse(tenancy.get(tenant)) as warehouse:
        built = [build(warehouse, models[name], models, run_id) for name in of_metric(models, metric)]
    did = next((b for b in built if b.action != "skip"), built[0])
    return did.summary() | {
        "model": metric,
        "rows": sum(b.rows for b in built),
        "changed": any(b.changed for b in built),
        "seconds": round(sum(b.seconds for b in built), 4),
        "failing_checks": [check for b in built for check in b.failing_checks],
        "written": sum(b.rows for b in built if b.changed),
    }


def _build(tenant: str, model: str, run_id: str) -> Handle:
    models = all_models()
    with open_warehouse(tenancy.get(tenant)) as warehouse:
        return build(warehouse, models[model], models, run_id).summary()


def build_models(run: Run, loads: Mapping[tuple[str, str], Step]) -> dict[str, Step]:
    """Submit every model; each waits for the streams and models it reads."""
    data = settings().data
    models = cached_models(data / "models") | funnel_models(data / "funnels")
    return _submit(run, models, _loads_by_table(loads), {})


def rebuild_range(run: Run, select: Sequence[str], since: str | None, until: str | None) -> dict[str, Step]:
    """Submit chosen models, and with a range of days what reads them too.

    Args:
        run: the run they belong to.
        select: patterns (`omni.warehouse.selection`); all models when empty.
        since: first day, as an ISO date; its windows are rebuilt even if nothing changed.
        until: the day after the last, as an ISO date.

    Raises:
        ConfigError: a pattern names nothing, a date is none, or a model has no windows.
    """
    models = all_models()
    ordered = in_order(models, {*contracts(), *models})
    names = select_models(models, select) if select else None
    chosen = chosen_models(models, ordered, names, _day("since", since), _day("until", until))
    return _submit(run, {name: models[name] for name in chosen}, {}, {}, (since, until))


def _day(name: str, text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{name}: {text!r} is not a date as in 2026-06-01") from None


def roll_up_metrics(run: Run, built: Mapping[str, Step]) -> dict[str, Step]:
    """Submit every metric; each waits for the model it measures and the metrics it is made of."""
    models = rollup_models(settings().data / "metrics")
    everything = all_models()
    steps: dict[str, Step] = {}
    for model in in_order(models, {*contracts(), *everything}):
        metric = metric_of(model.name)
        if metric in steps or model.header.kind != "view":
            continue
        parents = {metric_of(parent) for name in of_metric(models, metric) for parent in models[name].parents}
        ready = ChainMap(steps, dict(built))
        steps[metric] = run.submit(
            METRICS, roll_up, metric, run.tenant.tenant, metric, run.run_id,
            after=[ready[parent] for parent in sorted(parents - {metric}) if parent in ready],
        )  # fmt: skip
    return steps


def _submit(
    run: Run,
    models: Mapping[str, Model],
    loads: Mapping[str, Step],
    built: Mapping[str, Step],
    days: tuple[str | None, ...] = (),
) -> dict[str, Step]:
    everything = all_models()
    steps: dict[str, Step] = {}
    for model in in_order(models, {*contracts(), *everything}):
        ready = ChainMap(steps, dict(built), dict(loads))
        steps[model.name] = run.submit(
            STAGE, build_model, model.name, run.tenant.tenant, model.name, run.run_id, *days,
            after=[ready[parent] for parent in model.parents if parent in ready],
            regardless_of=[steps[other] for other in model.checked_against if other in steps],
        )  # fmt: skip
    return steps


def _loads_by_table(loads: Mapping[tuple[str, str], Step]) -> dict[str, Step]:
    return {
        contract.table: loads[contract.source.vendor, contract.source.object]
        for contract in contracts().values()
        if contract.source and (contract.source.vendor, contract.source.object) in loads
    }
