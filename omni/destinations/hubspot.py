"""Segments and scores as properties of HubSpot's records.

With the key `hs_object_id` records that exist are updated; with a unique property of the account, records
that do not exist are made. Either way writing twice does no more than writing once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from omni.destinations.declaration import WriteBack
from omni.destinations.ledger import Outcome, Refusal
from omni.destinations.plan import Item, text
from omni.errors import SchemaError, SourceError
from omni.sources.connection import Connection
from omni.sources.http import Call, Http, Reply, need
from omni.sources.hubspot import DIALECT, watchful
from omni.sources.hubspot_objects import VERSION, type_of

BATCH = 100
RECORD_ID = "hs_object_id"
WHOLE = {400, 404, 409}
"""Statuses that refuse a batch because of its content."""


class Refused(SourceError):
    """HubSpot refused a batch as a whole; `reason` says why without its values."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: refused: {reason}.")
        self.reason = reason


@contextmanager
def opened(connection: Connection) -> Iterator[Http]:
    """A client that writes; its errors never quote a value."""
    usual = watchful()

    def judge(reply: Reply, where: str) -> None:
        if reply.status in WHOLE and "/batch/" in where:
            raise Refused(where, reason_of(reply.body))
        usual(reply, where)

    with Http(connection, replace(DIALECT, judge=judge)) as http:
        yield http


def reason_of(body: Any) -> str:
    """Why something was refused: codes and names of properties; HubSpot's own message quotes values."""
    found = body if isinstance(body, dict) else {}
    codes = [_code(e) for e in _list(found.get("errors")) if isinstance(e, dict)]
    if not codes:
        codes = [_code(e) for e in _embedded(str(found.get("message") or ""))]
    said = ", ".join(dict.fromkeys(code for code in codes if code))
    return (said or str(found.get("subCategory") or found.get("category") or "no reason given"))[:300]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _embedded(message: str) -> list[dict[str, Any]]:
    """The list of errors that HubSpot writes into its message about property values."""
    _, found, rest = message.partition("Property values were not valid: ")
    try:
        return [e for e in _list(json.loads(rest)) if isinstance(e, dict)] if found else []
    except ValueError:
        return []


def _code(error: dict[str, Any]) -> str:
    context = error.get("context")
    names = _list(context.get("propertyName")) if isinstance(context, dict) else []
    name = ", ".join(str(n) for n in names) or str(error.get("name") or "")
    code = str(error.get("code") or error.get("error") or "")
    return f"{code} ({name})" if code and name else code or name


def check(http: Http, declared: WriteBack) -> None:
    """See that the properties exist and can be written before anything is.

    Raises:
        SchemaError: a property is missing or read-only, or the key's is not unique.
    """
    path = f"/crm/properties/{VERSION}/{type_of(http, declared.to.object)}"
    where = f"properties of {declared.to.object}"
    known = {need(p, "name", str, where): p for p in need(http.get(path, {}), "results", list, where)}
    problems = []
    for name in declared.columns:
        found = known.get(name)
        modifiable = not found or not (found.get("modificationMetadata") or {}).get("readOnlyValue", False)
        if found is None:
            problems.append(f"HubSpot has no property {name!r}; create it there")
        elif found.get("calculated") or not modifiable:
            problems.append(f"property {name!r} cannot be written")
    key = declared.key.property
    if key != RECORD_ID and not known.get(key, {}).get("hasUniqueValue"):
        problems.append(f"property {key!r} is not unique, so it cannot be the key")
    if problems:
        raise SchemaError(f"write-back {declared.name}: {'; '.join(problems)}.")


def send(http: Http, declared: WriteBack, items: list[Item]) -> Outcome:
    """Write at most `BATCH` rows.

    Where HubSpot refuses a batch without saying which row is wrong, it is halved until that is known.

    Raises:
        AuthError, SourceError, TransientError: as `Http.send`; the rows may have been written.
    """
    by_id = declared.key.property == RECORD_ID
    path = f"/crm/objects/{VERSION}/{type_of(http, declared.to.object)}/batch/"
    return _halving(http, _Batch(path + ("update" if by_id else "upsert"), declared, by_id), items)


@dataclass(frozen=True)
class _Batch:
    """How rows are sent: the path, and whether the key is HubSpot's own id."""

    path: str
    declared: WriteBack
    by_id: bool

    def inputs(self, items: list[Item]) -> list[dict[str, Any]]:
        by = {} if self.by_id else {"idProperty": self.declared.key.property}
        return [
            {
                "id": item.key,
                **by,
                "properties": {name: text(value) for name, value in item.values.items()},
                "objectWriteTraceId": item.token,
            }
            for item in items
        ]


def _halving(http: Http, batch: _Batch, items: list[Item]) -> Outcome:
    try:
        reply = http.send(Call("POST", batch.path, content={"inputs": batch.inputs(items)}))
    except Refused as refused:
        if len(items) == 1:
            return Outcome([], [Refusal(items[0], refused.reason)])
        middle = len(items) // 2
        parts = [_halving(http, batch, half) for half in (items[:middle], items[middle:])]
        return Outcome(parts[0].written + parts[1].written, parts[0].refused + parts[1].refused)
    return _sorted_out(reply.body, batch, items)


def _sorted_out(body: Any, batch: _Batch, items: list[Item]) -> Outcome:
    """Which rows were written, and which were refused, by the token each of them carries."""
    where = f"HubSpot {batch.path}"
    reasons: dict[str, str] = {}
    for error in body.get("errors") or []:
        context = error.get("context") or {}
        named = [name for part in ("objectWriteTraceId", "ids", "id") for name in _list(context.get(part))]
        reasons |= {str(name): reason_of(error) for name in named}
    done: set[str] = set()
    results = need(body, "results", list, where)
    # Object types without trace ids name no row; if there is a result for each, all are written.
    complete = not body.get("errors") and len(results) >= len(items)
    for row in results:
        done |= {str(row.get("objectWriteTraceId")), str(row.get("id")) if batch.by_id else ""}
    written, refused = [], []
    for item in items:
        reason = reasons.get(item.token) or (reasons.get(item.key) if batch.by_id else None)
        if reason is not None:
            refused.append(Refusal(item, reason))
        elif item.token in done or (batch.by_id and item.key in done) or complete:
            written.append(item)
        else:
            refused.append(Refusal(item, "HubSpot did not say what became of it", again=True))
    return Outcome(written, refused)
