"""Metrics for other tools: a semantic model in the form of Apache Ossie (once Open Semantic Interchange).

The form knows datasets, relationships of many rows to one, and metrics as aggregate expressions. What it
cannot say without giving wrong numbers (states, running totals, changes, conversions) is left out and named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from omni.bi.answers import describe
from omni.bi.expressions import render
from omni.bi.metrics import Metric, in_order

VERSION = "0.2.0.dev0"
"""Of the schema in apache/ossie; not yet a release of theirs."""
VENDOR = "OMNI"


def export(metrics: Mapping[str, Metric]) -> tuple[dict[str, Any], list[str]]:
    """The document, ready to be written as YAML or JSON, and the names of the metrics that are not in it.

    Of every metric the whole definition goes along under `custom_extensions`.
    """
    told = {m.name: sql for m in in_order(metrics) if (sql := _expression(m, metrics)) is not None}
    models = sorted({m.model for m in metrics.values() if m.name in told and m.model})
    joined = {
        join.model: join.target for m in metrics.values() if m.model in models for join in m.joins.values()
    }
    document = {
        "version": VERSION,
        "semantic_model": [
            {
                "name": "omni",
                "datasets": [_dataset(table, metrics, joined) for table in sorted({*models, *joined})],
                "relationships": _relationships(metrics, models),
                "metrics": [_metric(metrics[name], told[name], metrics) for name in sorted(told)],
            }
        ],
    }
    return document, sorted(set(metrics) - set(told))


def _expression(metric: Metric, metrics: Mapping[str, Metric]) -> str | None:
    """The metric as one aggregate expression; None if there is none that is right at every grain."""
    measure = metric.measure
    if measure.arithmetic is not None:
        parts = {part: _expression(metrics[part], metrics) for part in metric.parts}
        if any(sql is None for sql in parts.values()):
            return None
        return render(measure.arithmetic, lambda name: f"({parts[name]})", safe_division=True)
    if metric.semi_additive or measure.composite or measure.agg == "conversion":
        return None
    value = f"{_name(metric.model)}.{measure.column}" if measure.column else "1"
    if metric.condition is not None:
        where = render(metric.condition, lambda name: f"{_name(metric.model)}.{name}")
        value = f"CASE WHEN {where} THEN {value} END"
    match measure.agg:
        case "count":
            return f"COUNT({value})"
        case "count_distinct" | "distinct_approx":
            return f"COUNT(DISTINCT {value})"
        case "average":
            return f"AVG({value})"
        case "percentile":
            return f"PERCENTILE_CONT({measure.p}) WITHIN GROUP (ORDER BY {value})"
        case agg:
            return f"{agg.upper()}({value})"


def _dataset(table: str, metrics: Mapping[str, Metric], joined: Mapping[str, str]) -> dict[str, Any]:
    read = [m for m in metrics.values() if m.model == table]
    times = {m.time_column for m in read}
    names = {c for m in read for columns in m.columns.values() for c in columns}
    dimensions = {d for m in read for d in m.dimensions} | times
    joins = [join for m in metrics.values() for join in m.joins.values() if join.model == table]
    names |= {c for join in joins for c in [join.target, *join.dimensions]}
    dimensions |= {c for join in joins for c in join.dimensions}
    fields = []
    for name in sorted(names):
        field: dict[str, Any] = {"name": name, "expression": _said(name)}
        if name in dimensions:
            field["dimension"] = {"is_time": name in times}
        fields.append(field)
    key = {"primary_key": [joined[table]]} if table in joined else {}
    return {"name": _name(table), "source": table, **key, "fields": fields}


def _relationships(metrics: Mapping[str, Metric], models: list[str]) -> list[dict[str, Any]]:
    found = {}
    for metric in metrics.values():
        if metric.model in models:
            for join in metric.joins.values():
                name = f"{_name(metric.model)}_{join.key}_to_{_name(join.model)}"
                found[name] = {
                    "name": name, "from": _name(metric.model), "to": _name(join.model),
                    "from_columns": [join.key], "to_columns": [join.target],
                }  # fmt: skip
    return [found[name] for name in sorted(found)]


def _metric(metric: Metric, sql: str, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    synonyms = {"ai_context": {"synonyms": [metric.title, *metric.synonyms]}}
    extension = {"vendor_name": VENDOR, "data": json.dumps(describe(metric, metrics))}
    return {
        "name": metric.name, "expression": _said(sql), "description": metric.description, **synonyms,
        "custom_extensions": [extension],
    }  # fmt: skip


def _said(sql: str) -> dict[str, Any]:
    return {"dialects": [{"dialect": "ANSI_SQL", "expression": sql}]}


def _name(table: str | None) -> str:
    return (table or "").replace(".", "_")
