"""Sessions, stickiness, cohorts, retention and paths equal a computation by hand, stored or asked ad hoc."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from omni.bi import usage
from omni.errors import ConfigError
from omni.settings import settings
from omni.tenancy import Tenant
from omni.warehouse.models import cached_models

pytestmark = pytest.mark.slow

BERLIN = Tenant(tenant="acme", title="Acme", timezone="Europe/Berlin", currency="EUR", sources={})
FIRST = datetime(2024, 3, 30, 22, 40, tzinfo=UTC)
"""The night in which Berlin's clocks go forward."""
GAP = timedelta(minutes=30)
TABLES = [
    "core.usage_sessions",
    *(f"marts.usage_{n}" for n in ("stickiness", "cohorts", "retention", "paths")),
]

Events = list[dict[str, Any]]

EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "actor_id": st.sampled_from(["a", "a", "b", "c", None]),
            "event": st.sampled_from(["view", "view", "buy"]),
            "page": st.sampled_from([None, "/", "/x"]),
            "minute": st.sampled_from([0, 0, 29, 30, 31, 60, 61, 90])
            | st.integers(0, 45).map(lambda day: day * 1440)
            | st.integers(0, 8).map(lambda day: day * 1440 + 7),
        }
    ),
    max_size=30,
)
examples_of_days = examples(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for schema in ("core", "marts"):
            connection.execute(f"CREATE SCHEMA {schema}")
        connection.execute(
            "CREATE TABLE core.usage_events (source VARCHAR, event_id VARCHAR, account VARCHAR, "
            "actor_id VARCHAR, event VARCHAR, page VARCHAR, channel VARCHAR, properties JSON, "
            "occurred_at TIMESTAMPTZ, event_date DATE, position BIGINT, received_date DATE)"
        )
        models = cached_models(settings().data / "models")
        for table in ("core.usage_session_events", *TABLES):
            connection.execute(f"CREATE VIEW {table} AS {models[table].bound(BERLIN)}")
        yield connection


def fill(con: duckdb.DuckDBPyConnection, rows: Events) -> Events:
    con.execute("DELETE FROM core.usage_events")
    events = []
    for position, row in enumerate(sorted(rows, key=lambda row: row["minute"]), 1):
        moment = FIRST + timedelta(minutes=row["minute"])
        day = moment.astimezone(ZoneInfo("Europe/Berlin")).date()
        events.append(row | {"occurred_at": moment, "event_date": day})
        con.execute(
            "INSERT INTO core.usage_events SELECT 'web', $1, NULL, $2, $3, $4, NULL, NULL, $5, $6, $1, $6",
            [position, row["actor_id"], row["event"], row["page"], moment, day],
        )
    return events


def sessions_of(events: Events) -> list[Events]:
    found: dict[str, list[Events]] = defaultdict(list)
    for e in events:
        actor = e["actor_id"]
        if actor is None:
            continue
        if not found[actor] or e["occurred_at"] - found[actor][-1][-1]["occurred_at"] > GAP:
            found[actor].append([])
        found[actor][-1].append(e)
    return [session for sessions in found.values() for session in sessions]


def active(events: Events, name: str | None = None) -> dict[str, set[date]]:
    days: dict[str, set[date]] = defaultdict(set)
    for e in events:
        if e["actor_id"] is not None and name in (None, e["event"]):
            days[e["actor_id"]].add(e["event_date"])
    return days


def rows(con: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    return con.execute(sql).fetchall()


@given(given_rows=EVENTS)
@examples_of_days
def test_sessions_and_paths(con, given_rows):
    sessions = sessions_of(fill(con, given_rows))
    expected = Counter()
    for session in sessions:
        pages = [e["page"] for e in session if e["page"]]
        first, last = session[0], session[-1]
        seconds = (last["occurred_at"] - first["occurred_at"]).total_seconds()
        ends = (pages[0], pages[-1]) if pages else (None, None)
        expected[
            first["actor_id"], first["event_date"], first["event"], *ends, len(session), len(pages), seconds,
            len(session) == 1,
        ] += 1  # fmt: skip
    columns = "actor_id, session_date, first_event, landing_page, exit_page, events, pages, duration_seconds"
    assert Counter(rows(con, f"SELECT {columns}, is_bounced FROM core.usage_sessions")) == expected
    bounced = sum(len(session) == 1 for session in sessions)
    asked = rows(
        con, f"SELECT sum(sessions), sum(bounce_rate * sessions) FROM ({usage.sessions_query()}) AS s"
    )
    assert not sessions or asked == [(len(sessions), pytest.approx(bounced))]

    since, until = FIRST.date() + timedelta(days=1), FIRST.date() + timedelta(days=3)
    pairs = Counter()
    for session in sessions:
        if since <= session[0]["event_date"] < until:
            names = ["(start)", *(e["page"] or e["event"] for e in session), "(end)"]
            pairs.update(pairwise(names))
    found = rows(con, usage.paths_query(BERLIN, since=since, until=until, top=1000))
    assert {row[:2]: row[2] for row in found} == pairs
    assert all(row[4] == row[2] / sum(n for pair, n in pairs.items() if pair[0] == row[0]) for row in found)


@given(given_rows=EVENTS, name=st.sampled_from([None, "buy"]))
@examples_of_days
def test_stickiness_and_cohorts(con, given_rows, name):
    days = active(fill(con, given_rows), name)
    every = {day for own in days.values() for day in own}
    trailing = {}
    if every:
        for n in range((max(every) - min(every)).days + 1):
            end = min(every) + timedelta(days=n)
            trailing[end] = tuple(
                sum(
                    any(timedelta(0) <= end - day < timedelta(days=width) for day in own)
                    for own in days.values()
                )
                for width in (1, 7, 28)
            )
    asked = usage.stickiness_query(BERLIN, event=name)
    assert {row[0]: row[1:4] for row in rows(con, asked)} == trailing

    expected = {}
    for own in days.values():
        weeks = {day - timedelta(days=day.weekday()) for day in own}
        for week in weeks:
            key = (min(weeks), (week - min(weeks)).days // 7)
            expected[key] = expected.get(key, 0) + 1
    found = rows(con, usage.cohorts_query(BERLIN, event=name))
    assert {(row[1], row[2]): row[4] for row in found if row[4]} == expected
    assert all(row[3] == expected[row[1], 0] and row[5] == row[4] / row[3] for row in found)
    newest = rows(con, "SELECT max(event_date) FROM core.usage_events")[0][0]
    assert all(row[6] == (row[1] + timedelta(weeks=row[2], days=6) < newest) for row in found)
    if name is None:
        stored = "SELECT * FROM marts.usage_cohorts WHERE period = 'week' ORDER BY cohort, periods_since"
        assert rows(con, stored) == found


@given(
    given_rows=EVENTS,
    kind=st.sampled_from(["n_day", "unbounded", "bracket"]),
    start=st.sampled_from([None, "view"]),
    back=st.sampled_from([None, "buy"]),
)
@examples_of_days
def test_retention(con, given_rows, kind, start, back):
    events = fill(con, given_rows)
    starts, returns = active(events, start), active(events, back)
    newest = max((e["event_date"] for e in events), default=None)
    spans = {
        "n_day": [(n, n) for n in range(31)],
        "unbounded": [(n, None) for n in range(31)],
        "bracket": [(0, 0), (1, 3), (4, 7), (8, 14), (15, 30)],
    }[kind]
    cohorts: dict[date, list[set[int]]] = defaultdict(list)
    for actor, days in starts.items():
        cohorts[min(days)].append({(day - min(days)).days for day in returns.get(actor, ())})
    expected = []
    for cohort, members in sorted(cohorts.items()):
        for first, last in spans:
            if cohort + timedelta(days=first) <= newest:
                there = sum(any(first <= n <= (n if last is None else last) for n in own) for own in members)
                over = last is not None and cohort + timedelta(days=last) < newest
                expected.append((kind, cohort, first, last, len(members), there, there / len(members), over))
    assert rows(con, usage.retention_query(BERLIN, kind=kind, start=start, back=back)) == expected


def test_of_equally_frequent_next_steps_all_are_kept(con):
    visit = [{"actor_id": "a", "event": f"e{n}", "page": None, "minute": n * 60} for n in range(12)]
    start = [{"actor_id": "a", "event": "s", "page": None, "minute": n * 60 - 1} for n in range(1, 12)]
    fill(con, visit + start)
    found = rows(con, "SELECT count(*), max(place) FROM marts.usage_paths WHERE from_step = 's'")
    assert found == [(11, 1)]


def test_wrong_questions_are_refused():
    with pytest.raises(ConfigError, match="cannot be split"):
        usage.sessions_query(by="actor_id")
    with pytest.raises(ConfigError, match="empty"):
        usage.paths_query(BERLIN, since=date(2024, 1, 2), until=date(2024, 1, 1))
