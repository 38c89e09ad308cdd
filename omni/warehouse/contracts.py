"""Contracts: what a stored table is, stated once.

One YAML file per table under `data/contracts/`. Ingestion takes its mapping and types from it, the
warehouse its DDL, keys and checks, the privacy code its personal fields, the documents their text.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from omni import yamlfile
from omni.errors import ConfigError
from omni.settings import settings
from omni.warehouse.checks import Check
from omni.yamlfile import Declaration

Type = Literal["string", "integer", "float", "decimal", "boolean", "date", "timestamp", "json"]

DUCKDB_TYPES: dict[str, str] = {
    "string": "VARCHAR",
    "integer": "BIGINT",
    "float": "DOUBLE",
    "decimal": "DECIMAL(18,2)",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMPTZ",
    "json": "JSON",
}

LINEAGE = {"_loaded_at": "TIMESTAMPTZ", "_run_id": "VARCHAR"}
"""Columns every loaded table carries besides its contract's: when and by which run a row was written."""


class Personal(Declaration):
    """What makes a column personal data, and how it is kept.

    `protect`: `hash` stores a keyed HMAC (equal values stay joinable), `drop` stores nothing,
    `clear` stores the value and needs a `reason`.
    """

    category: str = Field(description="for example contact.email", pattern=r"^[a-z_]+(\.[a-z_]+)*$")
    subject: str = Field(description="whose datum it is, for example contact")
    protect: Literal["hash", "drop", "clear"]
    on_erase: Literal["delete", "null", "keep"] = "null"
    reason: str | None = None

    @model_validator(mode="after")
    def _clear_has_reason(self) -> Self:
        if self.protect == "clear" and not self.reason:
            raise ValueError("protect: clear needs a reason")
        return self


class Column(Declaration):
    """One column. `from` is the path in the vendor's record; without it the column's own name."""

    type: Type
    nullable: bool = True
    optional: bool = Field(False, description="the source may lack this field entirely; it is then null")
    path: str | None = Field(None, alias="from")
    description: str | None = None
    personal: Personal | None = None
    accepted: list[str] | None = Field(None, description="the known values; others are reported, not refused")


class Source(Declaration):
    """Where a table's rows come from."""

    vendor: str
    object: str
    cursor: str | None = Field(None, description="column that moves when a row changes")
    rows: str | None = Field(None, description="path of the nested list this child table holds")


class Contract(Declaration):
    """A table's contract."""

    table: str = Field(pattern=r"^[a-z]\w*\.[a-z]\w*$", description="schema.name")
    description: str
    owner: str
    grain: str = Field(description="what one row is")
    key: list[str] = Field(min_length=1)
    columns: dict[str, Column] = Field(min_length=1)
    source: Source | None = None
    parent: str | None = Field(None, description="parent table; its rows replace their children on load")
    parent_key: str | None = Field(None, description="column here that holds the parent's key")
    time_column: str | None = Field(None, description="the day a row belongs to; drives incremental models")
    freshness_hours: int | None = Field(None, ge=1)
    retention: str | None = Field(None, pattern=r"^P\d+[DMY]$", description="ISO 8601 period, e.g. P3Y")
    lawful_basis: str | None = None
    checks: list[Check] = []

    @model_validator(mode="after")
    def _columns_exist(self) -> Self:
        for role, name in [("key", k) for k in self.key] + [
            ("time_column", self.time_column),
            ("parent_key", self.parent_key),
            ("source.cursor", self.source.cursor if self.source else None),
        ]:
            if name is not None and name not in self.columns:
                raise ValueError(f"{role} names column {name!r}, which is not among the columns")
        if (self.parent is None) != (self.parent_key is None):
            raise ValueError("parent and parent_key go together")
        if self.personal_columns and not self.lawful_basis:
            raise ValueError("a table with personal columns needs lawful_basis")
        return self

    @property
    def schema_name(self) -> str:
        """The schema part of the table's name."""
        return self.table.split(".")[0]

    @property
    def personal_columns(self) -> dict[str, Column]:
        """The columns that hold personal data."""
        return {name: column for name, column in self.columns.items() if column.personal}

    def ddl(self) -> str:
        """`CREATE TABLE IF NOT EXISTS` with the contract's types, keys unenforced (checks state them)."""
        required = {name for name, column in self.columns.items() if not column.nullable}
        columns = ", ".join(
            f'"{name}" {kind}{" NOT NULL" if name in required else ""}'
            for name, kind in self.column_types().items()
        )
        return f"CREATE TABLE IF NOT EXISTS {self.table} ({columns})"

    def column_types(self) -> dict[str, str]:
        """DuckDB types of the contract's and the lineage columns."""
        return {name: DUCKDB_TYPES[column.type] for name, column in self.columns.items()} | LINEAGE


def load_contracts(folder: Path) -> dict[str, Contract]:
    """All contracts under a folder, by table name.

    Raises:
        ConfigError: a file is wrong, two files declare one table, or a parent does not exist.
    """
    contracts: dict[str, Contract] = {}
    for path in sorted(folder.rglob("*.yml")):
        contract = yamlfile.load(path, Contract)
        if contract.table in contracts:
            raise ConfigError(f"{path}: table {contract.table} is declared twice")
        contracts[contract.table] = contract
    for contract in contracts.values():
        if contract.parent and contract.parent not in contracts:
            raise ConfigError(f"{contract.table}: parent {contract.parent} has no contract")
    return contracts


@lru_cache(maxsize=4)
def _cached(folder: Path) -> dict[str, Contract]:
    return load_contracts(folder)


def contracts() -> dict[str, Contract]:
    """The project's contracts, read once per process."""
    return _cached(settings().data / "contracts")
