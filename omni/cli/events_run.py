"""What the commands of usage events do."""

from __future__ import annotations

import json
import os
import signal
import threading
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from omni import tenancy
from omni.errors import ConfigError, SourceError, WarehouseLocked
from omni.tenancy import Tenant
from omni.usage.catalogue import catalogue, event_named
from omni.usage.collect import Collector
from omni.usage.feed import read_state
from omni.usage.files import Taken, spool_file
from omni.usage.load import LoadedEvents, load_events
from omni.usage.spool import Spool, damaged_segments, recover, sealed_segments, spool_folder

LOCAL = "http://127.0.0.1:8091"


def serve(companies: Sequence[str] | None, host: str, port: int, every: float | None) -> None:
    """Serve the door; with `every` keep the metrics live in this process too."""
    from omni.settings import settings
    from omni.usage.server import build_app
    from omni.usage.server import serve as run_server

    chosen = [tenancy.get(name) for name in companies or tenancy.tenants()]
    keys = settings().events.write_keys
    if companies is None:
        chosen = [tenant for tenant in chosen if tenant.tenant in keys]
    if missing := [tenant.tenant for tenant in chosen if tenant.tenant not in keys] or (
        ["every company"] if not chosen else []
    ):
        raise ConfigError(f"{', '.join(missing)}: no write key yet. `omni events key` makes one")
    lives = [_live(tenant, None) for tenant in chosen] if every else []
    for tenant in chosen:
        typer.echo(f"http://{host}:{port}/events/{tenant.tenant}")
    run_server(build_app(chosen, lives, every or 5.0), host, port)


def _live(tenant: Tenant, metrics: Sequence[str] | None) -> Any:
    from omni.catalogue.project import all_models
    from omni.usage.live import Live, select_live

    models = all_models()
    return Live(tenant, models, select_live(models, metrics))


def live(company: str, every: float, metrics: Sequence[str] | None, *, once: bool, as_json: bool) -> bool:
    """Take turns until interrupted, or one; whether the last one went well."""
    from omni.usage.live import Turn, run_turns

    kept, stop = _live(tenancy.get(company), metrics), threading.Event()
    good = False

    def tell(turn: Turn) -> None:
        nonlocal good
        good = turn.status not in ("locked", "failed") and not turn.problems
        if turn.status == "idle":
            return
        state = kept.feed.latest
        if as_json:
            typer.echo(json.dumps(state if turn.status == "done" else {"status": turn.status}))
        elif turn.status == "locked":
            typer.echo("another process holds the warehouse; the events wait")
        elif turn.status == "failed":
            typer.echo(f"the turn failed; the events wait. {turn.problems['turn']}", err=True)
        elif state is not None:
            shown = ", ".join(f"{name} {value}" for name, value in state["metrics"].items())
            typer.echo(f"{state['as_of']}  +{turn.loaded.inserted} events in {turn.seconds:.2f} s  {shown}")

    if once:
        stop.set()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    run_turns(kept, every, stop, tell)
    return good


def load(company: str, files: Sequence[Path], *, as_json: bool) -> bool:
    """Load files and the spool; whether no event was refused and no segment damaged."""
    from omni.warehouse.database import open_warehouse

    tenant = tenancy.get(company)
    spool = Spool.of(tenant)
    taken: dict[str, Taken] = {}
    try:
        for path in files:
            taken[str(path)] = spool_file(tenant, path, spool)
    finally:
        spool.seal()
    folder = spool_folder(tenant)
    recover(folder)
    loaded = LoadedEvents()
    if sealed_segments(folder):
        try:
            with open_warehouse(tenant) as warehouse:
                loaded = load_events(warehouse, sealed_segments(folder), run_id=f"events-{uuid.uuid4()}")
        except WarehouseLocked as error:
            raise WarehouseLocked(
                f"{error} The events are safe in the spool; `omni events load` again"
            ) from None
    _tell_load(taken, loaded, as_json=as_json)
    return not any(one.refused for one in taken.values()) and not loaded.damaged


def _tell_load(taken: dict[str, Taken], loaded: LoadedEvents, *, as_json: bool) -> None:
    if as_json:
        files = {name: {**vars(one), "reasons": dict(one.reasons)} for name, one in taken.items()}
        counts = {name: value for name, value in vars(loaded).items() if name != "days"}
        days = [day.isoformat() for day in loaded.days]
        typer.echo(json.dumps({"files": files, **counts, "repeated": loaded.repeated, "days": days}))
        return
    for name, one in taken.items():
        typer.echo(f"{name}: {one.accepted} events, {one.refused} refused, {one.dropped} properties dropped")
        for reason, number in one.reasons.most_common(5):
            typer.echo(f"  {number} × {reason}")
    typer.echo(
        f"{loaded.inserted} events loaded on {len(loaded.days)} days, {loaded.repeated} were there already"
    )
    if loaded.damaged:
        typer.echo(f"{loaded.damaged} segments are damaged; `omni events status` says what to do", err=True)


def send(
    company: str,
    event: str | None,
    actor: str,
    given: Sequence[str],
    sample: int,
    url: str | None,
    key_env: str,
) -> bool:
    """Send events to a server or into the spool; whether none was refused."""
    tenant = tenancy.get(company)
    if (event is None) == (sample == 0):
        raise ConfigError("Name an event, or give --sample and a number")
    events = [_made(event, actor, given)] if event else _sample(sample)
    if url is not None:
        return _post(f"{url.rstrip('/')}/events/{company}", events, os.environ.get(key_env, ""), key_env)
    spool, accepted, good = Spool.of(tenant), 0, True
    collector = Collector(tenant)
    for start in range(0, len(events), 1000):
        delivery = collector.read(json.dumps(events[start : start + 1000]).encode())
        spool.append(delivery.batch)
        accepted += delivery.accepted
        for one in delivery.refused:
            good = False
            typer.echo(f"refused: {one.reason}", err=True)
    spool.seal()
    typer.echo(f"{accepted} accepted: omni events load --company {company}")
    return good


def _made(event: str, actor: str, given: Sequence[str]) -> dict[str, Any]:
    declared, data = event_named(event), {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals:
            raise ConfigError(f"--property {name!r}: write NAME=VALUE")
        kind = declared.properties[name].type if name in declared.properties else "string"
        data[name] = text if kind in ("string", "enum", "timestamp") else _value(name, text)
    now = datetime.now(UTC).isoformat()
    return {
        "id": str(uuid.uuid4()), "source": "cli", "type": event, "time": now, "actor": actor, "data": data,
    }  # fmt: skip


def _value(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ConfigError(f"--property {name}: not a number, true or false") from None


def _sample(number: int) -> list[dict[str, Any]]:
    from omni.usage.sample import sample_events

    now = datetime.now(UTC)
    made = sample_events(number, since=now - timedelta(minutes=5), until=now, seed=int(now.timestamp()))
    return list(made)


def _post(url: str, events: list[dict[str, Any]], key: str, key_env: str) -> bool:
    import httpx

    if not key:
        raise ConfigError(f"{key_env} holds no write key; `omni events key` makes one")
    refused = 0
    for start in range(0, len(events), 1000):
        try:
            answer = httpx.post(
                url, json=events[start : start + 1000], headers={"authorization": f"Bearer {key}"}
            )
        except httpx.HTTPError as error:
            raise SourceError(f"{url}: {type(error).__name__}. Does `omni events serve` run?") from None
        said = answer.json()
        if answer.status_code not in (202, 400) or "accepted" not in said:
            raise SourceError(f"{url} answered {answer.status_code}: {said.get('status', 'no reason')}")
        refused += said["refused"]
        typer.echo(f"{said['accepted']} accepted")
        for one in said["reasons"]:
            typer.echo(f"refused: {one['reason']}", err=True)
    return refused == 0


def status(company: str, *, as_json: bool) -> None:
    """Print what waits and the last window."""
    tenant = tenancy.get(company)
    segments, state = sealed_segments(spool_folder(tenant)), read_state(tenant)
    waiting, damaged = sum(map(_size, segments)), damaged_segments(spool_folder(tenant))
    if as_json:
        counts = {"segments": len(segments), "bytes": waiting, "damaged": len(damaged)}
        typer.echo(json.dumps({**counts, "window": state}))
        return
    typer.echo(f"{len(segments)} segments ({waiting / 1e6:.1f} MB) wait to be loaded")
    if damaged:
        typer.echo(
            f"{len(damaged)} damaged files (.bad) lie in {spool_folder(tenant)}. What was whole in them is "
            "loaded. Check the disk, let the senders of those hours send again (repeats count once), then "
            "remove the files; they count towards OMNI_EVENTS__SPOOL_BYTES"
        )
    if state is None:
        typer.echo("No live window yet: omni events live")
        return
    typer.echo(f"as of {state['as_of']}: {state['this_hour']['events']} events this hour")
    for name, value in state["metrics"].items():
        typer.echo(f"  {name}: {'-' if value is None else value}")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # loaded meanwhile
        return 0


def list_declared(*, as_json: bool) -> None:
    """Print the declared events."""
    declared = catalogue()
    if as_json:
        typer.echo(json.dumps({name: one.model_dump(exclude_none=True) for name, one in declared.items()}))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("event", "properties", "description"):
        table.add_column(column)
    for name, one in declared.items():
        needed = [
            f"{prop}{'*' if kind.required else ''} {kind.type}" for prop, kind in one.properties.items()
        ]
        table.add_row(name, ", ".join(needed), one.description)
    Console().print(table)
