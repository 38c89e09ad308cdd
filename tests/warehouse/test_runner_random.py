"""Whatever happens to sources and models, the tables end as one full build of the final state makes them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omni.tenancy import Tenant
from omni.warehouse.build import build_models
from omni.warehouse.connection import Connection
from omni.warehouse.database import Warehouse, open_warehouse
from omni.warehouse.models import Model, load_models
from omni.warehouse.versions import record_change

pytestmark = pytest.mark.slow

FIRST = date(2026, 1, 25)
DAYS = 25
KEEPS_HISTORY = "marts.buyer_history"
DAY = "CAST(placed AT TIME ZONE :timezone AS DATE)"
SQL = {
    "staging.source": (
        "kind: view\ngrain: [id]",
        f"SELECT id, buyer, amount, {DAY} AS order_date FROM raw.source",
    ),
    "core.orders": ("kind: full\ngrain: [id]\ntime_column: order_date", "SELECT * FROM staging.source"),
    "marts.daily": (
        "kind: incremental_by_time\ngrain: [order_date]\ntime_column: order_date",
        "SELECT order_date, count(*) AS orders, sum(amount) AS revenue FROM core.orders GROUP BY order_date",
    ),
    "marts.raw_daily": (
        "kind: incremental_by_time\ngrain: [d]\ntime_column: d",
        f"SELECT {DAY} AS d, count(DISTINCT buyer) AS buyers FROM raw.source GROUP BY {DAY}",
    ),
    "marts.weekly": (
        "kind: incremental_by_time\ngrain: [week]\ntime_column: week\nwindow: week",
        ("SELECT CAST(date_trunc('week', order_date) AS DATE) AS week, count(DISTINCT buyer) AS buyers "
        "FROM staging.source GROUP BY CAST(date_trunc('week', order_date) AS DATE)"),
    ),
    "marts.monthly": (
        "kind: incremental_by_time\ngrain: [month]\ntime_column: month\nwindow: month",
        ("SELECT CAST(date_trunc('month', order_date) AS DATE) AS month, sum(revenue) AS revenue "
        "FROM marts.daily GROUP BY 1"),
    ),
    "marts.moving": (
        "kind: incremental_by_time\ngrain: [order_date]\ntime_column: order_date\nlookback: 2",
        (
            "SELECT d.order_date, sum(o.amount) AS revenue FROM "
            "(SELECT DISTINCT order_date FROM core.orders) AS d JOIN core.orders AS o "
            "ON o.order_date BETWEEN d.order_date - 2 AND d.order_date GROUP BY d.order_date"
        ),
    ),
    "marts.against_last_week": (
        "kind: incremental_by_time\ngrain: [order_date]\ntime_column: order_date\nlookback: [0, 7]",
        ("SELECT a.order_date, a.revenue, b.revenue AS before FROM marts.daily AS a "
        "LEFT JOIN marts.daily AS b ON b.order_date = a.order_date - 7"),
    ),
    "marts.share_of_week": (
        "kind: incremental_by_time\ngrain: [order_date]\ntime_column: order_date",
        ("SELECT o.order_date, CAST(count(DISTINCT o.buyer) AS DOUBLE) / max(w.buyers) AS share "
        "FROM core.orders AS o JOIN marts.weekly AS w "
        "ON w.week = CAST(date_trunc('week', o.order_date) AS DATE) GROUP BY o.order_date"),
    ),
    "marts.buyers": (
        "kind: incremental_by_key\ngrain: [buyer]",
        "SELECT buyer, min(order_date) AS first_date, sum(amount) AS revenue FROM core.orders GROUP BY buyer",
    ),
    KEEPS_HISTORY: ("kind: snapshot\ngrain: [buyer]", "SELECT buyer, revenue FROM marts.buyers"),
}  # fmt: skip
EDITS = {
    "core.orders": "SELECT id, buyer, amount + 1 AS amount, order_date FROM staging.source",
    "marts.daily": (
        "SELECT order_date, count(*) AS orders, max(amount) AS revenue FROM core.orders GROUP BY order_date"
    ),
    "marts.buyers": (
        "SELECT buyer, max(order_date) AS first_date, sum(amount) AS revenue FROM core.orders GROUP BY buyer"
    ),
    "staging.source": f"SELECT id, buyer, amount, {DAY} AS order_date FROM raw.source WHERE amount <> 3",
}


def write_models(folder: Path, edited: frozenset[str]) -> dict[str, Model]:
    for name, (header, sql) in SQL.items():
        path = folder / "models" / f"{name.replace('.', '/')}.sql"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = EDITS[name] if name in edited else sql
        path.write_text(f"/*\n{header}\nowner: shop@demo.example\ndescription: Something.\n*/\n{text}\n")
    return load_models(folder / "models")


class Failing(Warehouse):
    """A warehouse whose transactions break at a given count, after their work and before they commit."""

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        with super().transaction() as con:
            yield con
            if (left := self.__dict__["left"].pop(0) if self.__dict__["left"] else True) is False:
                raise KeyboardInterrupt(f"crash {left}")


def crash(warehouse: Warehouse, models: dict[str, Model], after: int) -> None:
    failing = Failing(warehouse.tenant, warehouse.path, warehouse._shared)
    failing.__dict__["left"] = [True] * after + [False]
    try:
        build_models(failing, models, run_id="crash")
    except KeyboardInterrupt:
        return


def write(warehouse: Warehouse, ids: list[int], day: int, amount: int | None, *, tells_days: bool) -> None:
    """Insert or correct rows, moving them to `day`, or delete them; then tell which days are touched."""
    listed = ", ".join(map(str, ids))
    moment = f"TIMESTAMPTZ '{FIRST + timedelta(days=day)} 12:00:00+00'"
    with warehouse.transaction() as con:
        days = con.execute(
            "SELECT DISTINCT CAST(placed AT TIME ZONE 'Europe/Berlin' AS DATE) FROM raw.source "
            f"WHERE id IN ({listed})"
        ).fetchall()
        con.execute(f"DELETE FROM raw.source WHERE id IN ({listed})")
        touched = {found for (found,) in days}
        if amount is not None:
            touched.add(FIRST + timedelta(days=day))
            con.execute(
                f"INSERT INTO raw.source SELECT i, 'buyer' || (i % 3), {moment}, {amount} "
                f"FROM (VALUES {', '.join(f'({i})' for i in ids)}) AS v(i)"
            )
        record_change(con, "raw.source", touched if tells_days else None, run_id="load")


day = st.integers(0, DAYS - 1)
writes = st.tuples(
    st.just("write"), st.lists(st.integers(0, 12), min_size=1, max_size=4, unique=True), day,
    st.none() | st.integers(1, 5), st.integers(0, 4).map(bool),
)  # fmt: skip
actions = st.one_of(
    st.just(("run",)),
    st.just(("run",)),
    st.tuples(st.just("crash"), st.integers(0, 14)),
    st.tuples(st.just("edit"), st.sampled_from(sorted(EDITS))),
    st.tuples(st.just("backfill"), day, st.integers(1, 20), st.sampled_from([1, 5, 40])),
)
rounds = st.tuples(st.lists(writes, max_size=5), actions).map(lambda one: [*one[0], one[1]])
"""What accumulates until something happens; the last writes of a plan wait for the final build."""
plans = st.tuples(st.lists(rounds, min_size=1, max_size=4), st.lists(writes, max_size=5)).map(
    lambda plan: [*(step for one in plan[0] for step in one), *plan[1]]
)
numbers = count()


def open_empty(tenant: Tenant) -> Any:
    return open_warehouse(tenant.model_copy(update={"tenant": f"random{next(numbers)}"}))


def create_source(warehouse: Warehouse) -> None:
    with warehouse.transaction() as con:
        con.execute("CREATE TABLE raw.source (id INTEGER, buyer VARCHAR, placed TIMESTAMPTZ, amount INTEGER)")


def tables(warehouse: Warehouse, models: dict[str, Model]) -> dict[str, list[tuple[Any, ...]]]:
    with warehouse.cursor() as con:
        return {
            name: sorted(
                con.execute(
                    f"FROM {name}"
                    if name != KEEPS_HISTORY
                    else f"SELECT buyer, revenue FROM {name} WHERE is_current"
                ).fetchall(),
                key=repr,
            )
            for name in models
        }


def check(warehouse: Warehouse, models: dict[str, Model], tenant: Tenant) -> None:
    outcomes = build_models(warehouse, models, run_id="last")
    assert [o.reason for o in outcomes if o.status != "done"] == []
    again = build_models(warehouse, models, run_id="again")
    assert {o.built.action for o in again if o.built} == {"skip"}
    with warehouse.cursor() as con:
        source = con.execute("FROM raw.source").pl()
        overlaps = con.execute(
            f"SELECT count(*) FROM {KEEPS_HISTORY} AS a JOIN {KEEPS_HISTORY} AS b ON a.buyer = b.buyer "
            "AND a.valid_from < coalesce(b.valid_to, TIMESTAMPTZ '9999-01-01') "
            "AND b.valid_from < coalesce(a.valid_to, TIMESTAMPTZ '9999-01-01') "
            "AND (a.valid_from, a.revenue) < (b.valid_from, b.revenue)"
        ).fetchone()
        assert overlaps == (0,), "versions of a row follow each other"
    with open_empty(tenant) as fresh:
        create_source(fresh)
        with fresh.transaction() as con:
            con.register("rows", source)
            con.execute("INSERT INTO raw.source FROM rows")
            con.unregister("rows")
        build_models(fresh, models, run_id="full")
        assert tables(warehouse, models) == tables(fresh, models)


@settings(max_examples=int(os.environ.get("OMNI_EXAMPLES", "15")), deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(plan=plans)
def test_any_sequence_ends_like_one_full_build(plan, home, tenant, tmp_path):
    follow(plan, tenant, tmp_path)


@pytest.mark.slow
@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=plans)
def test_any_sequence_in_postgresql_ends_like_one_full_build(plan, postgres_warehouse, tenant, tmp_path):
    follow(plan, tenant, tmp_path)


def follow(plan: list[tuple[Any, ...]], tenant: Tenant, tmp_path: Path) -> None:
    """Take the steps of a plan, then compare with one full build."""
    edited: frozenset[str] = frozenset()
    models = write_models(tmp_path, edited)
    with open_empty(tenant) as warehouse, warehouse.one_thread():
        create_source(warehouse)
        for kind, *values in plan:
            if kind == "write":
                write(warehouse, *values[:3], tells_days=values[3])
            elif kind == "run":
                build_models(warehouse, models, run_id="run")
            elif kind == "crash":
                crash(warehouse, models, values[0])
            elif kind == "edit":
                edited = edited ^ {values[0]}
                models = write_models(tmp_path, edited)
            else:
                since = FIRST + timedelta(days=values[0])
                until = since + timedelta(days=values[1])
                build_models(warehouse, models, since=since, until=until, batch_days=values[2], run_id="b")
        check(warehouse, models, tenant)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_runner_random import Failing, write_models
from omni.tenancy import Tenant
from omni.warehouse.build import build_models
from omni.warehouse.database import open_warehouse
from contextlib import contextmanager

class Killed(Failing):
    @contextmanager
    def transaction(self):
        with super(Failing, self).transaction() as con:
            yield con
            self.__dict__["left"] -= 1
            if self.__dict__["left"] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

tenant = Tenant(
    tenant={name!r}, title="A", timezone="Europe/Berlin", currency="EUR", company="demo", sources={{}}
)
with open_warehouse(tenant) as opened:
    killed = Killed(tenant, opened.path, opened._shared)
    killed.__dict__["left"] = {left}
    build_models(killed, write_models(Path({folder!r}), frozenset()), run_id="killed")
"""


def test_a_killed_process_leaves_nothing_that_the_next_run_does_not_repair(
    either_warehouse, tenant, tmp_path
):
    models = write_models(tmp_path, frozenset())
    killed = tenant.model_copy(update={"tenant": "killed"})
    with open_warehouse(killed) as warehouse:
        create_source(warehouse)
        write(warehouse, [1, 2, 3], 3, 5, tells_days=True)
        build_models(warehouse, models, run_id="first")
        write(warehouse, [3, 4, 5], 9, 2, tells_days=True)
    for left in (2, 3):
        script = KILLED.format(
            here=str(Path(__file__).parent), name="killed", left=left, folder=str(tmp_path)
        )
        done = subprocess.run(
            [sys.executable, "-c", script], env=os.environ, capture_output=True, check=False
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    with open_warehouse(killed) as warehouse:
        check(warehouse, models, tenant)
