"""What checks look at: connections, declarations, settings in force and the clock, all given from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import duckdb

from omni.tenancy import Tenant
from omni.warehouse.catalog import columns, stored_tables
from omni.warehouse.connection import Connection
from omni.warehouse.contracts import Contract
from omni.warehouse.models import Model

CODE_OWNED = {
    "ops": "the warehouse's own records",
    "rag": "the document index",
    "ml": "the model registry's results",
}
"""Schemas whose tables are made by this project's code and described there, not by a contract or model."""


@dataclass(frozen=True)
class Facts:
    """The subject of an assessment.

    Attributes:
        con: a connection to the published snapshot or the live warehouse.
        raw: a connection to the live warehouse, whose raw tables the snapshot does not have; checks of
            stored source data are `unknown` without it.
        tenant: whose warehouse it is.
        contracts: by table.
        models: derived tables by name, metrics' rollups included.
        personal: by table, columns that hold personal data or something computed from it.
        clear: by table, columns that may hold readable personal data.
        home: folder of all state.
        orchestrator: Prefect's settings in force, by variable (`PREFECT_RESULTS_…`); None if not known.
        at: the moment of the assessment, with a zone.
        code_owned: schemas of tables that need neither contract nor model, and what makes them.
    """

    con: duckdb.DuckDBPyConnection
    raw: Connection | None
    tenant: Tenant
    contracts: Mapping[str, Contract]
    models: Mapping[str, Model]
    personal: Mapping[str, frozenset[str]]
    clear: Mapping[str, frozenset[str]]
    home: Path
    orchestrator: Mapping[str, str] | None
    at: datetime
    code_owned: Mapping[str, str] = field(default_factory=lambda: CODE_OWNED)

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            raise ValueError("the moment of an assessment needs a zone, for example UTC")


def columns_of(con: Connection) -> dict[str, dict[str, str]]:
    """By stored table of a connection (`schema.table`), its columns and their types; views left out."""
    return {f"{schema}.{name}": columns(con, f'{schema}."{name}"') for schema, name in stored_tables(con)}


def count(con: Connection, sql: str, parameters: object = None) -> int:
    """The one number a query gives."""
    row = con.execute(sql, parameters).fetchone()
    return int(row[0] or 0) if row else 0


def quoted(name: str) -> str:
    """A column's or table's name as an SQL identifier; of `schema.table` both parts."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split(".", 1))
