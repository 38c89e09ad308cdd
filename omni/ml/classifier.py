"""Training and scoring of a binary prediction: search, calibration, honest measurement.

The model that is measured on the holdout is the model that is used: nothing is fitted again on the
holdout's rows afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from omni.ml.dataset import Columns, Split, matrix, split, usable_columns
from omni.ml.declaration import Prediction
from omni.ml.evaluation import (
    Labels,
    Scores,
    holdout_metrics,
    paired_gain,
    refuse_leaks,
    roc_auc,
    single_feature_auc,
)

Parameters = dict[str, Any]
Fitter = Callable[[Parameters], Any]


@dataclass(frozen=True)
class Model:
    """A fitted, calibrated scikit-learn estimator and the columns it takes."""

    prediction: str
    entity: str
    columns: Columns
    estimator: Any


@dataclass(frozen=True)
class Trained:
    """A model and everything that must be known to judge it.

    Attributes:
        parameters: family and settings of the chosen candidate.
        metrics: on the holdout, see `holdout_metrics`.
        feature_auc: what each feature ranks by itself (the leakage probe).
        trials: each candidate tried with its ROC AUC on the calibration slice.
        rows: rows per slice.
        trained_through: last day any fitting saw.
        holdout: the rows measured on, with label.
    """

    prediction: Prediction
    model: Model
    parameters: Parameters
    metrics: dict[str, float]
    feature_auc: dict[str, float]
    trials: tuple[tuple[Parameters, float], ...]
    rows: dict[str, int]
    trained_through: date
    holdout: pl.DataFrame
    seed: int


def train(
    features: pl.DataFrame, prediction: Prediction, *, seed: int = 0, trials: int | None = None
) -> Trained:
    """Search, calibrate and measure a model for one prediction. The same input gives the same model.

    Args:
        features: one row per entity: entity, time, label (null = not yet known) and features.
        trials: candidates to try; default as declared.

    Raises:
        SchemaError: columns are missing, of a wrong type, or give the label away.
        NotEnoughData: too few rows or classes to train and measure, or nothing to learn from.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped, unused-ignore]

    parts = split(features, prediction)
    columns = usable_columns(parts.train, prediction)
    feature_auc = single_feature_auc(parts.train, parts.calibrate, columns, prediction.label)
    refuse_leaks(feature_auc, prediction)
    later, labels = matrix(parts.calibrate, columns), _labels(parts.calibrate, prediction.label)
    # Boosting on tables of this size is slower with threads than without, most of all beside other work.
    with ThreadpoolController().limit(limits=1, user_api="openmp"):
        fit = _fitter(parts, columns, prediction.label, seed)
        log = _search(fit, later, labels, seed, trials or prediction.trials)
        parameters, fitted = _choose(fit, later, labels, log, seed)
    calibrated = CalibratedClassifierCV(FrozenEstimator(fitted), method="sigmoid").fit(later, labels)
    model = Model(prediction.name, prediction.entity, columns, calibrated)
    return Trained(
        prediction=prediction,
        model=model,
        parameters=parameters,
        metrics=holdout_metrics(
            _labels(parts.holdout, prediction.label), probabilities(model, parts.holdout)
        ),
        feature_auc=feature_auc,
        trials=tuple(log),
        rows={
            "train": parts.train.height,
            "calibrate": parts.calibrate.height,
            "holdout": parts.holdout.height,
        },
        trained_through=parts.trained_through,
        holdout=parts.holdout,
        seed=seed,
    )


def probabilities(model: Model, features: pl.DataFrame) -> Scores:
    """Probability of a true label per row of `features`.

    Raises:
        SchemaError: a feature is missing or changed its type.
    """
    if not features.height:
        return np.empty(0)
    return _positive(model.estimator, matrix(features, model.columns))


def score(model: Model, features: pl.DataFrame) -> pl.DataFrame:
    """Score every row.

    Returns:
        The entity column, score (probability) and decile (10 = the best tenth; ties go by entity), sorted
        by entity.

    Raises:
        SchemaError: a feature is missing or changed its type.
    """
    scored = features.select(model.entity).with_columns(score=pl.Series(probabilities(model, features)))
    ranked = scored.sort(["score", model.entity], descending=[True, False])
    decile = 10 - pl.int_range(pl.len()) * 10 // pl.len()
    return ranked.with_columns(decile=decile.cast(pl.Int64)).sort(model.entity)


def _positive(estimator: Any, features: Any) -> Scores:
    return np.asarray(estimator.predict_proba(features)[:, 1], dtype=np.float64)


def _labels(frame: pl.DataFrame, label: str) -> Labels:
    return frame[label].to_numpy().astype(bool)


def _fitter(parts: Split, columns: Columns, label: str, seed: int) -> Fitter:
    known, labels = matrix(parts.train, columns), _labels(parts.train, label)
    return lambda parameters: _pipeline(columns, dict(parameters), seed).fit(known, labels)


def _search(
    fit: Fitter, later: Any, labels: Labels, seed: int, trials: int
) -> list[tuple[Parameters, float]]:
    """Try candidates by their ROC AUC on the calibration slice; both families' defaults come first."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial({"family": "logistic", "C": 0.3, "min_frequency": 20})
    study.enqueue_trial(
        {
            "family": "boosting",
            "learning_rate": 0.05,
            "max_iter": 100,
            "max_leaf_nodes": 15,
            "min_samples_leaf": 20,
            "l2_regularization": 0.1,
            "min_frequency": 20,
        }
    )

    def objective(trial: optuna.Trial) -> float:
        return roc_auc(labels, _positive(fit(_suggest(trial)), later))

    study.optimize(objective, n_trials=trials)
    return [(dict(trial.params), float(trial.value)) for trial in study.trials]


def _choose(
    fit: Fitter, later: Any, labels: Labels, log: list[tuple[Parameters, float]], seed: int
) -> tuple[Parameters, Any]:
    """The best logistic regression, unless the best boosting is better beyond doubt.

    The best of many candidates on one slice is partly luck; so the simpler family keeps the place unless
    the lower end of the 90 % paired bootstrap interval of the gain is above 0 (the idea of the
    one-standard-error rule, Breiman et al. 1984).
    """
    best = {}
    for family in ("logistic", "boosting"):
        tried = [trial for trial in log if trial[0]["family"] == family]
        best[family] = max(tried, key=lambda trial: trial[1])[0]
    simple, rich = fit(best["logistic"]), fit(best["boosting"])
    _, low, _ = paired_gain(
        labels, _positive(rich, later), _positive(simple, later), confidence=0.9, seed=seed
    )
    return (best["boosting"], rich) if low > 0 else (best["logistic"], simple)


def _suggest(trial: Any) -> Parameters:
    family = trial.suggest_categorical("family", ["logistic", "boosting"])
    shared = {"family": family, "min_frequency": trial.suggest_int("min_frequency", 5, 50)}
    if family == "logistic":
        return shared | {"C": trial.suggest_float("C", 1e-3, 10, log=True)}
    return shared | {
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.2, log=True),
        "max_iter": trial.suggest_int("max_iter", 40, 200),
        "max_leaf_nodes": trial.suggest_int("max_leaf_nodes", 3, 31),
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 10, 100),
        "l2_regularization": trial.suggest_float("l2_regularization", 1e-3, 10, log=True),
    }


def _pipeline(columns: Columns, parameters: Parameters, seed: int) -> Any:
    """A candidate as one pipeline; categories rarer than `min_frequency` rows share one group."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    family, rare = parameters.pop("family"), parameters.pop("min_frequency")
    categories: Any
    numbers: Any
    if family == "logistic":
        categories = OneHotEncoder(min_frequency=rare, handle_unknown="infrequent_if_exist")
        impute = SimpleImputer(strategy="median", add_indicator=True)
        numbers = Pipeline([("impute", impute), ("scale", StandardScaler())])
        estimator = LogisticRegression(**parameters, max_iter=2000)
    else:
        # Boosting takes at most 255 categories per column, and NaN for those never seen.
        categories = OrdinalEncoder(
            min_frequency=rare, max_categories=200, handle_unknown="use_encoded_value", unknown_value=np.nan
        )
        numbers = "passthrough"
        estimator = HistGradientBoostingClassifier(
            **parameters,
            categorical_features=list(range(len(columns.categorical))) or None,
            early_stopping=False,
            random_state=seed,
        )
    prepare = ColumnTransformer(
        [("categories", categories, list(columns.categorical)), ("numbers", numbers, list(columns.numeric))]
    )
    return Pipeline([("prepare", prepare), ("model", estimator)])
