"""Funnels in every order and split yield on PostgreSQL what they yield on DuckDB."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import duckdb
import pytest

from omni.bi.funnel_sql import compile_funnel
from omni.bi.funnels import Funnel
from omni.settings import settings
from omni.tenancy import Tenant
from omni.warehouse.dialect import to_postgres
from omni.warehouse.models import cached_models

psycopg = pytest.importorskip("psycopg", reason="PostgreSQL tests need psycopg (the extra postgres)")
pytestmark = pytest.mark.slow

ACME = Tenant(tenant="acme", title="Acme", timezone="Europe/Berlin", currency="EUR", sources={})
TABLE = (
    "CREATE TABLE core.usage_events (source VARCHAR, event_id VARCHAR, account VARCHAR, actor_id VARCHAR, "
    "event VARCHAR, page VARCHAR, channel VARCHAR, properties JSON, occurred_at TIMESTAMPTZ, "
    "event_date DATE, position BIGINT, received_date DATE)"
)


@pytest.fixture(scope="module")
def both(postgres: Any) -> Iterator[tuple[duckdb.DuckDBPyConnection, Any]]:
    """Connections to both, with the same 2,000 events."""
    rng = random.Random(4)
    moments = sorted(
        datetime(2024, 3, 30, tzinfo=UTC) + timedelta(minutes=rng.randrange(4000)) for _ in range(2000)
    )
    rows = [
        (
            "web", str(n), rng.choice("xyz"), f"a{rng.randrange(150)}", rng.choice("abcd"), rng.choice("/?"),
            rng.choice(["ads", "mail", None]), rng.choice(['{"plan": "pro"}', '{"plan": "free"}']), moment,
            moment.date(), n, moment.date(),
        )
        for n, moment in enumerate(moments)
    ]  # fmt: skip
    sessions = f"CREATE VIEW core.usage_session_events AS {_sessions()}"
    postgres.run("CREATE DATABASE funnels TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'")
    with (
        duckdb.connect() as con,
        psycopg.connect(host=str(postgres.folder), user="omni", dbname="funnels", autocommit=True) as pg,
    ):
        for target, sql in ((con, str), (pg, to_postgres)):
            target.execute("SET TimeZone = 'UTC'")
            target.execute("CREATE SCHEMA core")
            target.execute(sql(TABLE))
            mark = "?" if target is con else "%s"
            insert = f"INSERT INTO core.usage_events VALUES ({', '.join([mark] * 12)})"
            (con if target is con else pg.cursor()).executemany(insert, rows)
            target.execute(sql(sessions))
        yield con, pg
    postgres.run("DROP DATABASE funnels WITH (FORCE)")


def _sessions() -> str:
    return cached_models(settings().data / "models")["core.usage_session_events"].bound(ACME)


@pytest.mark.parametrize("order", ["ordered", "strict", "any"])
def test_funnel_is_the_same_on_postgres(both, order):
    con, pg = both
    steps = [
        {"name": "a", "event": "a"},
        {"name": "b", "event": "b", "where": "json_extract_string(properties, '$.plan') = 'pro'"},
    ]
    own = {"name": "f", "title": "f", "description": "f", "owner": "a@demo.example", "window": "1 day"}
    for unit, attribution, entry in product(
        ["actor", "account", "session"], ["first", "last", "per_step"], ["once", "daily"]
    ):
        funnel = Funnel.model_validate(
            own
            | {"steps": [*steps, {"name": "c", "event": "c"}], "order": order, "unit": unit, "entry": entry}
            | {"breakdown": {"by": "properties.plan", "attribution": attribution}}
        )
        sql = f"SELECT * FROM ({compile_funnel(funnel)}) AS f ORDER BY dimension, member, cohort_date, step"
        assert pg.execute(to_postgres(sql)).fetchall() == con.execute(sql).fetchall()
