"""MongoDB collections, by update time; deletions by change stream.

A window is asked for on the contract's cursor field, which must hold dates; documents without one come only
with a full read, and `check` says how many there are. Reading is sorted by cursor and `_id`, so that it goes
on behind any document. `changes` follows the server's change stream (a replica set's) and gives the ids of
what was written or deleted, to be read again. The record's `id` is the text of `_id`; a document's own field
of that name is `_row.id`.

Needs the extra `mongodb`: pip install 'omni-pipelines[mongodb]'.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from omni.errors import AuthError, ConfigError, HistoryLost, SchemaError, SourceError, TransientError
from omni.settings import settings
from omni.sources.connection import Connection
from omni.sources.records import PARENT, Record
from omni.sources.vendor import Changes, Page, Vendor, Window, cursor_path, table_object
from omni.tenancy import Tenant
from omni.warehouse.contracts import Contract

if TYPE_CHECKING:
    from pymongo.database import Database

LAG = timedelta(seconds=60)
"""Clocks of the writers that set the update time may differ by so much."""
PAGE = 1_000
NO_CHANGE_STREAM = {40573, 40324}
HISTORY_LOST = {286, 280}
REFUSED = {13, 18}
PASSING = {43, 50, 91, 189, 11600, 11602}
"""The cursor is gone, time is up, the server shuts down or is no longer the primary."""


def _needed() -> None:
    try:
        import pymongo  # noqa: F401
    except ModuleNotFoundError:
        raise ConfigError("MongoDB needs its client library: pip install 'omni-pipelines[mongodb]'") from None


def configured(_tenant: Tenant) -> Connection | None:
    """A tenant's database by the settings; None where they name none."""
    chosen = settings().mongodb
    if chosen.base_url is None:
        return None
    options = {"username": chosen.username} if chosen.username else {}
    if chosen.change_stream:
        options["change_stream"] = "true"
    return Connection("mongodb", chosen.base_url, chosen.token or SecretStr(""), options=options)


@contextmanager
def opened(connection: Connection) -> Iterator[Database[dict[str, Any]]]:
    """The account's database.

    Raises:
        ConfigError: no client library, or an address that cannot be.
        TransientError: no server answers.
    """
    _needed()
    from pymongo import MongoClient
    from pymongo.errors import ConfigurationError, InvalidURI

    parts = urlsplit(connection.base_url)
    name = unquote(parts.path.strip("/"))
    if parts.scheme not in ("mongodb", "mongodb+srv") or not parts.netloc or not name or "/" in name:
        raise ConfigError("MongoDB: the address needs servers and a database, e.g. mongodb://db.example/shop")
    if "@" in parts.netloc:
        raise ConfigError("MongoDB: write no user or password into the address; set username and token")
    login: dict[str, Any] = {}
    if user := connection.options.get("username"):
        login = {"username": user, "password": connection.token.get_secret_value()}
    seconds = int(connection.timeout * 1000)
    try:
        client: MongoClient[dict[str, Any]] = MongoClient(
            connection.base_url,
            tz_aware=True,
            uuidRepresentation="standard",
            serverSelectionTimeoutMS=seconds,
            connectTimeoutMS=seconds,
            socketTimeoutMS=seconds,
            **login,
        )
    except (ConfigurationError, InvalidURI) as error:
        raise ConfigError(f"MongoDB: {error}") from None
    try:
        yield client[name]
    finally:
        client.close()


@contextmanager
def errors(where: str) -> Iterator[None]:
    """The library's errors as those of the house."""
    from pymongo import errors as library

    try:
        yield
    except library.OperationFailure as error:
        if error.code in REFUSED:
            raise AuthError(
                f"{where}: access refused. Check OMNI_MONGODB__USERNAME and OMNI_MONGODB__TOKEN, or the "
                "tenant's MongoDB block, and the user's roles."
            ) from None
        if error.code in NO_CHANGE_STREAM:
            raise ConfigError(
                f"{where}: the server has no change streams; they need a replica set."
            ) from None
        if error.code in HISTORY_LOST:
            raise HistoryLost(
                f"{where}: the server no longer knows the changes since the last reading. Read it whole: "
                "omni ingest --full"
            ) from None
        label = error.has_error_label("RetryableWriteError") or error.has_error_label(
            "TransientTransactionError"
        )
        kind = TransientError if label or error.code in (43, 50, 189, 91, 11600, 11602) else SourceError
        name = (error.details or {}).get("codeName", "")
        raise kind(f"{where}: the server refused ({error.code} {name}).") from None
    except (library.ConnectionFailure, library.CursorNotFound, library.WTimeoutError) as error:
        raise TransientError(f"{where}: no answer ({type(error).__name__}). Run again later.") from None
    except library.PyMongoError as error:
        raise SourceError(f"{where}: {type(error).__name__}.") from None


def _where(tables: list[Contract]) -> str:
    return f"MongoDB {table_object(tables)}"


def _filter(tables: list[Contract], window: Window) -> dict[str, Any]:
    cursor = cursor_path(tables[0])
    if cursor is None or window.since is None:
        return {}
    return {cursor: {"$gte": window.since, "$lt": window.until}}


def check(database: Database[dict[str, Any]], tables: list[Contract]) -> list[str]:
    """Compare the contract with the newest documents.

    Returns:
        What is worth reporting: documents without an update time, which only a full read finds.

    Raises:
        SchemaError: the cursor field holds something else than dates, or no recent document has a field.
    """
    where, collection, cursor = _where(tables), database[table_object(tables)], cursor_path(tables[0])
    with errors(where):
        sample = list(collection.find({}, sort=[(cursor or "_id", -1)], limit=100))
        if cursor is None:
            without = 0
        else:
            without = collection.count_documents({cursor: None})
            other = {cursor: {"$exists": True, "$ne": None, "$not": {"$type": "date"}}}
            if collection.find_one(other) is not None:
                raise SchemaError(
                    f"{where}: {cursor} is no date in some documents, so changes cannot be told by it. Store "
                    "dates, or leave out source.cursor to read everything each time."
                )
    required = {c.path or n for n, c in tables[0].columns.items() if not c.optional}
    roots = {path.removeprefix(PARENT).partition(".")[0] for path in required} - {"id", "_row"}
    if sample and (missing := roots - {name for document in sample for name in document}):
        raise SchemaError(
            f"{where}: none of the newest documents has {', '.join(map(repr, sorted(missing)))}, which "
            f"{tables[0].table} takes. Change the contract: another `from`, or `optional: true`."
        )
    notice = f"{where}: {without} documents have no {cursor}; only a full read finds their changes"
    return [notice] if without else []


def count(database: Database[dict[str, Any]], tables: list[Contract], window: Window) -> int:
    """Documents of the window."""
    with errors(_where(tables)):
        return int(database[table_object(tables)].count_documents(_filter(tables, window)))


def read(
    database: Database[dict[str, Any]], tables: list[Contract], window: Window, resume: Any
) -> Iterator[Page]:
    """The window's documents; `resume` is the last one's cursor and `_id`, as extended JSON."""
    from bson import json_util

    where, cursor = _where(tables), cursor_path(tables[0])
    chosen = _filter(tables, window)
    order = [(cursor, 1), ("_id", 1)] if cursor and chosen else [("_id", 1)]
    if resume:
        last = json_util.loads(resume)
        # Comparisons stay within a type, so "not up to the last" also gives keys of other types; those read
        # before come again, and are dropped by id.
        behind: dict[str, Any] = {"_id": {"$not": {"$lte": last["_id"]}}}
        if len(order) > 1:
            behind = {"$or": [{cursor: {"$gt": last["at"]}}, {cursor: last["at"], **behind}]}
        chosen = {"$and": [chosen, behind]} if chosen else behind
    with errors(where):
        found = database[table_object(tables)].find(chosen, sort=order, batch_size=PAGE)
        while page := _some(found):
            token = {"_id": page[-1]["_id"], "at": _at(page[-1], cursor) if cursor else None}
            yield Page([record_of(document) for document in page], json_util.dumps(token))


def _at(document: Any, path: str) -> Any:
    for name in path.split("."):
        document = document.get(name) if isinstance(document, dict) else None
    return document


def _some(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    page = []
    for document in found:
        page.append(document)
        if len(page) == PAGE:
            break
    return page


def reread(database: Database[dict[str, Any]], tables: list[Contract], ids: list[str]) -> Iterator[Page]:
    """Documents by id, as they are now."""
    with errors(_where(tables)):
        for start in range(0, len(ids), PAGE):
            wanted = ids[start : start + PAGE]
            keys = [key for text in wanted for key in _keys(text)]
            found = database[table_object(tables)].find({"_id": {"$in": keys}})
            records = [record_of(document) for document in found]
            yield Page([record for record in records if record["id"] in set(wanted)])


def changes(
    database: Database[dict[str, Any]],
    tables: list[Contract],
    resume: Any,
    *,
    seconds: float = 2.0,
    most: int = 10_000,
) -> Changes:
    """Ids of the documents that changed or went since `resume`; None begins now.

    Begin before the first full read, then read the ids again by `reread`: what changes meanwhile is not lost,
    and what is gone by then is removed.

    Args:
        database: the account's.
        tables: the stream's contracts.
        resume: of the last call.
        seconds: how long to wait for the first change, where it goes on from an earlier one.
        most: events to take at most.

    Raises:
        ConfigError: the server is no replica set.
        HistoryLost: it no longer knows that far back, or the collection was dropped.
    """
    from bson import json_util

    where, ids = _where(tables), dict[str, None]()
    after = json_util.loads(resume) if resume else None
    with (
        errors(where),
        database[table_object(tables)].watch(
            [{"$project": {"documentKey": 1, "operationType": 1}}],
            start_after=after,
            max_await_time_ms=200,
        ) as stream,
    ):
        ends, taken = time.monotonic() + (seconds if resume else 0), 0
        while taken < most:
            event = stream.try_next()
            if event is None:
                if ids or time.monotonic() > ends:
                    break
                continue
            taken += 1
            if event["operationType"] in ("invalidate", "drop", "rename", "dropDatabase"):
                raise HistoryLost(
                    f"{where}: the collection was dropped or renamed. Read it whole: omni ingest --full"
                )
            if key := event.get("documentKey"):
                ids[_text(key["_id"])] = None
        return Changes(list(ids), json_util.dumps(stream.resume_token), taken >= most)


def record_of(document: Mapping[str, Any]) -> Record:
    """A document as JSON has it, with `id`."""
    record: Record = {name: plain(value) for name, value in document.items()}
    if "id" in record:
        record["_row"] = {"id": record["id"]}
    record["id"] = _text(document["_id"])
    return record


def _text(identity: Any) -> str:
    shown = plain(identity)
    return shown if isinstance(shown, str) else json.dumps(shown, sort_keys=True)


def _keys(text: str) -> list[Any]:
    """What `_id` a text may stand for."""
    from bson import ObjectId

    keys: list[Any] = [text]
    if ObjectId.is_valid(text):
        keys.append(ObjectId(text))
    try:
        value = json.loads(text)
    except ValueError:
        return keys
    number = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return [*keys, value] if number or isinstance(value, dict) else keys


def plain(value: Any) -> Any:
    """A BSON value as JSON has it: moments in ISO 8601, decimals and ids as text, bytes in base64."""
    if value is None or isinstance(value, (str, bool, float)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, date) else str(value)


VENDOR = Vendor(
    name="mongodb",
    title="MongoDB",
    open=opened,
    lag=LAG,
    resolution=timedelta(milliseconds=1),
    check=check,
    count=count,
    read=read,
    reread=reread,
    changes=changes,
)
