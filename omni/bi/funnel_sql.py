"""Funnels as SQL, in the subset that runs on DuckDB and PostgreSQL; and the models they stand for.

A unit (actor, account or session) enters with its first event of step 1; from then on it has the window to
take the others. `entry: once` counts each unit once, `daily` once for each day it enters on. Events come in
the order of `position`, which tells events of one moment apart; an event is one step, so a step that is
listed twice takes two events. An event just as long after the entry as the window lasts is within it.

- `ordered`: each next step by the unit's first such event after the step before; others may lie between.
- `strict`: nothing of the unit's may lie between the steps. It enters with the event of step 1 that leads
  furthest, the earliest of equals.
- `any`: it enters with its first event of any step; step k is its k-th different step, whichever it is. An
  event that fits several steps is the first of them as they are listed, whether taken before or not.

Rows with '' as dimension and member are the totals.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from pathlib import Path

from omni.bi.funnels import Funnel, column, load_funnels
from omni.bi.rollups import NO_MEMBER
from omni.errors import ConfigError
from omni.warehouse.checks import Check
from omni.warehouse.models import Header, Model

KEYS = {"actor": ["actor_id"], "account": ["account"], "session": ["actor_id", "session_started_at"]}
EVENTS = {
    "actor": "core.usage_events", "account": "core.usage_events", "session": "core.usage_session_events",
}  # fmt: skip
"""Which events a unit's are found in."""
LAST_DATE = "least(max(event_date), max(received_date))"
"""The newest day that has come: senders' clocks may be a day ahead."""


@lru_cache(maxsize=4)
def funnel_models(folder: Path) -> dict[str, Model]:
    """A model of daily cohorts for each funnel under a folder, by name."""
    models = {}
    for funnel in load_funnels(folder).values():
        grain = ["cohort_date", "dimension", "member", "step"]
        header = Header(
            kind="full",
            owner=funnel.owner,
            description=funnel.description,
            grain=grain,
            time_column="cohort_date",
            checks=[Check(unique=grain), Check(not_null=[*grain, "units"])],
        )
        models[funnel.table] = Model(
            funnel.table, header, compile_funnel(funnel), f"data/funnels/{funnel.name}.yml"
        )
    return models


def compile_funnel(
    funnel: Funnel,
    *,
    by_day: bool = True,
    since: date | None = None,
    until: date | None = None,
    events: str | None = None,
) -> str:
    """One SELECT of a funnel: how many units reach each step.

    Columns: cohort_date (the day of entry; only `by_day`), dimension, member, step (from 1), step_name,
    units, of_first and of_previous (fractions of the units at step 1 and at the step before, null without
    any), median_seconds (from entry to the step), median_seconds_from_previous, is_complete (the window of
    its last units is over).

    Args:
        funnel: which.
        by_day: a row for each day of entry; otherwise one over all.
        since: first day of entry, included.
        until: first day of entry that is no longer included.
        events: what to read instead of the unit's events: a table or a SELECT in parentheses.

    Raises:
        ConfigError: the range is empty.
    """
    if since and until and since >= until:
        raise ConfigError(f"funnel {funnel.name}: [{since}, {until}) is empty; `until` is the day after")
    keys = KEYS[funnel.unit]
    source = f"{events or EVENTS[funnel.unit]} AS source_events"
    entered = [f"cohort_date >= DATE '{since}'"] if since else []
    entered += [f"cohort_date < DATE '{until}'"] if until else []
    where = " AND ".join(entered) or "TRUE"
    parts = {"ordered": _ordered, "strict": _strict, "any": _any}[funnel.order](funnel, keys, source, where)
    parts += _counted(funnel, keys, by_day)
    # Reading plain events again for each step is faster than keeping a copy; windows are worth keeping.
    kept = "" if "OVER" in parts[0][1] or funnel.unit == "session" else "NOT MATERIALIZED "
    named = ",\n".join(f"{name} AS {kept if name == 'events' else ''}({sql})" for name, sql in parts)
    return f"WITH {named}\n{_result(funnel, by_day)}"


Parts = list[tuple[str, str]]
"""Names and SELECTs of a WITH clause."""


def _events(funnel: Funnel, keys: list[str], source: str, *, every: bool = False, more: str = "") -> str:
    """The units' events with a truth per step; only those of some step unless `every`."""
    flags = [f"{_flag(funnel, n)} AS is_{n + 1}" for n in range(len(funnel.steps))]
    member = [f"coalesce({column(funnel.breakdown.by)}, '{NO_MEMBER}') AS member"] if funnel.breakdown else []
    columns = ", ".join([*keys, "occurred_at", "position", "event_date", *member, *flags])
    given = " AND ".join(f"{key} IS NOT NULL" for key in keys)
    some = " OR ".join(s.condition for s in funnel.steps)
    wanted = given if every else f"{given} AND ({some})"
    return f"SELECT {columns}{more} FROM {source} WHERE {wanted}"


def _flag(funnel: Funnel, number: int) -> str:
    """Whether an event is a step; in any order, none that is one listed before."""
    step = funnel.steps[number]
    before = [s.condition for s in funnel.steps[:number] if s.event == step.event]
    if funnel.order != "any" or not before:
        return step.condition
    return f"({step.condition} AND NOT coalesce({' OR '.join(before)}, FALSE))"


def _entries(funnel: Funnel, keys: list[str], flag: str, where: str) -> str:
    """Where units enter: the first event with the flag, of all or of each day."""
    units = ", ".join(keys)
    day, grouped = ("event_date", f"{units}, event_date")
    if funnel.entry == "once":
        day, grouped = "min(event_date)", units
    return (
        f"SELECT * FROM (SELECT {units}, {day} AS cohort_date, min(position) AS entry_position, "
        f"min(occurred_at) AS entered_at, min(position) AS position, min(occurred_at) AS occurred_at "
        f"FROM events WHERE {flag} GROUP BY {grouped}) AS entries WHERE {where}"
    )


def _window(funnel: Funnel) -> str:
    return f"INTERVAL {funnel.minutes} MINUTE"


REACHED = "cohort_date, entry_position, entered_at, position, occurred_at"
"""Columns of every step's SELECT, besides the unit's keys; `previous_at` follows."""


def _ordered(funnel: Funnel, keys: list[str], source: str, where: str) -> Parts:
    later = range(2, len(funnel.steps) + 1)
    units = ", ".join(keys)
    rows = [f"SELECT 1 AS step, {units}, {REACHED}, NULL AS previous_at FROM step_1"]
    rows += [f"SELECT {step} AS step, {units}, {REACHED}, previous_at FROM step_{step}" for step in later]
    return [
        ("events", _events(funnel, keys, source)),
        ("step_1", _entries(funnel, keys, "is_1", where)),
        *((f"step_{step}", _next(funnel, keys, step)) for step in later),
        ("reached", "\nUNION ALL\n".join(_typed(rows))),
    ]


def _next(funnel: Funnel, keys: list[str], step: int) -> str:
    """The first event of a step after the step before it."""
    own = ", ".join(f"s.{key}" for key in keys)
    same = " AND ".join(f"e.{key} = s.{key}" for key in keys)
    return (
        f"SELECT {own}, s.cohort_date, s.entry_position, min(s.entered_at) AS entered_at, "
        "min(e.position) AS position, min(e.occurred_at) AS occurred_at, min(s.occurred_at) AS previous_at "
        f"FROM step_{step - 1} AS s JOIN events AS e ON {same} AND e.is_{step} "
        f"AND e.position > s.position AND e.occurred_at <= s.entered_at + {_window(funnel)} "
        f"GROUP BY {own}, s.cohort_date, s.entry_position"
    )


def _typed(rows: list[str]) -> list[str]:
    return [row.replace("NULL AS previous_at", "CAST(NULL AS TIMESTAMPTZ) AS previous_at") for row in rows]


def _strict(funnel: Funnel, keys: list[str], source: str, where: str) -> Parts:
    units, count = ", ".join(keys), len(funnel.steps)
    ahead = "".join(
        f", coalesce(lead({s.condition}, {n}) OVER unit_order, FALSE) AS next_{n}, "
        f"lead(position, {n}) OVER unit_order AS position_{n}, "
        f"lead(occurred_at, {n}) OVER unit_order AS at_{n}"
        for n, s in enumerate(funnel.steps[1:], 1)
    )
    events = _events(funnel, keys, source, every=True, more=ahead)
    events += f" WINDOW unit_order AS (PARTITION BY {units} ORDER BY position)"
    good = [
        " AND ".join(f"next_{k} AND at_{k} <= occurred_at + {_window(funnel)}" for k in range(1, n + 1))
        for n in range(count - 1, 0, -1)
    ]
    cases = " ".join(
        f"WHEN {condition} THEN {steps}" for condition, steps in zip(good, range(count, 1, -1), strict=True)
    )
    per = units if funnel.entry == "once" else f"{units}, event_date"
    tried = f"SELECT *, CASE {cases} ELSE 1 END AS steps FROM events WHERE is_1"
    best = (
        "SELECT * FROM (SELECT tried.*, event_date AS cohort_date, "
        f"row_number() OVER (PARTITION BY {per} ORDER BY steps DESC, position) AS place "
        f"FROM ({tried}) AS tried) AS ranked WHERE place = 1"
    )
    rows = []
    for step in range(1, count + 1):
        place, moment = (
            ("position", "occurred_at") if step == 1 else (f"position_{step - 1}", f"at_{step - 1}")
        )
        before = "NULL" if step == 1 else "occurred_at" if step == 2 else f"at_{step - 2}"
        rows.append(
            f"SELECT {step} AS step, {units}, cohort_date, position AS entry_position, "
            f"occurred_at AS entered_at, {place} AS position, {moment} AS occurred_at, "
            f"{before} AS previous_at FROM best WHERE steps >= {step} AND {where}"
        )
    return [("events", events), ("best", best), ("reached", "\nUNION ALL\n".join(_typed(rows)))]


def _any(funnel: Funnel, keys: list[str], source: str, where: str) -> Parts:
    own = ", ".join(f"s.{key}" for key in keys)
    units = ", ".join(keys)
    same = " AND ".join(f"e.{key} = s.{key}" for key in keys)
    numbers = range(1, len(funnel.steps) + 1)
    firsts = ", ".join(
        f"min(e.position) FILTER (WHERE e.is_{n}) AS position_{n}, "
        f"min(e.occurred_at) FILTER (WHERE e.is_{n}) AS at_{n}"
        for n in numbers
    )
    done = (
        f"SELECT {own}, s.cohort_date, s.entry_position, min(s.entered_at) AS entered_at, {firsts} "
        f"FROM step_1 AS s JOIN events AS e ON {same} AND e.position >= s.position "
        f"AND e.occurred_at <= s.entered_at + {_window(funnel)} "
        f"GROUP BY {own}, s.cohort_date, s.entry_position"
    )
    each = "\nUNION ALL\n".join(
        f"SELECT {units}, cohort_date, entry_position, entered_at, position_{n} AS position, "
        f"at_{n} AS occurred_at FROM done WHERE position_{n} IS NOT NULL"
        for n in numbers
    )
    reached = (
        f"SELECT CAST(row_number() OVER attempt AS INTEGER) AS step, {units}, {REACHED}, "
        "lag(occurred_at) OVER attempt AS previous_at FROM each_step "
        f"WINDOW attempt AS (PARTITION BY {units}, entry_position ORDER BY position)"
    )
    return [
        ("events", _events(funnel, keys, source)),
        ("step_1", _entries(funnel, keys, "TRUE", where)),
        ("done", done),
        ("each_step", each),
        ("reached", reached),
    ]


def _counted(funnel: Funnel, keys: list[str], by_day: bool) -> Parts:
    """Units and times by step: in all, and by the breakdown's members."""
    day = ["cohort_date"] if by_day else []
    numbers = (
        "count(*) AS units, "
        + ", ".join(
            f"quantile_cont({_seconds(f'r.{since}', 'r.occurred_at')}, 0.5) AS {name}"
            for since, name in (
                ("entered_at", "median_seconds"),
                ("previous_at", "median_seconds_from_previous"),
            )
        )
        + ", max(r.cohort_date) AS newest_entry"
    )
    grouped = ", ".join(["r.step", *(f"r.{column}" for column in day)])
    parts = [
        f"SELECT '' AS dimension, '' AS member, {grouped}, {numbers} FROM reached AS r GROUP BY {grouped}"
    ]
    more: Parts = []
    if funnel.breakdown:
        own = ", ".join(f"{key}" for key in keys)
        place = {
            "first": "entry_position",
            "last": f"max(position) OVER (PARTITION BY {own}, entry_position)",
            "per_step": "position",
        }[funnel.breakdown.attribution]
        more.append(("placed", f"SELECT reached.*, {place} AS telling_position FROM reached"))
        parts.append(
            f"SELECT '{funnel.breakdown.by}' AS dimension, e.member, {grouped}, {numbers} "
            "FROM placed AS r JOIN events AS e ON e.position = r.telling_position "
            f"GROUP BY e.member, {grouped}"
        )
    return [*more, ("counted", "\nUNION ALL\n".join(parts))]


def _seconds(since: str, until: str) -> str:
    """Seconds between two moments. DuckDB takes ten times as long to subtract the moments themselves."""
    return (
        f"CAST(CAST(extract(epoch FROM {until}) - extract(epoch FROM {since}) AS DECIMAL(18, 6)) AS DOUBLE)"
    )


def _result(funnel: Funnel, by_day: bool) -> str:
    day = ["cohort_date"] if by_day else []
    cell = [*day, "dimension", "member"]
    names = [
        (n, f"{n}_of_{len(funnel.steps)}" if funnel.order == "any" else step.name)
        for n, step in enumerate(funnel.steps, 1)
    ]
    values = ", ".join(f"({n}, '{name}')" for n, name in names)
    same = " AND ".join(f"n.{column} = c.{column}" for column in cell)
    order = f"(PARTITION BY {', '.join(f'c.{column}' for column in cell)} ORDER BY s.step)"
    units = "coalesce(n.units, 0)"
    days = -(-funnel.minutes // (24 * 60))
    return (
        f"SELECT {', '.join(f'c.{column}' for column in cell)}, s.step, s.step_name, "
        f"CAST({units} AS BIGINT) AS units, "
        f"CAST({units} AS DOUBLE) / nullif(first_value({units}) OVER {order}, 0) AS of_first, "
        f"CAST({units} AS DOUBLE) / nullif(lag({units}) OVER {order}, 0) AS of_previous, "
        "n.median_seconds, n.median_seconds_from_previous, "
        f"c.newest_entry + {days} < newest.last_date AS is_complete\n"
        f"FROM (SELECT {', '.join(cell)}, max(newest_entry) AS newest_entry FROM counted "
        f"GROUP BY {', '.join(cell)}) AS c\n"
        f"CROSS JOIN (VALUES {values}) AS s(step, step_name)\n"
        f"CROSS JOIN (SELECT {LAST_DATE} AS last_date FROM {EVENTS['actor']}) AS newest\n"
        f"LEFT JOIN counted AS n ON n.step = s.step AND {same}"
    )
