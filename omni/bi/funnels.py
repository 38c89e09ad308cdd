"""Funnels: steps people should take one after the other, one file each under `data/funnels/`.

    name: signup
    title: From first page to sign-up
    description: Everyone's first page view, and who of them signed up within 30 days.
    owner: marketing@demo.example
    unit: actor
    order: ordered
    entry: once
    window: 30 days
    steps:
      - {name: came, event: page_view}
      - {name: signed_up, event: signup, where: "page <> '/test'"}
    breakdown: {by: channel, attribution: first}

What the words mean, and how a funnel becomes SQL: `omni.bi.funnel_sql`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

import sqlglot
from pydantic import Field, field_validator, model_validator
from sqlglot import exp

from omni import yamlfile
from omni.errors import ConfigError
from omni.settings import settings
from omni.yamlfile import Declaration

NAME = r"^[a-z][a-z0-9_]*$"
DIMENSIONS = ("account", "channel", "event", "page", "source")
"""What a funnel can be split by: columns of the events, and `properties.<key>`."""

Unit = Literal["actor", "account", "session"]
Order = Literal["ordered", "strict", "any"]
Attribution = Literal["first", "last", "per_step"]


class FunnelStep(Declaration):
    """One step: an event, and a condition on the events' columns, for example on properties."""

    name: str = Field(pattern=NAME)
    event: str = Field(min_length=1)
    where: str | None = Field(None, description="SQL condition on columns of core.usage_events")

    @field_validator("where")
    @classmethod
    def _is_condition(cls, value: str | None) -> str | None:
        if value is not None:
            _refuse_no_condition(value)
        return value

    @property
    def condition(self) -> str:
        """The step as a SQL condition."""
        event = "event = " + exp.Literal.string(self.event).sql("duckdb")
        return event if self.where is None else f"({event} AND ({self.where}))"


class Breakdown(Declaration):
    """What to split by, and whose value counts where a unit's events have several.

    `first`: that of its first step; `last`: that of the last step it reached; `per_step`: each step its own.
    """

    by: str
    attribution: Attribution = "first"

    @field_validator("by")
    @classmethod
    def _known(cls, value: str) -> str:
        column(value)
        return value


class Funnel(Declaration):
    """One funnel; see `omni.bi.funnel_sql` for what its fields mean."""

    name: str = Field(pattern=NAME)
    title: str = Field(min_length=1)
    description: str = Field(min_length=1)
    owner: str
    unit: Unit = "actor"
    order: Order = "ordered"
    entry: Literal["once", "daily"] = "once"
    window: str = Field(pattern=r"^[1-9][0-9]{0,4} (minute|hour|day)s?$", description="for example 7 days")
    steps: list[FunnelStep] = Field(min_length=2, max_length=12)
    breakdown: Breakdown | None = None

    @model_validator(mode="after")
    def _steps_differ(self) -> Self:
        names = [step.name for step in self.steps]
        if len(set(names)) < len(names):
            raise ValueError("steps: two have the same name")
        if self.order == "any":
            self._refuse_hidden()
        return self

    def _refuse_hidden(self) -> None:
        """In any order an event is the first step it fits: refuse one that leaves a later step nothing."""
        for number, step in enumerate(self.steps):
            for before in self.steps[:number]:
                if before.condition == step.condition:
                    raise ValueError("steps: in any order, two equal steps could not be told apart")
                if before.event == step.event and before.where is None:
                    raise ValueError(
                        f"steps: in any order an event is the first step it fits, so every {step.event} is "
                        f"{before.name} and none {step.name}; list {step.name} before {before.name}"
                    )

    @property
    def minutes(self) -> int:
        """The window's length."""
        number, unit = self.window.split()
        return int(number) * {"minute": 1, "hour": 60, "day": 24 * 60}[unit.rstrip("s")]

    @property
    def table(self) -> str:
        """The table of its daily cohorts."""
        return f"marts.funnel_{self.name}"


def _refuse_no_condition(sql: str) -> None:
    try:
        condition = sqlglot.parse_one(sql, read="duckdb", into=exp.Condition)
    except sqlglot.errors.SqlglotError as error:
        raise ValueError(f"where: not a SQL condition: {str(error).splitlines()[0]}") from None
    if next(condition.find_all(exp.Query, exp.AggFunc, exp.Window, exp.Placeholder, exp.Parameter), None):
        raise ValueError("where: only conditions on one event's columns; no subquery, aggregate, parameter")
    if any(found.table for found in condition.find_all(exp.Column)):
        raise ValueError("where: columns are named without their table")


def column(dimension: str) -> str:
    """The SQL of a dimension: a column of the events or, as `properties.plan`, one of their properties.

    Raises:
        ValueError: there is no such dimension.
    """
    if dimension in DIMENSIONS:
        return dimension
    head, _, key = dimension.partition(".")
    if head == "properties" and key.replace("_", "").isalnum() and key.isascii():
        return f"json_extract_string(properties, '$.{key}')"
    raise ValueError(f"by: {dimension!r} is none of {', '.join(DIMENSIONS)}, properties.<key>")


@lru_cache(maxsize=4)
def load_funnels(folder: Path) -> dict[str, Funnel]:
    """All funnels under a folder, by name; read once per process."""
    return yamlfile.load_folder(folder, Funnel)


def funnel_named(name: str) -> Funnel:
    """One of the project's funnels.

    Raises:
        ConfigError: there is none of that name.
    """
    found = load_funnels(settings().data / "funnels")
    if name not in found:
        raise ConfigError(f"No funnel {name!r}. There are: {', '.join(sorted(found)) or 'none'}.")
    return found[name]
