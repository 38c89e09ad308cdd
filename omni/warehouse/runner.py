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
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, Literal

from omni.errors import SchemaError
from omni.warehouse.catalog import columns, exists, stored_tables
from omni.warehouse.check_runs import CheckResult, record_checks, refuse_failed, run_checks
from omni.warehouse.checks import Check
from omni.warehouse.connection import Connection, schema_errors
from omni.warehouse.database import Warehouse, storage_errors
from omni.warehouse.definitions import remember
from omni.warehouse.merge import append_versions, merge_rows, prepare_snapshot, snapshot_differs
from omni.warehouse.models import Model, fingerprint, stored_inputs
from omni.warehouse.narrow import narrowed
from omni.warehouse.versions import changed_days, changes_since, content_hash, record_change, versions
from omni.warehouse.windows import batches, listed, record_windows, reopened, windows_between

Action = Literal["skip", "view", "full", "days", "merge"]


@dataclass(frozen=True)
class Decision:
    """What to do with a model, and why; `days` are the first days of the windows to rebuild."""

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


@dataclass(frozen=True)
class _Work:
    """One build of one model: where, what, what its inputs' versions were before, and who asked."""

    warehouse: Warehouse
    model: Model
    models: Mapping[str, Model]
    decision: Decision
    definition: str
    seen: dict[str, int]
    run_id: str
    started: float


def decide(
    con: Connection,
    model: Model,
    inputs: tuple[str, ...],
    definition: str,
    models: Mapping[str, Model] | None = None,
) -> Decision:
    """Compare a model with the state of its last build.

    Args:
        con: a connection to the warehouse.
        model: which.
        inputs: the stored tables it depends on (`stored_inputs`).
        definition: its `fingerprint` now.
        models: all, to know the windows of its inputs; without them all are days.
    """
    row = con.execute("SELECT fingerprint, inputs FROM ops.models WHERE model = $1", [model.name]).fetchone()
    kind = model.header.kind
    if kind == "view":
        if row is None or row[0] != definition or not exists(con, model.name):
            return Decision("view", "new or changed definition")
        return Decision("skip", "unchanged")
    whole: Action = "merge" if kind == "snapshot" else "full"
    if row is None or not exists(con, model.name):
        return Decision(whole, "first build")
    if row[0] != definition:
        changed = (
            "its rows or columns changed" if kind == "seed" else "its SQL or that of a view it reads changed"
        )
        return Decision(whole, changed)
    seen: dict[str, int] = json.loads(row[1])
    if set(seen) != set(inputs):
        return Decision(whole, "it reads other tables than before")
    moved = sorted(t for t, version in versions(con, inputs).items() if version > seen[t])
    changes = {table: changes_since(con, {table: seen[table]}) for table in moved}
    if not any(changes.values()):
        return Decision("skip", "nothing it reads changed")
    named = f"changed: {', '.join(moved)}"
    if kind in ("incremental_by_key", "snapshot"):
        return Decision("merge", named)
    timeless = {t for name in model.header.rebuild_on for t in _stored(name, models or {})}
    if kind == "full" or any(c.everything or (c and t in timeless) for t, c in changes.items()):
        return Decision("full", named)
    windows: set[date] = set()
    for table, change in changes.items():
        parent = (models or {}).get(table)
        windows |= reopened(model.header, change.days, parent.header if parent else None)
    reason = f"{len(windows)} {model.header.window}s changed in {', '.join(moved)}"
    return Decision("days", reason, tuple(sorted(windows)))


def _stored(name: str, models: Mapping[str, Model]) -> tuple[str, ...]:
    view = models.get(name)
    return stored_inputs(view, models) if view and view.header.kind == "view" else (name,)


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
        decision = decide(con, model, inputs, definition, models)
        if decision.action == "skip":
            return Built(model.name, "skip", decision.reason, _rows(con, model), False, _since(started))
        work = _Work(warehouse, model, models, decision, definition, seen, run_id, started)
        return _create_view(work) if decision.action == "view" else _rebuild(con, work)


def backfill(
    warehouse: Warehouse,
    model: Model,
    models: Mapping[str, Model],
    since: date,
    until: date,
    batch_days: int,
    run_id: str,
) -> Built:
    """Bring an incremental_by_time model up to date, then rebuild every window that [since, until) touches.

    Each batch is a transaction of its own: after a crash the batches before it stay, and asking again is
    harmless. A model that had to be built whole anyway is not built twice.

    Raises:
        CheckFailed, SchemaError: as `build`.
    """
    started = time.monotonic()
    built = build(warehouse, model, models, run_id)
    if built.action == "full":
        return built
    window = model.header.window
    groups = list(batches(windows_between(since, until, window), window, batch_days))
    reason = f"asked for [{since}, {until})"
    results = []
    with warehouse.cursor() as con, storage_errors(warehouse.path):
        row = con.execute(
            "SELECT fingerprint, inputs FROM ops.models WHERE model = $1", [model.name]
        ).fetchone()
        assert row is not None
        for group in groups:
            decision = Decision("days", reason, tuple(group))
            # The versions the build above saw: a change that came since then is still to be worked off.
            work = _Work(
                warehouse, model, models, decision, row[0], json.loads(row[1]), run_id, time.monotonic()
            )
            results.append(_rebuild(con, work))
    return replace(
        built,
        action="days",
        reason=f"{sum(map(len, groups))} {window}s {reason} in {len(groups)} batches",
        rows=results[-1].rows,
        changed=built.changed or any(result.changed for result in results),
        seconds=_since(started),
        failing_checks=tuple(dict.fromkeys(check for r in [built, *results] for check in r.failing_checks)),
    )


def _rebuild(con: Connection, work: _Work) -> Built:
    model, decision = work.model, work.decision
    fresh = _build_aside(con, work)
    try:
        failing = _audit(con, work, fresh)
        changed, rows = _swap(con, work, fresh)
    finally:
        con.execute(f"DROP TABLE IF EXISTS {fresh}")
    return Built(
        model.name,
        decision.action,
        decision.reason,
        rows,
        changed,
        _since(work.started),
        tuple(str(result) for result in failing),
    )


def _build_aside(con: Connection, work: _Work) -> str:
    model, header = work.model, work.model.header
    schema, _, name = model.name.partition(".")
    fresh = f'{schema}."__new_{name}"'
    con.execute(f"DROP TABLE IF EXISTS {fresh}")
    with schema_errors(model.origin):
        con.execute(f"CREATE TABLE {fresh} AS {_select(con, work)}")
    found = columns(con, fresh)
    for column in [*header.grain, *filter(None, [header.time_column, header.updated_column])]:
        if column not in found:
            raise SchemaError(
                f"{model.origin}: the header names {column!r}, but the SELECT yields no such column"
            )
    if (time_column := header.time_column) and found[time_column] != "DATE":
        raise SchemaError(
            f"{model.origin}: time_column {time_column} is {found[time_column]}; it must be a DATE"
        )
    if header.window != "day":
        _refuse_inner_days(con, model, fresh)
    return fresh


def _select(con: Connection, work: _Work) -> str:
    model, tenant, windows = work.model, work.warehouse.tenant, work.decision.days
    if work.decision.action != "days":
        return model.bound(tenant)
    query = narrowed(con, model, work.models, tenant, windows)
    return f'SELECT * FROM ({query}) AS built WHERE built."{model.header.time_column}" IN ({listed(windows)})'


def _refuse_inner_days(con: Connection, model: Model, fresh: str) -> None:
    """A window is rebuilt by its first day, so a row with another day would be left behind."""
    column, window = f'"{model.header.time_column}"', model.header.window
    row = con.execute(
        f"SELECT min({column}) FROM {fresh} WHERE {column} <> CAST(date_trunc('{window}', {column}) AS DATE)"
    ).fetchone()
    if row and row[0]:
        raise SchemaError(
            f"{model.origin}: {column} holds {row[0]}, which is not the first day of a {window}. "
            f"Write CAST(date_trunc('{window}', …) AS DATE)"
        )


def _audit(con: Connection, work: _Work, fresh: str) -> list[CheckResult]:
    """Run the checks on the new rows, keep their results, refuse on a failed error."""
    model, checks = work.model, list(work.model.header.checks)
    unique = Check(unique=model.header.grain)
    if work.model.header.kind in ("incremental_by_key", "snapshot") and unique not in checks:
        checks.append(unique)
    results = run_checks(
        con, fresh, checks, name=model.name, grain=model.header.grain,
        window_column=model.header.time_column, whole=_as_it_will_be(con, work, fresh),
    )  # fmt: skip
    if results:
        with work.warehouse.transaction() as write:
            record_checks(write, results, work.run_id)
    return refuse_failed(results, f"the table keeps its old rows. See the model: {model.origin}")


def _as_it_will_be(con: Connection, work: _Work, fresh: str) -> str | None:
    """All rows after the swap, where only some windows were built; else None."""
    if work.decision.action != "days":
        return None
    names = ", ".join(f'"{column}"' for column in columns(con, fresh))
    time = f'"{work.model.header.time_column}"'
    kept = f"{time} NOT IN ({listed(work.decision.days)}) OR {time} IS NULL"
    return f"(SELECT {names} FROM {fresh} UNION ALL SELECT {names} FROM {work.model.name} WHERE {kept})"


def _swap(con: Connection, work: _Work, fresh: str) -> tuple[bool, int]:
    """Put the new rows in place unless they equal the old; either way remember what was read.

    Returns:
        Whether anything changed, and the table's rows.
    """
    model = work.model
    whole, days = _difference(con, work, fresh)
    changed = days is None or bool(days)
    with work.warehouse.transaction() as write:
        if changed:
            if model.header.kind == "snapshot":
                prepare_snapshot(write, model, fresh)
                days = append_versions(write, model, fresh)
            elif work.decision.action == "days":
                _replace_windows(write, model, fresh, days or [])
            elif work.decision.action == "merge" and _same_columns(write, model, fresh):
                merge_rows(write, model, fresh)
            else:
                _drop(write, model.name)
                write.execute(f'ALTER TABLE {fresh} RENAME TO "{model.name.partition(".")[2]}"')
            record_change(write, model.name, days, run_id=work.run_id, content_hash=whole)
        if model.header.kind == "incremental_by_time":
            record_windows(write, model, work.decision.days or None, work.run_id)
        rows = _rows(write, model)
        _remember(write, work, rows)
    return changed, rows


def _replace_windows(con: Connection, model: Model, fresh: str, days: list[date]) -> None:
    where = f'WHERE "{model.header.time_column}" IN ({listed(days)})'
    names = ", ".join(f'"{name}"' for name in columns(con, fresh))
    con.execute(f"DELETE FROM {model.name} {where}")
    con.execute(f"INSERT INTO {model.name} ({names}) SELECT {names} FROM {fresh} {where}")


def _difference(con: Connection, work: _Work, fresh: str) -> tuple[str | None, list[date] | None]:
    """The new table's hash (full builds) and the days that differ; None for "all days", [] for none."""
    model, column = work.model, work.model.header.time_column
    if model.header.kind == "snapshot":
        return None, None if snapshot_differs(con, model, fresh) else []
    if work.decision.action == "days":
        old = f'(SELECT * FROM {model.name} WHERE "{column}" IN ({listed(work.decision.days)}))'
        return None, changed_days(con, old, fresh, str(column))
    whole = content_hash(con, fresh)
    if not exists(con, model.name) or not _same_columns(con, model, fresh):
        return whole, None
    if content_hash(con, model.name) == whole:
        return whole, []
    return whole, changed_days(con, model.name, fresh, column) if column else None


def _same_columns(con: Connection, model: Model, fresh: str) -> bool:
    return list(columns(con, model.name).items()) == list(columns(con, fresh).items())


def _create_view(work: _Work) -> Built:
    model = work.model
    with work.warehouse.transaction() as con:
        with schema_errors(model.origin):
            if tuple(model.name.split(".")) in stored_tables(con):
                _drop(con, model.name)  # it was a table before
            con.execute(f"CREATE OR REPLACE VIEW {model.name} AS {model.bound(work.warehouse.tenant)}")
        _remember(con, replace(work, seen={}), 0)
    return Built(model.name, "view", work.decision.reason, 0, True, _since(work.started))


def _drop(con: Connection, name: str) -> None:
    """Drop a model's table, or its view if it was one before."""
    is_view = tuple(name.split(".")) not in stored_tables(con) and exists(con, name)
    con.execute(f"DROP {'VIEW' if is_view else 'TABLE'} IF EXISTS {name}")


def _remember(con: Connection, work: _Work, rows: int) -> None:
    """What the next decision compares with, and what readers of the catalogue want to know."""
    con.execute(
        "INSERT INTO ops.models (model, fingerprint, inputs, run_id, built_at, kind, action, reason, rows, "
        "seconds) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (model) DO UPDATE SET "
        "fingerprint = excluded.fingerprint, inputs = excluded.inputs, run_id = excluded.run_id, "
        "built_at = excluded.built_at, kind = excluded.kind, action = excluded.action, "
        "reason = excluded.reason, rows = excluded.rows, seconds = excluded.seconds",
        [
            work.model.name,
            work.definition,
            json.dumps(work.seen),
            work.run_id,
            datetime.now(UTC),
            work.model.header.kind,
            work.decision.action,
            work.decision.reason,
            rows,
            _since(work.started),
        ],
    )
    remember(con, work.model, work.warehouse.tenant)


def _rows(con: Connection, model: Model) -> int:
    if model.header.kind == "view":
        return 0
    row = con.execute(f"SELECT count(*) FROM {model.name}").fetchone()
    return int(row[0]) if row else 0


def _since(started: float) -> float:
    return round(time.monotonic() - started, 4)
