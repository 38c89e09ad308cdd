"""Calls to a Salesforce org: version, session, limits, and what its refusals mean."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from omni.errors import AuthError, ConfigError, SchemaError, SourceError, TerminalError
from omni.sources.connection import Connection
from omni.sources.http import RETRY_STATUS, Again, Counters, Dialect, Http, Reply, need, retry_after

VERSION = "v68.0"
ROOT = f"/services/data/{VERSION}"
LATER = {*RETRY_STATUS, 406, 420}
CLASSIFICATION = (
    "SELECT QualifiedApiName, ComplianceGroup, SecurityClassification FROM FieldDefinition "
    "WHERE EntityDefinitionId = '{}'"
)
CONFIDENTIAL = {"Confidential", "Restricted", "MissionCritical"}
NEARLY = 0.9
"""The share of the day's API requests from which on we warn."""
BULK_FROM = 10_000
JOB_PATIENCE = 3_600.0
ADVICE = (
    "Check the connected app and that its user may use the API and read the objects, then connect anew "
    "(omni connect salesforce) or set the token in the tenant's Salesforce block or OMNI_SALESFORCE__TOKEN."
)

log = logging.getLogger(__name__)


class Refused(SourceError):
    """Salesforce refused a call; `code` is its errorCode, `status` the HTTP status."""

    def __init__(self, message: str, code: str, status: int) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class LimitReached(TerminalError):
    """The org's API requests of the last 24 hours are used up; asking again only adds to them."""


@dataclass
class Client:
    """An org: its calls, and what describe told of its objects.

    Attributes:
        bulk_from: rows from which on a window is read by a Bulk job.
        job_patience: seconds a Bulk job may take.
        backoff: seconds before the second look at a job.
    """

    http: Http
    bulk_from: int = BULK_FROM
    job_patience: float = JOB_PATIENCE
    backoff: float = 0.5
    described: dict[str, dict[str, Any]] = field(default_factory=dict)
    _classified: dict[str, set[str]] = field(default_factory=dict)

    @property
    def counters(self) -> Counters:
        """What the calls cost."""
        return self.http.counters

    def get(self, path: str, params: dict[str, str] | None = None) -> Any:
        """GET a resource of this version; raises as `Http.get`."""
        return self.http.get(f"{ROOT}{path}", params or {})

    def fields(self, name: str, *, fresh: bool = False) -> dict[str, dict[str, Any]]:
        """An object's fields by name, as describe tells them.

        Args:
            name: the object.
            fresh: ask again even if it is known.

        Raises:
            SchemaError: there is no such object, or this user may not see it.
        """
        if fresh or name not in self.described:
            where = f"Salesforce describe {name}"
            try:
                body = self.get(f"/sobjects/{name}/describe")
            except Refused as error:
                if error.status != 404:
                    raise
                raise SchemaError(
                    f"Salesforce has no object {name}, or its user may not see it. Grant read access to it, "
                    "or correct source.object in data/contracts."
                ) from None
            found = need(body, "fields", list, where)
            self.described[name] = {need(f, "name", str, where): f for f in found}
        return self.described[name]

    def classified(self, name: str) -> set[str]:
        """An object's fields the org classifies as personal or confidential; none if it does not tell."""
        if name not in self._classified:
            try:
                body = self.get("/query", {"q": CLASSIFICATION.format(name)})
            except Refused as error:
                log.info("Salesforce tells no classification of %s's fields: %s", name, error.code)
                self._classified[name] = set()
            else:
                found = need(body, "records", list, f"Salesforce fields of {name}")
                self._classified[name] = {
                    str(row.get("QualifiedApiName"))
                    for row in found
                    if row.get("ComplianceGroup") or row.get("SecurityClassification") in CONFIDENTIAL
                }
        return self._classified[name]


@contextmanager
def opened(connection: Connection) -> Iterator[Client]:
    """A client of an account.

    Options of the connection: `bulk_from` (rows) and `job_patience` (seconds).

    Raises:
        ConfigError: an option is no number, or the connection cannot be used.
    """
    try:
        bulk_from = int(connection.options.get("bulk_from", BULK_FROM))
        patience = float(connection.options.get("job_patience", JOB_PATIENCE))
    except ValueError:
        raise ConfigError("Salesforce: options bulk_from and job_patience are numbers, e.g. 10000") from None
    with Http(connection, _dialect()) as http:
        yield Client(http, bulk_from, patience, connection.backoff)


def _dialect() -> Dialect:
    return Dialect(
        title="Salesforce",
        advice=ADVICE,
        judge=_judging(),
    )


def _judging() -> Callable[[Reply, str], None]:
    """A judge that warns once when the day's requests run short."""
    warned = False

    def judge(reply: Reply, where: str) -> None:
        nonlocal warned
        used, allowed = usage(reply.headers.get("sforce-limit-info", ""))
        if allowed and used >= NEARLY * allowed and not warned:
            warned = True
            log.warning("Salesforce: %s of the org's %s API requests of 24 hours are used", used, allowed)
        if not 200 <= reply.status < 300:
            _refuse(reply, where)

    return judge


def usage(header: str) -> tuple[int, int]:
    """Requests used and allowed by a Sforce-Limit-Info header; zeros where it does not say."""
    found = re.search(r"(?<![\w-])api-usage=(\d+)/(\d+)", header)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


def _refuse(reply: Reply, where: str) -> None:
    """Raise what a refusal means; a body without Salesforce's form is left to the general rules."""
    entries = reply.body if isinstance(reply.body, list) else []
    first = entries[0] if entries and isinstance(entries[0], dict) else {}
    code, message = str(first.get("errorCode") or ""), " ".join(str(first.get("message") or "").split())[:300]
    said = f": {code} {message}".rstrip() if code else ""
    if code == "REQUEST_LIMIT_EXCEEDED":
        if "concurrent" in message.lower():
            raise Again(f"HTTP {reply.status}{said}", wait=retry_after(reply.headers), throttled=True)
        raise LimitReached(
            f"{where}: the org's API requests of the last 24 hours are used up{said}. Run again later; what "
            "was read so far stays. Raise the limit with Salesforce, or read fewer streams a day."
        )
    if reply.status in (401, 403):
        raise AuthError(f"{where}: access refused (HTTP {reply.status}){said}. {ADVICE}")
    if reply.status in LATER or reply.status >= 500:
        throttled = reply.status in (420, 429)
        raise Again(f"HTTP {reply.status}{said}", wait=retry_after(reply.headers), throttled=throttled)
    raise Refused(f"{where}: refused (HTTP {reply.status}){said}.", code, reply.status)
