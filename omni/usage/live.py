"""Keeping metrics up to date every few seconds: small loads, only the days they touch, the same tables.

A turn seals the spool, opens the warehouse for a moment, loads what has come and builds the models between
the events and the live metrics; those of `incremental_by_time` rebuild only the days of new events, late
ones among them. So a night's build finds nothing left to do, and the same tables come of both. While another
process holds the warehouse, turns are left out; the events wait in the spool.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from zoneinfo import ZoneInfo

from omni.errors import ConfigError, OmniError, WarehouseLocked
from omni.files import private_folder, write_atomic
from omni.tenancy import Tenant
from omni.usage.feed import KEPT_CORRECTIONS, Feed, State, read_state, state_file
from omni.usage.load import TABLE, LoadedEvents, load_events
from omni.usage.spool import Spool, recover, sealed_segments, spool_folder
from omni.warehouse.build import build_models
from omni.warehouse.catalog import exists
from omni.warehouse.connection import Connection
from omni.warehouse.contracts import contracts
from omni.warehouse.database import Warehouse, open_warehouse
from omni.warehouse.models import Model, in_order
from omni.warehouse.selection import ancestors, descendants
from omni.warehouse.versions import changes_since, versions

EVENTS = "staging.usage__events"
ALL = "metrics.daily"
"""The view of all metrics: no metric itself."""
LOCK_SECONDS = 1.0
"""How long a turn waits for a warehouse that another process holds."""
LOOK_SECONDS = 60.0
"""After so long the models are looked at although no event has come: others load events too."""

FIRST: State = {"epoch": 0, "sequence": 0, "version": 0, "corrections": [], "corrections_since": 0}
"""What stands for the state before the first."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selection:
    """What is kept up to date.

    Attributes:
        models: built at every turn.
        metrics: name to table of the metrics to show.
        slower: built once in `LOOK_SECONDS`: the metrics' weeks and months, which are read whole.
    """

    models: frozenset[str]
    metrics: Mapping[str, str]
    slower: frozenset[str] = frozenset()


def select_live(models: Mapping[str, Model], metrics: Collection[str] | None = None) -> Selection:
    """The metrics that can be kept up to date at little cost, and the models between them and the events.

    Args:
        models: every model of the project, the metrics' among them.
        metrics: names of the metrics wanted, whatever they cost; by default those that no model of a kind
            that is built whole stands before.

    Raises:
        ConfigError: a metric does not exist, or does not come from events.
    """
    first = [name for name, model in models.items() if TABLE in model.parents]
    order = [model.name for model in in_order(models, {*contracts(), *models})]
    reached = descendants(models, order, first)
    tables = {name.removeprefix("metrics."): name for name in reached if name.startswith("metrics.")}
    tables = {name: table for name, table in sorted(tables.items()) if "__" not in name and table != ALL}
    if metrics is None:
        tables = {name: table for name, table in tables.items() if _cheap(models, table, reached)}
    elif unknown := sorted(set(metrics) - set(tables)):
        raise ConfigError(
            f"{', '.join(unknown)}: no metric that comes from {TABLE}; these do: {', '.join(sorted(tables))}"
        )
    else:
        tables = {name: tables[name] for name in metrics}
    between = ancestors(models, tables.values()) & reached
    between |= {name for name in first if models[name].header.kind == "view"}
    cells = {name for name in reached for table in tables.values() if name.startswith(f"{table}__")}
    slower = (ancestors(models, cells) & reached) - between
    return Selection(frozenset(between), tables, frozenset(slower))


def _cheap(models: Mapping[str, Model], table: str, reached: Collection[str]) -> bool:
    before = (ancestors(models, {table}) - {table}) & set(reached)
    return all(
        models[name].header.kind in ("view", "incremental_by_time") or name.startswith("metrics.")
        for name in before
    )


@dataclass(frozen=True)
class Turn:
    """What a turn did."""

    status: Literal["done", "idle", "locked", "failed"]
    loaded: LoadedEvents = field(default_factory=LoadedEvents)
    seconds: float = 0.0
    problems: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Live:
    """What the turns of one tenant need and remember.

    Args:
        tenant: whose.
        models: every model of the project.
        selection: what is kept up to date.
        feed: told of every new state.
        spool: this process's own, sealed at the beginning of a turn; other processes seal theirs.
        lock_seconds: how long a turn waits for the warehouse.
        clock: the time (UTC).
    """

    tenant: Tenant
    models: Mapping[str, Model]
    selection: Selection
    feed: Feed = field(default_factory=Feed)
    spool: Spool | None = None
    lock_seconds: float = LOCK_SECONDS
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _looked: float | None = None
    _hour: datetime | None = None

    def now(self) -> datetime:
        """The time in the tenant's zone."""
        return self.clock().astimezone(ZoneInfo(self.tenant.timezone))


def take_turn(live: Live) -> Turn:
    """Load what has come, bring the live metrics up to date, publish the current window.

    The state that is published: `epoch`, `sequence`, `as_of`, `today` and `hour` (in the tenant's zone),
    `metrics` (today's value of each), `this_hour` (events and users by event), `loaded`, `problems`, and
    `corrections`: values of earlier days that late events changed, each with the sequence of its turn.
    `version` is that of the events' table. Of what failed watchers learn the model and the kind of error;
    the rest, which may quote values, is in the log.

    Raises:
        StorageError: something cannot be written. Events that were not loaded stay in the spool.
    """
    started = time.monotonic()
    if live.spool is not None:
        live.spool.seal()
    folder = spool_folder(live.tenant)
    recover(folder)
    waiting = sealed_segments(folder)
    looked = live._looked is not None and started - live._looked < LOOK_SECONDS
    if not waiting and looked and _hour(live.now()) == live._hour:
        return Turn("idle")
    try:
        with open_warehouse(live.tenant, timeout=live.lock_seconds) as warehouse:
            run_id = f"live-{live.now():%Y-%m-%d}"
            before = live.feed.latest or read_state(live.tenant) or _beginning()
            # Looked for again: another loader may have taken some while this one waited.
            loaded = load_events(warehouse, sealed_segments(folder), run_id=run_id)
            with warehouse.cursor() as con:
                version = versions(con, [TABLE])[TABLE]
                # Not just the days loaded here: others load events too, and a turn may have been killed.
                changed = changes_since(con, {TABLE: before["version"]}).days if before["version"] else ()
            problems = _bring_up_to_date(live, warehouse, run_id, slower=not looked)
            # What could not be built is announced when it is.
            seen = before["version"] if problems else version
            with warehouse.cursor() as con:
                state = _state(live, con, loaded, problems) | {"version": seen}
                state |= _corrections(live, con, before, state, {*changed, *loaded.days})
    except WarehouseLocked:
        return Turn("locked", seconds=time.monotonic() - started)
    private_folder(state_file(live.tenant).parent)
    write_atomic(state_file(live.tenant), json.dumps(state))
    live.feed.publish(state)
    # What failed is tried again at the next turn.
    live._looked = None if problems else started if not looked else live._looked
    live._hour = _hour(live.now())
    return Turn("done", loaded, time.monotonic() - started, problems)


def _bring_up_to_date(live: Live, warehouse: Warehouse, run_id: str, *, slower: bool) -> dict[str, str]:
    """Build the live models, and those before them that were never built; gives what failed."""
    before = ancestors(live.models, live.selection.models) - live.selection.models
    with warehouse.cursor() as con:
        missing = {name for name in before if not exists(con, name)}
    wanted = live.selection.models | missing | (live.selection.slower if slower else set())
    outcomes = build_models(warehouse, live.models, select=wanted, run_id=run_id)
    with warehouse.transaction() as con:
        # Every few seconds the same checks pass: the last results tell as much as all of them.
        con.execute(
            "DELETE FROM ops.check_results WHERE run_id = $1 AND passed AND checked_at < $2",
            [run_id, datetime.now(UTC) - timedelta(minutes=10)],
        )
    return {one.model: one.reason for one in outcomes if one.status != "done"}


def _state(live: Live, con: Connection, loaded: LoadedEvents, problems: Mapping[str, str]) -> dict[str, Any]:
    now = live.now()
    today = now.date()
    found = {name: _days(con, table, [today]) for name, table in live.selection.metrics.items()}
    return {
        "tenant": live.tenant.tenant,
        "as_of": now.isoformat(timespec="milliseconds"),
        "today": today.isoformat(),
        "hour": _hour(now).isoformat(),
        "metrics": {name: values.get(today) for name, values in found.items()},
        "this_hour": _this_hour(con, _hour(now)),
        "loaded": {
            "events": loaded.inserted, "repeated": loaded.repeated, "refused": loaded.letters,
            "properties_dropped": loaded.dropped,
        },
        "problems": {model: _kind(reason) for model, reason in problems.items()},
    }  # fmt: skip


def _beginning() -> State:
    """A state before the first, in an epoch later than any before it."""
    return {**FIRST, "epoch": time.time_ns() // 1_000_000}


def _kind(reason: str) -> str:
    """Of a reason only what quotes nothing: the error's name, or the model that is waited for."""
    found = re.match(r"[A-Za-z]\w*(?=: )|needs [\w.]+\Z", reason)
    return found[0] if found else "failed"


def _corrections(
    live: Live, con: Connection, before: State, state: State, changed: Collection[date]
) -> dict[str, Any]:
    """The turn's sequence, and the values of earlier days that it changed, after those of turns before."""
    sequence = before["sequence"] + 1
    late = sorted(day for day in changed if day.isoformat() < state["today"])
    corrections, since = [*before["corrections"]], before["corrections_since"]
    for name, table in live.selection.metrics.items() if late else ():
        values = _days(con, table, late)
        corrections += [
            {"sequence": sequence, "metric": name, "day": day.isoformat(), "value": values.get(day)}
            for day in late
        ]
    if len(corrections) > KEPT_CORRECTIONS:
        since = corrections[-KEPT_CORRECTIONS - 1]["sequence"]
        corrections = corrections[-KEPT_CORRECTIONS:]
    epoch = before.get("epoch", 0)
    return {
        "epoch": epoch, "sequence": sequence, "corrections": corrections, "corrections_since": since,
    }  # fmt: skip


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _days(con: Connection, table: str, days: Sequence[date]) -> dict[date, Any]:
    """A metric's totals on some days; a day without events has none."""
    if not exists(con, table):
        return {}
    rows = con.execute(
        f"SELECT day, value FROM {table} WHERE dimension = '' AND day IN (SELECT unnest($1::DATE[]))",
        [list(days)],
    ).fetchall()
    return {day: float(value) if isinstance(value, Decimal) else value for day, value in rows}


def _this_hour(con: Connection, hour: datetime) -> dict[str, Any]:
    """Events and different users since the hour began, in total and by event."""
    if not exists(con, EVENTS):
        return {"events": 0, "users": 0, "by_event": {}}
    bounds = [hour, hour + timedelta(hours=1)]
    where = "WHERE occurred_at >= $1 AND occurred_at < $2"
    total = con.execute(f"SELECT count(*), count(DISTINCT actor_id) FROM {EVENTS} {where}", bounds).fetchone()
    by_event = con.execute(
        f"SELECT event, count(*) FROM {EVENTS} {where} GROUP BY event ORDER BY 2 DESC, 1", bounds
    ).fetchall()
    events, users = total or (0, 0)
    return {"events": events, "users": users, "by_event": dict(by_event)}


def run_turns(
    live: Live, every: float, stop: threading.Event, on_turn: Callable[[Turn], None] | None = None
) -> None:
    """Take turns `every` seconds until `stop` is set, then a last one.

    Errors are logged, and tried again; `on_turn` is told of a turn that failed too.
    """
    while True:
        last = stop.is_set()
        started = time.monotonic()
        try:
            turn = take_turn(live)
        except OmniError as error:
            log.error("A live turn of %s failed: %s", live.tenant.tenant, error)  # noqa: TRY400
            turn = Turn("failed", problems={"turn": str(error)})
        except Exception as error:
            log.exception("A live turn of %s failed", live.tenant.tenant)
            turn = Turn("failed", problems={"turn": f"{type(error).__name__}; see the log"})
        else:
            for model, reason in turn.problems.items():
                log.error("%s: %s", model, reason)
        if on_turn:
            on_turn(turn)
        if last:
            return
        stop.wait(max(0.0, every - (time.monotonic() - started)))
