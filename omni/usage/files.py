"""Events from files: NDJSON as they are sent, Parquet and CSV with a column per field.

A table's columns `id`, `source`, `type` and, where it has them, `time`, `actor`, `account` and `session` are
the event's own; a column `data` holds the properties as a JSON object, every other column is a property.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from omni.errors import SourceError
from omni.tenancy import Tenant
from omni.usage.collect import Collector, Delivery, Malformed
from omni.usage.spool import Spool

CHUNK = 10_000
"""Events that are read and kept at a time."""
OWN = ("id", "source", "type", "time", "actor", "subject", "account", "session", "specversion")
TEXTS = ("id", "source", "type", "actor", "subject", "account", "session")


@dataclass
class Taken:
    """What became of a file's events; `reasons` counts the refused by reason."""

    accepted: int = 0
    refused: int = 0
    dropped: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, delivery: Delivery) -> None:
        """Count a chunk."""
        self.accepted += delivery.accepted
        self.refused += len(delivery.refused)
        self.dropped += sum(delivery.batch.dropped.values())
        self.reasons.update(one.reason for one in delivery.refused)


def spool_file(tenant: Tenant, path: Path, spool: Spool) -> Taken:
    """Check a file's events and put them into the spool. History may be of any age.

    Args:
        tenant: whose.
        path: `.ndjson`, `.jsonl`, `.json`, `.parquet` or `.csv`.
        spool: where to; seal it afterwards.

    Raises:
        SourceError: the file is missing, unreadable, of another kind or lacks a column.
        StorageError: the spool cannot be written.
    """
    read = _readers(path)
    collector = Collector(tenant, oldest_days=None, lax=path.suffix.lower() == ".csv")
    taken = Taken()
    try:
        for delivery in read(path, collector):
            spool.append(delivery.batch)
            taken.add(delivery)
    except (Malformed, pl.exceptions.PolarsError, OSError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise SourceError(
            f"{path}: {said}. Kept so far: {taken.accepted} events; loading the file again repeats none"
        ) from None
    return taken


Read = Callable[[Path, Collector], Iterator[Delivery]]


def _readers(path: Path) -> Read:
    if not path.is_file():
        raise SourceError(f"{path} is no file")
    kinds: dict[str, Read] = {
        ".ndjson": _lines, ".jsonl": _lines, ".json": _json, ".parquet": _table, ".csv": _table,
    }  # fmt: skip
    if path.suffix.lower() not in kinds:
        raise SourceError(f"{path}: events come as {', '.join(kinds)}")
    return kinds[path.suffix.lower()]


def _lines(path: Path, collector: Collector) -> Iterator[Delivery]:
    with path.open("rb") as file:
        while chunk := list(islice(file, CHUNK)):
            if body := b"".join(chunk).strip():
                yield collector.read(body, lines=True)


def _json(path: Path, collector: Collector) -> Iterator[Delivery]:
    yield collector.read(path.read_bytes())


def _table(path: Path, collector: Collector) -> Iterator[Delivery]:
    csv = path.suffix.lower() == ".csv"
    rows = pl.scan_csv(path, infer_schema=False) if csv else pl.scan_parquet(path)
    columns = rows.collect_schema()
    if missing := [name for name in ("id", "source", "type") if name not in columns]:
        raise SourceError(f"{path}: has no column {', '.join(missing)}; it has {', '.join(columns)}")
    texts = [pl.col(name).cast(pl.String) for name in TEXTS if name in columns]
    if columns.get("time") == pl.Datetime and getattr(columns["time"], "time_zone", None) is None:
        texts.append(pl.col("time").dt.replace_time_zone("UTC"))
    for frame in rows.with_columns(texts).collect_batches(chunk_size=CHUNK, maintain_order=True):
        for part in frame.iter_slices(CHUNK):
            yield collector.read_records([_record(row) for row in part.iter_rows(named=True)])


def _record(row: dict[str, Any]) -> dict[str, Any]:
    record = {name: row[name] for name in OWN if row.get(name) is not None}
    data = row.get("data")
    if isinstance(data, str):
        try:
            data = msgspec.json.decode(data)
        except (msgspec.DecodeError, RecursionError):
            data = "no JSON"  # no object: the event is refused as such
    properties = {name: value for name, value in row.items() if name not in (*OWN, "data")}
    if isinstance(data, dict):  # a column without a value leaves what the object says
        properties = {name: value for name, value in properties.items() if value is not None}
    record["data"] = {**data, **properties} if isinstance(data, dict) else data or properties
    return record
