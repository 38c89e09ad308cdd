"""Two-sample comparisons from sufficient statistics: count, sum, sum of squares.

P-values come from survival functions: `2 * (1 - cdf)` cancels to 0 below about 1e-16.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SRM_ALARM = 0.001
"""A sample-ratio p-value below this says that the assignment, not the treatment, differs."""


@dataclass(frozen=True)
class Sample:
    """Units of one arm: how many, the sum of their values and of the squares."""

    n: int
    total: float
    squares: float

    @property
    def mean(self) -> float:
        """Mean; NaN of no units."""
        return self.total / self.n if self.n else math.nan

    @property
    def variance(self) -> float:
        """Unbiased variance; NaN of fewer than two units, 0 where it is but the sums' rounding."""
        if self.n < 2:
            return math.nan
        deviations = self.squares - self.total * self.total / self.n
        return deviations / (self.n - 1) if deviations > 1e-13 * self.squares else 0.0


@dataclass(frozen=True)
class Estimate:
    """An effect with its two-sided interval and p-value."""

    effect: float
    low: float
    high: float
    p_value: float


def difference(treated: Sample, control: Sample, alpha: float = 0.05) -> Estimate | None:
    """Difference of means (of proportions when values are 0 and 1), treated minus control.

    Welch's t with the Welch-Satterthwaite degrees of freedom (Welch 1947).

    Returns:
        None when an arm has fewer than two units or no arm's values vary.
    """
    error = _squared_errors(treated, control)
    if error is None:
        return None
    return _estimate(treated.mean - control.mean, sum(error), _degrees(error, treated, control), alpha)


def relative_difference(treated: Sample, control: Sample, alpha: float = 0.05) -> Estimate | None:
    """Difference of means as a share of the control's mean, by the delta method.

    Var(b/a) = Var(b)/a² + Var(a)·b²/a⁴ of the means; the degrees of freedom are those of `difference`.
    Its p-value differs from the absolute one's: decide on one scale and stay with it.

    Returns:
        None where `difference` gives none, when the control's mean is not positive, and when the
        method's variance is zero (a treated arm of nothing but zeros).
    """
    error = _squared_errors(treated, control)
    if error is None or control.mean <= 0:
        return None
    ratio = treated.mean / control.mean
    variance = error[0] / control.mean**2 + error[1] * ratio**2 / control.mean**2
    if variance <= 0:
        return None
    return _estimate(ratio - 1, variance, _degrees(error, treated, control), alpha)


def sample_ratio_p(counts: Mapping[str, int], shares: Mapping[str, float]) -> float:
    """P-value of Pearson's chi-square test that arms were filled in the intended shares.

    Args:
        counts: units per arm; an arm that is absent has none.
        shares: intended share per arm, positive.
    """
    from scipy.stats import chi2

    total = sum(counts.get(arm, 0) for arm in shares)
    if total == 0:
        return 1.0
    whole = sum(shares.values())
    statistic = 0.0
    for arm, share in shares.items():
        intended = total * share / whole
        statistic += (counts.get(arm, 0) - intended) ** 2 / intended
    return float(chi2.sf(statistic, len(shares) - 1))


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for the false discovery rate (Benjamini and Hochberg 1995), in the given order."""
    size = len(p_values)
    adjusted = [1.0] * size
    smallest = 1.0
    for rank, index in enumerate(sorted(range(size), key=lambda i: p_values[i], reverse=True)):
        smallest = min(smallest, p_values[index] * size / (size - rank))
        adjusted[index] = smallest
    return adjusted


def _squared_errors(treated: Sample, control: Sample) -> tuple[float, float] | None:
    """Squared standard errors of both means, None when nothing can be said."""
    if min(treated.n, control.n) < 2:
        return None
    errors = treated.variance / treated.n, control.variance / control.n
    return errors if sum(errors) > 0 else None


def _degrees(errors: tuple[float, float], treated: Sample, control: Sample) -> float:
    # In shares of the sum, so that tiny errors do not vanish when squared.
    share = errors[0] / sum(errors)
    return 1 / (share**2 / (treated.n - 1) + (1 - share) ** 2 / (control.n - 1))


def _estimate(effect: float, variance: float, degrees: float, alpha: float) -> Estimate:
    from scipy.stats import t

    error = math.sqrt(variance)
    reach = float(t.isf(alpha / 2, degrees)) * error
    return Estimate(effect, effect - reach, effect + reach, float(2 * t.sf(abs(effect) / error, degrees)))
