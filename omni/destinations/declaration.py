"""Write-backs as declared: from which published table, to which object of which vendor, under which key."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from omni import yamlfile
from omni.errors import ConfigError
from omni.settings import settings
from omni.yamlfile import Declaration

if TYPE_CHECKING:
    from sqlglot import exp

Columns = Mapping[str, Collection[str]]
"""By table, names of columns."""
COLUMN = r"^[a-z_]\w*$"


class Key(Declaration):
    """What identifies a row: the column here, and the vendor's property that holds the same."""

    column: str = Field(pattern=COLUMN)
    property: str = Field(
        description="HubSpot: hs_object_id updates existing records only, a unique property makes new ones "
        "too; Salesforce: Id or an external id; hooks: any name"
    )


class Target(Declaration):
    """Where it goes. For hooks the object is the event that subscribers are told of."""

    vendor: Literal["hubspot", "salesforce", "hooks"]
    object: str


class Value(Declaration):
    """A column to write; `decimals` rounds it first, so that noise behind them is no change."""

    column: str = Field(pattern=COLUMN)
    decimals: int | None = Field(None, ge=0, le=10)


class Leaving(Declaration):
    """What a row that is no longer in the table gets at the destination."""

    clear: dict[str, str | int | float | bool | None] = Field(
        min_length=1, description="property to its value then; null empties it"
    )


class Limits(Declaration):
    """Guards against a mistake upstream; `--force` passes them once."""

    max_rows: int = Field(10_000, ge=1, description="rows one run may write")
    max_leaving: float = Field(
        0.5, gt=0, le=1, description="share of the written rows that may leave at once"
    )


class WriteBack(Declaration):
    """One write-back, one record per row of `table`."""

    name: str = Field(pattern=r"^[a-z]\w*$")
    title: str
    owner: str
    tenants: list[str] = Field([], description="whom it is for; all who have the vendor when empty")
    table: str = Field(pattern=r"^[a-z]\w*\.[a-z]\w*$", description="schema.name among the published tables")
    where: str | None = Field(None, description="SQL condition on its columns: the segment")
    to: Target
    key: Key
    columns: dict[str, Value] = Field(min_length=1, description="the vendor's property to our column")
    on_leave: Literal["nothing"] | Leaving = "nothing"
    limits: Limits = Limits()
    personal: dict[str, str] = Field(
        {}, description="readable personal columns to write, each with the reason"
    )

    @model_validator(mode="before")
    @classmethod
    def _short_columns(cls, given: object) -> object:
        if isinstance(given, dict) and isinstance(given.get("columns"), dict):
            columns = {
                name: {"column": value} if isinstance(value, str) else value
                for name, value in given["columns"].items()
            }
            return {**given, "columns": columns}
        return given

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.key.property in self.columns:
            raise ValueError(f"columns: {self.key.property} is the key's property already")
        if unknown := sorted(set(self.leaving or {}) - set(self.columns)):
            raise ValueError(f"on_leave.clear names {', '.join(unknown)}, which columns does not write")
        if self.where and ";" in self.where:
            raise ValueError("where is one SQL condition")
        return self

    @property
    def used(self) -> list[str]:
        """Columns of the table that are written, the key's first."""
        return list(dict.fromkeys([self.key.column, *(value.column for value in self.columns.values())]))

    @property
    def destination(self) -> str:
        """Where it goes, in one word; what was written elsewhere counts for nothing there."""
        return f"{self.to.vendor}/{self.to.object}/{self.key.property}"

    @property
    def leaving(self) -> dict[str, str | int | float | bool | None] | None:
        """Properties that a row which left gets, None where it is left alone."""
        return None if isinstance(self.on_leave, str) else self.on_leave.clear


def load_write_backs(folder: Path | None = None) -> dict[str, WriteBack]:
    """All declared write-backs by name.

    Args:
        folder: where the YAML files are; default `data/writebacks`.

    Raises:
        ConfigError: a file is wrong, or its name differs from the write-back's.
    """
    return yamlfile.load_folder(folder or settings().data / "writebacks", WriteBack)


@lru_cache(maxsize=4)
def _cached(folder: Path) -> dict[str, WriteBack]:
    return load_write_backs(folder)


def write_back_named(name: str) -> WriteBack:
    """A declared write-back.

    Raises:
        ConfigError: there is none of that name.
    """
    known = _cached(settings().data / "writebacks")
    if name not in known:
        raise ConfigError(
            f"There is no write-back {name!r}. Known: {', '.join(known) or 'none'}. "
            f"One is a file {settings().data / 'writebacks'}/<name>.yml."
        )
    return known[name]


def parsed_condition(text: str, who: str) -> tuple[exp.Expr, str]:
    """A declared condition and its SQL, which is nothing but a condition.

    Raises:
        ConfigError: it is none.
    """
    from sqlglot import condition
    from sqlglot.errors import SqlglotError

    try:
        found = condition(text, dialect="duckdb")
        return found, found.sql(dialect="duckdb", comments=False)
    except SqlglotError:
        raise ConfigError(f"{who}: where is no SQL condition: {text}") from None


def refuse_personal(declared: WriteBack, hidden: Columns, readable: Columns) -> None:
    """Refuse columns that must not leave the house.

    Args:
        declared: the write-back.
        hidden: by table, columns that hold personal data hashed or encrypted.
        readable: those that hold personal data in the clear.

    Raises:
        ConfigError: the key is personal; a column holds a hash or cipher, useless to a vendor; or a readable
            one is written without a reason.
    """
    table, name = declared.table, declared.name
    useless = set(hidden.get(table, ())) & set(declared.used)
    clear = (set(readable.get(table, ())) & set(declared.used)) - useless
    if declared.key.column in useless | clear:
        raise ConfigError(
            f"write-back {name}: the key {declared.key.column} holds personal data; use the vendor's own id "
            "of the record."
        )
    for column in sorted(useless):
        raise ConfigError(
            f"write-back {name}: {table}.{column} holds personal data that is kept hashed or encrypted, and "
            "cannot be written back."
        )
    for column in sorted(clear - set(declared.personal)):
        raise ConfigError(
            f"write-back {name}: {table}.{column} holds personal data; if it may go to {declared.to.vendor}, "
            f"say why: personal: {{{column}: …}}."
        )


def validate(declared: Mapping[str, WriteBack], columns: Columns, tenants: Collection[str]) -> None:
    """Check write-backs against the tables and tenants there are.

    Raises:
        ConfigError: a table, column or tenant does not exist.
    """
    for one in declared.values():
        if one.table not in columns:
            raise ConfigError(f"write-back {one.name}: no contract and no model declares {one.table}")
        if missing := sorted(set(one.used) - set(columns[one.table])):
            raise ConfigError(
                f"write-back {one.name}: {one.table} has no column {', '.join(missing)}; "
                f"it has {', '.join(columns[one.table])}"
            )
        if unknown := sorted(set(one.tenants) - set(tenants)):
            raise ConfigError(f"write-back {one.name}: unknown tenant {', '.join(unknown)}")
