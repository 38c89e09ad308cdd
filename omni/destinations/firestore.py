"""Published tables as Firestore collections, a version at a time.

The rows of a version lie in `omni_tables/<table>/versions/<version>/rows`; the document
`omni_tables/<table>` says in `current` which version to read. It moves when all rows are there, so readers
see the old rows or the new ones; older versions are then deleted, except the one before, which a reader may
be in. Repeating a publication changes nothing. Decimals and dates become text, for Firestore has neither.

Needs the extra `firestore`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import polars as pl

from omni.errors import ConfigError, CountMismatch
from omni.sources.firestore import Database, counted, errors, listed, tried

ROOT = "omni_tables"
BATCH = 500
"""Writes of one commit, as Firestore allows at most."""


def publish(
    database: Database,
    table: str,
    batches: Iterable[pl.DataFrame],
    key: list[str],
    *,
    version: str,
    owner: str,
) -> int | None:
    """Make a version of a table the current one.

    Args:
        database: as `omni.sources.firestore.opened` gives it.
        table: the table's name.
        batches: its rows.
        key: columns that identify a row; they become the document's id.
        version: of the table's content; if it is the current one, nothing is done.
        owner: whose table it is; another's is not replaced.

    Returns:
        Rows written, or None if that version was current.

    Raises:
        ConfigError: the table there is another's, a row has no key, or a name cannot be an id.
        CountMismatch: rows share a key.
        AuthError, SourceError, TransientError: as the server answers.
    """
    where = f"Firestore {table}"
    pointer: Any = database.library.collection(ROOT).document(document_id([table], table))
    with errors(where):
        noted = _noted(database, pointer) or {}
        if noted and noted.get("owner") != owner:
            raise ConfigError(
                f"{where}: it is the copy of tenant {noted.get('owner')!r}. Give each tenant a database of "
                "its own, by a block of the tenant's name."
            )
        if noted.get("current") == version:
            return None
        target = pointer.collection("versions").document(document_id([version], table))
        _remove(database, target)
        written = 0
        for frame in batches:
            for some in frame.iter_slices(BATCH):
                batch = database.library.batch()
                for row in some.to_dicts():
                    identity = document_id([row[name] for name in key], table)
                    batch.set(target.collection("rows").document(identity), fields(row))
                _commit(database, batch)
                written += some.height
        there = counted(database, target.collection("rows"))
        if there != written:
            raise CountMismatch(
                f"{where}: wrote {written} rows, but {there} are there: rows share the key {', '.join(key)}. "
                "The old version is still current."
            )
        before = noted.get("current")
        batch = database.library.batch()
        batch.set(target, {"rows": written, "at": datetime.now(UTC)})
        batch.set(pointer, {"owner": owner, "current": version, "before": before, "rows": written})
        _commit(database, batch)
        kept = {document_id([name], table) for name in (version, before) if name}
        versions = pointer.collection("versions")
        for old in tried(lambda: list(versions.list_documents(retry=None, timeout=database.timeout))):
            if old.id not in kept:
                _remove(database, old)
    return written


def current(database: Database, table: str) -> Any:
    """The collection that holds a table's current rows; None before its first publication."""
    pointer: Any = database.library.collection(ROOT).document(document_id([table], table))
    with errors(f"Firestore {table}"):
        noted = _noted(database, pointer)
    if not noted:
        return None
    return pointer.collection("versions").document(document_id([noted["current"]], table)).collection("rows")


def _remove(database: Database, version: Any) -> None:
    """Delete a version's rows, then its own document."""
    rows = version.collection("rows")
    while some := listed(database, rows.select([]).limit(BATCH)):
        batch = database.library.batch()
        for row in some:
            batch.delete(row.reference)
        _commit(database, batch)
    tried(lambda: version.delete(retry=None, timeout=database.timeout))


def _noted(database: Database, pointer: Any) -> dict[str, Any] | None:
    found: dict[str, Any] | None = tried(lambda: pointer.get(retry=None, timeout=database.timeout)).to_dict()
    return found


def _commit(database: Database, batch: Any) -> None:
    """All of a batch or nothing; setting and deleting twice does what doing it once does."""
    tried(lambda: batch.commit(retry=None, timeout=database.timeout))


def document_id(parts: list[Any], table: str) -> str:
    """A document's id from a key's values: any text can be one.

    Raises:
        ConfigError: a value is missing, or the id is longer than Firestore allows.
    """
    if any(part is None for part in parts):
        raise ConfigError(f"{table}: a row has no value in its key.")
    made = "|".join(quote(str(part), safe=" ") for part in parts)
    if made in ("", ".", "..") or (made.startswith("__") and made.endswith("__")):
        made = f"%{made.replace('.', '%2E')}"
    if len(made) > 1500:
        raise ConfigError(f"{table}: a key is longer than the 1,500 bytes of a Firestore id.")
    return made


def fields(row: dict[str, Any]) -> dict[str, Any]:
    """A row as a document."""
    return {name: _value(value) for name, value in row.items()}


def _value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (Decimal, timedelta)):
        return str(value)
    if isinstance(value, dict):
        return {name: _value(inner) for name, inner in value.items()}
    if isinstance(value, list):
        # A list directly within a list is no Firestore value.
        inner = [_value(one) for one in value]
        return [{"values": one} if isinstance(one, list) else one for one in inner]
    return value
