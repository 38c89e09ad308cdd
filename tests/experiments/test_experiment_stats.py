"""The comparison engine: identities, published figures, bad samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from omni.experiments.stats import (
    Sample,
    benjamini_hochberg,
    difference,
    relative_difference,
    sample_ratio_p,
)

numbers = st.lists(st.integers(-1000, 1000).map(lambda x: x / 8), min_size=2, max_size=40)


def sample(values: list[float]) -> Sample:
    return Sample(len(values), math.fsum(values), math.fsum(v * v for v in values))


@pytest.mark.filterwarnings("ignore:Precision loss")
@given(numbers, numbers)
def test_difference_equals_welch_on_the_values(a: list[float], b: list[float]) -> None:
    result = difference(sample(a), sample(b))
    if np.var(a) == 0 and np.var(b) == 0:
        assert result is None
        return
    assert result is not None
    oracle = scipy_stats.ttest_ind(a, b, equal_var=False)
    interval = oracle.confidence_interval(0.95)
    assert result.effect == pytest.approx(np.mean(a) - np.mean(b), abs=1e-9)
    assert result.p_value == pytest.approx(oracle.pvalue, rel=1e-6, abs=1e-12)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-6)


@given(numbers, numbers)
def test_swapping_the_arms_changes_only_the_sign(a: list[float], b: list[float]) -> None:
    forth, back = difference(sample(a), sample(b)), difference(sample(b), sample(a))
    assert (forth is None) == (back is None)
    if forth and back:
        assert forth.effect == -back.effect
        assert forth.p_value == pytest.approx(back.p_value)
        assert forth.low == pytest.approx(-back.high)


@given(numbers, numbers, st.floats(0.01, 100))
def test_relative_difference_has_no_unit(a: list[float], b: list[float], factor: float) -> None:
    b = [abs(value) + 1 for value in b]
    plain = relative_difference(sample(a), sample(b))
    scaled = relative_difference(sample([v * factor for v in a]), sample([v * factor for v in b]))
    if plain and scaled and np.std(a) + np.std(b) > 0.01:
        assert scaled.effect == pytest.approx(plain.effect, rel=1e-6, abs=1e-6)
        assert scaled.high == pytest.approx(plain.high, rel=1e-3, abs=1e-3)


def test_nothing_relative_is_said_of_an_arm_of_zeros() -> None:
    zeros, control = Sample(2, 0, 0), sample([1.0, 1.125])
    assert difference(zeros, control) is not None
    assert relative_difference(zeros, control) is None


def test_p_value_of_an_overwhelming_effect_is_not_zero() -> None:
    result = difference(Sample(1000, 500, 500), Sample(1000, 10, 10))
    assert result is not None
    assert 0 < result.p_value < 1e-100


@pytest.mark.parametrize(
    ("treated", "control"),
    [
        (Sample(0, 0, 0), Sample(10, 5, 5)),
        (Sample(1, 1, 1), Sample(10, 5, 5)),
        (Sample(10, 0, 0), Sample(10, 0, 0)),
        (sample([0.1] * 7), sample([0.7] * 11)),
    ],
    ids=["no units", "one unit", "nothing happens", "nothing varies"],
)
def test_what_cannot_be_compared_gives_none(treated: Sample, control: Sample) -> None:
    assert difference(treated, control) is None
    assert relative_difference(treated, control) is None


def test_relative_difference_to_a_control_of_zero_is_none() -> None:
    assert relative_difference(Sample(10, 5, 5), Sample(10, 0, 0)) is None


def test_sample_ratio_against_scipy_and_published_figure() -> None:
    counts = {"a": 21387, "b": 21306}
    assert sample_ratio_p(counts, {"a": 0.5, "b": 0.5}) == pytest.approx(0.6950444648, abs=1e-10)
    oracle = scipy_stats.chisquare([60, 30, 10], [50, 25, 25])
    uneven = sample_ratio_p({"x": 60, "y": 30, "z": 10}, {"x": 0.5, "y": 0.25, "z": 0.25})
    assert uneven == pytest.approx(oracle.pvalue)
    assert sample_ratio_p({"a": 100}, {"a": 0.5, "b": 0.5}) < 1e-20
    assert sample_ratio_p({}, {"a": 0.5, "b": 0.5}) == 1.0


@given(st.lists(st.floats(0, 1), min_size=0, max_size=20))
def test_benjamini_hochberg_equals_scipy(p_values: list[float]) -> None:
    expected = scipy_stats.false_discovery_control(p_values) if p_values else []
    assert benjamini_hochberg(p_values) == pytest.approx(list(expected))


def test_null_effects_are_found_at_about_the_stated_rate() -> None:
    random = np.random.default_rng(7)
    found = 0
    for _ in range(600):
        a, b = random.exponential(10, 150), random.exponential(10, 120)
        result = difference(sample(list(a)), sample(list(b)))
        found += result is not None and result.p_value < 0.05
    assert 0.03 < found / 600 < 0.075
