"""Progress of a run, told to whoever listens in this process: the command line's display, a test.

Steps tell what they do; nobody has to listen. Events carry names and counts, never data.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

State = Literal["planned", "running", "done", "failed", "blocked"]


@dataclass(frozen=True)
class Progress:
    """One step of one stage changed its state, or moved on by some rows."""

    stage: str
    step: str
    state: State
    rows: int = 0
    message: str = ""


Listener = Callable[[Progress], None]

_listeners: list[Listener] = []
_lock = threading.Lock()


def emit(event: Progress) -> None:
    """Tell every listener."""
    with _lock:
        listeners = list(_listeners)
    for listener in listeners:
        listener(event)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call `listener` with every event until the block ends; it may be called from several threads."""
    with _lock:
        _listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(listener)
