"""Funnels equal a computation by hand of every unit's events, in any order, window and split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from statistics import median
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from omni.bi.funnel_sql import compile_funnel, funnel_models
from omni.bi.funnels import Funnel, load_funnels
from omni.bi.usage import funnel_query
from omni.errors import ConfigError
from omni.settings import settings
from omni.tenancy import Tenant
from omni.warehouse.models import cached_models

pytestmark = pytest.mark.slow

FIRST = datetime(2024, 3, 30, 20, tzinfo=UTC)
BERLIN = Tenant(tenant="acme", title="Acme", timezone="UTC", currency="EUR", sources={})

EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "actor_id": st.sampled_from(["a", "a", "a", "b", None]),
            "account": st.sampled_from([None, "x", "y"]),
            "event": st.sampled_from("aabbcz"),
            "channel": st.sampled_from([None, "ads", "mail"]),
            # Few moments, so that many are equal; minutes and hours, so that windows and days end between.
            "minute": st.sampled_from([0, 0, 10, 20, 40, 60, 240, 245, 1440, 1450, 2900]),
        }
    ),
    min_size=5,
    max_size=24,
) | st.just([])
STEPS = st.lists(st.sampled_from(["a", "b", "c", "a where ads"]), min_size=2, max_size=3)


def stored(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows as core.usage_events has them: in the order of moments, those of one moment as given."""
    ordered = sorted(rows, key=lambda row: row["minute"])
    events = []
    for position, row in enumerate(ordered, 1):
        moment = FIRST + timedelta(minutes=row["minute"])
        events.append(row | {"occurred_at": moment, "position": position, "event_date": moment.date()})
    return events


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("CREATE SCHEMA core")
        connection.execute(
            "CREATE TABLE core.usage_events (source VARCHAR, event_id VARCHAR, account VARCHAR, "
            "actor_id VARCHAR, event VARCHAR, page VARCHAR, channel VARCHAR, properties JSON, "
            "occurred_at TIMESTAMPTZ, event_date DATE, position BIGINT, received_date DATE)"
        )
        sessions = cached_models(settings().data / "models")["core.usage_session_events"]
        connection.execute(f"CREATE VIEW core.usage_session_events AS {sessions.bound(BERLIN)}")
        yield connection


def fill(con: duckdb.DuckDBPyConnection, events: list[dict[str, Any]]) -> None:
    con.execute("DELETE FROM core.usage_events")
    for e in events:
        values = [e["position"], e["account"], e["actor_id"], e["event"], e["channel"]]
        con.execute(
            "INSERT INTO core.usage_events SELECT 'web', $1, $2, $3, $4, NULL, $5, NULL, $6, $7, $1, $8",
            [*values, e["occurred_at"], e["event_date"], e.get("received_date", e["event_date"])],
        )


def make(steps: list[str], /, **fields: Any) -> Funnel:
    written = [
        {"name": f"s{n}", "event": step[0]} | ({"where": "channel = 'ads'"} if " " in step else {})
        for n, step in enumerate(steps)
    ]
    own = {"name": "f", "title": "f", "description": "f", "owner": "a@demo.example", "window": "60 minutes"}
    return Funnel.model_validate(own | {"steps": written} | fields)


def matches(step: str, event: dict[str, Any]) -> bool:
    return event["event"] == step[0] and (" " not in step or event["channel"] == "ads")


def units_of(events: list[dict[str, Any]], unit: str) -> dict[Any, list[dict[str, Any]]]:
    units: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    last: dict[str, datetime] = {}
    begun: dict[str, datetime] = {}
    for e in events:
        actor = e["actor_id"]
        if unit == "account":
            if e["account"] is not None:
                units[e["account"]].append(e)
        elif actor is not None:
            if actor not in last or e["occurred_at"] - last[actor] > timedelta(minutes=30):
                begun[actor] = e["occurred_at"]
            last[actor] = e["occurred_at"]
            units[actor if unit == "actor" else (actor, begun[actor])].append(e)
    return units


def attempt(events: list[dict[str, Any]], start: int, steps: list[str], order: str, window: timedelta):
    """The events that take the steps, of a unit that enters with its event number `start`."""
    entry = events[start]
    inside = [e for e in events[start + 1 :] if e["occurred_at"] - entry["occurred_at"] <= window]
    if order == "any":
        first = {}
        for e in [entry, *inside]:
            fitting = [step for step in steps if matches(step, e)]
            if fitting:
                first.setdefault(fitting[0], e)
        return list(first.values())
    taken = [entry]
    for e in inside:
        if len(taken) == len(steps):
            break
        if matches(steps[len(taken)], e):
            taken.append(e)
        elif order == "strict":
            break
    return taken


def by_hand(events: list[dict[str, Any]], funnel: Funnel, steps: list[str]) -> dict[Any, list[list[Any]]]:
    """The attempts by day of entry."""
    attempts: dict[date, list[list[Any]]] = defaultdict(list)
    window = timedelta(minutes=funnel.minutes)
    for own in units_of(events, funnel.unit).values():
        tried: dict[Any, list[list[Any]]] = defaultdict(list)
        for start, e in enumerate(own):
            entering = steps if funnel.order == "any" else steps[:1]
            if any(matches(step, e) for step in entering):
                taken = attempt(own, start, steps, funnel.order, window)
                tried[e["event_date"] if funnel.entry == "daily" else None].append(taken)
        for found in tried.values():
            best = max(found, key=len) if funnel.order == "strict" else found[0]
            attempts[best[0]["event_date"]].append(best)
    return attempts


def telling(taken: list[Any], step: int, attribution: str) -> str:
    e = {"first": taken[0], "last": taken[-1], "per_step": taken[step]}[attribution]
    return e["channel"] or "(none)"


def expected(attempts: list[list[Any]], funnel: Funnel) -> dict[tuple[str, str, int], tuple[Any, ...]]:
    """Units and times by dimension, member and step."""
    cells: dict[tuple[str, str, int], list[tuple[float, float | None]]] = defaultdict(list)
    members = {("", "")}
    for taken in attempts:
        for step, e in enumerate(taken):
            since = (e["occurred_at"] - taken[0]["occurred_at"]).total_seconds()
            before = (e["occurred_at"] - taken[step - 1]["occurred_at"]).total_seconds() if step else None
            cells["", "", step + 1].append((since, before))
            if funnel.breakdown:
                key = ("channel", telling(taken, step, funnel.breakdown.attribution))
                members.add(key)
                cells[(*key, step + 1)].append((since, before))
    result = {}
    for dimension, member in members if attempts else ():
        for step in range(1, len(funnel.steps) + 1):
            times = cells[dimension, member, step]
            gaps = [before for _, before in times if before is not None]
            result[dimension, member, step] = (
                len(times),
                median(t for t, _ in times) if times else None,
                median(gaps) if gaps else None,
            )
    return result


@pytest.mark.parametrize("order", ["ordered", "strict", "any"])
@given(
    rows=EVENTS,
    steps=STEPS,
    unit=st.sampled_from(["actor", "account", "session"]),
    entry=st.sampled_from(["once", "daily"]),
    window=st.sampled_from(["10 minutes", "1 hour", "1 day", "3 days"]),
    attribution=st.sampled_from([None, "first", "last", "per_step"]),
)
@examples(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_funnel_equals_the_computation_by_hand(con, order, rows, steps, unit, entry, window, attribution):
    if order == "any":
        steps = sorted(set(steps), key=steps[::-1].index)
        if "a" in steps and "a where ads" in steps:  # else every a were the first of them
            steps = [step for step in steps if step != "a"] + ["a"]
        if len(steps) < 2:
            steps = ["a", "b"]
    breakdown = {"by": "channel", "attribution": attribution} if attribution else None
    funnel = make(steps, order=order, unit=unit, entry=entry, window=window, breakdown=breakdown)
    events = stored(rows)
    fill(con, events)
    attempts = by_hand(events, funnel, steps)
    daily: dict[date, dict[Any, Any]] = defaultdict(dict)
    found = con.execute(
        "SELECT cohort_date, dimension, member, step, units, median_seconds, median_seconds_from_previous "
        f"FROM ({compile_funnel(funnel)}) AS f"
    ).fetchall()
    for day, dimension, member, step, *values in found:
        daily[day][dimension, member, step] = tuple(values)
    assert daily == {day: expected(taken, funnel) for day, taken in attempts.items()}

    since = FIRST.date() + timedelta(days=1)
    asked = funnel_query(funnel, BERLIN, since=since)
    total = con.execute(
        "SELECT dimension, member, step, units, median_seconds, median_seconds_from_previous "
        f"FROM ({asked}) AS f"
    ).fetchall()
    later = [taken for day, found in attempts.items() for taken in found if day >= since]
    assert {tuple(row[:3]): tuple(row[3:]) for row in total} == expected(later, funnel)


def test_fractions_and_whether_a_cohort_is_complete(con):
    rows = [
        {"actor_id": actor, "account": None, "event": event, "channel": None, "minute": minute}
        for actor, event, minute in [
            ("a", "a", 0), ("b", "a", 1), ("a", "b", 5), ("c", "a", 1500), ("c", "z", 3000),
        ]
    ]  # fmt: skip
    fill(con, stored(rows))
    sql = compile_funnel(make(["a", "b", "c"], window="1 day"))
    found = con.execute(
        f"SELECT cohort_date, step_name, of_first, of_previous, is_complete FROM ({sql}) AS f "
        "ORDER BY cohort_date, step"
    ).fetchall()
    day, next_day = date(2024, 3, 30), date(2024, 3, 31)
    assert found == [
        (day, "s0", 1.0, None, True), (day, "s1", 0.5, 0.5, True), (day, "s2", 0.0, 0.0, True),
        (next_day, "s0", 1.0, None, False), (next_day, "s1", 0.0, 0.0, False),
        (next_day, "s2", 0.0, None, False),
    ]  # fmt: skip


def test_a_strict_attempt_is_the_one_that_leads_furthest(con):
    rows = [
        {"actor_id": "a", "account": None, "event": event, "channel": None, "minute": minute}
        for minute, event in enumerate("azaba")
    ]
    fill(con, stored(rows))
    sql = compile_funnel(make(["a", "b"], order="strict"))
    found = con.execute(f"SELECT step, units, median_seconds FROM ({sql}) AS f ORDER BY step").fetchall()
    assert found == [(1, 1, 0.0), (2, 1, 60.0)]


def test_in_any_order_an_event_is_one_step(con):
    fill(con, stored([{"actor_id": "a", "account": None, "event": "a", "channel": "ads", "minute": 0}]))
    sql = compile_funnel(make(["a where ads", "a"], order="any"), by_day=False)
    assert con.execute(f"SELECT units FROM ({sql}) AS f ORDER BY step").fetchall() == [(1,), (0,)]


@pytest.mark.parametrize("unit", ["actor", "session"])
def test_an_event_dated_ahead_completes_nothing(con, unit):
    row = {"actor_id": "a", "account": None, "event": "a", "channel": None}
    days = stored([row | {"minute": 0}, row | {"minute": 2900, "actor_id": "b"}])
    fill(con, [e | {"received_date": FIRST.date() + timedelta(days=1)} for e in days])
    sql = compile_funnel(make(["a", "b"], window="1 day", unit=unit))
    found = con.execute(f"SELECT DISTINCT cohort_date, is_complete FROM ({sql}) AS f ORDER BY 1").fetchall()
    assert found == [(days[0]["event_date"], False), (days[1]["event_date"], False)]


def test_the_mart_is_what_is_asked_ad_hoc(con):
    rows = [
        {"actor_id": "a", "account": None, "event": event, "channel": "ads", "minute": minute}
        for event, minute in [("page_view", 0), ("signup", 10)]
    ]
    fill(con, stored(rows))
    funnels = load_funnels(settings().data / "funnels")
    for name, model in funnel_models(settings().data / "funnels").items():
        funnel = funnels[name.removeprefix("marts.funnel_")]
        asked = con.execute(funnel_query(funnel, BERLIN, by_day=True)).fetchall()
        columns = "dimension, member, cohort_date, step"
        assert (
            con.execute(f"SELECT * FROM ({model.bound(BERLIN)}) AS m ORDER BY {columns}").fetchall() == asked
        )
    assert con.execute(funnel_query(funnels["signup"], BERLIN, by="page")).fetchall()[2][:6] == (
        "page", "(none)", 1, "came", 1, 1.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"steps": [{"name": "a", "event": "a"}]}, "at least 2"),
        ({"steps": [{"name": "a", "event": "a"}, {"name": "a", "event": "b"}]}, "same name"),
        ({"order": "any", "steps": [{"name": "a", "event": "a"}, {"name": "b", "event": "a"}]}, "told apart"),
        (
            {
                "order": "any",
                "steps": [{"name": "a", "event": "a"}, {"name": "b", "event": "a", "where": "page = 1"}],
            },
            "list b before a",
        ),
        ({"window": "a week"}, "window"),
        ({"breakdown": {"by": "secret"}}, "by"),
        ({"breakdown": {"by": "properties.x') --"}}, "by"),
    ],
)
def test_wrong_funnels_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        make(["a", "b"], **fields)


@pytest.mark.parametrize("where", ["1 = (SELECT 1)", "count(*) > 1", "x.page = 'a'", "page = $1", "page ="])
def test_a_condition_is_about_one_event(where):
    with pytest.raises(ValueError, match="where"):
        make(["a", "b"], steps=[{"name": "a", "event": "a", "where": where}, {"name": "b", "event": "b"}])


def test_wrong_questions_are_refused():
    with pytest.raises(ConfigError, match="cannot be split"):
        funnel_query(make(["a", "b"]), BERLIN, by="customer")
    with pytest.raises(ConfigError, match="empty"):
        funnel_query(make(["a", "b"]), BERLIN, since=date(2024, 1, 2), until=date(2024, 1, 2))


def test_text_in_a_funnel_stays_text(con):
    fill(con, [])
    funnel = make(["a", "b"], steps=[{"name": "a", "event": "it's"}, {"name": "b", "event": "b"}])
    assert con.execute(compile_funnel(funnel)).fetchall() == []
