"""What a run would do, and why, before anything runs.

A plan asks of every model what the runner would ask (`runner.decide`) and then looks ahead: a model whose
parents will be built runs if their rows turn out to differ, which nobody knows yet. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Literal

from omni.tenancy import Tenant
from omni.warehouse.catalog import exists
from omni.warehouse.connection import Connection
from omni.warehouse.definitions import Definition, define, header_changes, remembered
from omni.warehouse.differences import Change, differences
from omni.warehouse.models import Model, fingerprint, in_order, stored_inputs
from omni.warehouse.runner import Decision, decide
from omni.warehouse.windows import listed, reopened, windows_between

Action = Literal["skip", "view", "full", "days", "merge", "shows"]
"""As the runner's; `shows` is a view that need not be made anew although what it reads changes."""


@dataclass(frozen=True)
class Planned:
    """What would become of one model.

    Attributes:
        model: its name.
        kind: its kind.
        action: what would be done.
        reason: why.
        certain: false if it depends on whether its parents' new rows differ from the old.
        days: first days of the windows to rebuild; empty if all or not known yet.
        rows: rows that would be computed, by what is there now; None if there is nothing to go by.
        changes: what is different about its definition since the last build.
        breaking: whether these changes can alter what readers get; None if the definition did not change.
    """

    model: str
    kind: str
    action: Action
    reason: str
    certain: bool = True
    days: tuple[date, ...] = ()
    rows: int | None = None
    changes: tuple[str, ...] = ()
    breaking: bool | None = None

    @property
    def moves(self) -> bool:
        """Whether the model's rows may be other ones afterwards."""
        return self.action != "skip"

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"days": [day.isoformat() for day in self.days], "changes": list(self.changes)}


def plan_models(
    con: Connection,
    models: Mapping[str, Model],
    tenant: Tenant,
    *,
    select: Collection[str] | None = None,
    span: tuple[date, date] | None = None,
    full: bool = False,
) -> list[Planned]:
    """Say for each model what a run would do with it.

    Args:
        con: a connection to the warehouse; only read.
        models: every model by name.
        tenant: whose.
        select: names of those that would be built; all by default.
        span: a range of days to rebuild, the second not included.
        full: whether all would be built whole.

    Returns:
        One entry per selected model, in the order of building.
    """
    chosen = set(models) if select is None else set(select)
    known = {parent for model in models.values() for parent in model.parents}
    look = _Look(con, models, tenant, remembered(con), _row_counts(con), span, full)
    found: dict[str, Planned] = {}
    for model in in_order(models, known):
        if model.name in chosen:
            found[model.name] = _planned(look, model, found)
    return list(found.values())


@dataclass(frozen=True)
class _Look:
    """What a plan is made from."""

    con: Connection
    models: Mapping[str, Model]
    tenant: Tenant
    definitions: Mapping[str, Definition]
    rows: Mapping[str, int]
    span: tuple[date, date] | None
    full: bool


def _row_counts(con: Connection) -> dict[str, int]:
    return {
        name: int(rows or 0)
        for name, rows in con.execute("SELECT table_name, rows FROM ops.tables").fetchall()
    }


def _planned(look: _Look, model: Model, before: Mapping[str, Planned]) -> Planned:
    definition = fingerprint(model, look.models, look.tenant)
    decision = _forced(look, model) or decide(
        look.con, model, stored_inputs(model, look.models), definition, look.models
    )
    changed = _definition_changed(look, model, definition)
    changes = _changes(look, model) if changed else []
    reason = _reason(look, model, decision, changes, before) if changed else decision.reason
    planned = Planned(
        model.name,
        model.header.kind,
        decision.action,
        reason,
        days=decision.days,
        changes=tuple(change.text for change in changes),
        breaking=any(change.breaking for change in changes) if changes else None,
    )
    return _with_rows(look, model, _looking_ahead(look, model, planned, before))


def _forced(look: _Look, model: Model) -> Decision | None:
    """What the command line demands, whether or not anything changed."""
    kind = model.header.kind
    if look.full and kind != "view":
        return Decision("merge" if kind == "snapshot" else "full", "asked for with --full")
    if look.span and kind == "incremental_by_time" and exists(look.con, model.name):
        windows = windows_between(*look.span, model.header.window)
        return Decision("days", f"asked for: {look.span[0]} until {look.span[1]}", tuple(windows))
    return None


def _definition_changed(look: _Look, model: Model, definition: str) -> bool:
    row = look.con.execute("SELECT fingerprint FROM ops.models WHERE model = $1", [model.name]).fetchone()
    return row is not None and row[0] != definition


def _changes(look: _Look, model: Model) -> list[Change]:
    """What is different about a model's own definition."""
    old = look.definitions.get(model.name)
    if old is None:
        return []
    new = define(model, look.tenant)
    found = []
    if old["sql"] != new["sql"]:
        if model.header.kind == "seed":
            found.append(Change("its rows or columns changed", True))
        else:
            found += differences(old["sql"], new["sql"]) or [Change("written differently only", False)]
    found += [Change(text, "checks" not in text) for text in header_changes(old, new)]
    return found


def _reason(
    look: _Look,
    model: Model,
    decision: Decision,
    changes: list[Change],
    before: Mapping[str, Planned],
) -> str:
    """The runner's reason, with what exactly is different where that is known."""
    if changes:
        return "its definition changed" if decision.action != "view" else "changed definition"
    views = [name for name in _views_above(look, model) if name in before and before[name].changes]
    if views:
        return f"it reads through {', '.join(views)}, which changed"
    return decision.reason


def _views_above(look: _Look, model: Model) -> list[str]:
    found: list[str] = []
    for parent in model.parents:
        view = look.models.get(parent)
        if view is not None and view.header.kind == "view":
            found += [*_views_above(look, view), parent]
    return list(dict.fromkeys(found))


def _looking_ahead(look: _Look, model: Model, planned: Planned, before: Mapping[str, Planned]) -> Planned:
    """The plan of a model that would be left alone, given that what it reads may be built before it."""
    moving = [before[parent] for parent in model.parents if parent in before and before[parent].moves]
    if not moving or planned.action not in ("skip", "days"):
        return planned
    names = ", ".join(parent.model for parent in moving)
    if model.header.kind == "view":
        return _replaced(planned, "shows", f"shows what becomes of {names}; nothing to build", True)
    if planned.action == "days":
        reason = f"{planned.reason}; more if the rows of {names} differ after their build"
        return _replaced(planned, "days", reason, True, planned.days)
    days = _days_ahead(look, model, moving)
    action: Action = (
        "days" if days else "merge" if model.header.kind in ("incremental_by_key", "snapshot") else "full"
    )
    reason = f"if the rows of {names} differ after the build"
    return _replaced(planned, action, reason, False, days)


def _replaced(
    planned: Planned, action: Action, reason: str, certain: bool, days: tuple[date, ...] = ()
) -> Planned:
    return Planned(
        planned.model, planned.kind, action, reason, certain, days, planned.rows, planned.changes,
        planned.breaking,
    )  # fmt: skip


def _days_ahead(look: _Look, model: Model, moving: list[Planned]) -> tuple[date, ...]:
    """The windows that may reopen, if those of all moving parents are known."""
    if model.header.kind != "incremental_by_time" or not all(parent.days for parent in moving):
        return ()
    windows: set[date] = set()
    for parent in moving:
        windows |= reopened(model.header, parent.days, look.models[parent.model].header)
    return tuple(sorted(windows))


def _with_rows(look: _Look, model: Model, planned: Planned) -> Planned:
    if planned.action in ("skip", "view", "shows"):
        return planned
    rows: int | None
    if planned.days and exists(look.con, model.name):
        column = model.header.time_column
        row = look.con.execute(
            f'SELECT count(*) FROM {model.name} WHERE "{column}" IN ({listed(planned.days)})'
        ).fetchone()
        rows = int(row[0]) if row else 0
    elif model.name in look.rows:
        rows = look.rows[model.name]
    else:
        inputs = [look.rows[table] for table in stored_inputs(model, look.models) if table in look.rows]
        rows = max(inputs, default=None)  # of a first build: as many as the largest table it reads
    return Planned(**(vars(planned) | {"rows": rows}))
