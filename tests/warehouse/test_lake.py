"""A lake that several processes write: DuckLake with its catalogue in PostgreSQL."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from omni.errors import ConfigError, StorageError, WarehouseLocked
from omni.settings import settings
from omni.tenancy import Tenant
from omni.warehouse import lake
from omni.warehouse.build import build_models
from omni.warehouse.database import open_warehouse
from omni.warehouse.lake_build import build_lake, copy_in
from omni.warehouse.models import Model, load_models
from omni.warehouse.versions import content_hash, record_change

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("duckdb_extension_ducklake") is None,
        reason="DuckDB's extension ducklake is not installed (the extra `lake`)",
    ),
]

HEADER = "/*\nkind: {kind}\nowner: a@b.example\ndescription: X.\ngrain: [{grain}]\n{more}*/\n"
MODELS = {
    "staging/usage__events": HEADER.format(kind="view", grain="source, event_id", more="")
    + "SELECT source, event_id, event, actor_id, occurred_at FROM raw.usage__events",
    "core/events": HEADER.format(kind="full", grain="event_id", more="time_column: day\n")
    + "SELECT event_id, event, actor_id, CAST(occurred_at AT TIME ZONE :timezone AS DATE) AS day "
    "FROM staging.usage__events",
    "marts/daily": HEADER.format(
        kind="incremental_by_time",
        grain="day, event",
        more="time_column: day\nchecks:\n  - unique: [day, event]\n",
    )
    + "SELECT day, event, count(*) AS events, count(DISTINCT actor_id) AS actors "
    "FROM core.events GROUP BY 1, 2",
    "marts/actors": HEADER.format(kind="full", grain="actor_id", more="")
    + "SELECT actor_id, count(*) AS events FROM core.events GROUP BY 1",
    "marts/total": HEADER.format(kind="full", grain="n", more="")
    + "SELECT count(*) AS n, CAST(sum(events) AS BIGINT) AS events FROM marts.daily",
}
TABLES = ["core.events", "marts.daily", "marts.actors", "marts.total"]


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Model]:
    return write(tmp_path / "models", MODELS)


def write(folder: Path, models: dict[str, str]) -> dict[str, Model]:
    for name, text in models.items():
        path = folder / f"{name}.sql"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return load_models(folder)


@pytest.fixture
def place(postgres: Any, home: Path, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> Iterator[lake.Place]:
    with postgres.database() as name:
        address = postgres.url(name).replace("+psycopg", "").replace("omni@", "omni:secret-word@")
        monkeypatch.setenv("OMNI_LAKE_CATALOG", address)
        settings.cache_clear()
        yield lake.place_of(tenant)


def fill(tenant: Tenant, rows: int, *, first: int = 0) -> None:
    with open_warehouse(tenant) as warehouse, warehouse.transaction() as con:
        con.execute(
            "INSERT INTO raw.usage__events (source, event_id, actor_id, event, occurred_at, received_at) "
            "SELECT 'web', CAST(i AS VARCHAR), CAST(i % 97 AS VARCHAR), concat('event_', i % 5), "
            "TIMESTAMPTZ '2026-03-01 00:00:00+00' + i * INTERVAL 1 MINUTE, "
            "TIMESTAMPTZ '2026-06-01 00:00:00+00' FROM range($1, $2) AS r(i)",
            [first, first + rows],
        )
        record_change(con, "raw.usage__events", None, run_id="fill")


def copy(tenant: Tenant, place: lake.Place) -> list[bool]:
    with open_warehouse(tenant) as warehouse:
        return [one.rewritten for one in copy_in(warehouse, place, ["raw.usage__events"], "copy")]


def build(tenant: Tenant, place: lake.Place, models: dict[str, Model], *, workers: int = 1) -> dict[str, str]:
    outcomes = build_lake(tenant, place, models, workers=workers, run_id="lake")
    return {o.model: o.built.action if o.built else o.status for o in outcomes}


def contents(con: Any) -> dict[str, str]:
    return {table: content_hash(con, table) for table in TABLES}


def in_lake(place: lake.Place) -> dict[str, str]:
    with lake.open_lake(place) as con:
        return contents(con)


def in_warehouse(tenant: Tenant, models: dict[str, Model]) -> dict[str, str]:
    with open_warehouse(tenant) as warehouse:
        outcomes = build_models(warehouse, models, run_id="single")
        assert [o.reason for o in outcomes if o.status != "done"] == []
        with warehouse.cursor() as con:
            return contents(con)


def test_four_processes_make_the_tables_that_one_makes(
    tenant: Tenant, place: lake.Place, models: dict[str, Model]
) -> None:
    fill(tenant, 40_000)
    assert copy(tenant, place) == [True]
    assert copy(tenant, place) == [False]
    first = build(tenant, place, models, workers=4)
    assert first == {name: "view" if name.startswith("staging") else "full" for name in first}
    assert len(first) == len(MODELS)
    assert in_lake(place) == in_warehouse(tenant, models)
    again = build(tenant, place, models)
    assert {name for name, action in again.items() if action != "skip"} == {"staging.usage__events"}
    fill(tenant, 500, first=40_000)
    assert copy(tenant, place) == [True]
    build(tenant, place, models)
    assert in_lake(place) == in_warehouse(tenant, models)


def test_equal_content_stops_the_build_early(
    tenant: Tenant, place: lake.Place, models: dict[str, Model], tmp_path: Path
) -> None:
    fill(tenant, 1_000)
    copy(tenant, place)
    build(tenant, place, models)
    other = MODELS | {"core/events": MODELS["core/events"] + " WHERE event_id IS NOT NULL"}
    outcome = build(tenant, place, write(tmp_path / "models", other))
    assert {name for name, action in outcome.items() if action == "full"} == {"core.events"}


def test_a_failed_model_stops_what_reads_it_and_keeps_its_old_rows(
    tenant: Tenant, place: lake.Place, models: dict[str, Model], tmp_path: Path
) -> None:
    fill(tenant, 1_000)
    copy(tenant, place)
    build(tenant, place, models)
    before = in_lake(place)
    twice = MODELS["marts/daily"].replace("GROUP BY 1, 2", "GROUP BY 1, 2, actor_id")
    outcome = build(tenant, place, write(tmp_path / "models", MODELS | {"marts/daily": twice}))
    assert (outcome["marts.daily"], outcome["marts.total"]) == ("failed", "blocked")
    for wrong in ("count(nowhere)", "CAST(min(event) AS INTEGER)", "error('no')"):
        broken = MODELS["marts/daily"].replace("count(*)", wrong)
        outcome = build(tenant, place, write(tmp_path / "models", MODELS | {"marts/daily": broken}))
        assert (outcome["marts.daily"], outcome["marts.total"]) == ("failed", "blocked")
    assert in_lake(place) == before


def test_a_killed_worker_ends_the_build_and_a_rerun_completes_it(
    tenant: Tenant, place: lake.Place, models: dict[str, Model]
) -> None:
    fill(tenant, 5_000)
    copy(tenant, place)
    killed = []

    def kill_one(_: object) -> None:
        if multiprocessing.active_children() and not killed:
            victim = multiprocessing.active_children()[0]
            killed.append(victim.pid)
            os.kill(victim.pid, signal.SIGKILL)
            victim.join()

    with pytest.raises(StorageError, match="worker of the lake's build died"):
        build_lake(tenant, place, models, workers=2, run_id="killed", on_built=kill_one)
    build(tenant, place, models)
    assert in_lake(place) == in_warehouse(tenant, models)


def test_two_builds_at_once_are_refused(tenant: Tenant, place: lake.Place, models: dict[str, Model]) -> None:
    with lake.alone(place):
        with pytest.raises(WarehouseLocked, match="is being built by another process"):
            build(tenant, place, models)
        with lake.alone(lake.place_of(tenant.model_copy(update={"tenant": "beta"}))):
            pass
    fill(tenant, 10)
    copy(tenant, place)
    build(tenant, place, models)


def test_a_changed_type_is_copied_though_the_values_are_alike(tenant: Tenant, place: lake.Place) -> None:
    copied: list[bool] = []
    with open_warehouse(tenant) as warehouse:
        for kind in ("INTEGER", "BIGINT", "BIGINT"):
            with warehouse.transaction() as con:
                con.execute(f"CREATE OR REPLACE TABLE core.t AS SELECT CAST(1 AS {kind}) AS id")
            copied += [one.rewritten for one in copy_in(warehouse, place, ["core.t"], "copy")]
    assert copied == [True, True, False]
    with lake.open_lake(place) as con:
        assert con.execute("SELECT typeof(id) FROM core.t").fetchone() == ("BIGINT",)


def test_tenants_have_lakes_of_their_own(tenant: Tenant, place: lake.Place) -> None:
    fill(tenant, 10)
    copy(tenant, place)
    other = lake.place_of(tenant.model_copy(update={"tenant": "beta"}))
    with lake.open_lake(other) as con:
        lake.prepare(con)
        assert con.execute("SELECT count(*) FROM ops.built").fetchone() == (0,)
        with pytest.raises(duckdb.CatalogException):
            con.execute("SELECT * FROM raw.usage__events")


def test_the_password_is_not_shown(tenant: Tenant, place: lake.Place) -> None:
    assert "secret-word" not in repr(place)
    with lake.open_lake(place) as con:
        shown = [
            *con.execute("SELECT * FROM duckdb_databases()").fetchall(),
            *con.execute("SELECT * FROM duckdb_secrets()").fetchall(),
        ]
    assert "secret-word" not in str(shown)


def test_without_a_catalogue_the_error_says_which_setting(
    tenant: Tenant, place: lake.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNI_LAKE_CATALOG", "postgresql://omni:secret-word@127.0.0.1:1/none")
    settings.cache_clear()
    with (
        pytest.raises(StorageError, match="OMNI_LAKE_CATALOG") as caught,
        lake.open_lake(lake.place_of(tenant)),
    ):
        pass
    assert "secret-word" not in str(caught.value)
    monkeypatch.delenv("OMNI_LAKE_CATALOG")
    settings.cache_clear()
    with pytest.raises(ConfigError, match="OMNI_LAKE_CATALOG=postgresql"):
        lake.place_of(tenant)
