"""Contracts: what a stored table is, stated once.

One YAML file per table under `data/contracts/`. Ingestion takes its mapping and types from it, the
warehouse its DDL, keys and checks, the privacy code its personal fields, the documents their text.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    "decimal": "DECIMAL",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMPTZ",
    "json": "JSON",
}

LINEAGE = {"_loaded_at": "TIMESTAMPTZ", "_run_id": "VARCHAR"}
"""Columns every loaded table carries besides its contract's: when and by which run a row was written."""


ROW_HASH = "_row_hash"
"""Column of tables loaded from sources: tells a changed row without reading all of its columns."""
HISTORY = "__history"
VALIDITY: dict[str, Type] = {"_valid_from": "timestamp", "_valid_to": "timestamp", "_deleted": "boolean"}
"""Columns of a table of versions: when a version began, when it ended (null: it is the current one), and
whether it ended because the row was gone at the source."""


class Personal(Declaration):
    """What makes a column personal data, and how it is kept.

    `protect`: `hash` stores a keyed HMAC (equal values stay joinable), `encrypt` stores the value under a
    key of the person's own, whose deletion erases every copy, `drop` stores nothing, `clear` stores the value
    and needs a `reason`.
    """

    category: str = Field(description="for example contact.email", pattern=r"^[a-z_]+(\.[a-z_]+)*$")
    subject: str = Field(description="whose datum it is, for example contact")
    subject_id: str | None = Field(None, description="column that identifies the subject; default: the key")
    protect: Literal["hash", "encrypt", "drop", "clear"]
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
    scale: int | None = Field(None, ge=0, le=10, description="decimals of a decimal; 2 by default")

    @model_validator(mode="after")
    def _scale_is_of_decimals(self) -> Self:
        if self.scale is not None and self.type != "decimal":
            raise ValueError("scale belongs to type decimal")
        if self.personal and self.personal.protect in ("hash", "encrypt") and self.type != "string":
            raise ValueError(f"protect: {self.personal.protect} needs type string")
        return self

    @property
    def decimals(self) -> int:
        """Decimals of a decimal column."""
        return 2 if self.scale is None else self.scale

    @property
    def duckdb_type(self) -> str:
        """DuckDB's type of the column."""
        return f"DECIMAL(18,{self.decimals})" if self.type == "decimal" else DUCKDB_TYPES[self.type]


class Source(Declaration):
    """Where a table's rows come from."""

    vendor: str
    object: str
    cursor: str | None = Field(None, description="column that moves when a row changes")
    rows: str | None = Field(None, description="path of the nested list this child table holds")


class Evolution(Declaration):
    """What happens when the source's schema moves.

    `new_fields`: a field the contract does not declare. `discard` ignores it, `evolve` adds a column (typed
    by the vendor's metadata, else as text), `freeze` stops the load, `quarantine` sends the rows that carry
    it to the dead letters. `misfits`: a value that is not of its column's type. `quarantine` sends the row to
    the dead letters, `discard` stores null and counts, `evolve` keeps the text in `<column>__text`, `freeze`
    stops the load.
    """

    new_fields: Literal["discard", "evolve", "freeze", "quarantine"] = "discard"
    misfits: Literal["quarantine", "discard", "evolve", "freeze"] = "quarantine"


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
    evolution: Evolution = Evolution()
    history: bool = Field(False, description="keep every version of a row in <table>__history (SCD2)")
    checks: list[Check] = []

    @model_validator(mode="after")
    def _columns_exist(self) -> Self:
        for role, name in [("key", k) for k in self.key] + [
            ("time_column", self.time_column),
            ("parent_key", self.parent_key),
            ("source.cursor", self.source.cursor if self.source else None),
            *(("subject_id", c.personal.subject_id) for c in self.columns.values() if c.personal),
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

    def with_columns(self, extra: Mapping[str, Column]) -> Self:
        """The contract with columns learnt from the source beside the declared ones."""
        return self.model_copy(update={"columns": {**extra, **self.columns}}) if extra else self

    def versions(self) -> Contract:
        """The contract of the table that keeps every version (SCD2), if `history` asks for one."""
        moments = {name: Column(type=kind) for name, kind in VALIDITY.items()}
        return self.model_copy(
            update={
                "table": f"{self.table}{HISTORY}",
                "description": f"Every version of the rows of {self.table}. {self.description}",
                "grain": f"{self.grain} and version",
                "key": [*self.key, "_valid_from"],
                "columns": {**self.columns, **moments},
                "source": None,
                "parent": None,
                "parent_key": None,
                "time_column": None,
                "freshness_hours": None,
                "history": False,
                "checks": [Check(unique=[*self.key, "_valid_from"])],
            }
        )

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
        own = {name: column.duckdb_type for name, column in self.columns.items()}
        return own | LINEAGE | ({ROW_HASH: "UBIGINT"} if self.source else {})


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
    contracts |= {
        versions.table: versions for c in contracts.values() if c.history for versions in [c.versions()]
    }
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
