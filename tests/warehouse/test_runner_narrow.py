"""A refresh of some windows reads no more of the source than it must, and never too little."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest

from omni.tenancy import Tenant
from omni.warehouse.models import Model, load_models
from omni.warehouse.narrow import narrowed
from omni.warehouse.windows import listed

HEADER = """/*
kind: {kind}
owner: shop@demo.example
description: Something.
grain: [d]
{time}*/
"""
DAYS = [date(2026, 6, 10), date(2026, 6, 11)]


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    """Twelve weeks of events, one an hour, several zones' days apart; a table of users."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for schema in ("raw", "staging", "core"):
            connection.execute(f"CREATE SCHEMA {schema}")
        connection.execute(
            "CREATE TABLE raw.events AS SELECT i AS id, "
            "TIMESTAMPTZ '2026-05-01 00:00:00+00' + to_hours(i) AS at_utc, "
            "TIMESTAMP '2026-05-01 00:00:00' + to_hours(i) AS at_local, "
            "CAST(TIMESTAMP '2026-05-01 00:00:00' + to_hours(i) AS DATE) AS at_day, "
            "'user' || (i % 7) AS user_id, CAST(at_local AS VARCHAR) AS at_text FROM range(2000) AS r(i)"
        )
        connection.execute(
            "CREATE TABLE raw.users AS SELECT DISTINCT user_id, at_utc AS seen FROM raw.events"
        )
        yield connection


def load(folder: Path, sql: str, *, window: str = "day", view: str | None = None) -> dict[str, Model]:
    time = f"time_column: d\nwindow: {window}\n"
    texts = {"core/model": HEADER.format(kind="incremental_by_time", time=time) + sql}
    if view:
        texts["staging/events"] = HEADER.format(kind="view", time="") + view
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.sql").write_text(text)
    return load_models(folder)


def compare(con, folder, tenant, sql, windows, **options) -> str:
    """Check that narrowing leaves the windows' rows as they are; the narrowed SELECT."""
    models = load(folder, sql, **options)
    if "staging.events" in models:
        con.execute(f"CREATE VIEW staging.events AS {models['staging.events'].bound(tenant)}")
    model = models["core.model"]
    query = narrowed(con, model, models, tenant, windows)
    wanted, found = (
        con.execute(f"FROM ({text}) AS b WHERE d IN ({listed(windows)}) ORDER BY ALL").fetchall()
        for text in (model.bound(tenant), query)
    )
    assert found == wanted
    assert wanted, "a comparison of nothing proves nothing"
    return query


DAILY = "CAST(at_utc AT TIME ZONE :timezone AS DATE)"
NARROWED = {
    "date column": "SELECT at_day AS d, count(*) AS n FROM raw.events GROUP BY at_day",
    "cast": "SELECT CAST(at_local AS DATE) AS d, count(*) AS n FROM raw.events GROUP BY 1",
    "moment cast": "SELECT CAST(at_utc AS DATE) AS d, count(*) AS n FROM raw.events GROUP BY d",
    "zone": f"SELECT {DAILY} AS d, count(*) AS n FROM raw.events GROUP BY {DAILY}",
    "two zones": (
        "SELECT CAST(at_local AT TIME ZONE 'UTC' AT TIME ZONE 'Pacific/Auckland' AS DATE) AS d, user_id "
        "FROM raw.events"
    ),
    "one zone of local time": (
        "SELECT CAST(at_local AT TIME ZONE 'Pacific/Auckland' AS DATE) AS d FROM raw.events"
    ),
    "cte": (
        f"WITH e AS (SELECT {DAILY} AS x, user_id FROM raw.events) "
        "SELECT x AS d, count(*) AS n FROM e GROUP BY x"
    ),
    "subquery with star": (
        f"SELECT * FROM (SELECT {DAILY} AS d, id FROM raw.events WHERE id % 2 = 0 OR id < 9) AS s"
    ),
    "left side of a left join": (
        f"SELECT {DAILY} AS d, count(u.seen) AS n FROM raw.events AS e LEFT JOIN raw.users AS u "
        f"ON u.user_id = e.user_id AND u.seen < e.at_utc GROUP BY 1"
    ).replace("at_utc AT", "e.at_utc AT"),
    "inner join": (
        "SELECT CAST(e.at_utc AS DATE) AS d, count(*) AS n FROM raw.users AS u JOIN raw.events AS e "
        "ON u.user_id = e.user_id AND u.seen > e.at_utc GROUP BY 1"
    ),
    "union": "SELECT at_day AS d, id FROM raw.events UNION ALL SELECT at_day, -id FROM raw.events",
    "union of which one branch is sure": (
        f"WITH e AS (SELECT {DAILY} AS x, id FROM raw.events UNION ALL SELECT CAST(at_text AS DATE), -id "
        "FROM raw.events UNION ALL (SELECT at_day, 0 FROM raw.events)) SELECT x AS d, id FROM e"
    ),
    "window within the day": (
        f"SELECT {DAILY} AS d, id, row_number() OVER (PARTITION BY {DAILY} ORDER BY id) AS r FROM raw.events"
    ),
}
LEFT_ALONE = {
    "text": "SELECT CAST(at_text AS DATE) AS d, count(*) AS n FROM raw.events GROUP BY 1",
    "window over all days": f"SELECT {DAILY} AS d, id, lag(id) OVER (ORDER BY id) AS before FROM raw.events",
    "window in a subquery": (
        "SELECT CAST(at_utc AS DATE) AS d, before FROM (SELECT at_utc, lag(id) OVER (ORDER BY id) AS before "
        "FROM raw.events) AS s"
    ),
    "not a key": "SELECT CAST(max(at_utc) AS DATE) AS d, user_id FROM raw.events GROUP BY user_id, id",
    "shifted": "SELECT CAST(at_utc + INTERVAL 3 DAY AS DATE) AS d, id FROM raw.events",
    "right side of a left join": (
        "SELECT CAST(e.at_utc AS DATE) AS d, u.user_id FROM raw.users AS u LEFT JOIN raw.events AS e "
        "ON e.at_utc = u.seen"
    ),
    "full join": (
        "SELECT CAST(e.at_utc AS DATE) AS d, u.user_id FROM raw.events AS e FULL JOIN raw.users AS u "
        "ON e.at_utc = u.seen"
    ),
    "cte read twice": (
        "WITH e AS (SELECT CAST(at_utc AS DATE) AS x, id FROM raw.events) "
        "SELECT e.x AS d, (SELECT count(*) FROM e) AS n FROM e"
    ),
    "limit": f"SELECT {DAILY} AS d, id FROM raw.events ORDER BY id LIMIT 1500",
    "distinct on": "SELECT DISTINCT ON (user_id, at_day) at_day AS d, id FROM raw.events ORDER BY id",
    "rollup": (
        "SELECT CAST(at_utc AS DATE) AS d, user_id, count(*) AS n FROM raw.events GROUP BY ROLLUP (1, 2)"
    ),
    "union of distinct rows": (
        "SELECT at_day AS d, id FROM raw.events UNION SELECT at_day, -id FROM raw.events"
    ),
    "union with a limit": (
        "SELECT at_day AS d, id FROM raw.events UNION ALL SELECT at_day, -id FROM raw.events "
        "ORDER BY id LIMIT 9000"
    ),
    "union of columns by name": (
        "SELECT at_day AS d, id FROM raw.events UNION ALL BY NAME "
        "SELECT -id AS id, at_day AS d FROM raw.events"
    ),
}


@pytest.mark.parametrize("sql", NARROWED.values(), ids=NARROWED.keys())
def test_range_is_added_where_it_cannot_change_the_rows(con, tmp_path, tenant, sql):
    query = compare(con, tmp_path, tenant, sql, DAYS)
    assert ">= CAST('2026-06" in query


@pytest.mark.parametrize("sql", LEFT_ALONE.values(), ids=LEFT_ALONE.keys())
def test_nothing_is_added_where_it_might(con, tmp_path, tenant, sql):
    assert ">= CAST(" not in compare(con, tmp_path, tenant, sql, DAYS)


def test_views_are_looked_through(con, tmp_path, tenant):
    view = f"SELECT {DAILY} AS x, id, at_utc FROM raw.events"
    sql = "SELECT e.x AS d, count(*) AS n FROM staging.events AS e GROUP BY e.x"
    query = compare(con, tmp_path, tenant, sql, DAYS, view=view)
    assert "staging.events" not in query
    assert "at_utc >= CAST('2026-06-09 00:00:00+00'" in query


@pytest.mark.parametrize(("window", "start"), [("week", date(2026, 6, 8)), ("month", date(2026, 6, 1))])
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12"])
def test_weeks_and_months_in_far_zones(con, tmp_path, tenant: Tenant, window, start, zone):
    sql = (
        f"SELECT CAST(date_trunc('{window}', at_utc AT TIME ZONE :timezone) AS DATE) AS d, count(*) AS n "
        "FROM raw.events GROUP BY 1"
    )
    there = tenant.model_copy(update={"timezone": zone})
    assert ">= CAST(" in compare(con, tmp_path, there, sql, [start], window=window)


def test_days_far_apart_are_ranges_of_their_own(con, tmp_path, tenant):
    sql = NARROWED["cast"]
    assert compare(con, tmp_path, tenant, sql, [date(2026, 5, 2), date(2026, 7, 1)]).count(">=") == 2
    many = [date(2026, 5, 2) + timedelta(days=3 * n) for n in range(12)]
    assert narrowed(con, load(tmp_path, sql)["core.model"], {}, tenant, many).count(">=") == 1
