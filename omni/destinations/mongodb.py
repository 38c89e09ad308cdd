"""Published tables as MongoDB collections.

A table is written beside its collection and takes its place in one step, so readers see the old rows or the
new ones, and rows that are gone are gone. Repeating a publication changes nothing. Moments keep milliseconds,
dates become midnight UTC, decimals stay exact (Decimal128).

Needs the extra `mongodb`. Cannot replace a sharded collection, which MongoDB cannot rename.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import polars as pl

from omni.errors import ConfigError, CountMismatch
from omni.sources.mongodb import errors

if TYPE_CHECKING:
    from pymongo.database import Database

BATCH = 1_000
VERSIONS = "omni_published"
"""Collection that says which version of each table is there."""


def publish(
    database: Database[dict[str, Any]],
    table: str,
    batches: Iterable[pl.DataFrame],
    key: list[str],
    *,
    version: str,
    owner: str,
) -> int | None:
    """Make a collection hold exactly a table's rows.

    Args:
        database: as `omni.sources.mongodb.opened` gives it.
        table: the collection's name.
        batches: the table's rows.
        key: columns that identify a row; they become `_id`, several as an object.
        version: of the table's content; what is there already is left alone.
        owner: whose table it is. A collection that holds something else is never replaced.

    Returns:
        Rows written, or None if that version was there.

    Raises:
        ConfigError: the collection is somebody else's, a row has no key, or a column's name cannot be a
            field.
        CountMismatch: rows share a key, or another process published at the same time.
        AuthError, SourceError, TransientError: as the server answers.
    """
    from pymongo import ReplaceOne

    where, staging = f"MongoDB {table}", f"{table}__omni_staging"
    with errors(where):
        names = database.list_collection_names()
        noted = database[VERSIONS].find_one({"_id": table})
        _refuse_others(database, table, owner, noted, there=table in names)
        if noted and noted.get("version") == version and table in names:
            return None
        if not noted:
            # Said before the collection is there, so that what is found after a crash is known as ours.
            database[VERSIONS].insert_one({"_id": table, "owner": owner})
        database.drop_collection(staging)
        database.create_collection(staging)
        _copy_indexes(database, table, staging, names)
        written = 0
        for frame in batches:
            for some in frame.iter_slices(BATCH):
                documents = [document(row, key, table) for row in some.to_dicts()]
                database[staging].bulk_write(
                    [ReplaceOne({"_id": d["_id"]}, d, upsert=True) for d in documents], ordered=False
                )
                written += len(documents)
        there = database[staging].count_documents({})
        if there != written:
            raise CountMismatch(
                f"{where}: wrote {written} rows, but {there} are there: rows share the key "
                f"{', '.join(key)}, or another process publishes the table too. The old rows are still "
                "there."
            )
        database[staging].rename(table, dropTarget=True)
        database[VERSIONS].replace_one(
            {"_id": table},
            {"_id": table, "owner": owner, "version": version, "rows": written, "at": datetime.now(UTC)},
            upsert=True,
        )
    return written


def _refuse_others(
    database: Database[dict[str, Any]],
    table: str,
    owner: str,
    noted: dict[str, Any] | None,
    *,
    there: bool,
) -> None:
    if noted and noted.get("owner") != owner:
        raise ConfigError(
            f"MongoDB {table}: the collection holds the copy of tenant {noted.get('owner')!r}. Give each "
            "tenant a database of its own, by a block of the tenant's name."
        )
    if there and not noted and database[table].find_one({}) is not None:
        raise ConfigError(
            f"MongoDB {table}: the collection holds documents that Omni did not copy there, and would lose "
            "them. Name another collection, or empty this one yourself."
        )


def _copy_indexes(database: Database[dict[str, Any]], table: str, staging: str, names: list[str]) -> None:
    """The new collection keeps what someone made the old one fast with."""
    from pymongo import IndexModel

    if table not in names:
        return
    models = []
    for index in database[table].list_indexes():
        options = {k: v for k, v in index.items() if k not in ("v", "key", "ns", "_id")}
        if index["name"] != "_id_":
            models.append(IndexModel(list(index["key"].items()), **options))
    if models:
        database[staging].create_indexes(models)


def document(row: dict[str, Any], key: list[str], table: str) -> dict[str, Any]:
    """A row as a document.

    Raises:
        ConfigError: it has no key, or a column's name cannot be a field.
    """
    if bad := [name for name in row if name.startswith("$") or "." in name or name == "_id"]:
        raise ConfigError(f"{table}: column {bad[0]!r} cannot be a field of a document; rename it.")
    values = {name: bson_value(value) for name, value in row.items()}
    if any(values[name] is None for name in key):
        raise ConfigError(f"{table}: a row has no value in its key {', '.join(key)}.")
    identity = values[key[0]] if len(key) == 1 else {name: values[name] for name in key}
    return {"_id": identity, **values}


def bson_value(value: Any) -> Any:
    """A table's value as BSON has it."""
    from bson.decimal128 import Decimal128

    if isinstance(value, Decimal):
        return Decimal128(value)
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime.combine(value, time.min, UTC)
    if isinstance(value, (time, timedelta)):
        return str(value)
    if isinstance(value, dict):
        return {name: bson_value(inner) for name, inner in value.items()}
    return [bson_value(inner) for inner in value] if isinstance(value, list) else value
