"""Versions of rows (SCD2): what a row was, from when to when, for contracts with `history: true`."""

from __future__ import annotations

from omni.warehouse.connection import Connection
from omni.warehouse.contracts import LINEAGE, Contract


def append(con: Connection, contract: Contract, changed: str, gone: str, run_id: str) -> None:
    """Close the versions that a load ends and add those it begins, inside its transaction.

    A version begins when the source says that the row changed, where that is after the version before it,
    else now.

    Args:
        con: the transaction's connection.
        contract: the current table's.
        changed: relation of new and changed rows.
        gone: relation of the keys of rows that are gone.
        run_id: kept with the versions.
    """
    history = contract.versions().table
    same = " AND ".join(f'v."{key}" = new."{key}"' for key in contract.key)
    cursor = contract.source.cursor if contract.source else None
    begins = f'least(new."{cursor}", now())' if cursor else "now()"
    names = ", ".join(f'new."{name}"' for name in contract.columns)
    keys = ", ".join(f'h."{key}"' for key in contract.key)
    old = " AND ".join(f'h."{key}" = c."{key}"' for key in contract.key)
    ended = (
        f"SELECT {keys}, max(coalesce(h._valid_to, h._valid_from)) AS ended FROM {history} h "
        f"SEMI JOIN {changed} c ON {old} GROUP BY ALL"
    )
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE fresh_versions AS SELECT {names}, "
        f"CASE WHEN v.ended IS NULL OR v.ended < {begins} THEN {begins} ELSE now() END AS _valid_from "
        f"FROM {changed} new LEFT JOIN ({ended}) v ON {same}"
    )
    con.execute(
        f"UPDATE {history} AS v SET _valid_to = new._valid_from FROM fresh_versions new "
        f"WHERE {same} AND v._valid_to IS NULL"
    )
    con.execute(
        f"UPDATE {history} AS v SET _valid_to = now(), _deleted = true FROM {gone} new "
        f"WHERE {same} AND v._valid_to IS NULL"
    )
    lineage = dict(zip(LINEAGE, ("now()", f"'{run_id}'"), strict=True))
    extra = ", ".join(f"{value} AS {name}" for name, value in lineage.items())
    con.execute(
        f"INSERT INTO {history} BY NAME SELECT *, NULL::TIMESTAMPTZ AS _valid_to, false AS _deleted, {extra} "
        "FROM fresh_versions"
    )
