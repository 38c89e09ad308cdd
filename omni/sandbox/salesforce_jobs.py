"""Salesforce's Bulk API 2.0: query jobs and ingest jobs.

A job's state moves one step with each look at it, so that a client must poll. A query is run when it is
handed in; an upload takes effect only when its job ends, never if it was aborted before. Jobs belong to the
version of the API that made them; another is refused with 409.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from omni.sandbox.reply import Reply
from omni.sandbox.salesforce import missing, refused
from omni.sandbox.salesforce_org import Invalid, ObjectType, Org, Row
from omni.sandbox.salesforce_soql import QueryError, checked_path, parse, run

MAX_RESULTS = 100_000
MAX_UPLOAD = 150 * 1_000_000
STEPS = ("UploadComplete", "InProgress")
ENDED = ("JobComplete", "Failed", "Aborted")
DELIMITERS = {"COMMA": ",", "SEMICOLON": ";", "TAB": "\t", "PIPE": "|", "CARET": "^", "BACKQUOTE": "`"}
ENDINGS = {"LF": "\n", "CRLF": "\r\n"}
NULL = "#N/A"

Line = dict[str, str]


@dataclass
class Job:
    """One job: what was asked, its state, and its results."""

    id: str
    version: str
    kind: str
    asked: dict[str, Any]
    state: str
    end: str = "JobComplete"
    message: str | None = None
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    upload: bytes | None = None
    good: list[tuple[str, bool, Line]] = field(default_factory=list)
    bad: list[tuple[str, str, Line]] = field(default_factory=list)
    rest: list[Line] = field(default_factory=list)
    made: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000"))

    def info(self) -> dict[str, Any]:
        """The job as Salesforce tells it."""
        body: dict[str, Any] = {
            "id": self.id,
            **self.asked,
            "createdById": "0055g0000000001AAA",
            "createdDate": self.made,
            "systemModstamp": self.made,
            "state": self.state,
            "concurrencyMode": "Parallel",
            "contentType": "CSV",
            "apiVersion": float(self.version),
            "jobType": "V2Query" if self.kind == "query" else "V2Ingest",
        }
        if self.kind == "ingest" and self.state == "Open":
            body["contentUrl"] = f"services/data/v{self.version}/jobs/ingest/{self.id}/batches"
        if self.state in (*ENDED, "InProgress"):
            processed = len(self.rows) if self.kind == "query" else len(self.good) + len(self.bad)
            over = self.state == "JobComplete"
            body |= {
                "numberRecordsProcessed": processed if over else 0,
                "retries": 0,
                "totalProcessingTime": 1,
            }
            if self.kind == "ingest":
                body["numberRecordsFailed"] = len(self.bad) if over else 0
        if self.state in ("Failed", "Aborted") and self.message:
            body["errorMessage"] = self.message
        return body

    def step(self) -> None:
        """Go one step on; called with each look."""
        if self.state == "UploadComplete":
            self.state = "InProgress"
        elif self.state == "InProgress":
            self.state = self.end


@dataclass
class Jobs:
    """The org's jobs.

    Attributes:
        fate: the end the next query job comes to instead of its own, and a message.
        most: rows of one part of the results; Salesforce gives fewer than asked for when it likes.
    """

    org: Org
    kept: dict[str, Job] = field(default_factory=dict)
    fate: tuple[str, str] | None = None
    most: int = MAX_RESULTS
    made: int = 0

    def new(self, version: str, kind: str, asked: dict[str, Any], state: str) -> Job:
        """Register a job."""
        self.made += 1
        job = Job(f"750{kind[0].upper()}{self.made:011d}AAA", version, kind, asked, state)
        self.kept[job.id] = job
        return job

    def get(self, version: str, kind: str, key: str) -> Job:
        """A job.

        Raises:
            Refusal: 404 unknown; 409 made by another version of the API.
        """
        job = self.kept.get(key)
        if job is None or job.kind != kind:
            raise missing()
        if job.version != version:
            message = f"The API version {version} does not match the job's version {job.version}"
            raise refused(409, "API_VERSION_MISMATCH", message)
        return job


def _form(asked: Any) -> tuple[str, str, dict[str, Any]]:
    """Delimiter, line ending and the echo of a creating body.

    Raises:
        Refusal: 400.
    """
    if not isinstance(asked, dict):
        raise refused(400, "JSON_PARSER_ERROR", "a JSON object is needed")
    delimiter, ending = asked.get("columnDelimiter", "COMMA"), asked.get("lineEnding", "LF")
    if delimiter not in DELIMITERS or ending not in ENDINGS or asked.get("contentType", "CSV") != "CSV":
        raise refused(400, "INVALIDJOB", "unknown columnDelimiter, lineEnding or contentType")
    return DELIMITERS[delimiter], ENDINGS[ending], {"columnDelimiter": delimiter, "lineEnding": ending}


def create_query(jobs: Jobs, version: str, asked: Any) -> Reply:
    """Take a query job.

    Raises:
        Refusal: the query is wrong, or asks for what Bulk does not serve.
    """
    _, _, form = _form(asked)
    operation, text = asked.get("operation"), asked.get("query")
    if operation not in ("query", "queryAll") or not isinstance(text, str):
        raise refused(400, "INVALIDJOB", "operation must be query or queryAll, with a query")
    try:
        parsed = parse(jobs.org, text)
    except QueryError as error:
        raise refused(400, error.code, error.message) from None
    if not parsed.kind.bulk:
        raise refused(400, "INVALIDENTITY", f"Entity '{parsed.kind.name}' is not supported by the Bulk API.")
    if parsed.count or parsed.offset:
        raise refused(400, "API_ERROR", "Bulk Query does not support COUNT and OFFSET")
    if any(checked_path(jobs.org, parsed.kind, p)[1].parts for p in parsed.fields):
        raise refused(400, "API_ERROR", "Selecting compound data not supported in Bulk Query")
    shown = {"operation": operation, "object": parsed.kind.name, **form}
    job = jobs.new(version, "query", shown, "UploadComplete")
    job.columns = list(parsed.fields)
    if jobs.fate is not None:
        (job.end, job.message), jobs.fate = jobs.fate, None
        return Reply(job.info())
    for row in run(jobs.org, parsed, deleted=operation == "queryAll"):
        cells = (jobs.org.value_at(parsed.kind, row, path) for path in parsed.fields)
        job.rows.append([csv_value(cell) for cell in cells])
    return Reply(job.info())


def csv_value(value: Any) -> str:
    """A value as CSV results hold it; no value is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def job_info(jobs: Jobs, version: str, kind: str, key: str) -> Reply:
    """A job's state; it has moved on by the next look."""
    job = jobs.get(version, kind, key)
    if kind == "ingest" and job.state == "InProgress":
        _ingest(jobs.org, job)
    if job.state != "Open":
        job.step()
    return Reply(job.info())


def set_state(jobs: Jobs, version: str, kind: str, key: str, asked: Any) -> Reply:
    """Abort a job, or hand an ingest job's upload in.

    Raises:
        Refusal: the job's state does not allow it.
    """
    job = jobs.get(version, kind, key)
    state = asked.get("state") if isinstance(asked, dict) else None
    if state == "Aborted" and job.state not in ENDED:
        if job.upload is not None:
            job.rest = _lines(job, jobs.org.types[job.asked["object"]]) or job.rest
        job.state = job.end = "Aborted"
    elif state == "UploadComplete" and kind == "ingest" and job.state == "Open":
        job.state = "UploadComplete"
    else:
        raise refused(400, "INVALIDJOBSTATE", f"Transition from {job.state} to {state} is not allowed")
    return Reply(job.info())


def drop(jobs: Jobs, version: str, kind: str, key: str) -> Reply:
    """Delete a job that has ended.

    Raises:
        Refusal: it has not.
    """
    if jobs.get(version, kind, key).state not in ENDED:
        raise refused(400, "API_ERROR", "Only jobs that have ended can be deleted")
    del jobs.kept[key]
    return Reply(None, 204)


def results(jobs: Jobs, version: str, key: str, params: Mapping[str, str]) -> Reply:
    """A part of a query's results as CSV; the locator of the next part is `null` at the end.

    Raises:
        Refusal: the job has not ended well, or the locator is wrong.
    """
    job = jobs.get(version, "query", key)
    if job.state != "JobComplete":
        raise refused(400, "INVALIDJOBSTATE", f"The job is in state {job.state}, results need JobComplete")
    size = params.get("maxRecords", str(MAX_RESULTS))
    if not size.isdigit() or int(size) < 1:
        raise refused(400, "INVALID_PARAMETER", "maxRecords must be a positive number")
    start, count = _position(params.get("locator")), min(int(size), jobs.most)
    part = job.rows[start : start + count]
    end = start + len(part)
    following = base64.b64encode(str(end).encode()).decode().rstrip("=")
    headers = {
        "Content-Type": "text/csv; charset=UTF-8",
        "Sforce-NumberOfRecords": str(len(part)),
        "Sforce-Locator": following if end < len(job.rows) else "null",
    }
    return Reply(_csv(job, job.columns, part), 200, headers)


def _position(locator: str | None) -> int:
    if not locator:
        return 0
    try:
        return int(base64.b64decode(locator + "=" * (-len(locator) % 4), validate=True))
    except ValueError:
        raise refused(400, "INVALID_QUERY_LOCATOR", "invalid locator") from None


def _csv(job: Job, columns: list[str], rows: list[list[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(
        text,
        delimiter=DELIMITERS[job.asked["columnDelimiter"]],
        lineterminator=ENDINGS[job.asked["lineEnding"]],
        quoting=csv.QUOTE_ALL,
    )
    writer.writerows([columns, *rows])
    return text.getvalue()


def create_ingest(jobs: Jobs, version: str, asked: Any) -> Reply:
    """Open an ingest job.

    Raises:
        Refusal: unknown object or operation, or a field that is no external id.
    """
    _, _, form = _form(asked)
    kind = jobs.org.type_named(str(asked.get("object")))
    operation, external = asked.get("operation"), asked.get("externalIdFieldName")
    if kind is None or not kind.bulk:
        raise refused(
            400, "INVALIDENTITY", f"Entity '{asked.get('object')}' is not supported by the Bulk API."
        )
    if operation not in ("insert", "update", "upsert", "delete"):
        raise refused(400, "INVALIDJOB", f"operation {operation!r} is not supported")
    if operation == "upsert":
        found = kind.named(str(external))
        if found is None or not (found.external_id or found.type == "id"):
            message = f"Field name provided, {external} does not match an External ID for {kind.name}"
            raise refused(400, "INVALIDJOB", f"InvalidJob : {message}")
    shown = {"operation": operation, "object": kind.name, **form}
    if external:
        shown["externalIdFieldName"] = external
    return Reply(jobs.new(version, "ingest", shown, "Open").info())


def put_batch(jobs: Jobs, version: str, key: str, raw: bytes, content_type: str) -> Reply:
    """Take an ingest job's one upload.

    Raises:
        Refusal: the job takes none any more, or it is no CSV.
    """
    job = jobs.get(version, "ingest", key)
    if job.state != "Open" or job.upload is not None:
        raise refused(400, "INVALIDJOBSTATE", "Found multiple contents for job, or the job is not open")
    if not content_type.startswith("text/csv"):
        raise refused(415, "UNSUPPORTED_MEDIA_TYPE", "Content-Type must be text/csv")
    if len(raw) > MAX_UPLOAD:
        raise refused(413, "REQUEST_ENTITY_TOO_LARGE", "the upload exceeds 150 MB")
    job.upload = raw
    return Reply(None, 201)


def ingest_results(jobs: Jobs, version: str, key: str, which: str) -> Reply:
    """Rows that went well, that failed, or that were not touched, as CSV."""
    job = jobs.get(version, "ingest", key)
    if job.state not in ENDED:
        raise refused(400, "INVALIDJOBSTATE", f"The job is in state {job.state}")
    columns = job.columns
    if which == "successfulResults":
        rows = [[i, str(new).lower(), *(line[c] for c in columns)] for i, new, line in job.good]
        head = ["sf__Id", "sf__Created", *columns]
    elif which == "failedResults":
        rows = [[i, why, *(line[c] for c in columns)] for i, why, line in job.bad]
        head = ["sf__Id", "sf__Error", *columns]
    elif which == "unprocessedRecords":
        rows = [[line[c] for c in columns] for line in job.rest]
        head = columns
    else:
        raise missing()
    return Reply(_csv(job, head, rows), 200, {"Content-Type": "text/csv; charset=UTF-8"})


def _ingest(org: Org, job: Job) -> None:
    """Do an ingest job's work row by row; a wrong header fails it whole."""
    kind = org.types[job.asked["object"]]
    lines = _lines(job, kind)
    if lines is None:
        return
    for line in lines:
        try:
            identity, new = _apply(org, job, kind, line)
        except Invalid as error:
            why = f"{error.code}:{error.message}:{' '.join(error.fields)}--"
            job.bad.append(("", why, line))
        else:
            job.good.append((identity, new, line))


def _lines(job: Job, kind: ObjectType) -> list[Line] | None:
    """The upload's rows; None where the job failed, and says why."""
    job.end = "Failed"
    try:
        text = (job.upload or b"").decode("utf-8-sig")
        delimiter = DELIMITERS[job.asked["columnDelimiter"]]
        table = [
            row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if row
        ]
    except (UnicodeDecodeError, csv.Error) as error:
        job.message = f"InvalidBatch : Failed to parse CSV: {error}"
        return None
    if not table:
        job.message = "InvalidBatch : The upload is empty"
        return None
    job.columns, *rows = table
    unknown = [name for name in job.columns if kind.named(name) is None]
    if unknown or any(len(row) != len(job.columns) for row in rows):
        named = f"Field name not found : {unknown[0]}" if unknown else "a row of another length"
        job.message = f"InvalidBatch : {named}"
        job.rest = [dict(zip(job.columns, row, strict=False)) for row in rows if len(row) == len(job.columns)]
        return None
    job.end = "JobComplete"
    return [dict(zip(job.columns, row, strict=True)) for row in rows]


def _apply(org: Org, job: Job, kind: ObjectType, line: Line) -> tuple[str, bool]:
    """Do one row. Returns its id and whether it is new.

    Raises:
        Invalid: the row is refused.
    """
    operation = job.asked["operation"]
    key_name = "Id" if operation in ("update", "delete") else job.asked.get("externalIdFieldName")
    # Empty cells leave a field alone; `#N/A` clears it.
    values: Row = {n: None if v == NULL else v for n, v in line.items() if v != "" and n.lower() != "id"}
    identity = next((v for n, v in line.items() if n.lower() == "id"), "")
    if operation == "insert":
        return org.insert(kind.name, values), True
    if operation == "upsert" and str(key_name).lower() != "id":
        found = kind.named(str(key_name))
        assert found is not None
        value = next((v for n, v in line.items() if n.lower() == found.name.lower()), "")
        if not value:
            raise Invalid("MISSING_ARGUMENT", f"{found.name} not specified")
        there = org.by_external(kind.name, found.name, value)
        if len(there) > 1:
            raise Invalid(
                "DUPLICATE_EXTERNAL_ID", f"more than one record found for external id field: {there}"
            )
        if not there:
            return org.insert(kind.name, values), True
        identity = there[0]
    elif not identity:
        if operation == "upsert":
            return org.insert(kind.name, values), True
        raise Invalid("MISSING_ARGUMENT", "Id not specified")
    if operation == "delete":
        org.delete(kind.name, identity)
    else:
        org.change(kind.name, identity, values)
    return identity, False
