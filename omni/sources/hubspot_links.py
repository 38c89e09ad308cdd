"""HubSpot's associations: which records a record is linked to, from list pages and from batch reads."""

from __future__ import annotations

from typing import Any

from omni.errors import SourceError
from omni.sources.http import Http, need
from omni.sources.records import Record

BATCH_LIMIT = 100


def next_page(body: Any, before: str | None, where: str) -> str | None:
    """The cursor of the page after this one, None at the end.

    Raises:
        SourceError: the answer promises a page and does not say which, or names the same one again.
    """
    if not body.get("paging"):
        return None
    after = str(need(body, "paging.next", dict, where).get("after") or "")
    if not after or after == before:
        raise SourceError(f"{where}: paging does not advance (after {before!r}).")
    return after


def linked(http: Http, path: str, ids: list[str], where: str) -> dict[str, list[str]]:
    """Ids linked to each of the given ids, by batch reads of at most 100.

    Args:
        http: the account.
        path: the batch read of the two object types.
        ids: records to look from; those without links are absent from the answer.
        where: the place, for messages.
    """
    found: dict[str, list[str]] = {}
    waiting: list[dict[str, str]] = [{"id": identity} for identity in ids]
    while waiting:
        asked, waiting = waiting[:BATCH_LIMIT], waiting[BATCH_LIMIT:]
        body = http.post(path, {"inputs": asked})
        before = {entry["id"]: entry.get("after") for entry in asked}
        results = need(body, "results", list, where)
        for error in body.get("errors") or []:
            # That a record has no links is reported as an error, too.
            if "NOT_FOUND" not in str(error.get("category")) + str(error.get("subCategory")):
                raise SourceError(f"{where}: {str(error.get('message'))[:300]}")
        for result in results:
            origin = str(need(result, "from", dict, where).get("id"))
            targets = found.setdefault(origin, [])
            targets += [str(row["toObjectId"]) for row in need(result, "to", list, where)]
            if after := next_page(result, before.get(origin), where):
                waiting.append({"id": origin, "after": after})
    return found


def listed(http: Http, path: str, link: str, results: list[Any], where: str) -> dict[str, list[str]]:
    """Ids a list page names under each of its records; where it has more than it shows, all by batch read."""
    ids: dict[str, list[str]] = {}
    more = []
    for result in results:
        found = (result.get("associations") or {}).get(link) or {"results": []}
        ids[result["id"]] = [str(need(row, "id", str, where)) for row in need(found, "results", list, where)]
        if found.get("paging"):
            more.append(result["id"])
    return ids | linked(http, path, more, where)


def attach(records: list[Record], link: str, ids: dict[str, list[str]]) -> None:
    """Put the links into the records as rows of a child table."""
    for record in records:
        # One pair can be linked under several labels; the table holds the pair once.
        unique = dict.fromkeys(ids.get(record["id"], []))
        record["associations"][link] = [{"id": identity} for identity in unique]
