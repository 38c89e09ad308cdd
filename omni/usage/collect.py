"""Reading what senders send: events in the shape of CloudEvents, checked strictly, users made pseudonyms.

    {"id": "e1", "source": "web", "type": "page_view", "time": "2026-01-15T06:00:00Z",
     "actor": "user-17", "session": "s1", "account": "acme", "data": {"page": "/"}}

One such object, an array of them, or one per line (NDJSON). `id`, `source` and `type` are needed; without
`time` it is now. The user is `actor`, or CloudEvents' `subject`; only a keyed hash of it is kept, in which
capitals count except in e-mail addresses (`Hasher.digest_id`). What is wrong in one event does not touch the
others. No reason quotes what was sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import pyarrow as pa
from msgspec import Meta

from omni.security.hashing import Hasher
from omni.tenancy import Tenant
from omni.usage.catalogue import Event, Form, catalogue, close_to, form, unmasked
from omni.usage.spool import EARLIEST, SCHEMA, Batch, Letter

MAX_EVENT = 64 * 1024
"""Bytes of one event."""
MAX_EVENTS = 10_000
"""Events of one delivery."""
AHEAD = timedelta(days=1)
"""How far a sender's clock may be ahead."""
OLDEST_DAYS = 365
"""Age at which an event is refused, unless told otherwise; files of history have no such limit."""
KNOWN_ACTORS = 200_000
"""Pseudonyms remembered so that they are not computed again."""

Name = Annotated[str, Meta(pattern=r"^[!-~]{1,200}\Z")]
Short = Annotated[str, Meta(max_length=200)]


class Envelope(msgspec.Struct, gc=False):
    """An event as it is sent; CloudEvents' other attributes are allowed and ignored."""

    id: Name
    source: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][\w./:-]{0,99}\Z")]
    type: Annotated[str, Meta(min_length=1, max_length=100)]
    time: Annotated[datetime, Meta(tz=True)] | None = None
    actor: Annotated[str, Meta(max_length=500)] | None = None
    subject: Annotated[str, Meta(max_length=500)] | None = None
    account: Short | None = None
    session: Short | None = None
    data: dict[str, Any] | None = None
    specversion: Annotated[str, Meta(pattern=r"^1\.\d+\Z")] = "1.0"


class _Key(msgspec.Struct):
    """As much of an event as names it."""

    id: Name
    source: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][\w./:-]{0,99}\Z")]


class Malformed(Exception):
    """A delivery is not JSON of events at all; the message says what was expected."""


class _Refused(Exception):
    def __init__(self, reason: str, column: str = "event") -> None:
        super().__init__(reason)
        self.column = column


@dataclass(frozen=True)
class Refusal:
    """An event of a delivery that was not taken: the how manieth, and why."""

    index: int
    reason: str


@dataclass(frozen=True)
class Delivery:
    """What was read of a delivery, to be spooled before it is acknowledged."""

    batch: Batch
    refused: list[Refusal] = field(default_factory=list)

    @property
    def accepted(self) -> int:
        """Events that will be loaded."""
        return int(self.batch.rows.num_rows)


_whole = msgspec.json.Decoder(Envelope)
_list = msgspec.json.Decoder(list[msgspec.Raw])
_key = msgspec.json.Decoder(_Key)
_sorted = msgspec.json.Encoder(order="sorted")


class Collector:
    """Reads one tenant's events.

    Args:
        tenant: whose; decides the key that pseudonyms are made with.
        events: what is declared; the project's by default.
        oldest_days: age at which events are refused; None: never.
        lax: texts stand for values of other types, as in a CSV file.
    """

    def __init__(
        self,
        tenant: Tenant,
        *,
        events: Mapping[str, Event] | None = None,
        oldest_days: int | None = OLDEST_DAYS,
        lax: bool = False,
    ) -> None:
        declared = catalogue() if events is None else events
        self._forms: dict[str, Form] = {name: form(event, lax=lax) for name, event in declared.items()}
        self._hasher = Hasher.for_tenant(tenant.tenant)
        self._oldest = None if oldest_days is None else timedelta(days=oldest_days)
        self._actors: dict[str, str | None] = {}

    def read(self, body: bytes, *, lines: bool = False, now: datetime | None = None) -> Delivery:
        """Read a delivery.

        Args:
            body: JSON: an event or an array of events; or an event per line.
            lines: whether it is an event per line.
            now: when it was received.

        Raises:
            Malformed: it is neither, or holds more than `MAX_EVENTS` events.
        """
        pieces: list[Any]
        if lines:
            pieces = [line for line in body.split(b"\n") if line.strip()]
        elif body.lstrip()[:1] == b"[":
            try:
                pieces = _list.decode(body)
            except (msgspec.DecodeError, RecursionError):
                raise Malformed("The body is no JSON array of events.") from None
        else:
            pieces = [body]
        if not body.strip():
            raise Malformed("The body is empty; send an event, an array of events or an event per line.")
        if len(pieces) > MAX_EVENTS:
            raise Malformed(f"At most {MAX_EVENTS} events can be sent at once.")
        return self._taken(pieces, now or datetime.now(UTC), _decoded)

    def read_records(self, records: Iterable[Mapping[str, Any]], *, now: datetime | None = None) -> Delivery:
        """Read events that are decoded already, as rows of a file; `data` is an object."""
        return self._taken(records, now or datetime.now(UTC), _converted)

    def _taken(self, pieces: Iterable[Any], now: datetime, decode: Any) -> Delivery:
        rows: list[tuple[Any, ...]] = []
        letters: list[Letter] = []
        refused: list[Refusal] = []
        dropped: Counter[str] = Counter()
        newest, oldest = now + AHEAD, None if self._oldest is None else max(now - self._oldest, EARLIEST)
        for index, piece in enumerate(pieces):
            try:
                rows.append(self._row(decode(piece), now, newest, oldest, dropped))
            except _Refused as error:
                reason = str(error)
                refused.append(Refusal(index, reason))
                letters.append(Letter(_named(piece), error.column, reason))
        columns = zip(*rows, strict=True) if rows else ([] for _ in SCHEMA)
        arrays = [pa.array(column, kind) for column, kind in zip(columns, SCHEMA.types, strict=True)]
        return Delivery(Batch(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA), letters, dropped), refused)

    def _row(
        self, event: Envelope, now: datetime, newest: datetime, oldest: datetime | None, dropped: Counter[str]
    ) -> tuple[Any, ...]:
        at = event.time or now
        if at > newest:
            raise _Refused("its time lies more than a day ahead", "occurred_at")
        if oldest is not None and at < oldest:
            raise _Refused("it is older than events may be here", "occurred_at")
        if at < EARLIEST:
            raise _Refused(f"its time lies before {EARLIEST.year}", "occurred_at")
        if "\0" in (event.account or "") or "\0" in (event.session or ""):
            raise _Refused("account or session holds a null character")
        if any("@" in unmasked(text) for text in (event.id, event.account, event.session) if text):
            raise _Refused("id, account or session holds an @: they are kept in clear", "event_id")
        name = event.type.strip().lower()
        declared = self._forms.get(name)
        if declared is None:
            raise _Refused(f"event not declared in data/events{close_to(name, self._forms)}")
        actor = event.actor or event.subject
        kept = _properties(name, event.data or {}, declared, dropped)
        return (
            event.source,
            event.id,
            event.account or None,
            self._pseudonym(actor) if actor else None,
            event.session or None,
            name,
            _sorted.encode(kept) if kept else b"{}",
            at,
            now,
        )

    def _pseudonym(self, actor: str) -> str | None:
        try:
            return self._actors[actor]
        except KeyError:
            if len(self._actors) >= KNOWN_ACTORS:
                self._actors.clear()
            made = self._actors[actor] = self._hasher.digest_id(actor)
            return made


def _properties(event: str, data: dict[str, Any], declared: Form, dropped: Counter[str]) -> dict[str, Any]:
    kept = {}
    readers = declared.readers
    for name, value in data.items():
        read = readers.get(name)
        if read is None:
            dropped[f"{event}: not declared"] += 1
        elif value is not None:
            try:
                kept[name] = read(value)
            except ValueError as error:
                if name in declared.required:
                    raise _Refused(f"property {name} {error}", "properties") from None
                dropped[f"{event}: {name} {error}"] += 1
    for name in declared.required:
        if name not in kept:
            raise _Refused(f"property {name} is missing", "properties")
    return kept


def _decoded(piece: bytes | msgspec.Raw) -> Envelope:
    if len(bytes(piece)) > MAX_EVENT:
        raise _Refused(f"it has more than {MAX_EVENT} bytes")
    try:
        return _whole.decode(piece)
    except msgspec.ValidationError as error:
        raise _Refused(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _Refused("it is not valid JSON") from None


def _converted(record: Mapping[str, Any]) -> Envelope:
    try:
        return msgspec.convert(record, Envelope)
    except msgspec.ValidationError as error:
        raise _Refused(str(error)) from None
    except RecursionError:
        raise _Refused("it is nested too deeply") from None


def _named(piece: Any) -> str:
    """The key of an event that was refused, where it can be told."""
    try:
        found = msgspec.convert(piece, _Key) if isinstance(piece, Mapping) else _key.decode(piece)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "?|?"
    return "?|?" if "@" in unmasked(found.id) else f"{found.source}|{found.id}"
