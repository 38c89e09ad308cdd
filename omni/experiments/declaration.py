"""What an experiment is, before anyone looks at its numbers: arms, shares, outcomes, error rate."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from omni import yamlfile
from omni.settings import settings
from omni.yamlfile import Declaration

IDENTIFIER = r"^[A-Za-z_]\w*$"


class Outcome(Declaration):
    """What is compared between the arms; a null value means not known yet and is left out.

    It is a column of the units' table, or each unit's value of a metric in the days from its `sent_at` on:
    `{name: spend, kind: mean, metric: revenue, key: customer_id, days: 14}`.
    """

    name: str = Field(pattern=r"^[a-z]\w*$")
    kind: Literal["proportion", "mean"] = Field(description="share of true units, or mean of a number")
    column: str = Field(pattern=IDENTIFIER)
    direction: Literal["up", "down"] = Field("up", description="which way is better")
    metric: str | None = Field(None, description="a metric's name, in place of column")
    key: str | None = Field(
        None, pattern=IDENTIFIER, description="in the units' table and the metric's model"
    )
    days: int | None = Field(None, ge=1, le=366, description="days of a unit that count")

    @model_validator(mode="before")
    @classmethod
    def _metric_or_column(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "metric" not in given:
            return given
        if "column" in given:
            raise ValueError("an outcome has a metric or a column, not both")
        return given | {"column": given.get("name")}

    @model_validator(mode="after")
    def _metric_is_whole(self) -> Self:
        if len({self.metric is None, self.key is None, self.days is None}) > 1:
            raise ValueError("metric, key and days go together")
        if self.metric and self.kind == "proportion":
            raise ValueError("a metric's value is a number: kind mean")
        return self

    @property
    def read(self) -> str:
        """The column of the units' table that it needs."""
        return self.key or self.column


class Experiment(Declaration):
    """One experiment. Its rows in `table` carry its name in the column `experiment`."""

    name: str = Field(pattern=r"^[a-z]\w*$")
    title: str
    owner: str
    table: str = Field("marts.experiment_units", pattern=r"^[a-z]\w*\.[a-z]\w*$", description="schema.name")
    control: str = Field(description="the arm the others are compared with")
    shares: dict[str, float] = Field(min_length=2, description="intended share of each arm; they sum to 1")
    outcomes: list[Outcome] = Field(min_length=1)
    crossover: str | None = Field(
        None, pattern=IDENTIFIER, description="boolean column: the unit was seen in more than one arm"
    )
    complete: str | None = Field(
        None,
        pattern=IDENTIFIER,
        description="boolean column: the outcomes' time is over; else they are unknown",
    )
    alpha: float = Field(0.05, gt=0, lt=0.5, description="error rate of an interval, and of false findings")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.control not in self.shares:
            raise ValueError(f"control {self.control!r} is not among the arms in shares")
        if min(self.shares.values()) <= 0 or abs(sum(self.shares.values()) - 1) > 1e-3:
            raise ValueError("shares must be positive and sum to 1")
        names = [outcome.name for outcome in self.outcomes]
        if len(set(names)) != len(names):
            raise ValueError("an outcome's name is used twice")
        return self

    @property
    def columns(self) -> list[str]:
        """Every column the experiment reads, sorted."""
        optional = [name for name in (self.crossover, self.complete) if name]
        outcomes = [outcome.read for outcome in self.outcomes]
        return sorted({"experiment", "unit_id", "variant", "sent_at", *outcomes, *optional})

    @property
    def metrics(self) -> list[str]:
        """The metrics its outcomes name, sorted."""
        return sorted({outcome.metric for outcome in self.outcomes if outcome.metric})

    @property
    def variants(self) -> list[str]:
        """The arms but the control, sorted."""
        return sorted(set(self.shares) - {self.control})


def load_experiments(folder: Path | None = None) -> dict[str, Experiment]:
    """All declared experiments by name.

    Args:
        folder: where the YAML files are; default `data/experiments`.

    Raises:
        ConfigError: a file is wrong, or its name differs from the experiment's.
    """
    return yamlfile.load_folder(folder or settings().data / "experiments", Experiment)


@lru_cache(maxsize=4)
def _experiments(folder: Path) -> dict[str, Experiment]:
    return load_experiments(folder)


def experiments() -> dict[str, Experiment]:
    """All declared experiments by name, read once."""
    return _experiments(settings().data / "experiments")
