"""Stripe's API: https://docs.stripe.com/api.

A first load lists all objects. Later loads list what was created since, and take from the events which
older objects changed. An event is only a hint: its payload is of the account's API version and of its
time, so the object is fetched again as it is now; only a deletion stands for itself. Stripe keeps events
for 30 days; after a longer pause everything is listed again.

Amounts are whole numbers of the currency's minor unit, as Stripe sends them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from omni.errors import ConfigError, SchemaError, SourceError
from omni.sources.http import Http, need
from omni.sources.records import PARENT, Record
from omni.sources.stripe_client import Missing, client
from omni.sources.stripe_streams import STREAMS, Hint, Stream, hint, nested_call
from omni.sources.vendor import Page, Vendor, Window, table_object
from omni.warehouse.contracts import Contract

LAG = timedelta(minutes=1)
LIMIT = 100
EVENTS_KEPT = timedelta(days=30) - timedelta(hours=1)
"""How far back events are trusted to be complete; the hour is for the reading itself."""
MAX_RESTARTS = 100
"""Times one list may lose the object it stood at, because somebody deletes while we read."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a reading stands: its phase, the last id read, and the newest moment on that page."""

    phase: str
    after: str | None = None
    created: int | None = None

    def token(self) -> dict[str, Any]:
        """As a JSON value."""
        return {"phase": self.phase, "after": self.after, "created": self.created}


def _stream(tables: list[Contract]) -> Stream:
    name = table_object(tables)
    if name not in STREAMS:
        raise ConfigError(
            f"{tables[0].table}: Stripe has no object {name!r} that can be read. Known: {', '.join(STREAMS)}."
        )
    return STREAMS[name]


def _where(tables: list[Contract]) -> str:
    return f"Stripe {table_object(tables)}"


def _path(tables: list[Contract]) -> str:
    return f"/v1/{table_object(tables)}"


def _seconds(when: datetime) -> int:
    return int(when.timestamp())


def check(_http: Http, tables: list[Contract]) -> list[str]:
    """Nothing to ask beforehand: the version is pinned, and `read` notices fields that are not there.

    Raises:
        ConfigError: there is no such object, or no such list in it.
    """
    stream = _stream(tables)
    for child in tables[1:]:
        _nested_name(stream, child)
    return []


def count(_http: Http, _tables: list[Contract], _window: Window) -> None:
    """Stripe counts nothing; lists are read until the page behind the last record is empty."""
    return


def read(http: Http, tables: list[Contract], window: Window, resume: Any = None) -> Iterator[Page]:
    """Objects newest first: all created before the window's end, or those created or changed within.

    Raises:
        SourceError: a list does not advance, or leaves the window.
        SchemaError: no record at all has a field that the contract reads.
    """
    # Stripe answers null for what has no value; a field no record mentions does not exist.
    unseen = _top_level(tables[0])
    some = False
    for page in _phases(http, tables, window, resume):
        for record in page.records:
            if not record.get("deleted"):
                some = True
                unseen.difference_update(record)
        yield page
    if some and unseen:
        raise SchemaError(
            f"Stripe no longer fits the contract of {tables[0].table}: no record has "
            f"{', '.join(sorted(unseen))}. Change the contract in data/contracts: another `from`, or "
            "`optional: true`."
        )


def _top_level(parent: Contract) -> set[str]:
    return {
        (column.path or name).partition(".")[0]
        for name, column in parent.columns.items()
        if not column.optional
    } - {"deleted"}


def _phases(http: Http, tables: list[Contract], window: Window, resume: Any) -> Iterator[Page]:
    stream = _stream(tables)
    place = Place(**resume) if resume else Place(_first_phase(http, tables, window, stream))
    if resume and place.phase != "all" and not _events_whole(http, tables, window, stream):
        raise SourceError(
            f"{_where(tables)}: the reading to go on with is so old that its events are gone; start anew."
        )
    if place.phase != "events":
        since = None if place.phase == "all" else window.since
        yield from _created(http, tables, Window(since, window.until), place)
    if stream.events and place.phase != "all":
        yield from _changed(http, tables, window, place if place.phase == "events" else Place("events"))


def _first_phase(http: Http, tables: list[Contract], window: Window, stream: Stream) -> str:
    if window.since is None:
        return "all"
    if _events_whole(http, tables, window, stream):
        return "new"
    log.warning(
        "%s: last read at %s, longer ago than Stripe keeps events; reading everything again. Objects deleted "
        "earlier than that stay until the next full load.",
        _where(tables),
        window.since.isoformat(),
    )
    return "all"


def _events_whole(http: Http, tables: list[Contract], window: Window, stream: Stream) -> bool:
    """Whether Stripe still has every event of the window, if any are needed.

    Its clock is read from its newest event: the window may end long before now.
    """
    if not stream.events or window.since is None:
        return True
    newest = need(http.get("/v1/events", {"limit": "1"}), "data", list, _where(tables))
    now = need(newest[0], "created", int, _where(tables)) if newest else int(time.time())
    return window.since >= max(datetime.fromtimestamp(now, UTC), window.until) - EVENTS_KEPT


def _bounds(window: Window) -> dict[str, str]:
    bounds = {"created[lt]": str(_seconds(window.until))}
    return bounds if window.since is None else {"created[gte]": str(_seconds(window.since))} | bounds


def _created(http: Http, tables: list[Contract], window: Window, place: Place) -> Iterator[Page]:
    """Objects created within the window."""
    stream, where = _stream(tables), _where(tables)
    params = {**stream.params, **_bounds(window)}
    params |= {f"expand[{n}]": f"data.{name}" for n, name in enumerate(stream.expand)}
    for found, here in _pages(http, _path(tables), params, place, where):
        yield Page([_complete(http, tables, record) for record in found], here.token())


def _changed(http: Http, tables: list[Contract], window: Window, place: Place) -> Iterator[Page]:
    """Objects created before the window that events within it tell of; and what was deleted."""
    stream, where = _stream(tables), _where(tables)
    assert window.since is not None
    start, end = _seconds(window.since), _seconds(window.until)
    params = {f"types[{n}]": name for n, name in enumerate(stream.events)} | _bounds(window)
    handled: set[str] = set()
    for events, here in _pages(http, "/v1/events", params, place, f"{where} events"):
        records = []
        for event in events:
            found = hint(event, stream, f"{where} events")
            listed = found.created is not None and start <= found.created < end
            if found.id in handled or (listed and not found.deleted):
                continue
            handled.add(found.id)
            record = _gone(stream, found) if found.deleted else _now(http, tables, found)
            if record is not None:
                records.append(record)
        if records:
            yield Page(records, here.token())


def _gone(stream: Stream, found: Hint) -> Record:
    created = {} if found.created is None else {"created": _iso(found.created)}
    return {"id": found.id, "object": stream.kind, "deleted": True, **created}


def _now(http: Http, tables: list[Contract], found: Hint) -> Record | None:
    """An object as it is now."""
    stream = _stream(tables)
    try:
        record = _retrieved(http, tables, found.id)
    except Missing:
        if stream.deletions:
            return _gone(stream, found)
        log.warning("%s: an event tells of %s, which Stripe does not have", _where(tables), found.id)
        return None
    return _gone(stream, found) if record["deleted"] is True else record


def _retrieved(http: Http, tables: list[Contract], identity: str) -> Record:
    params = {f"expand[{n}]": name for n, name in enumerate(_stream(tables).expand)}
    record = http.get(f"{_path(tables)}/{identity}", params)
    if need(record, "id", str, _where(tables)) != identity:
        raise SourceError(f"{_where(tables)}: asked for {identity} and got another object.")
    return _complete(http, tables, record)


def reread(http: Http, tables: list[Contract], ids: list[str]) -> Iterator[Page]:
    """Objects by id, as they are now; deleted ones hold nothing but `id` and `deleted`."""
    for start in range(0, len(ids), LIMIT):
        records = []
        for identity in ids[start : start + LIMIT]:
            try:
                records.append(_retrieved(http, tables, identity))
            except Missing:
                continue
        if records:
            yield Page(records)


def _pages(
    http: Http, path: str, params: dict[str, str], place: Place, where: str
) -> Iterator[tuple[list[Any], Place]]:
    """A list's pages, newest first, each with the place behind it.

    The list ends where the page behind the last record is empty: Stripe gives no count to compare with, and
    a page may be shorter than it was asked to be.
    """
    seen: set[str] = set()
    restarts = 0
    while True:
        ask = params | {"limit": str(LIMIT)} | ({"starting_after": place.after} if place.after else {})
        try:
            body = http.get(path, ask)
        except Missing as missing:
            if missing.param != "starting_after" or place.created is None or restarts == MAX_RESTARTS:
                raise
            # The object we stood at was deleted: go on from its second, whose objects may then come twice.
            restarts += 1
            seen.clear()
            params = params | {"created[lt]": str(place.created + 1)}
            place = replace(place, after=None)
            continue
        data = need(body, "data", list, where)
        more = need(body, "has_more", bool, where)
        if not data:
            if more:
                raise SourceError(f"{where}: an empty page promises another one.")
            return
        place = _behind(data, params, place, where)
        if place.after in seen:
            raise SourceError(f"{where}: paging does not advance.")
        seen.add(place.after or "")
        yield data, place


def _behind(data: list[Any], params: dict[str, str], place: Place, where: str) -> Place:
    """The place behind a page, after a look at whether the page is of the window."""
    last = need(data[-1], "id", str, where)
    if last == place.after:
        raise SourceError(f"{where}: paging does not advance.")
    if "created[lt]" not in params:
        return replace(place, after=last)
    moments = [need(record, "created", int, where) for record in data]
    if min(moments) < int(params.get("created[gte]", 0)) or max(moments) >= int(params["created[lt]"]):
        raise SourceError(f"{where}: Stripe ignored the bounds of the window.")
    return replace(place, after=last, created=max(moments))


def _complete(http: Http, tables: list[Contract], record: Any) -> Record:
    """A record with its own list whole, and moments the contract's types can read."""
    stream, where = _stream(tables), _where(tables)
    need(record, "id", str, where)
    record.setdefault("deleted", False)
    _dated([record], tables[0])
    for child in () if record["deleted"] else tables[1:]:
        name = _nested_name(stream, child)
        inner = need(record, name, dict, where)
        rows = need(inner, "data", list, where)
        if need(inner, "has_more", bool, where):
            rows = _nested(http, stream, name, record["id"], where)
        record[name] = inner | {"data": rows, "has_more": False}
        _dated(rows, child)
    return dict(record)


def _nested_name(stream: Stream, child: Contract) -> str:
    name, _, rest = ((child.source and child.source.rows) or "").partition(".")
    if name not in stream.nested or rest != "data":
        known = ", ".join(f"{nested}.data" for nested in stream.nested) or "none"
        raise ConfigError(f"{child.table}: source.rows should be one of {known}.")
    return name


def _nested(http: Http, stream: Stream, name: str, identity: str, where: str) -> list[Any]:
    path, params = nested_call(stream, name, identity)
    pages = _pages(http, path, params, Place("nested"), f"{where} {name}")
    return [row for page, _ in pages for row in page]


def _dated(rows: list[Any], contract: Contract) -> None:
    """Turn seconds since the epoch into ISO 8601 where the contract has moments."""
    for name, column in contract.columns.items():
        path = column.path or name
        if column.type != "timestamp" or path.startswith(PARENT):
            continue
        *outer, last = path.split(".")
        for row in rows:
            inner = row
            for key in outer:
                inner = inner.get(key) if isinstance(inner, dict) else None
            if isinstance(inner, dict) and type(inner.get(last)) is int:
                inner[last] = _iso(inner[last])


def _iso(seconds: int) -> str | int:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return seconds


VENDOR: Vendor[Http] = Vendor(
    name="stripe",
    title="Stripe",
    open=client,
    lag=LAG,
    resolution=timedelta(seconds=1),
    check=check,
    count=count,
    read=read,
    reread=reread,
)
