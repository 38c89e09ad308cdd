"""The errors of the house.

Two families decide what a task does next: a `TransientError` may pass by itself and is retried within
bounds, a `TerminalError` will not and stops the work that needs it. Every message says what is wrong,
where, and what to do; none carries a secret or a personal datum.
"""

from __future__ import annotations


class OmniError(Exception):
    """Base of every error raised on purpose."""


class TransientError(OmniError):
    """May pass by itself: a timeout, a throttle, a lock held by another process.

    Args:
        message: what happened and what is being done about it.
        retry_after: seconds the other side asked to wait, if it said so.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TerminalError(OmniError):
    """Will not pass by itself: retrying repeats the failure."""


class ConfigError(TerminalError):
    """A setting, tenant, contract, model or metric is wrong as declared."""


class AuthError(TerminalError):
    """The other side refused our credentials."""


class SourceError(TerminalError):
    """A source answered with something that cannot be used."""


class HistoryLost(SourceError):
    """A source no longer knows its changes since we last asked; only reading it whole finds them."""


class SchemaError(TerminalError):
    """Data disagree with their contract: a missing column, a changed type."""


class CheckFailed(TerminalError):
    """A data check with severity `error` found failing rows."""


class NotEnoughData(TerminalError):
    """Too little is known yet to do the work honestly; it will be possible later."""


class CountMismatch(TerminalError):
    """Fewer or more rows arrived than the source said it holds."""


class WarehouseLocked(TransientError):
    """Another process is writing this tenant's warehouse."""


class StorageError(TerminalError):
    """State could not be written: disk full, folder not writable."""
