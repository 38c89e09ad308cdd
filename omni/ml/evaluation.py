"""How good scores are: ranking, probabilities, the gain of one model over another, single-feature leaks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from omni.errors import SchemaError
from omni.ml.dataset import MISSING, Columns
from omni.ml.declaration import Prediction

Scores = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]

LEAK_AUC = 0.98
"""A single feature that ranks later rows this well knows the label."""


def holdout_metrics(labels: Labels, scores: Scores) -> dict[str, float]:
    """Metrics of probabilities on a holdout with both classes.

    Returns:
        roc_auc, average_precision, brier, log_loss, lift_at_10 (share of true rows among the best tenth
        over the base rate), ece (see `calibration_error`), base_rate, rows.
    """
    from sklearn.metrics import average_precision_score, brier_score_loss, log_loss

    return {
        "roc_auc": roc_auc(labels, scores),
        "average_precision": float(average_precision_score(labels, scores)),
        "brier": float(brier_score_loss(labels, scores)),
        "log_loss": float(log_loss(labels, scores)),
        "lift_at_10": lift(labels, scores, 0.1),
        "ece": calibration_error(labels, scores),
        "base_rate": float(labels.mean()),
        "rows": float(labels.size),
    }


def roc_auc(labels: Labels, scores: Scores) -> float:
    """Probability that a true row scores above a false one, ties counted half."""
    return float(_weighted_auc(labels, scores, np.ones((1, labels.size)))[0])


def lift(labels: Labels, scores: Scores, share: float) -> float:
    """Rate of true rows among the best `share` over the base rate; a tie at the edge counts in part."""
    size = max(1, int(labels.size * share))
    edge = np.sort(scores)[-size]
    above, tied = scores > edge, scores == edge
    found = labels[above].sum() + labels[tied].mean() * (size - above.sum())
    return float(found / size / labels.mean())


def calibration_error(labels: Labels, scores: Scores, bins: int = 10) -> float:
    """Expected calibration error over bins of equal size (Naeini et al. 2015, quantile bins)."""
    order = np.argsort(scores, kind="stable")
    gaps = [
        abs(scores[part].mean() - labels[part].mean()) * part.size
        for part in np.array_split(order, bins)
        if part.size
    ]
    return float(sum(gaps) / labels.size)


def paired_gain(
    labels: Labels,
    challenger: Scores,
    champion: Scores,
    *,
    confidence: float,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Gain in ROC AUC with a percentile bootstrap interval; both models see the same resampled rows.

    Rows are resampled within their class, so that every resample has both.

    Returns:
        gain, lower and upper end.
    """
    random = np.random.default_rng(seed)
    gains = []
    batch = max(1, 2_000_000 // labels.size)
    for start in range(0, resamples, batch):
        count = min(batch, resamples - start)
        weights = np.empty((count, labels.size))
        for value in (True, False):
            members = np.flatnonzero(labels == value)
            chances = np.full(members.size, 1 / members.size)
            weights[:, members] = random.multinomial(members.size, chances, size=count)
        gains.append(_weighted_auc(labels, challenger, weights) - _weighted_auc(labels, champion, weights))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(gains), [tail, 1 - tail])
    return roc_auc(labels, challenger) - roc_auc(labels, champion), float(low), float(high)


def single_feature_auc(
    train: pl.DataFrame, later: pl.DataFrame, columns: Columns, label: str
) -> dict[str, float]:
    """How well each feature alone ranks later rows, by its label rate on the training slice.

    Numbers are cut into twentieths; a missing value is a value. Smoothed rates keep rare values, and
    values never seen, at the base rate, so an identifier shows nothing.
    """
    labels = later[label].to_numpy().astype(bool)
    base = float(train[label].mean())  # type: ignore[arg-type]
    result = {}
    for name in columns.names:
        seen, new = _grouped(train[name], later[name], categorical=name in columns.categorical)
        rates = (
            pl.DataFrame({"group": seen, "label": train[label]})
            .group_by("group")
            .agg(rate=(pl.col("label").sum() + base) / (pl.len() + 1))
        )
        scores = (
            pl.DataFrame({"group": new}).join(rates, on="group", how="left", maintain_order="left")["rate"]
        ).fill_null(base)
        result[name] = roc_auc(labels, scores.to_numpy())
    return result


def refuse_leaks(aucs: dict[str, float], prediction: Prediction) -> None:
    """Stop when a feature alone gives the label away.

    Raises:
        SchemaError: naming every such feature.
    """
    leaks = [f"{name} (AUC {auc:.3f})" for name, auc in sorted(aucs.items()) if auc > LEAK_AUC]
    if leaks:
        raise SchemaError(
            f"{prediction.table} gives {prediction.label} away in {', '.join(leaks)}: no honest feature "
            f"ranks later rows above {LEAK_AUC} by itself. Take it out of the table, or list it under "
            f"exclude of prediction {prediction.name}."
        )


def _grouped(seen: pl.Series, new: pl.Series, *, categorical: bool) -> tuple[pl.Series, pl.Series]:
    if categorical:
        return seen.cast(pl.String).fill_null(MISSING), new.cast(pl.String).fill_null(MISSING)
    arrays = [values.cast(pl.Float64).fill_null(float("nan")).to_numpy() for values in (seen, new)]
    known = arrays[0][np.isfinite(arrays[0])]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, 21))) if known.size else np.empty(0)
    seen_bins, new_bins = (pl.Series(np.where(np.isfinite(a), np.searchsorted(edges, a), -1)) for a in arrays)
    return seen_bins, new_bins


def _weighted_auc(labels: Labels, scores: Scores, weights: Scores) -> Scores:
    """ROC AUC of each row of `weights` (resamples x rows)."""
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    order = np.argsort(group, kind="stable")
    sorted_labels, sorted_weights = labels[order], weights[:, order]
    below = np.cumsum(np.where(sorted_labels, 0.0, sorted_weights), axis=1)
    ends = np.cumsum(sizes)
    upto = below[:, ends - 1]
    before = np.concatenate([np.zeros((len(weights), 1)), upto[:, :-1]], axis=1)
    positives = np.where(sorted_labels, sorted_weights, 0.0)
    per_group = np.add.reduceat(positives, ends - sizes, axis=1)
    area = (per_group * (before + upto) / 2).sum(axis=1)
    return np.asarray(area / (positives.sum(axis=1) * below[:, -1]))
