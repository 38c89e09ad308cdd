"""Segments and scores as events: every subscriber of the declared event is told of every row that changed.

Telling goes through the outbox (`omni.webhooks.hooks`), whose sender repeats and gives up by its own rules.
The change's token is among the values, so that a row which is sent twice is one event.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from omni.destinations.declaration import WriteBack
from omni.destinations.ledger import Outcome
from omni.destinations.plan import Item
from omni.errors import ConfigError
from omni.sources.connection import Connection
from omni.webhooks import hooks

BATCH = 500


@contextmanager
def opened(connection: Connection) -> Iterator[str]:
    """The tenant whose subscribers are told; the connection's option `tenant`."""
    yield connection.options["tenant"]


def check(_tenant: str, declared: WriteBack) -> None:
    """See that there is such an event.

    Raises:
        ConfigError: there is none.
    """
    if declared.to.object not in hooks.SAMPLES:
        known = ", ".join(hooks.SAMPLES)
        raise ConfigError(
            f"write-back {declared.name}: unknown event {declared.to.object!r}. Known: {known}."
        )


def send(tenant: str, declared: WriteBack, items: list[Item]) -> Outcome:
    """Owe every subscriber these rows.

    Raises:
        ConfigError: an event is too large.
    """
    rows = [
        {
            "write_back": declared.name,
            declared.key.property: item.key,
            **item.values,
            "left": item.content is None,
            "change": item.token,
        }
        for item in items
    ]
    hooks.publish(tenant, declared.to.object, rows)
    return Outcome(list(items), [])
