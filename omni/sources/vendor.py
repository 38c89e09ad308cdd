"""What `extract` needs to know of a vendor: a few functions and constants, one value per vendor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from omni.sources.connection import Connection
from omni.sources.records import Record
from omni.warehouse.contracts import Contract, Type

C = TypeVar("C")
"""A vendor's client, such as `omni.sources.http.Http`."""


@dataclass(frozen=True)
class Window:
    """Changes from `since` (inclusive; None: from the beginning) to `until` (exclusive), both UTC."""

    since: datetime | None
    until: datetime


@dataclass(frozen=True)
class Page:
    """Some records of a window.

    Attributes:
        records: each with its key under the paths the contract names, and an `id`.
        resume: a JSON value that, given back to `read`, goes on behind this page, also in another process;
            None where reading cannot go on from here.
        counted: whether the vendor's `count` includes these records. Those it leaves out (archived ones)
            must lie within the window already; counted ones may be later, and are left to the next window.
        rejected: rows that could not even become records: `{"table", "key", "column", "reason"}`, free of
            values. They count as read and go to the dead letters.
        gone: ids of records that the source says it no longer has; their rows are removed.
    """

    records: list[Record]
    resume: Any = None
    counted: bool = True
    rejected: tuple[dict[str, str], ...] = ()
    gone: tuple[str, ...] = ()


@dataclass(frozen=True)
class Field:
    """A field as the vendor declares it.

    Attributes:
        type: the contract's type its values fit.
        sensitive: the vendor marks it as personal or confidential.
    """

    type: Type
    sensitive: bool = False


@dataclass(frozen=True)
class Changes:
    """What a vendor's own record of changes told.

    Attributes:
        ids: of records written or deleted, each once.
        resume: a JSON value to ask on with, also in another process.
        more: there may be more right now.
    """

    ids: list[str]
    resume: Any
    more: bool = False


def _nothing_to_compare(_client: object, _tables: list[Contract]) -> list[str]:
    return []


@dataclass(frozen=True)
class Vendor(Generic[C]):
    """One vendor's way of reading.

    Attributes:
        name: as in contracts, for example "hubspot".
        title: its name for people.
        open: a client for an account; a context manager.
        lag: how long the vendor may take to show a change; windows end this long before now.
        resolution: the finest step its window filter can tell apart.
        count: how many top-level records the vendor says the window holds; None if it does not say.
        read: the window's records in pages, after a page's `resume` if one is given; may repeat a record.
        check: compares contracts with the vendor's own schema; returns what is worth reporting.
        reread: records by id, as they are now; those not found are gone. None: the vendor cannot.
        fields: the account's own fields of the parent object that its contract does not declare, by path;
            None: the vendor has no schema, and new fields are noticed in the records.
        changes: ids of records that were written or deleted since an earlier answer's `resume`; given None it
            tells nothing and begins now. Raises HistoryLost where the vendor no longer knows that far back.
            Needs `reread`. None: the vendor keeps no such record, or windows show deletions anyway.
    """

    name: str
    title: str
    open: Callable[[Connection], AbstractContextManager[C]]
    lag: timedelta
    resolution: timedelta
    count: Callable[[C, list[Contract], Window], int | None]
    read: Callable[[C, list[Contract], Window, Any], Iterator[Page]]
    check: Callable[[C, list[Contract]], list[str]] = _nothing_to_compare
    reread: Callable[[C, list[Contract], list[str]], Iterator[Page]] | None = None
    fields: Callable[[C, list[Contract]], dict[str, Field]] | None = None
    changes: Callable[[C, list[Contract], Any], Changes] | None = None

    def followed(self, connection: Connection) -> bool:
        """Whether an account's changes are to be followed beside its windows: its option `change_stream`."""
        return self.changes is not None and connection.options.get("change_stream") == "true"


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
