"""The vendors' rate limits: rolling windows (HubSpot) and a leaky bucket of cost points (Shopify)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

Clock = Callable[[], float]

RESTORE_RATES = {"standard": 100.0, "advanced": 200.0, "plus": 1000.0, "enterprise": 2000.0}
"""Shopify's points per second by plan; the bucket holds twenty seconds' worth."""
BUCKET_SECONDS = 20


class Window:
    """At most `allowed` requests within any `seconds`; refused ones do not count."""

    def __init__(self, allowed: int, seconds: float, clock: Clock = time.monotonic) -> None:
        self.allowed = allowed
        self.seconds = seconds
        self._clock = clock
        self._taken: deque[float] = deque()

    def take(self) -> float:
        """Take a place. Returns 0 when there was one, else the seconds until one is free."""
        now = self._clock()
        while self._taken and self._taken[0] <= now - self.seconds:
            self._taken.popleft()
        if len(self._taken) >= self.allowed:
            return self._taken[0] + self.seconds - now
        self._taken.append(now)
        return 0.0

    @property
    def left(self) -> int:
        """Places still free."""
        return self.allowed - len(self._taken)


class Bucket:
    """Cost points that come back at a steady rate up to a maximum."""

    def __init__(self, restore_rate: float, clock: Clock = time.monotonic) -> None:
        self.restore_rate = restore_rate
        self.maximum = restore_rate * BUCKET_SECONDS
        self._clock = clock
        self._points = self.maximum
        self._at = clock()

    @property
    def available(self) -> float:
        """Points there are now."""
        now = self._clock()
        self._points = min(self.maximum, self._points + (now - self._at) * self.restore_rate)
        self._at = now
        return self._points

    def take(self, cost: float) -> bool:
        """Take points if there are enough."""
        if self.available < cost:
            return False
        self._points -= cost
        return True

    def give_back(self, cost: float) -> None:
        """Return points a query asked for and did not use."""
        self._points = min(self.maximum, self._points + cost)

    def status(self) -> dict[str, float]:
        """Shopify's `throttleStatus`."""
        return {
            "maximumAvailable": self.maximum,
            "currentlyAvailable": int(self.available),
            "restoreRate": self.restore_rate,
        }
