"""What an experiment is, before anyone looks at its numbers: arms, shares, outcomes, error rate."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from omni import yamlfile
from omni.settings import settings
from omni.yamlfile import Declaration

IDENTIFIER = r"^[A-Za-z_]\w*$"


class Outcome(Declaration):
    """What is compared between the arms; a null value means not known yet and is left out."""

    name: str = Field(pattern=r"^[a-z]\w*$")
    kind: Literal["proportion", "mean"] = Field(description="share of true units, or mean of a number")
    column: str = Field(pattern=IDENTIFIER)
    direction: Literal["up", "down"] = Field("up", description="which way is better")


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
        outcomes = [outcome.column for outcome in self.outcomes]
        return sorted({"experiment", "unit_id", "variant", "sent_at", *outcomes, *optional})

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
