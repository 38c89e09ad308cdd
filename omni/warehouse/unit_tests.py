"""Unit tests of models: given rows in, stated rows out, in a database of their own.

A case is `<schema>.<model>/<case>.yml`:

    parameters: {timezone: America/New_York, currency: USD}   # Europe/Berlin and EUR when left out
    inputs:
      staging.shopify__orders:
        - {order_id: "1", total_amount: 100.00, ordered_at: "2026-01-31 23:30:00+00"}
    outputs:
      - {order_id: "1", order_date: 2026-02-01, revenue: 100.00}

Columns a case leaves out are null in inputs and not compared in outputs; tables it leaves out are empty.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from omni import yamlfile
from omni.errors import ConfigError, OmniError
from omni.tenancy import Tenant
from omni.warehouse.catalog import columns
from omni.warehouse.connection import Connection, schema_errors
from omni.warehouse.contracts import Contract
from omni.warehouse.models import Model, in_order
from omni.yamlfile import Declaration

SCHEMAS = ("raw", "seeds", "staging", "core", "marts", "metrics", "ml", "experiments", "anomaly", "rag")
ACTUAL, EXPECTED = "actual", "expected"
_WHOLE = {"TINYINT": 3, "SMALLINT": 5, "INTEGER": 10, "BIGINT": 19, "HUGEINT": 39}
"""Types of whole numbers, each with its most digits."""
SHOWN = 10
"""Differences of one case that are spelt out."""

Rows = list[dict[str, Any]]
Types = Mapping[str, Mapping[str, str]]


class Parameters(Declaration):
    """The tenant's values a case may set."""

    timezone: str = "Europe/Berlin"
    currency: str = Field("EUR", pattern="^[A-Z]{3}$")

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"unknown time zone {value!r}, for example Europe/Berlin") from None
        return value


class Stated(Declaration):
    """What a case's file holds."""

    description: str = ""
    inputs: dict[str, Rows]
    outputs: Rows
    parameters: Parameters = Field(default_factory=Parameters)


@dataclass(frozen=True)
class Case:
    """One case of one model."""

    model: str
    path: Path
    stated: Stated

    @property
    def name(self) -> str:
        """Model and case."""
        return f"{self.model}/{self.path.stem}"

    @property
    def tenant(self) -> Tenant:
        """A company with the case's time zone and currency."""
        given = self.stated.parameters
        return sample_tenant(given.timezone, given.currency)


@dataclass(frozen=True)
class Result:
    """What came of a case: `problems` is empty if it passed."""

    case: str
    file: str
    problems: tuple[str, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether the model made just the stated rows."""
        return not self.problems


def sample_tenant(timezone: str = "Europe/Berlin", currency: str = "EUR") -> Tenant:
    """A company that exists in tests only."""
    return Tenant(tenant="acme", title="Acme", timezone=timezone, currency=currency, sources={})


def load_cases(folder: Path, models: Iterable[str] | None = None) -> list[Case]:
    """Read the cases under a folder.

    Args:
        folder: holds a folder per model.
        models: names of those whose cases are wanted; all by default.

    Raises:
        ConfigError: a file is no case.
    """
    wanted = None if models is None else set(models)
    return [
        Case(path.parent.name, path, yamlfile.load(path, Stated))
        for path in sorted(folder.glob("*/*.yml"))
        if wanted is None or path.parent.name in wanted
    ]


def create_schemas(con: Connection) -> None:
    """Make the schemas that tables of models live in."""
    for schema in SCHEMAS:
        con.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")


def build_empty(
    con: Connection, models: Mapping[str, Model], contracts: Mapping[str, Contract], tenant: Tenant
) -> None:
    """Make every contracted table, empty, and every model on them; the schemas must be there.

    Raises:
        ConfigError: a model reads a table nobody declares.
        SchemaError: a SELECT names what its parents lack.
    """
    for contract in contracts.values():
        if contract.schema_name in SCHEMAS:
            con.execute(contract.ddl())
    for model in in_order(models, contracts):
        kind = "VIEW" if model.header.kind == "view" else "TABLE"
        with schema_errors(model.origin):
            con.execute(f"CREATE {kind} {model.name} AS {model.stored(tenant)}")


def table_types(
    con: Connection, models: Mapping[str, Model], contracts: Mapping[str, Contract]
) -> dict[str, dict[str, str]]:
    """Columns and types of every table that `build_empty` made."""
    tables = [*models, *(t for t, c in contracts.items() if c.schema_name in SCHEMAS)]
    return {table: columns(con, table) for table in tables}


def fill(con: Connection, table: str, types: Mapping[str, str], rows: Rows, *, where: str = "") -> None:
    """Replace a table by one that holds given rows.

    Args:
        con: an open connection.
        table: its name; a view of that name is replaced too.
        types: its columns and their types.
        rows: by column; those left out are null.
        where: the case, for messages.

    Raises:
        ConfigError: a row names no column or one the table does not have, or holds a value that does not
            fit its column as it stands.
    """
    for number, row in enumerate(rows, 1):
        place = f"{where}: {'outputs' if table == EXPECTED else table}, row {number}"
        if not row:
            raise ConfigError(f"{place}: names no column; write one at least, null if need be")
        _refuse_unknown(row, table, types, where)
        for column, value in row.items():
            if value is not None and not _fits(value, types[column]):
                raise ConfigError(
                    f"{place}: {column} is {value!r}, which no {types[column]} holds as it stands"
                )
    drop(con, table)
    listed = ", ".join(f'"{column}" {kind}' for column, kind in types.items())
    con.execute(f"CREATE TABLE {table} ({listed})")
    if not rows:
        return
    named = [column for column in types if any(column in row for row in rows)]
    given: list[str | None] = []
    tuples = []
    for row in rows:
        places = []
        for column in named:
            given.append(_text(row.get(column)))
            places.append(f"CAST(${len(given)} AS {types[column]})")
        tuples.append(f"({', '.join(places)})")
    quoted = ", ".join(f'"{column}"' for column in named)
    with schema_errors(where or table):
        con.execute(f"INSERT INTO {table} ({quoted}) VALUES {', '.join(tuples)}", given)


def _refuse_unknown(row: Mapping[str, Any], table: str, types: Mapping[str, str], where: str) -> None:
    if unknown := sorted(set(row) - set(types)):
        raise ConfigError(f"{where}: {table} has no column {', '.join(unknown)}; it has {', '.join(types)}")


def _fits(value: object, kind: str) -> bool:
    """Whether a column holds a stated value exactly; a database would round it, or cut it off."""
    if isinstance(value, bool):
        return kind in ("BOOLEAN", "JSON")  # YAML reads an unquoted `no` so
    if found := re.fullmatch(r"DECIMAL\((\d+), ?(\d+)\)", kind):
        return _is_number(value, int(found[2]), int(found[1]) - int(found[2]))
    if kind in _WHOLE:
        return _is_number(value, 0, _WHOLE[kind])
    if kind == "DATE":
        return _is_day(value)
    return not isinstance(value, dict | list) or kind not in ("DOUBLE", "TIMESTAMPTZ", "TIMESTAMP", "BOOLEAN")


def _is_number(value: object, decimals: int, digits: int) -> bool:
    finite = isinstance(value, float) and math.isfinite(value)
    text = format(Decimal(repr(value)), "f") if finite else str(value)
    found = re.fullmatch(r"[+-]?([0-9]*)(?:\.([0-9]*))?", text)
    if found is None or not (found[1] or found[2]):
        return False
    return len(found[1].lstrip("0")) <= digits and len((found[2] or "").rstrip("0")) <= decimals


def _is_day(value: object) -> bool:
    try:
        return type(value) is date or (isinstance(value, str) and bool(date.fromisoformat(value)))
    except ValueError:
        return False


def _text(value: object) -> str | None:
    if value is None:
        return None
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def drop(con: Connection, table: str) -> None:
    """Remove a table or view, if there is one."""
    schema, _, name = table.rpartition(".")
    found = con.execute(
        "SELECT table_type FROM information_schema.tables WHERE table_name = $1 "
        "AND ($2 = '' OR table_schema = $2)",
        [name, schema],
    ).fetchone()
    if found:
        con.execute(f"DROP {'VIEW' if 'VIEW' in found[0] else 'TABLE'} {table} CASCADE")


def run_model(
    con: Connection, model: Model, tenant: Tenant, types: Types, inputs: Mapping[str, Rows], where: str = ""
) -> None:
    """Make the model's parents from given rows, and its own rows as table `actual`.

    Raises:
        ConfigError: an input is not read by the model, or names an unknown column.
    """
    if strange := sorted(set(inputs) - set(model.parents)):
        raise ConfigError(
            f"{where or model.origin}: {model.name} does not read {', '.join(strange)}; "
            f"it reads {', '.join(model.parents)}"
        )
    for parent in model.parents:
        if parent not in types:
            raise ConfigError(f"{model.origin}: reads {parent}, which no model and no contract declares")
        fill(con, parent, types[parent], inputs.get(parent, []), where=where)
    make_actual(con, model, tenant)


def make_actual(con: Connection, model: Model, tenant: Tenant) -> None:
    """Put the rows a model makes of the tables as they are into table `actual`."""
    drop(con, ACTUAL)
    with schema_errors(model.origin):
        con.execute(f"CREATE TABLE {ACTUAL} AS {model.bound(tenant)}")


def rows_of(con: Connection, table: str, names: Sequence[str] = ()) -> list[tuple[Any, ...]]:
    """A table's rows in an order of their own, the same for equal rows."""
    listed = ", ".join(f'"{name}"' for name in names) or "*"
    return sorted(con.execute(f"SELECT {listed} FROM {table}").fetchall(), key=repr)


def run_case(con: Connection, case: Case, models: Mapping[str, Model], types: Types) -> Result:
    """Run one case.

    Args:
        con: a database of the test's own, with the schemas.
        case: which.
        models: by name.
        types: columns and types of every table (`table_types`).
    """
    started = time.monotonic()
    try:
        problems = _differences(con, case, models, types)
    except OmniError as error:
        problems = [str(error)]
    return Result(case.name, str(case.path), tuple(problems), round(time.monotonic() - started, 4))


def _differences(con: Connection, case: Case, models: Mapping[str, Model], types: Types) -> list[str]:
    where = str(case.path)
    model = models.get(case.model)
    if model is None:
        raise ConfigError(f"{where}: there is no model {case.model}")
    run_model(con, model, case.tenant, types, case.stated.inputs, where)
    named = {tuple(row) for row in case.stated.outputs}
    if len(named) > 1:
        raise ConfigError(f"{where}: outputs: all rows name the same columns in the same order")
    for row in case.stated.outputs:
        _refuse_unknown(row, model.name, types[model.name], where)
    shown = list(named.pop()) if named else list(types[model.name])
    fill(con, EXPECTED, types[model.name], case.stated.outputs, where=where)
    actual, expected = rows_of(con, ACTUAL, shown), rows_of(con, EXPECTED, shown)
    problems = describe_differences(shown, model.header.grain, expected, actual)
    return problems + _repeated(con, model)


def _repeated(con: Connection, model: Model) -> list[str]:
    """Whether the model keeps to its grain."""
    grain = ", ".join(f'"{column}"' for column in model.header.grain)
    rows = con.execute(f"SELECT {grain} FROM {ACTUAL} GROUP BY {grain} HAVING count(*) > 1").fetchall()
    return [f"more than one row of ({', '.join(model.header.grain)}) = {_shown(row)}" for row in rows[:SHOWN]]


def describe_differences(
    names: Sequence[str],
    grain: Sequence[str],
    expected: Iterable[tuple[Any, ...]],
    actual: Iterable[tuple[Any, ...]],
) -> list[str]:
    """Say how two sets of rows differ; rows of one grain are compared value by value.

    Args:
        names: the columns compared.
        grain: columns that identify a row, if they are among them.
        expected: the stated rows.
        actual: the rows that were made.
    """
    wanted, made = Counter(expected), Counter(actual)
    missing, extra = list((wanted - made).elements()), list((made - wanted).elements())
    places = [names.index(column) for column in grain if column in names]
    found = []
    if len(places) == len(grain):
        by_key = {tuple(row[p] for p in places): row for row in extra}
        for row in list(missing):
            other = by_key.pop(tuple(row[p] for p in places), None)
            if other is not None:
                missing.remove(row)
                extra.remove(other)
                key = ", ".join(f"{names[p]}={_value(row[p])}" for p in places)
                cells = [
                    f"{name} is {_value(got)}, expected {_value(want)}"
                    for name, want, got in zip(names, row, other, strict=True)
                    if want != got
                ]
                found.append(f"{key}: {'; '.join(cells)}")
    found += [f"missing row: {_named(names, row)}" for row in missing]
    found += [f"unexpected row: {_named(names, row)}" for row in extra]
    more = len(found) - SHOWN
    return found[:SHOWN] + ([f"… and {more} more differences"] if more > 0 else [])


def _named(names: Sequence[str], row: tuple[Any, ...]) -> str:
    return ", ".join(f"{name}={_value(value)}" for name, value in zip(names, row, strict=True))


def _shown(row: tuple[Any, ...]) -> str:
    return "(" + ", ".join(map(_value, row)) + ")"


def _value(value: object) -> str:
    return "null" if value is None else str(value)
