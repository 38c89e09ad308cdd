"""Filling a lake: tables of the warehouse copied in, models built by several processes.

A model is built only if its definition or the content of what it reads changed. Its rows go into a table
aside, its windows spread over the workers; then they are checked and put in place in one transaction. Who
reads the lake meanwhile sees the old table or the new one.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from hashlib import sha256
from multiprocessing import get_context

import duckdb

from omni.errors import CheckFailed, ConfigError, OmniError, SchemaError, StorageError
from omni.tenancy import Tenant
from omni.warehouse import lake
from omni.warehouse.build import Outcome
from omni.warehouse.catalog import columns
from omni.warehouse.check_runs import refuse_failed, run_checks
from omni.warehouse.checks import Check
from omni.warehouse.connection import schema_errors
from omni.warehouse.contracts import contracts
from omni.warehouse.database import Warehouse
from omni.warehouse.models import Model, fingerprint, in_order, stored_inputs
from omni.warehouse.runner import Built
from omni.warehouse.versions import content_hash

TRIES = 8
"""How often a process tries to commit what another one came before."""


@dataclass(frozen=True)
class Copied:
    """A table that was copied into the lake, or found there as it is."""

    table: str
    rows: int
    rewritten: bool


def copy_in(warehouse: Warehouse, place: lake.Place, tables: Collection[str], run_id: str) -> list[Copied]:
    """Copy tables of a DuckDB warehouse into the lake, those whose content differs.

    Args:
        warehouse: open for writing, so that nothing changes meanwhile.
        place: the tenant's lake.
        tables: names; those without rows too, so that models find them.
        run_id: kept with each copy.
    """
    copied = []
    with lake.open_lake(place) as prepared:
        lake.prepare(prepared)
    with warehouse.cursor() as con:
        if not isinstance(con, duckdb.DuckDBPyConnection):
            raise ConfigError("A lake is filled from DuckDB warehouses; this one is PostgreSQL")
        lake.attach(con, place, "lake")
        try:
            known = _known(con, "lake.ops.built")
            for table in sorted(tables):
                kinds = json.dumps(columns(con, table))
                whole = sha256(f"{content_hash(con, table)} {kinds}".encode()).hexdigest()
                rows = _count(con, table)
                if known.get(table, ("", ""))[1] == whole:
                    copied.append(Copied(table, rows, rewritten=False))
                    continue
                _committed(con, partial(_copy, con, table, whole, rows, run_id))
                copied.append(Copied(table, rows, rewritten=True))
        finally:
            con.execute("DETACH lake")
    return copied


def _copy(con: duckdb.DuckDBPyConnection, table: str, whole: str, rows: int, run_id: str) -> None:
    con.execute(f"CREATE OR REPLACE TABLE lake.{table} AS FROM {table}")
    _note(con, "lake.ops.built", table, "copied", whole, rows, run_id)


@dataclass
class _Job:
    """A model being built: what is left to insert, and when it began."""

    model: Model
    definition: str
    started: float = field(default_factory=time.monotonic)
    parts: set[Future[int]] = field(default_factory=set)

    @property
    def fresh(self) -> str:
        schema, _, name = self.model.name.partition(".")
        return f'{schema}."__new_{name}"'


def build_lake(
    tenant: Tenant,
    place: lake.Place,
    models: Mapping[str, Model],
    *,
    workers: int = 4,
    select: Collection[str] | None = None,
    run_id: str,
    on_built: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Bring the lake's models up to date with several processes.

    Models that need nothing of each other are built side by side; the windows of an incremental_by_time
    model are spread over all workers. A worker that dies ends the build; what was finished stays, nothing
    unfinished is seen, and running again continues.

    Args:
        tenant: whose values stand in the SQL.
        place: the tenant's lake; what the models read was copied in (`copy_in`).
        models: every model, by name.
        workers: processes.
        select: names of the models to build; all by default.
        run_id: kept with what is built.
        on_built: told of every model as it ends.

    Raises:
        ConfigError: a selected model keeps versions of rows (kind snapshot): those live in the warehouse.
        StorageError: a worker died.
        WarehouseLocked: another process builds this lake.
    """
    chosen = [m for m in in_order(models, {*contracts(), *models}) if select is None or m.name in select]
    for model in chosen:
        if model.header.kind == "snapshot":
            raise ConfigError(f"{model.origin}: a lake is rebuilt from its inputs, which no snapshot can be")
    with lake.alone(place), lake.open_lake(place) as con, _pool(place, workers) as pool:
        lake.prepare(con)
        build = _Build(tenant, con, pool, workers, models, run_id, on_built or (lambda _: None))
        try:
            return build.run(chosen)
        except BrokenProcessPool:
            raise StorageError(
                "A worker of the lake's build died; what was finished stays. Run again to continue."
            ) from None


@dataclass
class _Build:
    tenant: Tenant
    con: duckdb.DuckDBPyConnection
    pool: ProcessPoolExecutor
    workers: int
    models: Mapping[str, Model]
    run_id: str
    on_built: Callable[[Outcome], None]
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def run(self, chosen: list[Model]) -> list[Outcome]:
        waiting, running = list(chosen), dict[str, _Job]()
        while waiting or running:
            for model in [m for at, m in enumerate(waiting) if self._ready(m, waiting[:at], running)]:
                waiting.remove(model)
                self._guarded(model, partial(self._start, model, running))
            parts = {part for job in running.values() for part in job.parts}
            if not parts:
                continue
            done, _ = wait(parts, return_when=FIRST_COMPLETED)
            for job in [j for j in running.values() if j.parts & done]:
                self._guarded(job.model, partial(self._advance, job, done, running))
        return list(self.outcomes.values())

    def _ready(self, model: Model, earlier: list[Model], running: Mapping[str, _Job]) -> bool:
        pending = {m.name for m in earlier} | running.keys()
        return pending.isdisjoint({*model.parents, *model.checked_against})

    def _guarded(self, model: Model, act: Callable[[], None]) -> None:
        """A failure is this model's own; what reads it is blocked."""
        try:
            with _database_errors(model.origin):
                act()
        except (SchemaError, CheckFailed, StorageError) as error:
            self._end(model, Outcome(model.name, "failed", reason=f"{type(error).__name__}: {error}"))

    def _end(self, model: Model, outcome: Outcome) -> None:
        self.outcomes[model.name] = outcome
        self.on_built(outcome)

    def _start(self, model: Model, running: dict[str, _Job]) -> None:
        for parent in model.parents:
            if parent in self.outcomes and self.outcomes[parent].status != "done":
                self._end(model, Outcome(model.name, "blocked", reason=f"needs {parent}"))
                return
        job = _Job(model, self._definition(model))
        if model.header.kind == "view":
            with schema_errors(model.origin):
                self.con.execute(f"CREATE OR REPLACE VIEW {model.name} AS {model.bound(self.tenant)}")
            self._finish(job, 0, "view", changed=True)
        elif _known(self.con).get(model.name, ("", ""))[0] == job.definition:
            self._finish(job, _count(self.con, model.name), "skip", changed=False)
        else:
            self._spread(job)
            running[model.name] = job

    def _definition(self, model: Model) -> str:
        """Changes with the model's SQL and with the content of what it reads."""
        known = _known(self.con)
        inputs = {table: known.get(table, ("", ""))[1] for table in stored_inputs(model, self.models)}
        whole = [fingerprint(model, self.models, self.tenant), sorted(inputs.items())]
        return sha256(json.dumps(whole).encode()).hexdigest()

    def _spread(self, job: _Job) -> None:
        """Make the empty table and hand its parts to the workers."""
        query = job.model.bound(self.tenant)
        with schema_errors(job.model.origin):
            self.con.execute(
                f"CREATE OR REPLACE TABLE {job.fresh} AS SELECT * FROM ({query}) AS built LIMIT 0"
            )
        column = job.model.header.time_column
        if job.model.header.kind != "incremental_by_time" or column is None:
            job.parts = {self.pool.submit(_insert, job.fresh, query, job.model.origin)}
            return
        found = self.con.execute(
            f'SELECT DISTINCT built."{column}" FROM ({query}) AS built ORDER BY 1 NULLS LAST'
        ).fetchall()
        days: list[date | None] = [day for (day,) in found]
        size = max(1, -(-len(days) // self.workers))
        for at in range(0, len(days), size):
            part = [f"DATE '{day.isoformat()}'" for day in days[at : at + size] if day is not None]
            where = f'built."{column}" IN ({", ".join(part)})' if part else "false"
            if None in days[at : at + size]:
                where += f' OR built."{column}" IS NULL'
            windows = f"SELECT * FROM ({query}) AS built WHERE {where}"
            job.parts.add(self.pool.submit(_insert, job.fresh, windows, job.model.origin))
        if not days:
            job.parts = {self.pool.submit(_insert, job.fresh, query, job.model.origin)}

    def _advance(self, job: _Job, done: set[Future[int]], running: dict[str, _Job]) -> None:
        try:
            for part in job.parts & done:
                part.result()
        except OmniError:
            del running[job.model.name]
            wait(job.parts)
            self.con.execute(f"DROP TABLE IF EXISTS {job.fresh}")
            raise
        job.parts -= done
        if job.parts:
            return
        del running[job.model.name]
        header, unique = job.model.header, Check(unique=job.model.header.grain)
        checks = header.checks if unique in header.checks else [*header.checks, unique]
        results = run_checks(self.con, job.fresh, checks, name=job.model.name, grain=header.grain)
        refuse_failed(results, f"the lake's table keeps its old rows. See the model: {job.model.origin}")
        whole, rows = content_hash(self.con, job.fresh), _count(self.con, job.fresh)

        def swap() -> None:
            self.con.execute(f"DROP TABLE IF EXISTS {job.model.name}")
            self.con.execute(f'ALTER TABLE {job.fresh} RENAME TO "{job.model.name.partition(".")[2]}"')
            _note(self.con, "ops.built", job.model.name, job.definition, whole, rows, self.run_id)

        _committed(self.con, swap)
        self._finish(job, rows, "full", changed=True)

    def _finish(self, job: _Job, rows: int, action: str, *, changed: bool) -> None:
        seconds = round(time.monotonic() - job.started, 4)
        reason = "unchanged" if action == "skip" else "its SQL or what it reads changed"
        built = Built(job.model.name, action, reason, rows, changed, seconds)  # type: ignore[arg-type]
        self._end(job.model, Outcome(job.model.name, "done", built))


@contextmanager
def _pool(place: lake.Place, workers: int) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_open_here, initargs=(place,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


_here: duckdb.DuckDBPyConnection | None = None
_open = ExitStack()


def _open_here(place: lake.Place) -> None:
    """In a worker process: open the lake once for all that it will do."""
    global _here
    _here = _open.enter_context(lake.open_lake(place, threads=1))


def _insert(table: str, query: str, origin: str) -> int:
    """In a worker process: insert a SELECT's rows; returns how many."""
    assert _here is not None
    con, inserted = _here, 0

    def insert() -> None:
        nonlocal inserted
        row = con.execute(f"INSERT INTO {table} {query}").fetchone()
        inserted = int(row[0]) if row else 0

    with _database_errors(origin):
        _committed(con, insert)
    return inserted


@contextmanager
def _database_errors(origin: str) -> Iterator[None]:
    """Whatever DuckDB refuses is the model's own failure; its errors do not travel between processes."""
    try:
        with schema_errors(origin):
            yield
    except duckdb.Error as error:
        raise SchemaError(f"{origin}: {type(error).__name__} while the lake's table was built") from None
    except SchemaError as error:
        raise SchemaError(str(error)) from None


def _committed(con: duckdb.DuckDBPyConnection, act: Callable[[], None]) -> None:
    """Run in a transaction, again when another process changed the lake first.

    Raises:
        StorageError: others came first every time.
    """
    for attempt in range(TRIES):
        con.begin()
        try:
            act()
            con.commit()
        except duckdb.TransactionException:
            _undo(con)
            time.sleep(random.uniform(0, 0.05 * 2**attempt))  # noqa: S311
        except BaseException:
            _undo(con)
            raise
        else:
            return
    raise StorageError(f"Other processes changed the lake first, {TRIES} times; run again when it is quieter")


def _undo(con: duckdb.DuckDBPyConnection) -> None:
    """Roll back, unless a failed commit already did."""
    try:
        con.rollback()
    except duckdb.TransactionException:
        return


def _known(con: duckdb.DuckDBPyConnection, ledger: str = "ops.built") -> dict[str, tuple[str, str]]:
    """Of each table the fingerprint and the content hash of its newest entry."""
    rows = con.execute(
        f"SELECT table_name, fingerprint, content_hash FROM {ledger} "
        "QUALIFY row_number() OVER (PARTITION BY table_name ORDER BY built_at DESC) = 1"
    ).fetchall()
    return {table: (definition, whole) for table, definition, whole in rows}


def _note(
    con: duckdb.DuckDBPyConnection,
    ledger: str,
    table: str,
    definition: str,
    whole: str,
    rows: int,
    run_id: str,
) -> None:
    """Remember what a table holds. The ledger only grows, so that processes never change the same row."""
    con.execute(
        f"INSERT INTO {ledger} VALUES ($1, $2, $3, $4, $5, $6)",
        [table, definition, whole, rows, run_id, datetime.now(UTC)],
    )


def _count(con: duckdb.DuckDBPyConnection, table: str) -> int:
    row = con.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(row[0]) if row else 0
