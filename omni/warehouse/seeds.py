"""Seeds: small tables kept with the project, as a CSV file and a YAML file that says what it holds.

    # data/seeds/countries.yml
    description: Countries we ship to.
    owner: shop@demo.example
    grain: [code]
    columns:
      code: {type: string, nullable: false}
      since: {type: date}
    checks:
      - unique: [code]

`data/seeds/countries.csv` then becomes `seeds.countries`. The first line names the columns, in any order. An
empty field is null. Each value is typed here, so that a wrong one is found with its line and column.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from omni import yamlfile
from omni.errors import ConfigError
from omni.warehouse.checks import Check
from omni.warehouse.contracts import Column
from omni.yamlfile import Declaration

_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
MAX_ROWS = 20_000
"""A seed is written by people; more rows than this belong to a source."""


class Seed(Declaration):
    """What a seed's YAML file declares."""

    description: str
    owner: str
    grain: list[str] = Field(min_length=1)
    columns: dict[str, Column] = Field(min_length=1)
    checks: list[Check] = []

    @model_validator(mode="after")
    def _columns_exist(self) -> Self:
        for name in self.grain:
            if name not in self.columns:
                raise ValueError(f"grain names column {name!r}, which is not among the columns")
        for name, column in self.columns.items():
            if column.personal or column.path:
                raise ValueError(f"column {name!r}: a seed holds no personal data and has no source paths")
        return self


def read_seed(path: Path) -> tuple[Seed, str]:
    """Read a seed's declaration and its rows.

    Args:
        path: the YAML file; the CSV file lies beside it.

    Returns:
        The declaration and a SELECT of the rows, in the order of the file, with their types.

    Raises:
        ConfigError: a file is missing or wrong; a value is not of its column's type (file, line, column).
    """
    seed = yamlfile.load(path, Seed)
    file = path.with_suffix(".csv")
    if not file.exists():
        raise ConfigError(f"{path}: its rows are missing: write {file.name} beside it")
    rows = list(_rows(file, seed))
    casts = ", ".join(
        f'CAST("{name}" AS {column.duckdb_type}) AS "{name}"' for name, column in seed.columns.items()
    )
    names = ", ".join(f'"{name}"' for name in seed.columns)
    if not rows:
        empty = ", ".join("CAST(NULL AS VARCHAR)" for _ in seed.columns)
        return seed, f"SELECT {casts} FROM (VALUES ({empty})) AS seed({names}) WHERE false"
    first, *others = rows
    typed = "(" + ", ".join(f"CAST({value} AS VARCHAR)" for value in first) + ")"
    values = ",\n".join([typed, *("(" + ", ".join(row) + ")" for row in others)])
    return seed, f"SELECT {casts} FROM (VALUES {values}) AS seed({names})"


def _rows(file: Path, seed: Seed) -> Iterator[tuple[str, ...]]:
    """Each row as SQL literals, in the order of the declared columns."""
    with io.StringIO(_utf8(file), newline="") as opened:
        reader = csv.reader(opened, strict=True)
        header = next(reader, None)
        if header is None or sorted(header) != sorted(seed.columns):
            raise ConfigError(
                f"{file}, line 1: the columns are {', '.join(header or ['none'])}; "
                f"{file.stem}.yml declares {', '.join(seed.columns)}"
            )
        places = [(header.index(name), name, column) for name, column in seed.columns.items()]
        try:
            for count, row in enumerate(reader, 1):
                if count > MAX_ROWS:
                    raise ConfigError(f"{file}: more than {MAX_ROWS} rows; load them from a source instead")
                if len(row) != len(header):
                    raise ConfigError(
                        f"{file}, line {reader.line_num}: {len(row)} fields; the header has {len(header)}"
                    )
                where = f"{file}, line {reader.line_num}"
                yield tuple(
                    _literal(row[at], column, f"{where}, column {name}") for at, name, column in places
                )
        except csv.Error as error:
            raise ConfigError(f"{file}, line {reader.line_num}: not valid CSV: {error}") from None


def _utf8(file: Path) -> str:
    data = file.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = data.count(b",", data.rfind(b"\n", 0, error.start) + 1, error.start) + 1
        raise ConfigError(f"{file}, line {line}, field {column}: not UTF-8; save the file as UTF-8") from None


def _literal(text: str, column: Column, where: str) -> str:
    if text == "":
        if not column.nullable:
            raise ConfigError(f"{where}: is empty, but the column is not nullable")
        return "NULL"
    try:
        _PARSERS.get(column.type, str)(text)
    except ValueError:
        raise ConfigError(f"{where}: {text!r} is not of type {column.type}") from None
    if "\0" in text:
        raise ConfigError(f"{where}: holds a zero byte")
    if column.type == "decimal" and not _fits(text, column.decimals):
        raise ConfigError(f"{where}: {text!r} has more than {column.decimals} decimals or is too large")
    if column.accepted and text not in column.accepted:
        raise ConfigError(f"{where}: {text!r} is not among {', '.join(column.accepted)}")
    return "'" + text.replace("'", "''") + "'"


def _fits(text: str, decimals: int) -> bool:
    whole, _, fraction = text.partition(".")
    return len(whole.lstrip("+-0")) <= 18 - decimals and len(fraction.rstrip("0")) <= decimals


def _integer(text: str) -> None:
    if not re.fullmatch(r"[+-]?[0-9]{1,19}", text) or not -(2**63) <= int(text) < 2**63:
        raise ValueError


def _decimal(text: str) -> None:
    if not re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", text):
        raise ValueError


def _float(text: str) -> None:
    if not re.fullmatch(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        raise ValueError
    if not math.isfinite(float(text)):
        raise ValueError


def _boolean(text: str) -> None:
    if text not in ("true", "false"):
        raise ValueError


def _date(text: str) -> None:
    if not re.fullmatch(_DAY, text):
        raise ValueError
    date.fromisoformat(text)


def _timestamp(text: str) -> None:
    if not re.fullmatch(_DAY + r"[T ][0-9:]{8}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}(:[0-9]{2})?)", text):
        raise ValueError
    datetime.fromisoformat(text)


def _json(text: str) -> None:
    json.loads(text, parse_constant=_no_number)


def _no_number(text: str) -> None:
    raise ValueError(text)


_PARSERS: dict[str, Callable[[str], Any]] = {
    "integer": _integer,
    "float": _float,
    "decimal": _decimal,
    "boolean": _boolean,
    "date": _date,
    "timestamp": _timestamp,
    "json": _json,
}
