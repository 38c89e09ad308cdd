"""A small MongoDB server on loopback: pymongo's own wire format (OP_MSG) over collections in memory.

No MongoDB server can be installed where these tests run, so they meet this one. It speaks what our source and
destination ask for (find with sort and cursors, count, change streams, bulk writes, rename, indexes), with
MongoDB's rules that matter here: comparisons stay within a type, sorting goes across types, documents in
cursors come in batches. What it does not know it refuses by name.
"""

from __future__ import annotations

import itertools
import re
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import bson
from bson import ObjectId
from bson.codec_options import CodecOptions
from bson.decimal128 import Decimal128

OP_MSG = 2013
OP_QUERY, OP_REPLY = 2004, 1
CODEC: CodecOptions[Any] = CodecOptions(tz_aware=True)
Document = dict[str, Any]


class Refused(Exception):
    def __init__(self, code: int, name: str) -> None:
        super().__init__(name)
        self.code, self.name = code, name


def kind(value: Any) -> int:
    """MongoDB's order of types."""
    if value is None:
        return 1
    if isinstance(value, bool):
        return 8
    for rank, types in (
        (2, (int, float, Decimal128)),
        (3, (str,)),
        (4, (dict,)),
        (5, (list,)),
        (6, (bytes,)),
    ):
        if isinstance(value, types):
            return rank
    return 7 if isinstance(value, ObjectId) else 9 if isinstance(value, datetime) else 10


def place(value: Any) -> tuple[Any, ...]:
    """Where a value sorts."""
    if isinstance(value, Decimal128):
        value = value.to_decimal()
    if isinstance(value, dict):
        return (kind(value), tuple((name, place(inner)) for name, inner in value.items()))
    if isinstance(value, list):
        return (kind(value), tuple(place(inner) for inner in value))
    if kind(value) == 2 or isinstance(value, Decimal):
        return (2, Decimal(str(value)))
    return (kind(value), 0 if value is None else value)


def at(document: Document, path: str) -> Any:
    found: Any = document
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _holds(value: Any, name: str, bound: Any, there: bool) -> bool:
    """One operator on one value."""
    same = kind(value) == kind(bound)
    compare: dict[str, Callable[[], bool]] = {
        "$gt": lambda: same and place(value) > place(bound),
        "$gte": lambda: same and place(value) >= place(bound),
        "$lt": lambda: same and place(value) < place(bound),
        "$lte": lambda: same and place(value) <= place(bound),
        "$eq": lambda: place(value) == place(bound),
        "$ne": lambda: place(value) != place(bound),
        "$in": lambda: any(place(value) == place(one) for one in bound),
        "$exists": lambda: there == bool(bound),
        "$type": lambda: bound == "date" and isinstance(value, datetime),
        "$not": lambda: not _all(value, bound, there),
    }
    if name not in compare:
        raise Refused(2, f"BadValue {name}")
    return compare[name]()


def _all(value: Any, condition: Any, there: bool) -> bool:
    if isinstance(condition, dict) and condition and all(name.startswith("$") for name in condition):
        return all(_holds(value, name, bound, there) for name, bound in condition.items())
    return place(value) == place(condition)


def matches(document: Document, chosen: Document) -> bool:
    for path, condition in chosen.items():
        if path in ("$and", "$or"):
            found = (matches(document, part) for part in condition)
            if not (all(found) if path == "$and" else any(found)):
                return False
        elif not _all(at(document, path), condition, path.partition(".")[0] in document):
            return False
    return True


@dataclass
class Cursor:
    collection: str
    rows: Iterator[Document]
    size: int
    follows: int | None = None


@dataclass
class Mongod:
    """The server's state. `failing` maps a command to (code, name, times) it is refused with."""

    replica_set: bool = True
    password: str | None = None
    port: int = 0
    data: dict[str, dict[bytes, Document]] = field(default_factory=dict)
    indexes: dict[str, list[Document]] = field(default_factory=dict)
    log: list[Document] = field(default_factory=list)
    cursors: dict[int, Cursor] = field(default_factory=dict)
    asked: list[Document] = field(default_factory=list)
    failing: dict[str, list[Any]] = field(default_factory=dict)
    first_known: int = 0
    lock: Any = field(default_factory=threading.RLock)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/shop"

    def rows(self, name: str) -> list[Document]:
        return list(self.data.get(name, {}).values())

    def put(self, name: str, *documents: Document) -> None:
        """Write documents, as another client would."""
        for document in documents:
            key = bson.encode({"": document["_id"]})
            event = "replace" if key in self.data.get(name, {}) else "insert"
            self.data.setdefault(name, {})[key] = bson.decode(bson.encode(document), CODEC)
            self._tell(event, name, document["_id"])

    def remove(self, name: str, identity: Any) -> None:
        if self.data.get(name, {}).pop(bson.encode({"": identity}), None):
            self._tell("delete", name, identity)

    def _tell(self, event: str, name: str, identity: Any = None) -> None:
        key = {} if identity is None else {"documentKey": {"_id": identity}}
        self.log.append({"operationType": event, "ns": {"db": "shop", "coll": name}} | key)

    def answer(self, command: Document) -> Document:
        with self.lock:
            name = next(iter(command))
            self.asked.append(command)
            if (plan := self.failing.get(name)) and plan[2] > 0:
                plan[2] -= 1
                raise Refused(plan[0], plan[1])
            handler = getattr(self, f"do_{name.lower()}", None)
            if handler is None:
                raise Refused(59, f"CommandNotFound {name}")
            return {"ok": 1.0} | handler(command)

    def do_hello(self, _: Document) -> Document:
        me = f"127.0.0.1:{self.port}"
        whole = {"setName": "rs0", "hosts": [me], "me": me, "primary": me} if self.replica_set else {}
        return {
            "ismaster": True, "isWritablePrimary": True, "maxBsonObjectSize": 16 * 2**20, "readOnly": False,
            "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000, "minWireVersion": 0,
            "maxWireVersion": 21, "logicalSessionTimeoutMinutes": 30, "connectionId": 1,
        } | whole  # fmt: skip

    do_ismaster = do_hello

    def do_ping(self, _: Document) -> Document:
        return {}

    do_endsessions = do_ping

    def _opened(self, name: str, found: list[Document], size: int) -> Document:
        number = next(self.numbers)
        self.cursors[number] = Cursor(name, iter(found), size)
        return self._page(number, "firstBatch")

    def _page(self, number: int, label: str) -> Document:
        cursor = self.cursors[number]
        if cursor.follows is not None:
            return self._events(number, cursor, label)
        batch = list(itertools.islice(cursor.rows, cursor.size))
        done = len(batch) < cursor.size
        if done:
            del self.cursors[number]
        return {"cursor": {"id": 0 if done else number, "ns": f"shop.{cursor.collection}", label: batch}}

    def _events(self, number: int, cursor: Cursor, label: str) -> Document:
        assert cursor.follows is not None
        new = [
            event | {"_id": {"_data": str(index)}}
            for index, event in enumerate(self.log)
            if index >= cursor.follows and event["ns"]["coll"] == cursor.collection
        ]
        cursor.follows = len(self.log)
        token = {"_data": str(len(self.log) - 1)}
        namespace = f"shop.{cursor.collection}"
        return {"cursor": {"id": number, "ns": namespace, label: new, "postBatchResumeToken": token}}

    def do_find(self, command: Document) -> Document:
        found = [row for row in self.rows(command["find"]) if matches(row, command.get("filter", {}))]
        for path, direction in reversed(list(command.get("sort", {}).items())):
            found.sort(key=lambda row, path=path: place(at(row, path)), reverse=direction < 0)
        if command.get("limit"):
            found = found[: abs(command["limit"])]
        return self._opened(command["find"], found, command.get("batchSize", 101))

    def do_getmore(self, command: Document) -> Document:
        if command["getMore"] not in self.cursors:
            raise Refused(43, "CursorNotFound")
        self.cursors[command["getMore"]].size = command.get("batchSize", 101)
        return self._page(command["getMore"], "nextBatch")

    def do_killcursors(self, command: Document) -> Document:
        for number in command["cursors"]:
            self.cursors.pop(number, None)
        return {}

    def do_aggregate(self, command: Document) -> Document:
        name, pipeline = command["aggregate"], command["pipeline"]
        if pipeline and "$changeStream" in pipeline[0]:
            return self._followed(name, pipeline[0]["$changeStream"])
        found = self.rows(name)
        for stage in pipeline:
            if "$match" in stage:
                found = [row for row in found if matches(row, stage["$match"])]
            elif "$group" in stage:
                found = [{"_id": 1, "n": len(found)}] if found else []
            else:
                raise Refused(40324, f"Unrecognized pipeline stage {next(iter(stage))}")
        return self._opened(name, found, 101)

    def _followed(self, name: str, options: Document) -> Document:
        if not self.replica_set:
            raise Refused(40573, "Location40573")
        token = options.get("startAfter") or options.get("resumeAfter")
        start = int(token["_data"]) + 1 if token else len(self.log)
        if start < self.first_known:
            raise Refused(286, "ChangeStreamHistoryLost")
        number = next(self.numbers)
        self.cursors[number] = Cursor(name, iter(()), 101, follows=start)
        return self._page(number, "firstBatch")

    def do_insert(self, command: Document) -> Document:
        self.put(command["insert"], *command["documents"])
        return {"n": len(command["documents"])}

    def do_update(self, command: Document) -> Document:
        upserted = []
        for index, update in enumerate(command["updates"]):
            if any(name.startswith("$") for name in update["u"]) or set(update["q"]) != {"_id"}:
                raise Refused(2, "BadValue only replacements by _id")
            if bson.encode({"": update["q"]["_id"]}) not in self.data.get(command["update"], {}):
                upserted.append({"index": index, "_id": update["q"]["_id"]})
            self.put(command["update"], update["u"])
        count = len(command["updates"])
        return {"n": count, "nModified": count - len(upserted)} | ({"upserted": upserted} if upserted else {})

    def do_delete(self, command: Document) -> Document:
        gone = [
            row for d in command["deletes"] for row in self.rows(command["delete"]) if matches(row, d["q"])
        ]
        for row in gone:
            self.remove(command["delete"], row["_id"])
        return {"n": len(gone)}

    def do_create(self, command: Document) -> Document:
        if command["create"] in self.data:
            raise Refused(48, "NamespaceExists")
        self.data[command["create"]] = {}
        return {}

    def do_drop(self, command: Document) -> Document:
        if self.data.pop(command["drop"], None) is None:
            raise Refused(26, "NamespaceNotFound")
        self.indexes.pop(command["drop"], None)
        self._tell("drop", command["drop"])
        return {}

    def do_renamecollection(self, command: Document) -> Document:
        source, target = (command[key].partition(".")[2] for key in ("renameCollection", "to"))
        if target in self.data and not command.get("dropTarget"):
            raise Refused(48, "NamespaceExists")
        self.data[target] = self.data.pop(source)
        self.indexes[target] = self.indexes.pop(source, [])
        self._tell("rename", target)
        return {}

    def do_listcollections(self, command: Document) -> Document:
        wanted = command.get("filter", {}).get("name")
        names = [name for name in self.data if wanted in (None, name)]
        return self._opened(
            "$cmd.listCollections", [{"name": name, "type": "collection"} for name in names], 999
        )

    def do_listindexes(self, command: Document) -> Document:
        own = [{"v": 2, "key": {"_id": 1}, "name": "_id_"}]
        return self._opened(command["listIndexes"], own + self.indexes.get(command["listIndexes"], []), 999)

    def do_createindexes(self, command: Document) -> Document:
        self.indexes.setdefault(command["createIndexes"], []).extend(command["indexes"])
        return {}


def _read_exactly(stream: Any, size: int) -> bytes:
    content: bytes = stream.read(size)
    if len(content) != size:
        raise ConnectionError
    return content


def _message(body: bytes) -> Document:
    """The command of an OP_MSG, its document sequences put in their places."""
    command, offset = {}, 4
    while offset < len(body):
        section, offset = body[offset], offset + 1
        (size,) = struct.unpack_from("<i", body, offset)
        if section == 0:
            command |= bson.decode(body[offset : offset + size], CODEC)
        else:
            name, _, documents = body[offset + 4 : offset + size].partition(b"\0")
            command[name.decode()] = bson.decode_all(documents, CODEC)
        offset += size
    return command


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        mongod: Mongod = self.server.mongod  # type: ignore[attr-defined]
        while True:
            try:
                size, request, _, code = struct.unpack("<iiii", _read_exactly(self.rfile, 16))
                body = _read_exactly(self.rfile, size - 16)
            except (ConnectionError, OSError):
                return
            if code == OP_QUERY:  # the first greeting of a connection
                start = body.index(b"\0", 4) + 9
                reply = {"ok": 1.0} | mongod.do_hello(bson.decode(body[start:], CODEC))
                answer = struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(reply)
                self._send(OP_REPLY, request, answer)
                continue
            command = _message(body)
            if re.fullmatch("cut", str(mongod.failing.get(next(iter(command)), [0, ""])[1])):
                mongod.failing.clear()
                return
            try:
                reply = mongod.answer(command)
            except Refused as refused:
                reply = {"ok": 0.0, "code": refused.code, "codeName": refused.name, "errmsg": "secret words"}
            self._send(OP_MSG, request, struct.pack("<I", 0) + b"\0" + bson.encode(reply))

    def _send(self, code: int, request: int, content: bytes) -> None:
        self.wfile.write(struct.pack("<iiii", 16 + len(content), 1, request, code) + content)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextmanager
def mongod_running(**options: Any) -> Iterator[Mongod]:
    """A server on a free port."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        mongod = Mongod(port=server.server_address[1], **options)
        server.mongod = mongod  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield mongod
        finally:
            server.shutdown()
            thread.join()
