"""From a table of features to slices in time order and the matrix a model takes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import polars as pl

from omni.errors import NotEnoughData, SchemaError
from omni.ml.declaration import Prediction

if TYPE_CHECKING:
    import pandas as pd

MISSING = "(missing)"


@dataclass(frozen=True)
class Columns:
    """The features a model takes, and those left out because they say nothing."""

    categorical: tuple[str, ...]
    numeric: tuple[str, ...]
    dropped: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All features, in the order of the matrix."""
        return self.categorical + self.numeric


@dataclass(frozen=True)
class Split:
    """Rows with a known label in time order; no day is in two slices."""

    train: pl.DataFrame
    calibrate: pl.DataFrame
    holdout: pl.DataFrame
    trained_through: date


def fingerprint(frame: pl.DataFrame, prediction: Prediction | None = None) -> str:
    """Hash of a table's content, whatever the order of its rows and columns.

    With a prediction, of its declaration too: a rerun with the same fingerprint trains the same model.
    Null, NaN and infinite numbers count as equal, as they do in training.
    """
    columns = sorted(frame.columns)
    digest = hashlib.sha256(repr([(name, str(frame.schema[name])) for name in columns]).encode())
    for line in sorted(frame.select(columns).write_ndjson().splitlines()):
        digest.update(line.encode() + b"\n")
    if prediction is not None:
        digest.update(prediction.model_dump_json().encode())
    return digest.hexdigest()


def split(frame: pl.DataFrame, prediction: Prediction) -> Split:
    """Train on the earliest known labels, tune and calibrate on later ones, measure on the latest.

    Raises:
        SchemaError: a column is missing or of the wrong type, or entity or time is null or not unique.
        NotEnoughData: too few rows have a label, or a slice has too few of either class.
    """
    _check(frame, prediction)
    known = frame.filter(pl.col(prediction.label).is_not_null()).sort(prediction.time, prediction.entity)
    if known.height < prediction.min_rows:
        raise NotEnoughData(
            f"{prediction.name}: {known.height} rows of {prediction.table} have a known "
            f"{prediction.label}, {prediction.min_rows} are needed. Wait for more labels or lower min_rows."
        )
    time = pl.col(prediction.time).cast(pl.Date)
    days = known[prediction.time].cast(pl.Date)
    first = days[int(known.height * (1 - prediction.calibrate_share - prediction.holdout_share))]
    second = days[int(known.height * (1 - prediction.holdout_share))]
    slices = {
        "train": known.filter(time < first),
        "calibrate": known.filter((time >= first) & (time < second)),
        "holdout": known.filter(time >= second),
    }
    for name, rows in slices.items():
        positive = int(rows[prediction.label].sum() or 0)
        if min(positive, rows.height - positive) < prediction.min_class:
            raise NotEnoughData(
                f"{prediction.name}: the {name} slice has {rows.height} rows, {positive} of them with "
                f"{prediction.label} true; at least {prediction.min_class} true and as many false are needed."
            )
    last = days.filter(days < second).max()
    assert isinstance(last, date)
    return Split(**slices, trained_through=last)


def usable_columns(train: pl.DataFrame, prediction: Prediction) -> Columns:
    """The features of a training slice: text as categories, numbers and booleans as numbers.

    A column with a single value, or none, is dropped.

    Raises:
        SchemaError: a column is neither text, number nor boolean.
        NotEnoughData: no feature is left.
    """
    categorical, numeric, dropped = [], [], []
    roles = {prediction.entity, prediction.time, prediction.label, *prediction.exclude}
    for name in sorted(set(train.columns) - roles):
        kind = train.schema[name]
        if kind != pl.Null and not (_is_text(kind) or kind.is_numeric() or kind == pl.Boolean):
            raise SchemaError(
                f"{prediction.table}.{name} is {kind}, which cannot be a feature. Derive a number or a "
                f"category from it, or list it under exclude of prediction {prediction.name}."
            )
        if train[name].n_unique() < 2:
            dropped.append(name)
        elif _is_text(kind):
            categorical.append(name)
        else:
            numeric.append(name)
    if not categorical and not numeric:
        raise NotEnoughData(
            f"{prediction.name}: no column of {prediction.table} varies, nothing to learn from."
        )
    return Columns(tuple(categorical), tuple(numeric), tuple(dropped))


def matrix(frame: pl.DataFrame, columns: Columns) -> pd.DataFrame:
    """The features as a model takes them: text with nulls named, numbers as doubles with nulls NaN.

    Raises:
        SchemaError: a feature is missing, or a number is now text or the other way round.
    """
    import pandas as pd

    missing = [name for name in columns.names if name not in frame.columns]
    if missing:
        raise SchemaError(f"The model needs the features {', '.join(missing)}, which the table lacks.")
    changed = [
        name
        for name in columns.names
        if frame.schema[name] != pl.Null and _is_text(frame.schema[name]) != (name in columns.categorical)
    ]
    if changed:
        raise SchemaError(f"Features changed between text and number since training: {', '.join(changed)}.")
    text = {
        name: pd.Series(frame[name].cast(pl.String).fill_null(MISSING).to_list(), dtype=object)
        for name in columns.categorical
    }
    finite = {name: frame[name].cast(pl.Float64) for name in columns.numeric}
    numbers = {
        name: pd.Series(
            values.set(~values.is_finite().fill_null(value=False), None).fill_null(float("nan")).to_numpy()
        )
        for name, values in finite.items()
    }
    return pd.DataFrame(text | numbers, columns=list(columns.names), index=range(frame.height))


def _is_text(kind: pl.DataType) -> bool:
    return kind in (pl.String, pl.Categorical, pl.Enum)


def _check(frame: pl.DataFrame, prediction: Prediction) -> None:
    roles = (prediction.entity, prediction.time, prediction.label)
    missing = [name for name in roles if name not in frame.columns]
    if missing:
        raise SchemaError(
            f"{prediction.table} lacks {', '.join(missing)}, which prediction {prediction.name} needs."
        )
    if frame.schema[prediction.label] != pl.Boolean:
        raise SchemaError(
            f"{prediction.table}.{prediction.label} is {frame.schema[prediction.label]}, expected Boolean."
        )
    if frame.schema[prediction.time] not in (pl.Date, pl.Datetime):
        raise SchemaError(
            f"{prediction.table}.{prediction.time} is {frame.schema[prediction.time]}, expected a date."
        )
    for name in (prediction.entity, prediction.time):
        if frame[name].null_count():
            raise SchemaError(f"{prediction.table}.{name} is null in {frame[name].null_count()} rows.")
    twice = frame.height - frame[prediction.entity].n_unique()
    if twice:
        raise SchemaError(f"{prediction.table}.{prediction.entity} is not unique: {twice} rows too many.")
