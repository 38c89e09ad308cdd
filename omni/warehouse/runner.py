"""Building one model: decide, build aside, check, swap in.

A model is built only when its SQL, or something it reads, changed since its last build. The new rows
are written to a table of their own and checked there; only then does one short transaction put them in
place and record what changed. Readers see the old table or the new one. If the new rows equal the old,
nothing changes and nothing downstream runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

from omni.errors import SchemaError
from omni.warehouse.catalog import columns, exists
from omni.warehouse.checks import CheckResult, record_checks, refuse_failed, run_checks
from omni.warehouse.connection import Connection, schema_errors
from omni.warehouse.database import Warehouse, storage_errors
from omni.warehouse.models import Model, fingerprint, stored_inputs
from omni.warehouse.versions import changed_days, changes_since, content_hash, record_change, versions

Action = Literal["skip", "view", "full", "days"]


@dataclass(frozen=True)
class Decision:
    """What to do with a model, and why."""

    action: Action
    reason: str
    days: tuple[date, ...] = ()


@dataclass(frozen=True)
class Built:
    """What building a model did."""

    model: str
    action: Action
    reason: str
    rows: int
    changed: bool
    seconds: float
    failing_checks: tuple[str, ...] = ()

    def summary(self) -> dict[str, Any]:
        """As plain values; `written` counts the rows only if they are new."""
        return asdict(self) | {
            "failing_checks": list(self.failing_checks),
            "written": self.rows if self.changed else 0,
        }


def decide(con: Connection, model: Model, inputs: tuple[str, ...], definition: str) -> Decision:
    """Compare a model with the state of its last build.

    Args:
        con: a connection to the warehouse.
        model: which.
        inputs: the stored tables it depends on (`stored_inputs`).
        definition: its `fingerprint` now.
    """
    row = con.execute("SELECT fingerprint, inputs FROM ops.models WHERE model = $1", [model.name]).fetchone()
    if model.header.kind == "view":
        if row is None or row[0] != definition or not exists(con, model.name):
            return Decision("view", "new or changed definition")
        return Decision("skip", "unchanged")
    if row is None or not exists(con, model.name):
        return Decision("full", "first build")
    if row[0] != definition:
        return Decision("full", "its SQL or that of a view it reads changed")
    seen: dict[str, int] = json.loads(row[1])
    if set(seen) != set(inputs):
        return Decision("full", "it reads other tables than before")
    changes = changes_since(con, seen)
    if not changes:
        return Decision("skip", "nothing it reads changed")
    moved = sorted(t for t, version in versions(con, inputs).items() if version > seen[t])
    if model.header.kind == "full" or changes.everything:
        return Decision("full", f"changed: {', '.join(moved)}")
    days = {day + timedelta(days=ahead) for day in changes.days for ahead in range(model.header.lookback + 1)}
    return Decision("days", f"{len(days)} days changed in {', '.join(moved)}", tuple(sorted(days)))


def build(warehouse: Warehouse, model: Model, models: Mapping[str, Model], run_id: str) -> Built:
    """Bring one model up to date. Its parents must be (call in the order of `in_order`).

    Raises:
        CheckFailed: a check of severity `error` failed; the table keeps its old rows.
        SchemaError: the SELECT lacks a declared column.
    """
    started = time.monotonic()
    inputs = stored_inputs(model, models)
    definition = fingerprint(model, models, warehouse.tenant)
    with warehouse.cursor() as con, storage_errors(warehouse.path):
        # Before deciding: what changes meanwhile is then newer than what this build says it has seen.
        seen = versions(con, inputs)
        decision = decide(con, model, inputs, definition)
        if decision.action == "skip":
            return Built(model.name, "skip", decision.reason, _rows(con, model), False, _since(started))
        if decision.action == "view":
            _create_view(warehouse, model, definition, run_id)
            return Built(model.name, "view", decision.reason, 0, True, _since(started))
        fresh = _build_aside(con, warehouse, model, decision)
        try:
            failing = _audit(con, warehouse, model, fresh, run_id)
            changed = _swap(con, warehouse, model, decision, fresh, definition, seen, run_id)
        finally:
            con.execute(f"DROP TABLE IF EXISTS {fresh}")
        return Built(
            model.name,
            decision.action,
            decision.reason,
            _rows(con, model),
            changed,
            _since(started),
            tuple(str(result) for result in failing),
        )


def _build_aside(con: Connection, warehouse: Warehouse, model: Model, decision: Decision) -> str:
    schema, _, name = model.name.partition(".")
    fresh = f'{schema}."__new_{name}"'
    con.execute(f"DROP TABLE IF EXISTS {fresh}")
    query = model.bound(warehouse.tenant)
    if decision.action == "days":
        days = ", ".join(f"DATE '{day.isoformat()}'" for day in decision.days)
        query = f'SELECT * FROM ({query}) AS built WHERE built."{model.header.time_column}" IN ({days})'
    with schema_errors(model.origin):
        con.execute(f"CREATE TABLE {fresh} AS {query}")
    found = columns(con, fresh)
    for column in [*model.header.grain, *filter(None, [model.header.time_column])]:
        if column not in found:
            raise SchemaError(
                f"{model.origin}: the header names {column!r}, but the SELECT yields no such column"
            )
    if (time_column := model.header.time_column) and found[time_column] != "DATE":
        raise SchemaError(
            f"{model.origin}: time_column {time_column} is {found[time_column]}; it must be a DATE"
        )
    return fresh


def _audit(con: Connection, warehouse: Warehouse, model: Model, fresh: str, run_id: str) -> list[CheckResult]:
    """Run the checks on the new rows, keep their results, refuse on a failed error."""
    results = run_checks(con, fresh, model.header.checks, name=model.name)
    if results:
        with warehouse.transaction() as write:
            record_checks(write, results, run_id)
    return refuse_failed(results, f"the table keeps its old rows. See the model: {model.origin}")


def _swap(
    con: Connection,
    warehouse: Warehouse,
    model: Model,
    decision: Decision,
    fresh: str,
    definition: str,
    seen: dict[str, int],
    run_id: str,
) -> bool:
    """Put the new rows in place unless they equal the old; either way remember what was read."""
    whole, days = _difference(con, model, decision, fresh)
    changed = days is None or bool(days)
    with warehouse.transaction() as write:
        if changed and decision.action == "full":
            name = model.name.partition(".")[2]
            write.execute(f"DROP TABLE IF EXISTS {model.name}")
            write.execute(f'ALTER TABLE {fresh} RENAME TO "{name}"')
        elif changed:
            column = model.header.time_column
            write.execute(
                f'DELETE FROM {model.name} WHERE "{column}" IN (SELECT unnest($1::DATE[]))', [decision.days]
            )
            write.execute(f"INSERT INTO {model.name} BY NAME SELECT * FROM {fresh}")
        if changed:
            record_change(write, model.name, days, run_id=run_id, content_hash=whole)
        _remember(write, model.name, definition, seen, run_id)
    return changed


def _difference(
    con: Connection, model: Model, decision: Decision, fresh: str
) -> tuple[str | None, list[date] | None]:
    """The new table's hash (full builds) and the days that differ; None for "all days", [] for none."""
    column = model.header.time_column
    if decision.action == "days":
        days = ", ".join(f"DATE '{day.isoformat()}'" for day in decision.days)
        old = f'(SELECT * FROM {model.name} WHERE "{column}" IN ({days}))'
        return None, changed_days(con, old, fresh, str(column))
    whole = content_hash(con, fresh)
    if not exists(con, model.name) or list(columns(con, model.name).items()) != list(
        columns(con, fresh).items()
    ):
        return whole, None
    if content_hash(con, model.name) == whole:
        return whole, []
    return whole, changed_days(con, model.name, fresh, column) if column else None


def _create_view(warehouse: Warehouse, model: Model, definition: str, run_id: str) -> None:
    with warehouse.transaction() as con:
        with schema_errors(model.origin):
            con.execute(f"CREATE OR REPLACE VIEW {model.name} AS {model.bound(warehouse.tenant)}")
        _remember(con, model.name, definition, {}, run_id)


def _remember(con: Connection, model: str, definition: str, seen: dict[str, int], run_id: str) -> None:
    con.execute(
        "INSERT INTO ops.models VALUES ($1, $2, $3, $4, $5) ON CONFLICT (model) DO UPDATE SET "
        "fingerprint = excluded.fingerprint, inputs = excluded.inputs, run_id = excluded.run_id, "
        "built_at = excluded.built_at",
        [model, definition, json.dumps(seen), run_id, datetime.now(UTC)],
    )


def _columns(con: Connection, relation: str) -> list[tuple[str, str]]:
    return list(columns(con, relation).items())


def _rows(con: Connection, model: Model) -> int:
    if model.header.kind == "view":
        return 0
    row = con.execute(f"SELECT count(*) FROM {model.name}").fetchone()
    return int(row[0]) if row else 0


def _since(started: float) -> float:
    return round(time.monotonic() - started, 4)
