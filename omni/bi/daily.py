"""Metrics as models: tables of each metric's cells, the view of its daily series, and one view of all.

`metrics.revenue__day` holds the cells, `metrics.revenue` the series, `metrics.daily` those of every metric.
Cells are incremental by time: where the model they are read from says which of its days changed, those are
rolled up again and no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from omni.bi.metrics import CellGrain, Metric, in_order, load_metrics
from omni.bi.rollups import compile_cells, compile_view
from omni.warehouse.checks import Check
from omni.warehouse.models import Header, Model, cached_models

DAILY = "metrics.daily"
_KEY = ["dimension", "member", "day"]


@lru_cache(maxsize=4)
def rollup_models(folder: Path) -> dict[str, Model]:
    """The models of all metrics under a folder, and the view over them, by name.

    The models they read are looked for in the folder `models` beside it.
    """
    return models_of(load_metrics(folder), cached_models(folder.parent / "models"))


def models_of(metrics: Mapping[str, Metric], models: Mapping[str, Model]) -> dict[str, Model]:
    """The models that metrics stand for, by name, each after those it reads.

    Args:
        metrics: by name.
        models: those that metrics read, to know what their changed days mean.
    """
    found: dict[str, Model] = {}
    for metric in in_order(metrics):
        for grain in metric.stored:
            header = _cells_header(metric, grain, models)
            name = metric.cells(grain)
            found[name] = Model(name, header, compile_cells(metric, grain), f"metric {metric.name}")
        view = Header(kind="view", owner=metric.owner, description=metric.description, grain=_KEY)
        found[metric.table] = Model(
            metric.table, view, compile_view(metric, metrics), f"metric {metric.name}"
        )
    if not found:
        return {}
    return found | {DAILY: _all(metric.table for metric in metrics.values())}


def of_metric(models: Mapping[str, Model], table: str) -> list[str]:
    """A metric's own models in the order they build: its cells, then its view (or just the view of all)."""
    return [name for name in models if name == table or name.startswith(f"{table}__")]


def metric_of(model: str) -> str:
    """The view `metrics.<name>` that a model of rollups belongs to; other models' names stay as they are."""
    return model.partition("__")[0] if model.startswith("metrics.") else model


def _cells_header(metric: Metric, grain: CellGrain, models: Mapping[str, Model]) -> Header:
    assert metric.model is not None
    return Header(
        kind="incremental_by_time",
        owner=metric.owner,
        description=f"{metric.title} by {grain}, cells with rows only. {metric.description}",
        grain=_KEY,
        time_column="day",
        window=grain,
        rebuild_on=[] if _same_days(metric, models) else [metric.model],
        checks=[Check(unique=_KEY)],
    )


def _same_days(metric: Metric, models: Mapping[str, Model]) -> bool:
    """Whether the changed days of its model are days of the metric, and no other day depends on them."""
    source = models.get(metric.model or "")
    return (
        source is not None
        and source.header.kind not in ("view", "seed", "snapshot")
        and source.header.time_column == metric.time_column
        and metric.measure.agg != "conversion"
    )


def _all(tables: Iterable[str]) -> Model:
    union = "\nUNION ALL\n".join(
        f'SELECT metric, dimension, member, "day", value FROM {table}' for table in tables
    )
    view = Header(
        kind="view",
        owner="bi@demo.example",
        description="Every metric's daily values: totals and by dimension.",
        grain=["metric", *_KEY],
    )
    return Model(DAILY, view, union, "all metrics")
