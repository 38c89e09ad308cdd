"""Tables that a model made which is no more: they stay, as they are, until somebody drops them."""

from __future__ import annotations

from collections.abc import Container, Mapping

from omni.errors import ConfigError
from omni.warehouse.catalog import exists, stored_tables
from omni.warehouse.connection import Connection
from omni.warehouse.models import Model

_RECORDS = {
    "ops.models": "model",
    "ops.definitions": "model",
    "ops.windows": "model",
    "ops.tables": "table_name",
    "ops.changes": "table_name",
}


def leftovers(con: Connection, models: Mapping[str, Model], contracts: Container[str]) -> list[str]:
    """Tables and views that models made which are declared no more, by name.

    Args:
        con: a connection to the warehouse; only read.
        models: every model by name.
        contracts: the contracts' tables, which are no leftovers.
    """
    rows = con.execute("SELECT model FROM ops.models ORDER BY model").fetchall()
    return [name for (name,) in rows if name not in models and name not in contracts and exists(con, name)]


def drop_leftover(con: Connection, name: str, models: Mapping[str, Model], contracts: Container[str]) -> None:
    """Drop one such table or view and the record of its builds, in the transaction of `con`.

    Raises:
        ConfigError: the name is declared or read by a model, or no model ever made it.
    """
    refuse_to_drop(con, name, models, contracts)
    kind = "TABLE" if tuple(name.split(".")) in stored_tables(con) else "VIEW"
    con.execute(f"DROP {kind} {name}")
    for table, column in _RECORDS.items():
        con.execute(f"DELETE FROM {table} WHERE {column} = $1", [name])


def refuse_to_drop(
    con: Connection, name: str, models: Mapping[str, Model], contracts: Container[str]
) -> None:
    """Say why a table is no leftover.

    Raises:
        ConfigError: the name is declared or read by a model, or no model ever made it.
    """
    if name in models or name in contracts:
        who = models[name].origin if name in models else "a contract"
        raise ConfigError(f"{name} is declared by {who}; only what nothing declares any more is dropped")
    if readers := [model.name for model in models.values() if name in model.parents]:
        raise ConfigError(f"{name} is still read by {', '.join(readers)}; change {readers[0]} first")
    if name not in (found := leftovers(con, models, contracts)):
        known = f"those left over: {', '.join(found)}" if found else "no table is left over"
        raise ConfigError(f"No model that is gone made {name}; {known}")
