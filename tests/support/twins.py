"""Dirty rows for raw tables, and rows of two databases made comparable."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb

from omni.warehouse.contracts import contracts

Row = tuple[Any, ...]

WORDS = (
    "Öl",
    " straße ",
    "",
    "ABC",
    "abc",
    "Zoë",
    "C536379",
    "won",
    "closedwon",
    "DE",
    "de",
    "EUR",
    "usd",
    "x,y",
)
MEANT = {
    "currency": ("EUR", "usd", "GBP"),
    "interval": ("month", "year", "week"),
    "status": ("active", "canceled", "paid", "open"),
}
NUMBERS = (0, 1, 1, 2, 3, 7, -4, 100, 40_003)
FIRST = datetime(2025, 3, 28, 22, 30, tzinfo=UTC)
"""Two days before clocks change."""


def invented(table: str, rows: int = 60) -> Iterator[dict[str, Any]]:
    """Dirty rows of a contract: nulls, odd letters, negative numbers, moments around the change of clocks.

    Keys and what refers to them are small numbers, so that rows find each other.
    """
    contract, chance, keys = contracts()[table], random.Random(table), set()
    accepted = {c.accepted.column: c.accepted.values for c in contract.checks if c.accepted}
    for number in range(rows):
        row: dict[str, Any] = {}
        for name, column in contract.columns.items():
            moment = FIRST + timedelta(
                minutes=7 * chance.randrange(600),
                days=chance.choice((0, 0, -31, -62)) + 40 * name.endswith("_end"),
            )
            refers = name in contract.key or name.endswith(("_id", "_ref", "external_id"))
            value: Any = {
                "string": str(chance.randrange(1, rows)) if refers else chance.choice(MEANT.get(name, WORDS)),
                "integer": chance.randrange(1, rows) if refers else chance.choice(NUMBERS),
                "float": chance.choice(NUMBERS) / 3,
                "decimal": Decimal(chance.randrange(-500_00, 5000_00)) / 100,
                "boolean": chance.random() < 0.4,
                "date": moment.date(),
                "timestamp": moment.isoformat(),
                "json": json.dumps({"plan": chance.choice(WORDS), "n": number, "a": {"b": None}}),
            }[column.type]
            value = chance.choice(accepted[name]) if name in accepted else value
            empty = column.nullable and name not in contract.key and chance.random() < 0.15
            row[name] = None if empty else value
        key = tuple(row[name] for name in contract.key)
        if key not in keys:
            keys.add(key)
            yield row


def invent(con: duckdb.DuckDBPyConnection, tables: list[str]) -> None:
    """Fill those of the tables that are empty."""
    for table in tables:
        if con.execute(f"SELECT count(*) FROM {table}").fetchone()[0] == 0:
            kinds = contracts()[table].column_types()
            for row in invented(table):
                values = ", ".join(f"CAST(? AS {kinds[name]})" for name in row)
                names = ", ".join(f'"{name}"' for name in row)
                con.execute(f"INSERT INTO {table} ({names}) VALUES ({values})", list(row.values()))


def columns_of(con: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    return {row[0]: row[1] for row in con.execute(f"DESCRIBE {table}").fetchall()}


def normal(value: Any) -> Any:
    """A value as both drivers would give it."""
    match value:
        case bool() | None | str():
            return value
        case Decimal() | int():
            return Decimal(value).normalize()
        case float():
            return float(f"{value:.9e}")
        case datetime():
            return value.timestamp() if value.tzinfo else value
        case dict() | list():
            return json.dumps(value, sort_keys=True)
        case date() | timedelta():
            return value
    raise AssertionError(f"no rule to compare a {type(value).__name__}")


def rows_of(result: list[Row], kinds: list[str]) -> list[Row]:
    def value(given: Any, kind: str) -> Any:
        if kind == "JSON" and isinstance(given, str):
            given = json.loads(given)
        return normal(float(given) if kind == "DOUBLE" and given is not None else given)

    rows = [tuple(value(v, kind) for v, kind in zip(row, kinds, strict=True)) for row in result]
    return sorted(rows, key=repr)
