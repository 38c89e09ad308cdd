"""The current window for whoever listens: each gets the latest state, never a queue.

A state is complete in itself and carries a rising `sequence`, which begins anew in a later `epoch` when the
state on disk was lost. A listener that is slow misses states and gets
the newest when it is ready; corrections of earlier windows are kept in the state for a while, and each
listener is given those that came since the state it saw before (`missed` says that some are gone).
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from omni.tenancy import Tenant

State = Mapping[str, Any]
"""See `omni.usage.live.take_turn`; plain JSON values."""

NEEDED = {"sequence", "version", "metrics", "corrections", "corrections_since"}
"""What a state must have to be gone on from."""
KEPT_CORRECTIONS = 500
"""Corrections a state carries at most."""


class Feed:
    """Hands the latest state to any number of listeners. `publish` may be called from any thread.

    Args:
        relay: told of every state too, for example to pass it to other machines.
    """

    def __init__(self, relay: Callable[[State], None] | None = None) -> None:
        self._lock = threading.RLock()  # `close` may interrupt its own thread as a signal does
        self._closed = False
        self._latest: State | None = None
        self._listeners: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._relay = relay

    @property
    def latest(self) -> State | None:
        """The newest state; None before the first."""
        return self._latest

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._listeners)

    def publish(self, state: State) -> None:
        """Make a state the latest and wake the listeners; one that is not newer changes nothing."""
        with self._lock:
            if self._latest is not None and _place(state) <= _place(self._latest):
                return
            self._latest = state
        self._wake()
        if self._relay:
            self._relay(state)

    def close(self) -> None:
        """Let every listener end."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            waiting = list(self._listeners.items())
        for event, loop in waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    async def listen(
        self, seen: int | None = None, beat: float | None = None, epoch: int | None = None
    ) -> AsyncIterator[State | None]:
        """States from now on, the present one first.

        Args:
            seen: sequence of the last state this listener saw, if it was here before: it gets the
                corrections since then.
            epoch: that of the last state it saw; None where it does not know.
            beat: after so many seconds without a state None comes, to see whether the other end is there.
        """
        event = asyncio.Event()
        with self._lock:
            self._listeners[event] = asyncio.get_running_loop()
            latest = self._latest
            new = latest is not None and (
                latest["sequence"] != seen or (epoch is not None and epoch != _epoch(latest))
            )
            if self._closed or new:
                event.set()
        try:
            while True:
                try:
                    async with asyncio.timeout(beat):
                        await event.wait()
                except TimeoutError:
                    yield None
                    continue
                if self._closed:
                    return
                event.clear()
                if (state := self._latest) is not None:
                    yield told(state, seen, epoch)
                    seen, epoch = state["sequence"], _epoch(state)
        finally:
            with self._lock:
                del self._listeners[event]


def _epoch(state: State) -> int:
    return int(state.get("epoch", 0))


def _place(state: State) -> tuple[int, int]:
    return _epoch(state), state["sequence"]


def told(state: State, seen: int | None, epoch: int | None = None) -> State:
    """A state as a listener gets it: with the corrections it has not seen."""
    if seen is None:
        return {**state, "corrections": [], "missed": False}
    if epoch is not None and epoch != _epoch(state):  # what it saw was counted otherwise
        return {**state, "missed": True}
    new = [one for one in state["corrections"] if one["sequence"] > seen]
    return {**state, "corrections": new, "missed": seen < state["corrections_since"]}


def state_file(tenant: Tenant) -> Path:
    """Where the latest state lies, for other processes."""
    return tenant.home / "live" / "current.json"


def read_state(tenant: Tenant) -> State | None:
    """The state another process wrote; None if there is none, or it is no state of this version."""
    try:
        state = json.loads(state_file(tenant).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return state if isinstance(state, dict) and state.keys() >= NEEDED else None


async def follow(tenant: Tenant, feed: Feed, seconds: float = 0.25) -> None:
    """Publish what another process writes, until cancelled; looks `seconds` apart."""
    seen = None
    path = state_file(tenant)
    while True:
        try:
            found = path.stat()
            stamp = (found.st_ino, found.st_mtime_ns)
        except FileNotFoundError:
            stamp = None
        if stamp != seen and (state := read_state(tenant)) is not None:
            feed.publish(state)
        seen = stamp
        await asyncio.sleep(seconds)
