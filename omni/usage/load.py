"""Loading sealed segments: each once, whatever crashes, and each event once, however often it was sent.

One transaction holds the events, the record of the segments they came from, the refusals and counts, and the
days that changed. Files are removed after it; one that is still there the next time is known as loaded.

The same event is one of the same source and id, whatever its time says: what came first stays. Every new key
is looked up among all there are, however old. DuckDB scans two columns for it: 0.25 s in ten million events,
so no window of time is needed after which repeats would count twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from omni.usage.spool import EARLIEST, SCHEMA, Letter, NoSegment, Segment, read_segment
from omni.warehouse.connection import Connection
from omni.warehouse.database import Warehouse
from omni.warehouse.versions import record_change

TABLE = "raw.usage__events"
VENDOR, STREAM = "usage", "events"
KEY = ["source", "event_id"]
GROUP_BYTES = 256 * 1024 * 1024
"""Segments of about so many bytes are loaded in one transaction; it bounds the memory needed."""
LETTERS_EACH = 1_000
"""Dead letters of one load that are kept each by itself; of more only their reasons are."""
LETTERS_OPEN = 100_000
"""Dead letters that may wait before only reasons are kept."""
MANY = "*|*"
"""Key of a dead letter that stands for many."""

_OPS = """
CREATE TABLE IF NOT EXISTS ops.segments (segment VARCHAR, loaded_at TIMESTAMPTZ);
CREATE TABLE IF NOT EXISTS ops.usage_dropped (day DATE, event VARCHAR, reason VARCHAR, dropped BIGINT);
"""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedEvents:
    """What a load did.

    Attributes:
        segments: how many were loaded.
        read: events in them.
        inserted: those that are new.
        letters: events that were refused.
        dropped: properties that were left out.
        days: days of the new events, in the tenant's zone.
        damaged: files that are no segments, or in which something is damaged; they are kept as `.bad`.
    """

    segments: int = 0
    read: int = 0
    inserted: int = 0
    letters: int = 0
    dropped: int = 0
    days: tuple[date, ...] = ()
    damaged: int = 0

    @property
    def repeated(self) -> int:
        """Events that were there already."""
        return self.read - self.inserted

    def plus(self, other: LoadedEvents) -> LoadedEvents:
        """Both together."""
        return LoadedEvents(
            self.segments + other.segments,
            self.read + other.read,
            self.inserted + other.inserted,
            self.letters + other.letters,
            self.dropped + other.dropped,
            tuple(sorted({*self.days, *other.days})),
            self.damaged + other.damaged,
        )


def load_events(warehouse: Warehouse, segments: Iterable[Path], *, run_id: str) -> LoadedEvents:
    """Load sealed segments in the order they are given, and remove them.

    Loading the same segments twice, or being killed at any moment and loading again, gives the same table.

    Args:
        warehouse: open for writing.
        segments: files of a spool, oldest first; those that another loader has taken meanwhile are left out.
        run_id: kept with the rows; loads of one run are counted together.

    Raises:
        StorageError: a file cannot be read, or the warehouse cannot be written; what is not loaded stays.
    """
    done = LoadedEvents()
    for group in _groups(segments):
        done = done.plus(_load_group(warehouse, group, run_id))
    return done


def _groups(segments: Iterable[Path]) -> Iterator[list[Path]]:
    group: list[Path] = []
    size = 0
    for path in segments:
        try:
            size += path.stat().st_size
        except FileNotFoundError:
            continue
        group.append(path)
        if size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _load_group(warehouse: Warehouse, paths: Sequence[Path], run_id: str) -> LoadedEvents:
    with warehouse.transaction() as con:
        con.execute(_OPS)
        known = {row[0] for row in con.execute("SELECT segment FROM ops.segments").fetchall()}
        if gone := [name for name in known if not (paths[0].parent / f"{name}.seg").exists()]:
            con.execute("DELETE FROM ops.segments WHERE segment IN (SELECT unnest($1::VARCHAR[]))", [gone])
        found, damaged = _readable([path for path in paths if path.stem not in known])
        result = LoadedEvents(damaged=damaged)
        if found:
            result = result.plus(_store(con, found, warehouse.tenant.timezone, run_id))
    for path in paths:
        path.unlink(missing_ok=True)
    return result


def _readable(paths: Iterable[Path]) -> tuple[list[Segment], int]:
    """The segments' contents; files that are no segments are put aside, so that they hold nothing up.

    Of a damaged one what is whole is loaded, and a copy stays: its accepted events may be saved by hand.
    """
    found, damaged = [], 0
    for path in paths:
        aside = path.with_suffix(".bad")
        try:
            segment = read_segment(path)
        except NoSegment as error:
            log.error("%s. It is now %s", error, aside.name)  # noqa: TRY400
            path.rename(aside)
            damaged += 1
            continue
        if segment.lost:
            with suppress(FileExistsError):  # of a load that did not end
                aside.hardlink_to(path)
            log.error("%s: what is whole is loaded; a copy is kept as %s", path.name, aside.name)
            damaged += 1
        found.append(segment)
    return found, damaged


def _store(con: Connection, segments: list[Segment], timezone: str, run_id: str) -> LoadedEvents:
    now = datetime.now(UTC)
    letters = [letter for segment in segments for letter in segment.letters]
    dropped = sum((segment.dropped for segment in segments), Counter[str]())
    rows, refused = _datable(pa.concat_tables([segment.rows for segment in segments]))
    letters += refused
    if letters:
        _keep_letters(con, letters, now, run_id)
    inserted, days = _insert(con, rows, now, timezone, run_id) if rows.num_rows else (0, [])
    if letters:
        _resolve_known(con, letters, now)
    if dropped:
        _count_dropped(con, dropped, now, timezone)
    if inserted:
        record_change(con, TABLE, days, run_id=run_id)
    con.execute(
        "INSERT INTO ops.segments SELECT unnest($1::VARCHAR[]), $2", [[one.name for one in segments], now]
    )
    result = LoadedEvents(
        len(segments), rows.num_rows, inserted, len(letters), sum(dropped.values()), tuple(days)
    )
    _count_load(con, result, now, run_id)
    return result


def _datable(rows: Any) -> tuple[Any, list[Letter]]:
    """Without the events no day can be told of; the collector takes none, older spools may hold some."""
    right = pc.greater_equal(rows["occurred_at"], pa.scalar(EARLIEST, SCHEMA.field("occurred_at").type))
    if pc.all(right).as_py() is not False:
        return rows, []
    keys = rows.filter(pc.invert(right)).select(KEY).to_pylist()
    reason = f"its time lies before {EARLIEST.year}"
    letters = [Letter(f"{key['source']}|{key['event_id']}", "occurred_at", reason) for key in keys]
    return rows.filter(right), letters


def _insert(con: Connection, rows: Any, now: datetime, timezone: str, run_id: str) -> tuple[int, list[date]]:
    """Insert the events whose key is new; of several with one key the first."""
    keys: Any = pl.from_arrow(rows.select(KEY))
    if keys.n_unique() < rows.num_rows:
        frame: Any = pl.from_arrow(rows)
        rows = frame.unique(subset=KEY, keep="first", maintain_order=True).to_arrow().cast(SCHEMA)
    con.register("incoming_events", rows)
    try:
        con.execute(
            "CREATE OR REPLACE TEMP TABLE fresh_events AS SELECT new.* FROM incoming_events AS new WHERE NOT "
            f"EXISTS (SELECT 1 FROM {TABLE} AS old WHERE old.source = new.source AND "
            "old.event_id = new.event_id)"
        )
    finally:
        con.unregister("incoming_events")
    names = ", ".join(SCHEMA.names)
    values = names.replace("properties", "CAST(properties AS JSON)")
    con.execute(
        f"INSERT INTO {TABLE} ({names}, _loaded_at, _run_id) SELECT {values}, $1, $2 FROM fresh_events",
        [now, run_id],
    )
    day = f"CAST(occurred_at AT TIME ZONE '{timezone}' AS DATE)"
    found = con.execute(f"SELECT {day} AS day, count(*) FROM fresh_events GROUP BY 1").fetchall()
    _resolve(con, now, "SELECT source || '|' || event_id FROM fresh_events")
    con.execute("DROP TABLE fresh_events")
    return sum(count for _, count in found), sorted(day for day, _ in found)


def _keep_letters(con: Connection, letters: list[Letter], now: datetime, run_id: str) -> None:
    unique = {_identity(letter): letter for letter in _bounded(con, letters)}
    con.execute(
        "INSERT INTO ops.dead_letters (id, run_id, vendor, stream, table_name, record_key, column_name, "
        "reason, first_seen) SELECT id, $1, $2, $3, $4, record_key, column_name, reason, $5 FROM "
        "(SELECT unnest($6::VARCHAR[]) AS id, unnest($7::VARCHAR[]) AS record_key, "
        "unnest($8::VARCHAR[]) AS column_name, unnest($9::VARCHAR[]) AS reason) "
        "ON CONFLICT (id) DO UPDATE SET replayed_at = NULL",
        [
            run_id, VENDOR, STREAM, TABLE, now, list(unique), [one.key for one in unique.values()],
            [one.column for one in unique.values()], [one.reason for one in unique.values()],
        ],
    )  # fmt: skip


def _identity(letter: Letter) -> str:
    text = json.dumps([VENDOR, STREAM, letter.key, letter.column, letter.reason])
    return hashlib.sha256(text.encode()).hexdigest()


def _bounded(con: Connection, letters: list[Letter]) -> list[Letter]:
    """Letters each by itself as long as they are few: whoever holds a public key can make any number."""
    row = con.execute(
        "SELECT count(*) FROM ops.dead_letters WHERE table_name = $1 AND replayed_at IS NULL", [TABLE]
    ).fetchone()
    each = max(0, min(LETTERS_EACH, LETTERS_OPEN - (row[0] if row else 0)))
    unique = list({_identity(letter): letter for letter in letters}.values())
    more = Counter((one.column, one.reason) for one in unique[each:])
    for (_, reason), number in more.most_common(5):
        log.warning("%d more events were refused: %s; one dead letter stands for them", number, reason)
    return unique[:each] + [Letter(MANY, column, reason) for column, reason in more]


def _resolve_known(con: Connection, letters: list[Letter], now: datetime) -> None:
    """Close letters of this load whose event came well before, or in the same load."""
    pairs = [one.key.partition("|") for one in letters]
    keys = pa.table({"source": [one[0] for one in pairs], "event_id": [one[2] for one in pairs]})
    con.register("letter_keys", keys)
    try:
        _resolve(
            con,
            now,
            f"SELECT k.source || '|' || k.event_id FROM letter_keys AS k WHERE EXISTS (SELECT 1 FROM {TABLE} "
            "AS old WHERE old.source = k.source AND old.event_id = k.event_id)",
        )
    finally:
        con.unregister("letter_keys")


def _resolve(con: Connection, now: datetime, keys: str) -> None:
    """Close the letters of events that are there now."""
    waiting = con.execute(
        "SELECT 1 FROM ops.dead_letters WHERE table_name = $1 AND replayed_at IS NULL LIMIT 1", [TABLE]
    ).fetchone()
    if waiting:
        con.execute(
            "UPDATE ops.dead_letters SET replayed_at = $1 WHERE table_name = $2 AND replayed_at IS NULL "
            f"AND record_key IN ({keys})",
            [now, TABLE],
        )


def _count_dropped(con: Connection, dropped: Counter[str], now: datetime, timezone: str) -> None:
    for what, number in sorted(dropped.items()):
        event, _, reason = what.partition(": ")
        day = f"CAST(CAST($1 AS TIMESTAMPTZ) AT TIME ZONE '{timezone}' AS DATE)"
        where = f"day = {day} AND event = $2 AND reason = $3"
        if con.execute(f"SELECT 1 FROM ops.usage_dropped WHERE {where}", [now, event, reason]).fetchone():
            con.execute(
                f"UPDATE ops.usage_dropped SET dropped = dropped + $4 WHERE {where}",
                [now, event, reason, number],
            )
        else:
            con.execute(
                f"INSERT INTO ops.usage_dropped SELECT {day}, $2, $3, $4", [now, event, reason, number]
            )


def _count_load(con: Connection, result: LoadedEvents, now: datetime, run_id: str) -> None:
    """One row per run, also where it loads every few seconds."""
    mine = [run_id, VENDOR, STREAM]
    where = "run_id = $1 AND vendor = $2 AND stream = $3"
    counts = [result.read, result.inserted, result.letters, now]
    if con.execute(f"SELECT 1 FROM ops.loads WHERE {where}", mine).fetchone():
        con.execute(
            "UPDATE ops.loads SET rows_read = rows_read + $4, inserted = inserted + $5, "
            f"rejected = rejected + $6, source_rows = source_rows + $4, loaded_at = $7 WHERE {where}",
            [*mine, *counts],
        )
    else:
        con.execute(
            "INSERT INTO ops.loads VALUES ($1, $2, $3, $4, $5, $6, 0, 0, $7, $5, $8)",
            [*mine, TABLE, *counts],
        )
