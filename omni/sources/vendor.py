"""What `extract` needs to know of a vendor: a few functions and constants, one value per vendor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from omni.sources.http import Dialect, Http
from omni.sources.records import Record
from omni.warehouse.contracts import Contract


@dataclass(frozen=True)
class Window:
    """Changes from `since` (inclusive; None: from the beginning) to `until` (exclusive), both UTC."""

    since: datetime | None
    until: datetime


Reader = Callable[[Http, list[Contract], Window], Iterator[list[Record]]]


@dataclass(frozen=True)
class Vendor:
    """One vendor's way of reading.

    Attributes:
        dialect: how to call it.
        lag: how long the vendor may take to show a change; windows end this long before now.
        resolution: the finest step its window filter can tell apart.
        check: compares contracts with the vendor's own schema; returns what is worth reporting.
        count: how many top-level records the vendor says the window holds.
        read: the window's records in batches; may repeat a record.
        archived: records archived within the window, which `count` leaves out; None if there are none.
    """

    name: str
    dialect: Dialect
    lag: timedelta
    resolution: timedelta
    check: Callable[[Http, list[Contract]], list[str]]
    count: Callable[[Http, list[Contract], Window], int]
    read: Reader
    archived: Reader | None = None


def table_object(tables: list[Contract]) -> str:
    """The vendor's name of the object that a stream's tables come from."""
    source = tables[0].source
    assert source is not None
    return source.object


def cursor_column(parent: Contract) -> str | None:
    """The column that moves when a record changes, by its name in the table."""
    return parent.source.cursor if parent.source else None


def cursor_path(parent: Contract) -> str | None:
    """The same by its name at the vendor."""
    name = cursor_column(parent)
    return (parent.columns[name].path or name) if name else None
