"""Bringing a stored table to new rows by its key: only rows that differ are touched.

Two kinds of models end in it: `incremental_by_key`, whose table then equals its SELECT, and `snapshot`,
which keeps every version a row ever had.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime

from omni.errors import SchemaError
from omni.warehouse.catalog import columns, exists
from omni.warehouse.connection import Connection
from omni.warehouse.models import VALIDITY, Model


def merge_rows(con: Connection, model: Model, fresh: str) -> None:
    """Make the model's table equal `fresh`, of the same columns and unique by the grain.

    Rows that are gone or differ are deleted, those that are missing then inserted, in the caller's
    transaction.
    """
    table, names = model.name, _listed(columns(con, fresh))
    con.execute(
        f"DELETE FROM {table} AS kept WHERE EXISTS (SELECT 1 FROM (SELECT {names} FROM {table} "
        f"EXCEPT SELECT {names} FROM {fresh}) AS stale WHERE {_same_key(model, 'kept', 'stale')})"
    )
    con.execute(
        f"INSERT INTO {table} ({names}) SELECT {names} FROM {fresh} AS fresh WHERE NOT EXISTS "
        f"(SELECT 1 FROM {table} AS kept WHERE {_same_key(model, 'kept', 'fresh')})"
    )


def prepare_snapshot(con: Connection, model: Model, fresh: str) -> None:
    """Create the snapshot's table, or add the columns its SELECT has gained.

    Raises:
        SchemaError: the SELECT yields a column of another type than the table keeps, or one that is named
            like the snapshot's own.
    """
    wanted = columns(con, fresh)
    if own := sorted(set(wanted) & set(VALIDITY)):
        raise SchemaError(
            f"{model.origin}: a snapshot adds {', '.join(own)} itself; name the column otherwise"
        )
    if not exists(con, model.name):
        validity = ", ".join(f"CAST(NULL AS {kind}) AS {name}" for name, kind in VALIDITY.items())
        con.execute(f"CREATE TABLE {model.name} AS SELECT *, {validity} FROM {fresh} WHERE false")
        return
    kept = columns(con, model.name)
    for name, kind in wanted.items():
        if name not in kept:
            con.execute(f'ALTER TABLE {model.name} ADD COLUMN "{name}" {kind}')
        elif kept[name] != kind:
            raise SchemaError(
                f"{model.origin}: {name} is now {kind}, but {model.name} keeps it as {kept[name]}. "
                "Cast it in the SELECT, or alter the table's column"
            )


def snapshot_differs(con: Connection, model: Model, fresh: str) -> bool:
    """Whether the current versions differ from the new rows."""
    names = columns(con, fresh)
    if not exists(con, model.name) or not names.items() <= columns(con, model.name).items():
        return True
    missing, stale = _differences(model, fresh, names)
    row = con.execute(f"SELECT EXISTS ({missing}) OR EXISTS ({stale})").fetchone()
    return row is not None and bool(row[0])


def append_versions(con: Connection, model: Model, fresh: str) -> list[date] | None:
    """End the versions that `fresh` ends and add those it begins, in the caller's transaction.

    A version begins when `updated_column` says so, if that is after the version before it ended and not in
    the future; else now.

    Returns:
        The days touched, None without a time column.
    """
    table, now = model.name, datetime.now(UTC).isoformat()
    names = columns(con, fresh)
    missing, stale = _differences(model, fresh, names)
    updated = model.header.updated_column
    moment = f"CAST('{now}' AS TIMESTAMPTZ)"
    begins = f'least(CAST(fresh."{updated}" AS TIMESTAMPTZ), {moment})' if updated else moment
    keys = _listed(model.header.grain)
    ended = f"SELECT {keys}, max(coalesce(valid_to, valid_from)) AS ended FROM {table} GROUP BY {keys}"
    con.execute(f"DROP TABLE IF EXISTS {_aside(model, 'begun')}")
    con.execute(
        f"CREATE TABLE {_aside(model, 'begun')} AS SELECT {_listed(names, 'fresh')}, "
        f"CASE WHEN {begins} > before.ended OR (before.ended IS NULL AND {begins} IS NOT NULL) THEN {begins} "
        f"ELSE greatest({moment}, before.ended) END AS valid_from "
        f"FROM ({missing}) AS fresh LEFT JOIN ({ended}) AS before ON {_same_key(model, 'before', 'fresh')}"
    )
    con.execute(f"DROP TABLE IF EXISTS {_aside(model, 'ended')}")
    con.execute(f"CREATE TABLE {_aside(model, 'ended')} AS {stale}")
    days = _days(con, model)
    con.execute(
        f"UPDATE {table} AS kept SET is_current = false, valid_to = coalesce((SELECT begun.valid_from FROM "
        f"{_aside(model, 'begun')} AS begun WHERE {_same_key(model, 'begun', 'kept')}), "
        f"greatest({moment}, kept.valid_from)) WHERE kept.is_current AND EXISTS (SELECT 1 FROM "
        f"{_aside(model, 'ended')} AS ended WHERE {_same_key(model, 'ended', 'kept')})"
    )
    con.execute(
        f"INSERT INTO {table} ({_listed(names)}, valid_from, valid_to, is_current) SELECT {_listed(names)}, "
        f"valid_from, CAST(NULL AS TIMESTAMPTZ), true FROM {_aside(model, 'begun')}"
    )
    for name in ("begun", "ended"):
        con.execute(f"DROP TABLE {_aside(model, name)}")
    return days


def _days(con: Connection, model: Model) -> list[date] | None:
    column = model.header.time_column
    if column is None:
        return None
    both = " UNION ".join(f'SELECT "{column}" FROM {_aside(model, name)}' for name in ("begun", "ended"))
    rows = con.execute(both).fetchall()
    return None if any(day is None for (day,) in rows) else sorted(day for (day,) in rows)


def _differences(model: Model, fresh: str, names: Iterable[str]) -> tuple[str, str]:
    """Rows that have no current version, and current versions that are no rows any more."""
    new = f"SELECT {_listed(names)} FROM {fresh}"
    current = f"SELECT {_listed(names)} FROM {model.name} WHERE is_current"
    return f"{new} EXCEPT {current}", f"{current} EXCEPT {new}"


def _same_key(model: Model, left: str, right: str) -> str:
    return " AND ".join(f'{left}."{key}" IS NOT DISTINCT FROM {right}."{key}"' for key in model.header.grain)


def _listed(names: Iterable[str], relation: str | None = None) -> str:
    return ", ".join(f'{relation}."{name}"' if relation else f'"{name}"' for name in names)


def _aside(model: Model, what: str) -> str:
    schema, _, name = model.name.partition(".")
    return f'{schema}."__{what}_{name}"'
