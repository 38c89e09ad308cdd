"""HubSpot's CRM objects: https://developers.hubspot.com/docs/api-reference.

A first load lists all objects (100 a page). Later loads search on the modification date (200 a page; see
`hubspot_search`). Search shows changes only after a while, hence `LAG`.

What moves no modification date is seen by a full read only: calculated properties, and records deleted for
good (unless a webhook tells of them). A merge gives the merged record a new id; the old ids are gone, which
the merged record tells whenever it is read.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from omni.errors import SchemaError, SourceError
from omni.sources import hubspot_objects, hubspot_owners, hubspot_properties, hubspot_search
from omni.sources.connection import Connection
from omni.sources.http import Again, Dialect, Http, Reply, describe, retry_after
from omni.sources.hubspot_objects import (
    MAX_QUERY,
    MERGED,
    MILLISECOND,
    VERSION,
    list_all,
    milliseconds,
    modified,
    moment_of,
    place,
    properties,
)
from omni.sources.hubspot_properties import misfit
from omni.sources.limits import Limit
from omni.sources.records import Record
from omni.sources.vendor import Field, Page, Vendor, Window, cursor_path, table_object
from omni.warehouse.contracts import Contract

__all__ = ["DIALECT", "MAX_QUERY", "VENDOR", "VERSION"]

LAG = timedelta(hours=1)
LOW = 0.1
"""Share of the day's calls below which we warn."""

log = logging.getLogger(__name__)


def _of_owners(tables: list[Contract]) -> bool:
    return table_object(tables) == hubspot_owners.OBJECT


def check(http: Http, tables: list[Contract]) -> list[str]:
    """Compare the contract with what the account declares; see `hubspot_properties.check`."""
    return [] if _of_owners(tables) else hubspot_properties.check(http, tables)


def fields(http: Http, tables: list[Contract]) -> dict[str, Field]:
    """The account's own properties that the contract does not know."""
    return {} if _of_owners(tables) else hubspot_properties.fields(http, tables)


def count(http: Http, tables: list[Contract], window: Window) -> int | None:
    """Objects (not archived) that HubSpot says were last changed within the window."""
    return None if _of_owners(tables) else hubspot_search.count(http, tables, window)


def reread(http: Http, tables: list[Contract], ids: list[str]) -> Iterator[Page]:
    """Records by id, as they are now."""
    if _of_owners(tables):
        return hubspot_owners.reread(http, ids)
    return hubspot_objects.reread(http, tables, ids)


def read(http: Http, tables: list[Contract], window: Window, resume: Any) -> Iterator[Page]:
    """Objects in pages: all of them without `window.since`, else those changed since; then archived ones.

    Records near a seam of two searches may come twice. Without `since`, also those changed after
    `until` come.

    Raises:
        SchemaError: a property that was asked for comes with no record at all.
    """
    if _of_owners(tables):
        yield from hubspot_owners.read(http, resume)
        return
    at: dict[str, Any] = resume or {}
    if "archived" not in at:
        if window.since is None or cursor_path(tables[0]) is None:
            pages = list_all(http, tables, archived=False, after=at.get("list"))
        else:
            start = at.get("start", milliseconds(window.since))
            end = milliseconds(window.until)
            pages = hubspot_search.changes(http, tables, start, end, at.get("last"))
            pages = _merges_noted(tables, window, pages)
        yield from _all_mentioned(tables[0], pages)
    for page in list_all(http, tables, archived=True, after=at.get("archived")):
        kept = [record for record in page.records if _within(record, window, place(tables))]
        yield Page(kept, page.resume, counted=False)


def _merges_noted(tables: list[Contract], window: Window, pages: Iterator[Page]) -> Iterator[Page]:
    """The pages, each telling the ids that were merged into its records: those are gone."""
    for page in pages:
        gone = [
            key
            for record in page.records
            if (merged := record.get(MERGED)) and modified(record, tables) < window.until
            for key in re.findall(r"\d+", str(merged))
            if key != record["id"]
        ]
        yield replace(page, gone=tuple(dict.fromkeys(gone))) if gone else page


def _all_mentioned(parent: Contract, pages: Iterator[Page]) -> Iterator[Page]:
    """The pages; fails at their end if a property was never mentioned.

    HubSpot answers null for a property without value; one that is never mentioned does not exist.
    """
    some = False
    unseen = {path for path, name in properties(parent).items() if not parent.columns[name].optional}
    for page in pages:
        if page.counted:
            some = some or bool(page.records)
            for record in page.records if unseen else ():
                unseen.difference_update(record)
        yield page
    if some and unseen:
        raise SchemaError(misfit(parent, [f"no record has property {path!r}" for path in sorted(unseen)]))


def _within(record: Record, window: Window, where: str) -> bool:
    when = moment_of(record.get("archivedAt") or record.get("updatedAt"), where)
    return (window.since is None or when >= window.since) and when < window.until


def _limits(connection: Connection) -> tuple[Limit, ...]:
    return (
        Limit(connection.requests_per_10s, 10.0),
        Limit(connection.searches_per_second, 1.0, "/search"),
    )


def _judge(reply: Reply, where: str) -> None:
    if reply.status == 429 and isinstance(reply.body, dict) and reply.body.get("policyName") == "DAILY":
        # Waiting seldom helps before midnight, so it counts as a failure, of which few are borne.
        said = describe(reply)
        raise Again(f"the account's calls of today are used up{said}", wait=retry_after(reply.headers))
    if 300 <= reply.status < 400 or reply.status in (410, 426):
        raise SourceError(
            f"{where}: HubSpot does not answer at version {VERSION} (HTTP {reply.status}){describe(reply)}; "
            "move VERSION in omni/sources/hubspot_objects.py to a supported one and run its tests."
        )


DIALECT = Dialect(
    title="HubSpot",
    limits=_limits,
    advice=(
        "Check the private app's access token and its read scopes, then set it in the tenant's HubSpot "
        "block or in OMNI_HUBSPOT__TOKEN."
    ),
    judge=_judge,
)


def watchful() -> Callable[[Reply, str], None]:
    """A judge for one client that also warns, once, of what will be a failure later."""
    said: set[str] = set()

    def warn(what: str, text: str, *values: object) -> None:
        if what not in said:
            said.add(what)
            log.warning(text, *values)

    def judge(reply: Reply, where: str) -> None:
        left, most = (reply.headers.get(f"x-hubspot-ratelimit-daily{end}", "") for end in ("-remaining", ""))
        if left.isdigit() and most.isdigit() and int(left) < LOW * int(most):
            warn("daily", "HubSpot: %s of the account's %s calls of today are left", left, most)
        if (version := _answered_by(reply.body)) not in (None, VERSION):
            warn("version", "HubSpot answers with version %s where %s was asked for", version, VERSION)
        _judge(reply, where)

    return judge


def _answered_by(body: Any) -> str | None:
    """The version in the address of a reply's next page; None where it names none."""
    try:
        link = str(body["paging"]["next"]["link"])
    except (TypeError, KeyError):
        return None
    found = re.search(r"/(20\d\d-\d\d|v\d)/", link)
    return found.group(1) if found else None


def client(connection: Connection) -> Http:
    """A client of one account."""
    return Http(connection, replace(DIALECT, judge=watchful()))


VENDOR = Vendor(
    name="hubspot",
    title="HubSpot",
    open=client,
    lag=LAG,
    resolution=MILLISECOND,
    check=check,
    count=count,
    read=read,
    reread=reread,
    fields=fields,
)
