"""Attribution by a Markov chain: what would be lost without a channel.

Journeys become a chain of states: start, the channels in turn, and at the end `conversion` or `null`. The
removal effect of a channel is the share of conversions that is lost when every step onto it leads to `null`;
conversions are handed out in proportion to the effects. After Anderl, Becker, von Wangenheim and Schumann,
"Mapping the customer journey: Lessons learned from graph-based online attribution modeling", International
Journal of Research in Marketing 33 (2016).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

START, CONVERSION, NULL = ("(start)",), ("(conversion)",), ("(null)",)
State = tuple[str, ...]


@dataclass(frozen=True)
class Journey:
    """Journeys along one path of channels: how many converted, what for, how many led nowhere."""

    path: tuple[str, ...]
    conversions: int
    lost: int


@dataclass(frozen=True)
class Credit:
    """What a channel gets.

    Attributes:
        removal_effect: share of conversions lost without the channel, 0 to 1.
        share: its part of all conversions, 0 to 1; they sum to 1.
        conversions: that part of the number of conversions.
    """

    removal_effect: float
    share: float
    conversions: float


def attribute(journeys: Iterable[Journey], *, order: int = 1) -> dict[str, Credit]:
    """Hand out conversions over the channels of the journeys.

    Args:
        journeys: with at least one touch each; those that led nowhere belong to it.
        order: how many channels back a step depends on; 1 is the plain chain.

    Returns:
        By channel, in alphabetical order; empty when nothing converted.

    Raises:
        ValueError: an empty path, a negative count, or an order below one.
    """
    known = list(journeys)
    if order < 1:
        raise ValueError("order counts the channels a step depends on: at least one")
    if any(not j.path or j.conversions < 0 or j.lost < 0 for j in known):
        raise ValueError("a journey has a path, and counts that are not negative")
    total = sum(j.conversions for j in known)
    if total == 0:
        return {}
    steps = _steps(known, order)
    whole = _conversion_probability(steps, None)
    channels = sorted({channel for j in known for channel in j.path})
    effects = {c: max(0.0, 1 - _conversion_probability(steps, c) / whole) for c in channels}
    summed = sum(effects.values())
    return {
        channel: Credit(effect, effect / summed, total * effect / summed)
        for channel, effect in effects.items()
    }


def _steps(journeys: Iterable[Journey], order: int) -> dict[State, dict[State, int]]:
    """How often each state was followed by each other."""
    steps: defaultdict[State, defaultdict[State, int]] = defaultdict(lambda: defaultdict(int))
    for journey in journeys:
        states = [journey.path[max(0, at - order + 1) : at + 1] for at in range(len(journey.path))]
        times = journey.conversions + journey.lost
        for before, after in zip([START, *states], states, strict=False):
            steps[before][after] += times
        steps[states[-1]][CONVERSION] += journey.conversions
        steps[states[-1]][NULL] += journey.lost
    return {before: {s: n for s, n in after.items() if n} for before, after in steps.items()}


def _conversion_probability(steps: Mapping[State, Mapping[State, int]], without: str | None) -> float:
    """The chance to get from start to conversion, steps onto a channel leading nowhere.

    Solves (I - Q) x = r, where Q holds the chances between states and r those of converting next.
    """
    alive = [s for s, after in steps.items() if after and (s == START or s[-1] != without)]
    index = {state: at for at, state in enumerate(alive)}
    onward = np.eye(len(alive))
    converting = np.zeros(len(alive))
    for state, at in index.items():
        total = sum(steps[state].values())
        for after, times in steps[state].items():
            if after == CONVERSION:
                converting[at] = times / total
            elif after in index:
                onward[at, index[after]] -= times / total
    return float(np.linalg.solve(onward, converting)[index[START]])
