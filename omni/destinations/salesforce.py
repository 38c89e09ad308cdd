"""Segments and scores as fields of Salesforce's records, by Bulk API 2.0 ingest jobs.

With the key `Id` records that exist are updated; with an external id, records that do not exist are made.
Either way writing twice does no more than writing once, so a job whose fate is unknown is simply done again,
after it was aborted: left alone, it could be done after the next one and undo newer values.
"""

from __future__ import annotations

import csv
import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from omni.destinations.declaration import WriteBack
from omni.destinations.ledger import Outcome, Refusal
from omni.destinations.plan import Item, text
from omni.errors import CountMismatch, OmniError, SchemaError, SourceError, TransientError
from omni.sources.connection import Connection
from omni.sources.http import Call, need
from omni.sources.salesforce_calls import ROOT, Client, Refused
from omni.sources.salesforce_calls import opened as opened_org

BATCH = 10_000
MAX_UPLOAD = 100 * 10**6
"""Bytes of CSV one job takes; Salesforce stores them as base64, of at most 150 MB."""
RECORD_ID = "Id"
CLEAR = "#N/A"
"""What empties a field; an empty cell leaves it as it is."""
TRIES = 3
MAX_LOOK = 30.0
"""Seconds between two looks at a job at most."""


log = logging.getLogger(__name__)


class _Late(TransientError):
    """A job is not done in time. Doing it again now would only wait once more."""


def opened(connection: Connection) -> AbstractContextManager[Client]:
    """A client of an org."""
    return opened_org(connection)


def check(client: Client, declared: WriteBack) -> None:
    """See that the fields exist and can be written before anything is.

    Raises:
        SchemaError: a field is missing or read-only, or the key's is no external id.
    """
    known = client.fields(declared.to.object, fresh=True)
    problems = []
    for name in declared.columns:
        if name not in known:
            problems.append(f"{declared.to.object} has no field {name}; create it in Salesforce")
        elif not known[name].get("updateable", True):
            problems.append(f"field {name} cannot be written")
    key = declared.key.property
    if key != RECORD_ID and not known.get(key, {}).get("externalId"):
        problems.append(f"field {key} is no external id, so it cannot be the key")
    if problems:
        raise SchemaError(f"write-back {declared.name}: {'; '.join(problems)}.")


def send(client: Client, declared: WriteBack, items: list[Item]) -> Outcome:
    """Write rows by as many jobs as their size needs.

    Raises:
        AuthError, SourceError, TransientError: as the client; the rows may have been written.
    """
    written: list[Item] = []
    refused: list[Refusal] = []
    for upload, part in uploads(declared, items):
        outcome = _persistently(partial(_job, client, declared, upload, part))
        written += outcome.written
        refused += outcome.refused
    return Outcome(written, refused)


def _persistently(job: Callable[[], Outcome]) -> Outcome:
    """Do a job again when a call of it was lost; its calls cannot be repeated one by one."""
    for _ in range(TRIES - 1):
        try:
            return job()
        except _Late:
            raise
        except TransientError:
            continue
    return job()


def uploads(
    declared: WriteBack, items: list[Item], most: int = MAX_UPLOAD
) -> Iterator[tuple[bytes, list[Item]]]:
    """CSV of at most so many bytes each, with the rows in it. A row of its own may be larger."""
    head = _line([declared.key.property, *declared.columns])
    lines, size = [head], len(head)
    part: list[Item] = []
    for item in items:
        cells = [item.key, *(_cell(item, name) for name in declared.columns)]
        line = _line(cells)
        if part and size + len(line) > most:
            yield b"".join(lines), part
            lines, size, part = [head], len(head), []
        lines.append(line)
        part.append(item)
        size += len(line)
    if part:
        yield b"".join(lines), part


def _cell(item: Item, name: str) -> str:
    """A value; what a row that leaves does not clear stays as it is."""
    return (text(item.values[name]) or CLEAR) if name in item.values else ""


def _line(cells: list[str]) -> bytes:
    """A line of CSV. Lone carriage returns are quoted too, which the csv module forgets."""
    quoted = ['"' + c.replace('"', '""') + '"' if set(c) & set(',"\r\n') else c for c in cells]
    return (",".join(quoted) + "\n").encode()


def _job(client: Client, declared: WriteBack, upload: bytes, items: list[Item]) -> Outcome:
    by_id = declared.key.property == RECORD_ID
    asked = {
        "object": declared.to.object,
        "operation": "update" if by_id else "upsert",
        "contentType": "CSV",
        "columnDelimiter": "COMMA",
        "lineEnding": "LF",
    } | ({} if by_id else {"externalIdFieldName": declared.key.property})
    where = "Salesforce ingest job"
    job = need(client.http.post(f"{ROOT}/jobs/ingest", asked), "id", str, where)
    path = f"{ROOT}/jobs/ingest/{job}"
    csv_type = {"Content-Type": "text/csv; charset=UTF-8"}
    try:
        client.http.send(
            Call("PUT", f"{path}/batches", data=upload, headers=csv_type, plain=True, repeatable=False)
        )
        client.http.send(Call("PATCH", path, content={"state": "UploadComplete"}, repeatable=False))
        body = _wait(client, job)
        return _results(client, path, declared, items, body)
    except BaseException:
        _abort(client, job)
        raise


def _abort(client: Client, job: str) -> None:
    """Keep a job that is given up on from being done later; one that ended already refuses this."""
    try:
        client.http.send(Call("PATCH", f"{ROOT}/jobs/ingest/{job}", content={"state": "Aborted"}))
    except Refused:
        return
    except OmniError as error:
        log.warning(
            "Salesforce ingest job %s may still be done and undo later values (%s); abort it under Bulk Data "
            "Load Jobs in Setup",
            job,
            error,
        )


def _wait(client: Client, job: str) -> dict[str, Any]:
    """The job when it is done.

    Raises:
        SourceError: it failed or was aborted.
        TransientError: it is not done in time; the caller aborts it.
    """
    where = f"Salesforce ingest job {job}"
    until, pause = time.monotonic() + client.job_patience, client.backoff
    while True:
        body: dict[str, Any] = client.get(f"/jobs/ingest/{job}")
        state = need(body, "state", str, where)
        if state == "JobComplete":
            return body
        if state in ("Failed", "Aborted"):
            said = str(body.get("errorMessage") or "no reason given").partition(":")[0].strip()[:100]
            raise SourceError(f"{where} ended as {state}: {said}. See it under Bulk Data Load Jobs in Setup.")
        if time.monotonic() + pause > until:
            raise _Late(
                f"{where} is still {state} after {client.job_patience:.0f} s, so it is given up. "
                "Run again later."
            )
        client.http.hold(pause)
        pause = min(pause * 1.5, MAX_LOOK)


def _results(
    client: Client, path: str, declared: WriteBack, items: list[Item], body: dict[str, Any]
) -> Outcome:
    """Which rows were written; what Salesforce counts must be what it lists.

    Raises:
        CountMismatch: it is not.
    """
    key = declared.key.property
    refused: dict[str, Refusal] = {}
    by_key = {item.key: item for item in items}
    for row in _rows(client, f"{path}/unprocessedRecords"):
        if (item := by_key.get(row.get(key, ""))) is not None:
            refused[item.key] = Refusal(item, "not processed", again=True)
    for row in _rows(client, f"{path}/failedResults"):
        if (item := by_key.get(row.get(key, ""))) is not None:
            refused[item.key] = Refusal(item, reason_of(row.get("sf__Error", "")))
    good = {row.get(key, "") for row in _rows(client, f"{path}/successfulResults")}
    written = [item for item in items if item.key in good and item.key not in refused]
    if len(written) + len(refused) != len(items):
        raise CountMismatch(
            f"Salesforce ingest job {path.rsplit('/', 1)[-1]}: {len(items)} rows were sent, but results name "
            f"{len(written)} written and {len(refused)} refused; it counts "
            f"{body.get('numberRecordsProcessed')}, {body.get('numberRecordsFailed')} failed. Run again."
        )
    return Outcome(written, list(refused.values()))


def reason_of(error: str) -> str:
    """An error's code and fields; what lies between quotes values."""
    code, fields = error.partition(":")[0].strip(), re.search(r":([\w, ]*)--\s*$", error)
    named = fields.group(1).strip() if fields else ""
    return f"{code or 'no reason given'}{f' ({named})' if named else ''}"[:300]


def _rows(client: Client, path: str) -> list[dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="omni-bulk-") as folder:
        target = Path(folder) / "results.csv"
        client.http.download(path, target, headers={"Accept": "text/csv"})
        with target.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))
