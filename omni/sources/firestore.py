"""Firestore collections, by update time.

A window is asked for on the contract's cursor field, which must hold timestamps; documents without one come
only with a full read, and `check` says how many there are. Firestore keeps no list of deletions that can be
read later, so those show with a full read only. Reading is sorted by cursor and document name, so that it
goes on behind any document. The record's `id` is the document's id; a field of that name is `_row.id`.

Needs the extra `firestore`: pip install 'omni-pipelines[firestore]'. With FIRESTORE_EMULATOR_HOST set, the
library talks to the emulator there.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from omni.errors import AuthError, ConfigError, SchemaError, SourceError, TransientError
from omni.settings import settings
from omni.sources.connection import Connection
from omni.sources.records import PARENT, Record
from omni.sources.vendor import Page, Vendor, Window, cursor_path, table_object
from omni.tenancy import Tenant
from omni.warehouse.contracts import Contract

if TYPE_CHECKING:
    from google.cloud.firestore_v1 import Client as Library

LAG = timedelta(seconds=60)
"""Clocks of the writers that set the update time may differ by so much."""
PAGE = 500
ATTEMPTS = 4
BACKOFF = 0.1
"""Seconds before the second try, about; doubles with each further one."""

T = TypeVar("T")


@dataclass(frozen=True)
class Database:
    """An open database and the seconds one call may take."""

    library: Library
    timeout: float


def configured(_tenant: Tenant) -> Connection | None:
    """A tenant's database by the settings; None where they name none."""
    chosen = settings().firestore
    if chosen.base_url is None:
        return None
    return Connection("firestore", chosen.base_url, chosen.token or SecretStr(""))


@contextmanager
def opened(connection: Connection) -> Iterator[Database]:
    """The account's database.

    Raises:
        ConfigError: no client library, or an address or key that cannot be.
    """
    try:
        from google.cloud import firestore
    except ModuleNotFoundError:
        raise ConfigError(
            "Firestore needs its client library: pip install 'omni-pipelines[firestore]'"
        ) from None
    from google.auth.exceptions import GoogleAuthError

    parts = urlsplit(connection.base_url)
    name = unquote(parts.path.strip("/")) or "(default)"
    if parts.scheme != "firestore" or not parts.netloc or "/" in name:
        raise ConfigError("Firestore: the address is firestore://<project>/<database>")
    try:
        library = firestore.Client(
            project=parts.netloc, database=name, credentials=_credentials(connection.token)
        )
    except GoogleAuthError as error:
        raise ConfigError(
            f"Firestore: no credentials ({type(error).__name__}). Set OMNI_FIRESTORE__TOKEN to a service "
            "account's key, or run where the machine has its own."
        ) from None
    try:
        yield Database(library, connection.timeout)
    finally:
        library.close()  # type: ignore[no-untyped-call]


def _credentials(token: SecretStr) -> Any:
    """A service account's; None: the library finds the machine's own."""
    if os.environ.get("FIRESTORE_EMULATOR_HOST") or not token.get_secret_value():
        return None
    from google.oauth2.service_account import Credentials

    made: Any = Credentials
    try:
        return made.from_service_account_info(json.loads(token.get_secret_value()))
    except (ValueError, TypeError):
        raise ConfigError(
            "Firestore: OMNI_FIRESTORE__TOKEN should be the JSON of a service account's key."
        ) from None


def tried(call: Callable[[], T]) -> T:
    """A call whose repetition does no harm, tried a few times.

    The library's own repetition of queries has no bound, so every call is made with `retry=None`.
    """
    from google.api_core import exceptions as library

    for attempt in range(1, ATTEMPTS):
        try:
            return call()
        except (library.ServerError, library.TooManyRequests, library.Aborted):
            time.sleep(BACKOFF * 2**attempt)
    return call()


@contextmanager
def errors(where: str) -> Iterator[None]:
    """The library's errors as those of the house."""
    from google.api_core import exceptions as library

    try:
        yield
    except (library.Unauthenticated, library.Forbidden):
        raise AuthError(
            f"{where}: access refused. Check OMNI_FIRESTORE__TOKEN or the tenant's Firestore block, and the "
            "account's role (Cloud Datastore User)."
        ) from None
    except library.FailedPrecondition:
        raise ConfigError(
            f"{where}: the database lacks the index that sorting by the cursor needs. Create a composite "
            "index of the cursor field and __name__, both ascending."
        ) from None
    except (
        library.ServerError,
        library.TooManyRequests,
        library.RetryError,
        library.Aborted,
        library.Cancelled,
    ) as error:
        raise TransientError(f"{where}: no answer ({type(error).__name__}). Run again later.") from None
    except library.GoogleAPICallError as error:
        raise SourceError(f"{where}: the server refused ({type(error).__name__}).") from None


def _where(tables: list[Contract]) -> str:
    return f"Firestore {table_object(tables)}"


def _query(database: Database, tables: list[Contract], window: Window) -> Any:
    """The window's documents in their order, and whether they are sorted by the cursor."""
    from google.cloud.firestore_v1.base_query import FieldFilter

    query: Any = database.library.collection(table_object(tables))
    cursor = cursor_path(tables[0])
    if cursor is not None and window.since is not None:
        query = query.where(filter=FieldFilter(cursor, ">=", window.since))
        query = query.where(filter=FieldFilter(cursor, "<", window.until))
        query = query.order_by(cursor)
    return query.order_by("__name__")


def counted(database: Database, query: Any) -> int:
    found = tried(lambda: query.count().get(retry=None, timeout=database.timeout))
    return int(found[0][0].value)


def listed(database: Database, query: Any) -> list[Any]:
    """A query's documents."""
    return tried(lambda: list(query.stream(retry=None, timeout=database.timeout)))


def check(database: Database, tables: list[Contract]) -> list[str]:
    """Compare the contract with some documents.

    Returns:
        What is worth reporting: documents without an update time, which only a full read finds.

    Raises:
        SchemaError: the cursor holds something else than timestamps, or no sampled document has a field.
    """
    where, cursor = _where(tables), cursor_path(tables[0])
    collection: Any = database.library.collection(table_object(tables))
    with errors(where):
        newest = collection.order_by(cursor, direction="DESCENDING") if cursor else collection
        sample = [one.to_dict() for one in listed(database, newest.limit(100))]
        without = 0
        if cursor is not None:
            if any(not isinstance(_at(document, cursor), datetime) for document in sample):
                raise SchemaError(
                    f"{where}: {cursor} is no timestamp in some documents, so changes cannot be told by it. "
                    "Store timestamps, or leave out source.cursor to read everything each time."
                )
            without = counted(database, collection) - counted(database, collection.order_by(cursor))
    required = {c.path or n for n, c in tables[0].columns.items() if not c.optional}
    roots = {path.removeprefix(PARENT).partition(".")[0] for path in required} - {"id", "_row"}
    if sample and (missing := roots - {name for document in sample for name in document}):
        raise SchemaError(
            f"{where}: none of the newest documents has {', '.join(map(repr, sorted(missing)))}, which "
            f"{tables[0].table} takes. Change the contract: another `from`, or `optional: true`."
        )
    notice = f"{where}: {without} documents have no {cursor}; only a full read finds their changes"
    return [notice] if without else []


def count(database: Database, tables: list[Contract], window: Window) -> int:
    """Documents of the window."""
    with errors(_where(tables)):
        return counted(database, _query(database, tables, window))


def read(database: Database, tables: list[Contract], window: Window, resume: Any) -> Iterator[Page]:
    """The window's documents; `resume` is the last one's id and, in a window, its cursor."""
    where, cursor = _where(tables), cursor_path(tables[0])
    by_cursor = cursor is not None and window.since is not None
    place = resume
    with errors(where):
        query = _query(database, tables, window).limit(PAGE)
        while True:
            behind = query.start_after(_position(database, tables, cursor, place)) if place else query
            found = listed(database, behind)
            if not found:
                return
            last = found[-1]
            at = _exact(_at(last.to_dict(), cursor or "")) if by_cursor else None
            place = {"id": last.id, "at": at}
            yield Page([record_of(one.id, one.to_dict()) for one in found], place)


def _position(database: Database, tables: list[Contract], cursor: str | None, place: Any) -> dict[str, Any]:
    from google.api_core.datetime_helpers import DatetimeWithNanoseconds

    reference = database.library.collection(table_object(tables)).document(place["id"])
    position: dict[str, Any] = {"__name__": reference}
    if place["at"] is not None and cursor:
        exact: Any = DatetimeWithNanoseconds
        position[cursor] = exact.from_rfc3339(place["at"])
    return position


def _exact(moment: Any) -> str:
    """A timestamp with its nanoseconds, in RFC 3339."""
    return str(moment.rfc3339())


def _at(document: Any, path: str) -> Any:
    for name in path.split("."):
        document = document.get(name) if isinstance(document, dict) else None
    return document


def reread(database: Database, tables: list[Contract], ids: list[str]) -> Iterator[Page]:
    """Documents by id, as they are now."""
    collection: Any = database.library.collection(table_object(tables))
    with errors(_where(tables)):
        for start in range(0, len(ids), PAGE):
            references = [collection.document(one) for one in ids[start : start + PAGE] if _is_id(one)]
            found = tried(partial(_got, database, references)) if references else []
            yield Page([record_of(one.id, one.to_dict() or {}) for one in found if one.exists])


def _got(database: Database, references: list[Any]) -> list[Any]:
    return list(database.library.get_all(references, retry=None, timeout=database.timeout))


def _is_id(text: str) -> bool:
    return bool(text) and "/" not in text and text not in (".", "..") and len(text.encode()) <= 1500


def record_of(identity: str, document: Mapping[str, Any]) -> Record:
    """A document as JSON has it, with `id`."""
    record: Record = {name: plain(value) for name, value in document.items()}
    if "id" in record:
        record["_row"] = {"id": record["id"]}
    record["id"] = identity
    return record


def plain(value: Any) -> Any:
    """A Firestore value as JSON has it: moments in ISO 8601, references as paths, bytes in base64."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if hasattr(value, "latitude"):
        return {"latitude": value.latitude, "longitude": value.longitude}
    return str(getattr(value, "path", value))


VENDOR = Vendor(
    name="firestore",
    title="Firestore",
    open=opened,
    lag=LAG,
    resolution=timedelta(microseconds=1),
    check=check,
    count=count,
    read=read,
    reread=reread,
)
