"""What funnels and retention cost on 10 million events, against the straightforward way in pandas and SQL.

    python -m benchmarks.usage [--events 10000000] [--runs 3]

The events are seeded: 30 days, 12 kinds, 500,000 actors, some much more active than others. Each side is
timed alone, in turn, on the same DuckDB file, reading included: a funnel of three steps within seven days (as
`omni.bi.funnel_sql` compiles it; a self-join of the events as one would write it at first; pandas, step by
step), and the cohorts (`marts.usage_cohorts`, weeks and months; pandas, weeks only). The answers are
compared. Prints the best wall and CPU seconds of the runs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from omni.bi.funnel_sql import compile_funnel
from omni.bi.funnels import Funnel
from omni.settings import settings
from omni.tenancy import Tenant
from omni.warehouse.models import cached_models

TENANT = Tenant(tenant="bench", title="Bench", timezone="UTC", currency="EUR", sources={})
FUNNEL = Funnel.model_validate(
    {
        "name": "bench", "title": "bench", "description": "bench", "owner": "bench@demo.example",
        "window": "7 days",
        "steps": [{"name": f"s{n}", "event": f"event_{n}"} for n in (1, 2, 3)],
    }
)  # fmt: skip
EVENTS = """
CREATE TABLE core.usage_events AS
SELECT
    'app' AS source,
    'actor_' || CAST(floor(500000 * power((hash(i * 17 + 3) % 1000003) / 1000003.0, 1.5)) AS BIGINT)
        AS actor_id,
    'event_' || (hash(i * 13 + 5) % 12) AS event,
    NULL::VARCHAR AS channel,
    moment AS occurred_at,
    CAST(moment AS DATE) AS event_date,
    i AS position
FROM (
    SELECT i, TIMESTAMPTZ '2026-10-01 00:00:00+00'
        + to_microseconds(CAST(floor(i * (30 * 86400000000 / {n})) AS BIGINT)) AS moment
    FROM range({n}) AS r(i)
) AS moments
"""
SELF_JOIN = """
SELECT count(DISTINCT a.actor_id), count(DISTINCT b.actor_id), count(DISTINCT c.actor_id)
FROM (
    SELECT actor_id, min(occurred_at) AS at FROM core.usage_events WHERE event = 'event_1' GROUP BY actor_id
) AS a
LEFT JOIN core.usage_events AS b ON b.actor_id = a.actor_id AND b.event = 'event_2'
    AND b.occurred_at > a.at AND b.occurred_at <= a.at + INTERVAL 7 DAY
LEFT JOIN core.usage_events AS c ON c.actor_id = a.actor_id AND c.event = 'event_3'
    AND c.occurred_at > b.occurred_at AND c.occurred_at <= a.at + INTERVAL 7 DAY
"""


def funnel(con: duckdb.DuckDBPyConnection) -> list[int]:
    """Ours, over all days."""
    sql = compile_funnel(FUNNEL, by_day=False)
    return [row[0] for row in con.execute(f"SELECT units FROM ({sql}) AS f ORDER BY step").fetchall()]


def funnel_by_day(con: duckdb.DuckDBPyConnection) -> list[int]:
    """The mart: by day of entry, with its medians."""
    sql = (
        f"SELECT CAST(sum(units) AS BIGINT) FROM ({compile_funnel(FUNNEL)}) AS f GROUP BY step ORDER BY step"
    )
    return [row[0] for row in con.execute(sql).fetchall()]


def self_join(con: duckdb.DuckDBPyConnection) -> list[int]:
    """As one would write it at first."""
    row = con.execute(SELF_JOIN).fetchone()
    return list(row or ())


def pandas_funnel(con: duckdb.DuckDBPyConnection) -> list[int]:
    """The same in pandas: merge each step's events with the attempts, keep the first."""
    import pandas as pd

    wanted = "event IN ('event_1', 'event_2', 'event_3')"
    events = (
        con.execute(f"SELECT actor_id, event, occurred_at, position FROM core.usage_events WHERE {wanted}")
        .to_arrow_table()
        .to_pandas()
    )
    entry = events[events["event"] == "event_1"].sort_values("position").drop_duplicates("actor_id")
    at = entry[["actor_id", "occurred_at", "position"]].rename(
        columns={"occurred_at": "entered", "position": "last"}
    )
    counts = [len(at)]
    for name in ("event_2", "event_3"):
        joined = at.merge(events[events["event"] == name], on="actor_id")
        inside = joined["occurred_at"] - joined["entered"] <= pd.Timedelta(days=7)
        joined = joined[(joined["position"] > joined["last"]) & inside].sort_values("position")
        found = joined.drop_duplicates("actor_id")
        at = found[["actor_id", "entered", "position"]].rename(columns={"position": "last"})
        counts.append(len(at))
    return counts


def cohorts(con: duckdb.DuckDBPyConnection) -> list[int]:
    """Ours: `marts.usage_cohorts`, weeks."""
    sql = cached_models(settings().data / "models")["marts.usage_cohorts"].bound(TENANT)
    found = con.execute(
        f"SELECT actors FROM ({sql}) AS c WHERE period = 'week' ORDER BY cohort, periods_since"
    )
    return [row[0] for row in found.fetchall()]


def pandas_cohorts(con: duckdb.DuckDBPyConnection) -> list[int]:
    """The same in pandas."""
    import pandas as pd

    events = con.execute("SELECT actor_id, event_date FROM core.usage_events").to_arrow_table().to_pandas()
    weeks = pd.to_datetime(events["event_date"]).dt.to_period("W-SUN").dt.start_time
    pairs = events.assign(week=weeks)[["actor_id", "week"]].drop_duplicates()
    pairs["cohort"] = pairs.groupby("actor_id")["week"].transform("min")
    return [int(n) for n in pairs.groupby(["cohort", "week"]).size()]


def measured(con: duckdb.DuckDBPyConnection, side: Callable[[Any], list[int]], runs: int) -> list[int]:
    """Time one side, print the best and give its answer."""
    walls, cpus, answer = [], [], []
    for _ in range(runs):
        wall, cpu = time.perf_counter(), time.process_time()
        answer = side(con)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    print(
        f"{side.__name__:16} wall {min(walls):6.2f} s  cpu {min(cpus):6.2f} s",
        flush=True,
    )
    return answer


def main() -> None:
    """Make the events, time every side, compare."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--events", type=int, default=10_000_000)
    arguments.add_argument("--runs", type=int, default=3)
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, duckdb.connect(Path(folder) / "usage.duckdb") as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute("CREATE SCHEMA core")
        con.execute("CREATE SCHEMA marts")
        con.execute(EVENTS.format(n=chosen.events))
        days = cached_models(settings().data / "models")["marts.usage_stickiness"].bound(TENANT)
        con.execute(f"CREATE TABLE marts.usage_stickiness AS {days}")
        for sides in ((funnel, funnel_by_day, self_join, pandas_funnel), (cohorts, pandas_cohorts)):
            answers = [measured(con, side, chosen.runs) for side in sides]
            assert all(answer == answers[0] for answer in answers), answers
            print(answers[0])


if __name__ == "__main__":
    main()
