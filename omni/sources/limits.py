"""Client-side limits: never send a vendor more than it allows in any window of time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """At most `requests` in any `seconds`, counting the requests whose path contains `path`."""

    requests: int
    seconds: float
    path: str = ""


class Limiter:
    """Sliding windows, shared by all threads that talk to one account."""

    def __init__(
        self,
        limits: tuple[Limit, ...],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._windows = [(limit, deque[float]()) for limit in limits]
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()

    def acquire(self, path: str) -> float:
        """Wait until a request to `path` is within every limit, and count it.

        Returns:
            Seconds waited.
        """
        waited = 0.0
        while (pause := self._take(path)) > 0:
            self._sleep(pause)
            waited += pause
        return waited

    def _take(self, path: str) -> float:
        """Seconds to wait; 0 when the request was counted and may go."""
        with self._lock:
            now = self._clock()
            windows = [(limit, sent) for limit, sent in self._windows if limit.path in path]
            pause = 0.0
            for limit, sent in windows:
                while sent and now - sent[0] >= limit.seconds:
                    sent.popleft()
                if len(sent) >= limit.requests:
                    pause = max(pause, sent[0] + limit.seconds - now)
            if pause <= 0:
                for _, sent in windows:
                    sent.append(now)
            return pause


_limiters: dict[Hashable, Limiter] = {}
_lock = threading.Lock()


def shared(account: Hashable, limits: tuple[Limit, ...]) -> Limiter:
    """The process's limiter of an account: streams read side by side share its allowance."""
    with _lock:
        return _limiters.setdefault((account, limits), Limiter(limits))
