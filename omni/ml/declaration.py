"""What is predicted, from what, and what a model must show before it is used."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from omni import yamlfile
from omni.settings import settings
from omni.yamlfile import Declaration

COLUMN = r"^[A-Za-z_]\w*$"


class Gate(Declaration):
    """When a new model becomes the champion.

    `min_gain` is a margin on the lower end of the interval of the gain over the champion: 0 asks for a
    gain beyond doubt, a negative value also lets in what is, beyond doubt, no worse than that.
    """

    metric: Literal["roc_auc"] = "roc_auc"
    min_value: float = Field(0.55, ge=0.5, lt=1, description="least value on the holdout")
    min_gain: float = Field(0.0, ge=-0.5, le=0.5)
    confidence: float = Field(0.9, ge=0.5, lt=1, description="of the paired bootstrap interval of the gain")


class Prediction(Declaration):
    """One binary prediction, one row of `table` per entity."""

    name: str = Field(pattern=r"^[a-z]\w*$")
    title: str
    owner: str
    table: str = Field(pattern=r"^[a-z]\w*\.[a-z]\w*$", description="schema.name of the features")
    scores: str = Field(pattern=r"^[a-z]\w*\.[a-z]\w*$", description="schema.name of where scores go")
    entity: str = Field(pattern=COLUMN, description="column that identifies a row")
    time: str = Field(pattern=COLUMN, description="column with the day at which the features were known")
    label: str = Field(
        pattern=COLUMN,
        description="boolean column; null until the horizon has passed, whatever happened before",
    )
    horizon: str = Field(description="in words: what must happen by when for the label to be true")
    exclude: list[str] = Field([], description="columns that must never be features; they may be absent")
    calibrate_share: float = Field(0.2, gt=0, lt=0.5, description="of the rows: tuning and calibration")
    holdout_share: float = Field(0.2, gt=0, lt=0.5, description="of the rows: the latest, only measured on")
    min_rows: int = Field(200, ge=30, description="rows with a known label needed to train")
    min_class: int = Field(10, ge=2, description="rows of either class needed in every slice")
    trials: int = Field(20, ge=2, le=500, description="candidates tried")
    gate: Gate = Gate()

    @model_validator(mode="after")
    def _roles_differ(self) -> Self:
        roles = [self.entity, self.time, self.label]
        if len(set(roles)) != len(roles):
            raise ValueError("entity, time and label must be three different columns")
        if self.calibrate_share + self.holdout_share > 0.7:
            raise ValueError("calibrate_share and holdout_share leave less than 30 % to train on")
        return self


def load_predictions(folder: Path | None = None) -> dict[str, Prediction]:
    """All declared predictions by name.

    Args:
        folder: where the YAML files are; default `data/predictions`.

    Raises:
        ConfigError: a file is wrong, or its name differs from the prediction's.
    """
    return yamlfile.load_folder(folder or settings().data / "predictions", Prediction)


@lru_cache(maxsize=4)
def _predictions(folder: Path) -> dict[str, Prediction]:
    return load_predictions(folder)


def predictions() -> dict[str, Prediction]:
    """All declared predictions by name, read once."""
    return _predictions(settings().data / "predictions")
