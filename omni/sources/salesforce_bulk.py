"""Salesforce's Bulk API 2.0: a query as a job, its results as CSV.

A job outlives the process that made it, and its results may be fetched again at any locator, so a killed
reading goes on in the middle.
"""

from __future__ import annotations

import csv
import logging
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from omni.errors import CountMismatch, SourceError, TransientError
from omni.sources.http import need
from omni.sources.records import Record
from omni.sources.salesforce_calls import ROOT, Client, Refused
from omni.sources.vendor import Page

PAGE_ROWS = 2_000
RESULT_ROWS = 50_000
"""Rows fetched as one file."""
MAX_FIELD = 16 * 2**20
MAX_LOOK = 30.0
"""Seconds between two looks at a job at most."""
UNSERVED_CODES = {"INVALIDENTITY", "FUNCTIONALITY_NOT_ENABLED", "FEATURENOTENABLED", "API_DISABLED_FOR_ORG"}
UNSERVED_WORDS = ("compound data", "not supported by the bulk api", "is not supported in bulk")

log = logging.getLogger(__name__)


class Unserved(Exception):
    """Bulk does not serve this query; REST does."""


@dataclass(frozen=True)
class Place:
    """Where in a job's results to go on: rows to skip behind a locator, and rows read in all."""

    job: str
    locator: str | None = None
    skip: int = 0
    done: int = 0

    def token(self) -> dict[str, Any]:
        """As a JSON value."""
        return {"job": self.job, "locator": self.locator, "skip": self.skip, "done": self.done}


def create(client: Client, soql: str, *, deleted: bool) -> Place:
    """Hand a query in. Returns the beginning of its results.

    Raises:
        Unserved: Bulk does not serve this object or these fields.
        Refused: Salesforce refused it for another reason.
    """
    asked = {
        "operation": "queryAll" if deleted else "query",
        "query": soql,
        "contentType": "CSV",
        "columnDelimiter": "COMMA",
        "lineEnding": "LF",
    }
    try:
        body = client.http.post(f"{ROOT}/jobs/query", asked)
    except Refused as error:
        if error.code in UNSERVED_CODES or _unserved(str(error)):
            raise Unserved(str(error)) from None
        raise
    return Place(need(body, "id", str, "Salesforce bulk job"))


def _unserved(message: str) -> bool:
    return any(words in message.lower() for words in UNSERVED_WORDS)


def wait(client: Client, job: str) -> int:
    """Wait until a job is done. Returns how many records it found.

    Raises:
        Unserved: it failed because Bulk does not serve the query.
        SourceError: it failed or was aborted.
        TransientError: it is not done in time.
    """
    where = f"Salesforce bulk job {job}"
    until = time.monotonic() + client.job_patience
    pause = client.backoff
    while True:
        body = client.get(f"/jobs/query/{job}")
        state = need(body, "state", str, where)
        if state == "JobComplete":
            return need(body, "numberRecordsProcessed", int, where)
        if state in ("Failed", "Aborted"):
            said = " ".join(str(body.get("errorMessage") or "no reason given").split())[:300]
            if _unserved(said):
                raise Unserved(said)
            raise SourceError(f"{where} ended as {state}: {said}. Nothing of it was loaded; run again.")
        if time.monotonic() + pause > until:
            raise TransientError(
                f"{where} is still {state} after {client.job_patience:.0f} s. Run again later, or allow "
                "more: option job_patience of the connection."
            )
        client.http.hold(pause)
        pause = min(pause * 1.5, MAX_LOOK)


def results(client: Client, place: Place, promised: int) -> Iterator[Page]:
    """A finished job's records from a place on.

    Args:
        client: the org.
        place: where to begin.
        promised: how many records the job found.

    Raises:
        CountMismatch: more or fewer came.
        SourceError: results that cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="omni-bulk-") as folder:
        path = Path(folder) / "results.csv"
        seen: set[str] = set()
        while True:
            params = {"maxRecords": str(RESULT_ROWS)} | ({"locator": place.locator} if place.locator else {})
            url = f"{ROOT}/jobs/query/{place.job}/results"
            reply = client.http.download(url, path, params=params, headers={"Accept": "text/csv"})
            announced, following = (
                reply.headers.get("sforce-numberofrecords"),
                reply.headers.get("sforce-locator"),
            )
            rows = islice(rows_in(path), place.skip, None)
            while batch := list(islice(rows, PAGE_ROWS)):
                rows_of_chunk = place.skip + len(batch)
                place = Place(place.job, place.locator, rows_of_chunk, place.done + len(batch))
                yield Page(batch, place.token())
            if announced is None or not announced.isdigit() or int(announced) != place.skip:
                raise CountMismatch(
                    f"Salesforce bulk job {place.job}: a file holds {place.skip} rows, announced were "
                    f"{announced}. Nothing was loaded; run again."
                )
            if following in (None, "", "null"):
                break
            if following in seen:
                raise SourceError(f"Salesforce bulk job {place.job}: its results lead in a circle.")
            seen.add(str(following))
            place = Place(place.job, following, 0, place.done)
    if place.done != promised:
        raise CountMismatch(
            f"Salesforce bulk job {place.job}: {place.done} rows came of {promised}. "
            "Nothing was loaded; run again."
        )


def rows_in(path: Path) -> Iterator[Record]:
    """A CSV file's rows as REST would show them: relationships nested, no value as None.

    Raises:
        SourceError: it is no CSV, or a row is cut; quotes the place, not the data.
    """
    csv.field_size_limit(MAX_FIELD)
    number = 0
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if "Id" not in header:
                raise SourceError("Salesforce bulk results have no column Id. Their format may have changed.")
            columns = [name.split(".") for name in header]
            for number, cells in enumerate(reader, 1):
                if len(cells) != len(header):
                    raise SourceError(
                        f"Salesforce bulk results: row {number} has {len(cells)} of {len(header)} cells."
                    )
                yield _record(columns, cells)
    except (csv.Error, UnicodeDecodeError) as error:
        kind = type(error).__name__
        raise SourceError(f"Salesforce bulk results cannot be read behind row {number} ({kind}).") from None


def _record(columns: list[list[str]], cells: list[str]) -> Record:
    record: Record = {}
    for column, cell in zip(columns, cells, strict=True):
        *steps, last = column
        within = record
        for step in steps:
            within = within.setdefault(step, {})
        within[last] = cell or None
    record["id"] = record["Id"]
    return record
