"""Usage events: how they are sent, a spool to put them into, models small enough to build in a moment."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from omni.usage.collect import Collector
from omni.usage.live import Live, select_live
from omni.usage.load import load_events
from omni.usage.spool import Spool, sealed_segments, spool_folder
from omni.warehouse.database import open_warehouse
from omni.warehouse.models import Header, Model

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


def _event(number, at="2026-03-10T11:00:00Z", **more):
    sent = {
        "id": f"e{number}",
        "source": "web",
        "type": "page_view",
        "time": at,
        "actor": f"user-{number % 7}",
    }
    return {**sent, "data": {"page": "/"}, **more}


@pytest.fixture
def event():
    """`event(1, "2026-03-09T08:00:00Z", type="login")`: an event as it is sent."""
    return _event


@pytest.fixture
def put(home, tenant):
    """`put([event(1)])` accepts events and seals them into a segment; gives the delivery."""
    collector, spool = Collector(tenant), Spool.of(tenant)

    def accept(events, now=NOW):
        delivery = collector.read(json.dumps(events).encode(), now=now)
        spool.append(delivery.batch)
        spool.seal()
        return delivery

    return accept


@pytest.fixture
def load(home, tenant):
    """Load every sealed segment."""

    def run(run_id="r"):
        with open_warehouse(tenant) as warehouse:
            return load_events(warehouse, sealed_segments(spool_folder(tenant)), run_id=run_id)

    return run


@pytest.fixture
def ask(home, tenant):
    """Rows of a query to the warehouse."""

    def query(sql):
        with open_warehouse(tenant) as warehouse, warehouse.cursor() as con:
            return con.execute(sql).fetchall()

    return query


def _model(name, kind, sql, **header):
    return Model(
        name, Header(kind=kind, owner="a@example.com", description="d", **header), sql, f"{name}.sql"
    )


@pytest.fixture
def small_models():
    """Events by day, a metric of them, and one that is built whole and stands before another metric."""
    daily = (
        "SELECT event_date, event, CAST(count(*) AS BIGINT) AS events, "
        "CAST(count(DISTINCT actor_id) AS BIGINT) AS users FROM (SELECT *, "
        "CAST(occurred_at AT TIME ZONE :timezone AS DATE) AS event_date FROM staging.usage__events) AS e "
        "GROUP BY event_date, event"
    )
    metric = (
        "SELECT '' AS dimension, '' AS member, event_date AS day, CAST(sum(events) AS DOUBLE) AS value "
        "FROM {} GROUP BY event_date"
    )
    found = [
        _model("staging.usage__events", "view", "SELECT * FROM raw.usage__events", grain=["event_id"]),
        _model(
            "core.by_day", "incremental_by_time", daily,
            grain=["event_date", "event"], time_column="event_date",
        ),
        _model("core.whole", "full", "SELECT * FROM core.by_day", grain=["event_date", "event"]),
        _model(
            "metrics.events", "incremental_by_time", metric.format("core.by_day"),
            grain=["day"], time_column="day",
        ),
        _model("metrics.costly", "full", metric.format("core.whole"), grain=["day"], time_column="day"),
    ]  # fmt: skip
    return {model.name: model for model in found}


@pytest.fixture
def live(home, tenant, small_models):
    """Turns at noon of the tenth of March 2026 (UTC)."""
    return Live(tenant, small_models, select_live(small_models), clock=lambda: NOW)
