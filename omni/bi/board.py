"""Dashboards as declared: one file each under `data/dashboards/`.

    title: Overview
    panels:
      - {kind: number, metric: revenue, last_days: 28}
      - {kind: line, metric: revenue, last_days: 180, wide: true}
      - {kind: bar, metric: orders, grain: month, dimension: channel}
      - {kind: table, metric: revenue, dimension: country, last_days: 28}
      - {kind: anomalies}

What would give a wrong number is refused here: a window of days needs values that add up (or a ratio of
such), stacked bars need parts that add up to the whole.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from omni import yamlfile
from omni.bi.metrics import Metric, adds_up, dimensions_of
from omni.errors import ConfigError
from omni.yamlfile import Declaration

METRIC_KINDS = ("number", "line", "bar", "table")
DEFAULT_DAYS = {"number": 28, "line": 180, "bar": 365, "table": 28, "anomalies": 365}
MAX_MEMBERS = 6
"""Series told apart by colour in one chart; the rest is one series of its own or left out."""


class Panel(Declaration):
    """One panel.

    A `number` covers the last `last_days` days, or with `grain` the last complete period; either is
    compared with the one before.
    """

    kind: Literal[
        "number", "line", "bar", "table", "anomalies", "experiments", "models", "freshness", "compliance"
    ]
    metric: str | None = None
    title: str | None = None
    grain: Literal["day", "week", "month"] | None = None
    dimension: str | None = None
    last_days: int | None = Field(None, ge=1, le=3660)
    wide: bool = False

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if (self.kind in METRIC_KINDS) != (self.metric is not None):
            raise ValueError(f"kind {self.kind} {'needs a' if self.metric is None else 'takes no'} metric")
        if self.metric is None and (self.grain or self.dimension):
            raise ValueError(f"kind {self.kind} takes no grain and no dimension")
        if self.kind == "number" and self.dimension:
            raise ValueError("kind number takes no dimension; use table")
        if self.kind == "number" and self.grain and self.last_days:
            raise ValueError("a number covers last_days or the last complete period of grain, not both")
        if self.kind == "table" and (self.grain or not self.dimension):
            raise ValueError("kind table needs a dimension and takes no grain")
        return self

    @property
    def days(self) -> int:
        """Days it looks back."""
        return self.last_days or DEFAULT_DAYS.get(self.kind, 0)


class Board(Declaration):
    """A dashboard: panels in reading order."""

    title: str = Field(min_length=1)
    description: str = ""
    panels: list[Panel] = Field(min_length=1)


def load_board(path: Path, metrics: Mapping[str, Metric]) -> Board:
    """Read and validate one dashboard.

    Raises:
        ConfigError: the file is wrong, or asks for what its metrics cannot give (see `validate`).
    """
    board = yamlfile.load(path, Board)
    validate(board, metrics, str(path))
    return board


def sums(metric: Metric, metrics: Mapping[str, Metric]) -> bool:
    """Whether the value of a window follows from its days: a sum, or arithmetic on sums."""
    if metric.measure.agg in ("ratio", "derived"):
        return all(adds_up(metrics[part], metrics) for part in metric.parts)
    return adds_up(metric, metrics)


def stacks(metric: Metric, metrics: Mapping[str, Metric]) -> bool:
    """Whether the values of members add up to the whole at every period."""
    return metric.additivity == "semi_additive" or adds_up(metric, metrics)


def validate(board: Board, metrics: Mapping[str, Metric], origin: str) -> None:
    """Check every panel against its metric.

    Raises:
        ConfigError: listing each panel that names an unknown metric or dimension, or that would have to
            add up values which do not add up.
    """
    problems = []
    for number, panel in enumerate(board.panels, 1):
        if panel.metric is None:
            continue
        metric = metrics.get(panel.metric)
        if metric is None:
            close = difflib.get_close_matches(panel.metric, sorted(metrics), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            problem: str | None = f"no metric {panel.metric!r}{hint}"
        else:
            problem = _refusal(panel, metric, metrics)
        if problem:
            problems.append(f"{origin}: panel {number} ({panel.kind}): {problem}")
    if problems:
        raise ConfigError("\n".join(problems))


def _refusal(panel: Panel, metric: Metric, metrics: Mapping[str, Metric]) -> str | None:
    known = dimensions_of(metric, metrics)
    if panel.dimension and panel.dimension not in known:
        return f"{metric.name} has no dimension {panel.dimension!r}; it has: {', '.join(known) or 'none'}"
    if panel.kind == "number" and panel.grain is None and not sums(metric, metrics):
        return (
            f"daily values of {metric.name} ({metric.measure.agg}) do not add up to {panel.days} days; "
            "give grain: month (or week, day) to show its last complete period"
        )
    if panel.kind == "table" and not sums(metric, metrics):
        return (
            f"daily values of {metric.name} ({metric.measure.agg}) do not add up to {panel.days} days; "
            "draw it by its dimension as a line"
        )
    if panel.kind == "bar" and panel.dimension and not stacks(metric, metrics):
        return f"parts of {metric.name} ({metric.measure.agg}) do not add up to be stacked; use line"
    return None
