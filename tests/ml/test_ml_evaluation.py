"""Metrics against scikit-learn and by their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from omni.ml.evaluation import calibration_error, lift, paired_gain, roc_auc

scored = st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=2, max_size=60).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


@given(scored)
def test_roc_auc_equals_scikit_learn(rows: list[tuple[bool, int]]) -> None:
    labels, scores = np.array([r[0] for r in rows]), np.array([r[1] / 10 for r in rows])
    assert roc_auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    assert roc_auc(labels, -scores) == pytest.approx(1 - roc_auc(labels, scores))


@given(scored, st.floats(0.05, 1))
def test_lift_does_not_depend_on_the_order_of_rows(rows: list[tuple[bool, int]], share: float) -> None:
    labels, scores = np.array([r[0] for r in rows]), np.array([r[1] / 10 for r in rows])
    assert lift(labels, scores, share) == pytest.approx(lift(labels[::-1], scores[::-1], share))
    assert lift(labels, np.zeros(len(rows)), share) == pytest.approx(1)
    assert lift(labels, scores, 1) == pytest.approx(1)


def test_lift_of_a_perfect_ranking_is_the_inverse_of_the_base_rate() -> None:
    labels = np.arange(100) >= 80
    assert lift(labels, np.arange(100.0), 0.1) == pytest.approx(5)


def test_calibration_error_of_honest_and_of_boastful_scores() -> None:
    random = np.random.default_rng(0)
    scores = random.uniform(0, 1, 20_000)
    labels = random.random(20_000) < scores
    assert calibration_error(labels, scores) < 0.015
    assert calibration_error(labels, np.full(20_000, 0.9)) == pytest.approx(0.9 - labels.mean())


def test_paired_gain_separates_a_better_model_from_an_equal_one() -> None:
    random = np.random.default_rng(3)
    labels = random.random(1500) < 0.2
    signal = labels + random.normal(0, 1.5, 1500)
    weaker = signal + random.normal(0, 1.5, 1500)
    gain, low, high = paired_gain(labels, signal, weaker, confidence=0.9)
    assert 0 < low < gain < high
    assert gain == pytest.approx(roc_auc_score(labels, signal) - roc_auc_score(labels, weaker))
    assert paired_gain(labels, signal, signal, confidence=0.9) == (0, 0, 0)
    assert paired_gain(labels, signal, weaker, confidence=0.9) == (gain, low, high)
    swapped = paired_gain(labels, weaker, signal, confidence=0.9)
    assert swapped == pytest.approx((-gain, -high, -low))


def test_paired_gain_covers_the_spread_of_resampled_data() -> None:
    random = np.random.default_rng(4)
    gains = []
    for _ in range(200):
        labels = random.random(300) < 0.3
        a, b = labels + random.normal(0, 1, (2, 300))
        gains.append(roc_auc(labels, a) - roc_auc(labels, b))
    _, low, high = paired_gain(labels, a, b, confidence=0.9)
    wanted = np.quantile(gains, 0.95) - np.quantile(gains, 0.05)
    assert high - low == pytest.approx(wanted, rel=0.25)
