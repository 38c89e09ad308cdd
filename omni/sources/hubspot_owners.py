"""HubSpot's owners: the account's users, whom records belong to.

They are no CRM objects: no properties, no search, no count. There are few, so each reading brings them all;
those who left come as archived.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omni.sources.http import Http, need
from omni.sources.hubspot_links import next_page
from omni.sources.hubspot_objects import VERSION
from omni.sources.records import Record
from omni.sources.vendor import Page

OBJECT = "owners"
PATH = f"/crm/owners/{VERSION}"
LIMIT = 100
WHERE = "HubSpot owners"


def read(http: Http, resume: Any) -> Iterator[Page]:
    """All owners, then all archived ones."""
    at: dict[str, Any] = resume or {"list": None}
    if "list" in at:
        yield from _listed(http, "list", at["list"])
    yield from _listed(http, "archived", at.get("archived"))


def _listed(http: Http, name: str, after: str | None) -> Iterator[Page]:
    params = {"limit": str(LIMIT), "archived": str(name == "archived").lower()}
    while True:
        body = http.get(PATH, params | ({"after": after} if after else {}))
        records = [_record(row) for row in need(body, "results", list, WHERE)]
        after = next_page(body, after, WHERE)
        yield Page(records, {name: after} if after else {"archived": None} if name == "list" else None)
        if after is None:
            return


def _record(row: Any) -> Record:
    return {**row, "id": need(row, "id", str, WHERE), "archived": need(row, "archived", bool, WHERE)}


def reread(http: Http, ids: list[str]) -> Iterator[Page]:
    """Owners by id; HubSpot reads them one by one, so all are read once instead."""
    wanted = set(ids)
    for page in read(http, None):
        if found := [record for record in page.records if record["id"] in wanted]:
            yield Page(found)
