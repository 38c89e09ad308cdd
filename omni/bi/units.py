"""A metric at the level of units, such as the people of an experiment: of each its own days."""

from __future__ import annotations

from collections.abc import Mapping

from omni.bi.metrics import Metric
from omni.bi.rollups import aggregates, column, on_rows, quoted
from omni.errors import ConfigError

KINDS = ("sum", "count", "count_distinct")


def refusal(metric: Metric) -> str | None:
    """Why a metric has no value of its own for a unit; None if it has."""
    if metric.measure.agg in KINDS and not metric.semi_additive:
        return None
    what = "a state" if metric.semi_additive else metric.measure.agg
    return (
        f"metric {metric.name} is {what}; of units there are sums, counts and distinct counts of their rows"
    )


def compile_units(table: str, values: Mapping[str, tuple[Metric, str, int]], timezone: str) -> str:
    """One SELECT of a table of units with a column more per metric; 0 where a unit has no rows.

    A unit's days begin with the day of its `sent_at` in the company's zone: days are all that metrics know,
    so what happened earlier on that day counts, in every arm alike.

    Args:
        table: of units, with `sent_at` and the keys.
        values: by the column to be added: the metric, the key that the units and the metric's model have in
            common, and how many days count.
        timezone: the company's.

    Raises:
        ConfigError: a metric has no value of a unit (`refusal`).
    """
    began = f"CAST(u.sent_at AT TIME ZONE '{timezone}' AS DATE)"
    columns = []
    for name, (metric, key, days) in values.items():
        if problem := refusal(metric):
            raise ConfigError(problem)
        time = column("m", metric.time_column or "")
        kept = [
            f"{column('m', key)} = {column('u', key)}",
            f"{time} >= {began}",
            f"{time} < {began} + {days}",
        ]
        if metric.condition is not None:
            kept.append(f"({on_rows(metric.condition)})")
        value = aggregates(metric)["value"]
        columns.append(
            f"coalesce((SELECT {value} FROM {metric.model} AS m WHERE {' AND '.join(kept)}), 0) "
            f"AS {quoted(name)}"
        )
    return f"SELECT u.*, {', '.join(columns)} FROM {table} AS u"
