"""Loopback servers for the sources' tests: real HTTP, whatever answers a test wants."""

from __future__ import annotations

import json
import operator
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from pydantic import SecretStr

from omni.sources.connection import Connection
from omni.sources.extract import tables
from omni.sources.hubspot import VERSION


@dataclass
class Asked:
    """One request as the server saw it."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]
    target: str


@dataclass
class Answer:
    """What to send back; `cut` announces more bytes than follow."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


@dataclass
class Server:
    """A running loopback server and what it was asked."""

    url: str
    asked: list[Asked]


def decoded(raw: bytes, content_type: str) -> Any:
    """A request's body: a form's fields, or JSON."""
    if "form-urlencoded" in content_type:
        return dict(parse_qsl(raw.decode(), keep_blank_values=True))
    return json.loads(raw) if raw else None


@contextmanager
def _serving(answer: Callable[[Asked], Answer]) -> Iterator[Server]:
    asked: list[Asked] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def _handle(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            parts = urlsplit(self.path)
            headers = {k.lower(): v for k, v in self.headers.items()}
            body = decoded(raw, headers.get("content-type", ""))
            request = Asked(self.command, parts.path, dict(parse_qsl(parts.query)), body, headers, self.path)
            with lock:
                asked.append(request)
                reply = answer(request)
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content) + 100 * reply.cut))
            self.end_headers()
            self.wfile.write(content)
            self.wfile.flush()
            self.close_connection = reply.cut

        do_GET = do_POST = _handle

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{httpd.server_port}", asked)
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


@pytest.fixture
def serve():
    """Start a server that answers each request by a function; it ends with the test."""
    with ExitStack() as stack:
        yield lambda answer: stack.enter_context(_serving(answer))


@pytest.fixture
def answering():
    """Make an answer: `answering(body, status, headers, cut=…)`."""
    return Answer


@pytest.fixture
def connect():
    """A connection without long waits: `connect("hubspot", url)`."""

    def make(vendor: str, url: str, **changes: Any) -> Connection:
        options = {"backoff": 0.001, "requests_per_10s": 100_000, "searches_per_second": 100_000}
        token = SecretStr(changes.pop("token", "token-for-tests"))
        return Connection(vendor, url, token, **(options | changes))

    return make


TYPES = {"timestamp": "datetime", "date": "date", "decimal": "number", "integer": "number", "boolean": "bool"}
COMPARE = {"GTE": operator.ge, "LT": operator.lt, "GT": operator.gt}
CURSOR = {"contacts": "lastmodifieddate"}


def iso(milliseconds):
    return (
        datetime.fromtimestamp(milliseconds / 1000, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


class Account:
    """A small HubSpot account: list, search, batch read, associations, properties, and the vendor's caps."""

    def __init__(self, answering):
        self.answering = answering
        self.objects = {}
        self.links = {}
        self.properties = {}
        self.override = None

    def add(self, kind, number, changed_ms, archived_ms=None, **values):
        cursor = CURSOR.get(kind, "hs_lastmodifieddate")
        self.objects.setdefault(kind, []).append(
            {
                "id": str(number),
                "properties": {cursor: iso(changed_ms), "createdate": iso(changed_ms), **values},
                "createdAt": iso(changed_ms),
                "updatedAt": iso(changed_ms),
                "archived": archived_ms is not None,
                "changed_ms": changed_ms,
            }
            | ({"archivedAt": iso(archived_ms)} if archived_ms else {})
        )

    def __call__(self, asked):
        if self.override and (answer := self.override(asked)):
            return answer
        parts = asked.path.strip("/").split("/")
        assert parts[2] == VERSION
        if parts[1] == "properties":
            return self.answering({"results": self.declared(parts[3])})
        if parts[1] == "associations":
            return self.linked(parts[3], parts[4], asked.body["inputs"])
        if parts[-1] == "search":
            return self.search(parts[3], asked.body)
        if parts[-2:] == ["batch", "read"]:
            wanted = {entry["id"] for entry in asked.body["inputs"]}
            found = [row for row in self.objects[parts[3]] if row["id"] in wanted]
            return self.answering({"results": [self.view(r, asked.body["properties"]) for r in found[::-1]]})
        return self.listing(parts[3], asked.query)

    def declared(self, kind):
        parent = tables("hubspot", kind)[0]
        rows = {
            column.path or name: {"name": column.path or name, "type": TYPES.get(column.type, "string")}
            for name, column in parent.columns.items()
            if (column.path or name) not in ("id", "archived")
        }
        for name, change in self.properties.items():
            rows[name] = change and (rows.get(name, {"name": name}) | change)
        return [row for row in rows.values() if row]

    def view(self, row, properties):
        return row | {"properties": {name: row["properties"].get(name) for name in properties}}

    def listing(self, kind, query):
        rows = [r for r in self.objects.get(kind, []) if r["archived"] == (query["archived"] == "true")]
        start, limit = int(query.get("after", 0)), int(query["limit"])
        assert limit <= 100
        page = [self.view(row, query["properties"].split(",")) for row in rows[start : start + limit]]
        for link in filter(None, query.get("associations", "").split(",")):
            for row in page:
                ids = self.links.get((kind, link, row["id"]), [])
                part = {"results": [{"id": i, "type": "t"} for i in ids[:3]]}
                if len(ids) > 3:
                    part["paging"] = {"next": {"after": "3"}}
                row["associations"] = row.get("associations", {}) | {link: part}
        return self.answering(self.paged(page, start + limit, len(rows)))

    def paged(self, page, after, total):
        return {"results": page} | ({"paging": {"next": {"after": str(after)}}} if after < total else {})

    def search(self, kind, body):
        assert body["limit"] <= 200
        rows = [row for row in self.objects.get(kind, []) if not row["archived"]]
        for group in body["filterGroups"]:
            for entry in group["filters"]:
                rows = self.matching(rows, entry)
        for sort in body.get("sorts", []):
            rows.sort(key=lambda row: self.value(row, sort["propertyName"]))
        start, limit = int(body.get("after", 0)), body["limit"]
        if start + limit > 10_000:
            return self.answering({"message": "paging past 10,000"}, 400)
        page = [self.view(row, body["properties"]) for row in rows[start : start + limit]]
        return self.answering({"total": len(rows)} | self.paged(page, start + limit, len(rows)))

    def value(self, row, name):
        return int(row["id"]) if name == "hs_object_id" else row["changed_ms"]

    def matching(self, rows, entry):
        compare, bound = COMPARE[entry["operator"]], int(entry["value"])
        name = entry["propertyName"]
        return [row for row in rows if compare(self.value(row, name), bound)]

    def linked(self, kind, link, inputs):
        assert len(inputs) <= 100
        results, errors = [], []
        for entry in inputs:
            ids, start = self.links.get((kind, link, entry["id"]), []), int(entry.get("after", 0))
            if not ids:
                errors.append({"category": "OBJECT_NOT_FOUND", "message": "none"})
                continue
            page = [{"toObjectId": int(i), "associationTypes": []} for i in ids[start : start + 3]]
            more = {"paging": {"next": {"after": str(start + 3)}}} if start + 3 < len(ids) else {}
            results.append({"from": {"id": entry["id"]}, "to": page} | more)
        return self.answering({"results": results, "errors": errors}, 207)


@pytest.fixture
def account(answering):
    """An empty HubSpot account to serve."""
    return Account(answering)
