"""SOQL from the contracts: which fields, which window, and where to go on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from omni.errors import ConfigError, SchemaError, SourceError
from omni.sources.parse import moment
from omni.sources.records import Record
from omni.sources.salesforce_calls import Client
from omni.sources.vendor import Window, cursor_path, table_object
from omni.warehouse.contracts import Contract

CURSORS = ("SystemModstamp", "LastModifiedDate", "CreatedDate", "LoginTime")
"""Fields that move when a record changes, the best first."""
COMPOUND = {"address", "location"}
MAX_URL = 12_000
"""Characters of a query that surely fit a URL; a longer one goes into the body of a Bulk job."""
MAX_LEVELS = 5

_NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*")
_ID = re.compile(r"[0-9A-Za-z]{15}|[0-9A-Za-z]{18}")


@dataclass(frozen=True)
class Selection:
    """What to ask of an object.

    Attributes:
        paths: fields, `Id` first.
        cursor: the field that moves when a record changes.
        deleted: include the recycle bin, since the contract says which records are in it.
        compound: some field is made of several, which Bulk refuses.
    """

    object: str
    paths: tuple[str, ...]
    cursor: str | None
    deleted: bool
    compound: bool

    def soql(self, conditions: Iterable[str], *, ordered: bool = True) -> str:
        """The query for records under all the conditions, by cursor and id unless the order is left open."""
        order = f" ORDER BY {', '.join([*([self.cursor] if self.cursor else []), 'Id'])}" if ordered else ""
        return f"SELECT {', '.join(self.paths)} FROM {self.object}{_where(conditions)}{order}"

    def counting(self, conditions: Iterable[str]) -> str:
        """The query for the number of records under the conditions."""
        return f"SELECT COUNT() FROM {self.object}{_where(conditions)}"

    def window(self, window: Window) -> list[str]:
        """The conditions of what to read; none without a cursor.

        Without `since` nothing bounds it: what is edited while it is read would seem to be absent.
        """
        return [] if window.since is None else self.counted(window)

    def counted(self, window: Window) -> list[str]:
        """The conditions of a window as it is counted; none without a cursor."""
        if self.cursor is None:
            return []
        since = [] if window.since is None else [f"{self.cursor} >= {literal(window.since)}"]
        return [*since, f"{self.cursor} < {literal(window.until)}"]

    def behind(self, window: Window, place: Mapping[str, str]) -> list[str]:
        """The conditions of what comes in a window behind a record, however many share its time."""
        identity = checked_id(place["id"])
        if self.cursor is None:
            return [f"Id > '{identity}'"]
        at = literal(moment(place["at"]))
        tie = f"(({self.cursor} = {at} AND Id > '{identity}') OR {self.cursor} > {at})"
        end = [] if window.since is None else [f"{self.cursor} < {literal(window.until)}"]
        return [f"{self.cursor} >= {at}", *end, tie]

    def place(self, record: Record) -> dict[str, str]:
        """Where a record stands in the order.

        Raises:
            SourceError: its cursor holds no time.
        """
        if self.cursor is None:
            return {"id": record["id"]}
        try:
            at = literal(moment(str(record.get(self.cursor))))
        except (ValueError, OverflowError) as error:
            raise SourceError(f"Salesforce {self.object}: {self.cursor} of a record is {error}.") from None
        return {"at": at, "id": record["id"]}

    def too_long(self, soql: str) -> bool:
        """Whether a query does not surely fit a URL."""
        return len(quote(soql)) > MAX_URL


def _where(conditions: Iterable[str]) -> str:
    joined = " AND ".join(conditions)
    return f" WHERE {joined}" if joined else ""


def literal(when: datetime) -> str:
    """A moment as SOQL writes it."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def checked_id(identity: str) -> str:
    """An id fit to stand in a query.

    Raises:
        SourceError: it is none of Salesforce's.
    """
    if not _ID.fullmatch(identity):
        raise SourceError("Salesforce: an id to look up is not 15 or 18 letters and digits.")
    return identity


def paths(parent: Contract) -> dict[str, str]:
    """Field path to column name, from the contract.

    Raises:
        ConfigError: a path is no SOQL name.
    """
    found = {column.path or name: name for name, column in parent.columns.items()}
    for path in found:
        if not _NAME.fullmatch(path) or path.count(".") > MAX_LEVELS:
            raise ConfigError(f"{parent.table}: {path!r} is no field of Salesforce, for example Account.Name")
    return found


def field_at(client: Client, name: str, path: str) -> dict[str, Any] | None:
    """The field at a path, along the relationships describe names; None where the path leads nowhere.

    Where a relationship may lead to several objects, it is the first one's that has such a field.
    """
    step, _, rest = path.partition(".")
    fields = client.fields(name)
    if not rest:
        return fields.get(path)
    link = next((f for f in fields.values() if f.get("relationshipName") == step), None)
    for target in (link or {}).get("referenceTo") or []:
        try:
            found = field_at(client, str(target), rest)
        except SchemaError:  # one of the targets is hidden from our user
            continue
        if found is not None:
            return found
    return None


def selection(client: Client, tables: list[Contract]) -> Selection:
    """What a stream asks for: the contract's fields less those never kept and optional ones the org lacks.

    Raises:
        SchemaError: a contract of nested rows, which Salesforce's objects have none of.
    """
    parent, name = tables[0], table_object(tables)
    if len(tables) > 1:
        raise SchemaError(f"{tables[1].table}: Salesforce's objects hold no nested rows; give it an object")
    chosen, compound = ["Id"], False
    for path, column_name in paths(parent).items():
        column = parent.columns[column_name]
        if path == "Id" or (column.personal and column.personal.protect == "drop"):
            continue
        found = field_at(client, name, path)
        if found is None and column.optional:
            continue
        compound = compound or (found is not None and found.get("type") in COMPOUND)
        chosen.append(path)
    cursor = cursor_path(parent)
    if cursor is not None and cursor not in chosen:
        chosen.append(cursor)
    return Selection(name, tuple(chosen), cursor, "IsDeleted" in chosen, compound)
