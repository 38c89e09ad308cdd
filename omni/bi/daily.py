"""Metrics as models: each metric's daily series is a table, and `metrics.daily` shows them all.

Because a rollup is a model like any other, it is rebuilt only when what it measures changed.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from omni.bi.metrics import load_metrics
from omni.bi.rollups import compile_rollup
from omni.warehouse.checks import Check
from omni.warehouse.models import Header, Model

DAILY = "metrics.daily"


@lru_cache(maxsize=4)
def rollup_models(folder: Path) -> dict[str, Model]:
    """A model per metric under a folder, and the view over them, by name."""
    metrics = load_metrics(folder)
    models = {}
    for metric in metrics.values():
        header = Header(
            kind="full",
            owner=metric.owner,
            description=metric.description,
            grain=["dimension", "member", "day"],
            time_column="day",
            checks=[Check(unique=["dimension", "member", "day"])],
        )
        models[metric.table] = Model(
            metric.table, header, compile_rollup(metric, metrics), f"metric {metric.name}"
        )
    union = "\nUNION ALL\n".join(
        f"SELECT metric, dimension, member, day, value FROM {table}" for table in models
    )
    view = Header(
        kind="view",
        owner="bi@demo.example",
        description="Every metric's daily values: totals and by dimension.",
        grain=["metric", "dimension", "member", "day"],
    )
    return models | {DAILY: Model(DAILY, view, union, "all metrics")}
