"""From units in the warehouse to results: deduplicate, sum up in SQL, compare, decide."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import polars as pl

from omni.errors import SchemaError
from omni.experiments.declaration import Experiment, Outcome
from omni.experiments.stats import (
    SRM_ALARM,
    Sample,
    benjamini_hochberg,
    difference,
    relative_difference,
    sample_ratio_p,
)
from omni.warehouse.catalog import columns, exists
from omni.warehouse.connection import Connection

RESULTS: dict[str, pl.DataType] = {
    "experiment": pl.String(),
    "outcome": pl.String(),
    "kind": pl.String(),
    "variant": pl.String(),
    "control": pl.String(),
    "n": pl.Int64(),
    "n_control": pl.Int64(),
    "mean": pl.Float64(),
    "mean_control": pl.Float64(),
    "effect": pl.Float64(),
    "ci_low": pl.Float64(),
    "ci_high": pl.Float64(),
    "relative_effect": pl.Float64(),
    "relative_low": pl.Float64(),
    "relative_high": pl.Float64(),
    "p_value": pl.Float64(),
    "p_adjusted": pl.Float64(),
    "srm_p": pl.Float64(),
    "srm_ok": pl.Boolean(),
    "units_excluded": pl.Int64(),
    "decision": pl.String(),
}


@dataclass(frozen=True)
class Units:
    """What the warehouse holds of one experiment.

    Attributes:
        counts: units per arm, each once, without the excluded.
        excluded: units seen in more than one arm.
        samples: sufficient statistics by outcome and arm.
    """

    counts: dict[str, int]
    excluded: int
    samples: dict[tuple[str, str], Sample]


def analyse(con: Connection, experiment: Experiment, measured: str | None = None) -> pl.DataFrame:
    """Compare every arm with the control on every outcome.

    Effects are absolute differences; the decision is taken on that scale, on p-values adjusted over all
    of the experiment's comparisons: `better`, `worse`, `inconclusive`, or `invalid` when the arms' sizes
    contradict the intended shares. Intervals are not adjusted and hold for one look at the end.

    Args:
        con: a warehouse with `experiment.table`: experiment, unit_id, variant, sent_at, outcome columns.
        measured: a SELECT of that table with a column more for every outcome that is a metric.

    Returns:
        Columns as `RESULTS`, a row per outcome (in declared order) and variant; empty without units.
        Effect, interval and p-value are null where they cannot be computed.

    Raises:
        SchemaError: the table or a column is missing, units are in an arm that is not declared, or an
            outcome has values that are not finite, or, of a proportion, other than 0 and 1.
    """
    units = read_units(con, experiment, measured)
    if not units.counts:
        return pl.DataFrame(schema=RESULTS)
    srm_p = sample_ratio_p(units.counts, experiment.shares)
    rows = [
        _compare(units, experiment, outcome, variant)
        for outcome in experiment.outcomes
        for variant in experiment.variants
    ]
    tested = [row for row in rows if row["p_value"] is not None]
    for row, adjusted in zip(tested, benjamini_hochberg([row["p_value"] for row in tested]), strict=True):
        row["p_adjusted"] = adjusted
    directions = {outcome.name: outcome.direction for outcome in experiment.outcomes}
    for row in rows:
        row |= {"srm_p": srm_p, "srm_ok": srm_p >= SRM_ALARM, "units_excluded": units.excluded}
        row["decision"] = _decide(row, directions[row["outcome"]], experiment.alpha)
    return pl.DataFrame(rows, schema=RESULTS)


def read_units(con: Connection, experiment: Experiment, measured_units: str | None = None) -> Units:
    """Deduplicate an experiment's units and sum up their outcomes.

    A unit counts once, with its earliest row; one seen in several arms belongs to none. Rows without
    unit or variant are no units. Units whose time is not over count for the sample ratio only.
    Sums run in the order of units, so a rerun gives the same bits.

    Raises:
        SchemaError: see `analyse`.
    """
    kinds = _check_columns(con, experiment)
    relation = experiment.table
    if measured_units:
        relation = f"({measured_units}) AS units"
        kinds = columns(con, f"({measured_units})")
    measured = sorted({outcome.column for outcome in experiment.outcomes})
    known = experiment.complete or "TRUE"
    picked = ", ".join(
        f"CASE WHEN {known} THEN {_number(column, kinds[column])} END AS {column}" for column in measured
    )
    sums = ", ".join(
        f"count({column}), sum({column} ORDER BY unit_id), sum({column} * {column} ORDER BY unit_id)"
        for column in measured
    )
    rows = con.execute(
        f"""
        WITH assigned AS (
            SELECT unit_id, variant, sent_at, {picked},
                coalesce({experiment.crossover or "FALSE"}, FALSE) AS marked
            FROM {relation}
            WHERE experiment = $name AND unit_id IS NOT NULL AND variant IS NOT NULL
        ), ranked AS (
            SELECT *,
                min(variant) OVER unit <> max(variant) OVER unit OR bool_or(marked) OVER unit AS crossed,
                row_number() OVER (
                    PARTITION BY unit_id ORDER BY sent_at NULLS LAST, variant, {", ".join(measured)}
                ) AS nth
            FROM assigned WINDOW unit AS (PARTITION BY unit_id)
        )
        SELECT variant, crossed, count(*), {sums} FROM ranked WHERE nth = 1
        GROUP BY variant, crossed ORDER BY variant, crossed
        """,
        {"name": experiment.name},
    ).fetchall()
    unknown = sorted({row[0] for row in rows} - set(experiment.shares))
    if unknown:
        raise SchemaError(
            f"{experiment.table}: experiment {experiment.name} has units in {', '.join(map(repr, unknown))}, "
            f"declared are {', '.join(map(repr, experiment.shares))}. Declare the arm or correct the data."
        )
    samples = {
        (column, row[0]): Sample(row[place], row[place + 1] or 0.0, row[place + 2] or 0.0)
        for row in rows
        if not row[1]
        for place, column in zip(range(3, 3 + 3 * len(measured), 3), measured, strict=True)
    }
    _check_values(experiment, samples)
    return Units(
        counts={row[0]: row[2] for row in rows if not row[1]},
        excluded=sum(row[2] for row in rows if row[1]),
        samples=samples,
    )


def _number(column: str, kind: str) -> str:
    """A column as DOUBLE; of a yes or no 1 and 0."""
    if kind == "BOOLEAN":
        return f"CASE WHEN {column} THEN CAST(1 AS DOUBLE) WHEN NOT {column} THEN CAST(0 AS DOUBLE) END"
    return f"CAST({column} AS DOUBLE)"


def _check_columns(con: Connection, experiment: Experiment) -> dict[str, str]:
    """The table's columns and their types."""
    kinds = columns(con, experiment.table) if exists(con, experiment.table) else {}
    present = set(kinds)
    needed = set(experiment.columns)
    if not present:
        raise SchemaError(f"Experiment {experiment.name} reads {experiment.table}, which does not exist.")
    if needed - present:
        raise SchemaError(
            f"{experiment.table} lacks {', '.join(sorted(needed - present))}, "
            f"which experiment {experiment.name} needs."
        )
    return kinds


def _check_values(experiment: Experiment, samples: dict[tuple[str, str], Sample]) -> None:
    shares = {outcome.column for outcome in experiment.outcomes if outcome.kind == "proportion"}
    for (column, variant), sample in samples.items():
        if not math.isfinite(sample.squares):
            problem = "a value that is not finite"
        elif column in shares and sample.total != sample.squares:
            problem = "values other than 0 and 1, but its outcome is declared a proportion"
        else:
            continue
        raise SchemaError(
            f"{experiment.table}.{column}: experiment {experiment.name}, arm {variant!r} holds {problem}."
        )


def _compare(units: Units, experiment: Experiment, outcome: Outcome, variant: str) -> dict[str, Any]:
    nothing = Sample(0, 0.0, 0.0)
    treated = units.samples.get((outcome.column, variant), nothing)
    control = units.samples.get((outcome.column, experiment.control), nothing)
    absolute = difference(treated, control, experiment.alpha)
    relative = relative_difference(treated, control, experiment.alpha)
    return {
        "experiment": experiment.name,
        "outcome": outcome.name,
        "kind": outcome.kind,
        "variant": variant,
        "control": experiment.control,
        "n": treated.n,
        "n_control": control.n,
        "mean": treated.mean if treated.n else None,
        "mean_control": control.mean if control.n else None,
        "effect": absolute.effect if absolute else None,
        "ci_low": absolute.low if absolute else None,
        "ci_high": absolute.high if absolute else None,
        "relative_effect": relative.effect if relative else None,
        "relative_low": relative.low if relative else None,
        "relative_high": relative.high if relative else None,
        "p_value": absolute.p_value if absolute else None,
        "p_adjusted": None,
    }


def _decide(row: dict[str, Any], direction: str, alpha: float) -> str:
    if not row["srm_ok"]:
        return "invalid"
    adjusted, effect = row["p_adjusted"], row["effect"]
    if adjusted is None or adjusted >= alpha:
        return "inconclusive"
    return "better" if (effect > 0) == (direction == "up") else "worse"
