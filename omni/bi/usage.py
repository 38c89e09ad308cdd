"""Questions about usage, asked of the published tables: as the marts answer, for other days and events.

Each is one SELECT; where a mart answers the same question for all events, it is the mart's own SQL with the
events narrowed, so both agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Literal

import sqlglot
from sqlglot import exp

from omni.bi.funnel_sql import EVENTS, compile_funnel
from omni.bi.funnels import Breakdown, Funnel
from omni.errors import ConfigError
from omni.settings import settings
from omni.tenancy import Tenant
from omni.warehouse.models import Model, cached_models

Grain = Literal["day", "week", "month"]
Kind = Literal["n_day", "unbounded", "bracket"]
SESSION_DIMENSIONS = ("account", "channel", "exit_page", "first_event", "landing_page", "source")


def funnel_query(
    funnel: Funnel,
    tenant: Tenant,
    *,
    by_day: bool = False,
    since: date | None = None,
    until: date | None = None,
    by: str | None = None,
) -> str:
    """A funnel of units that entered on days in [since, until); columns as `compile_funnel`.

    Args:
        by: split by this instead of the funnel's own breakdown, with its attribution (or `first`).

    Raises:
        ConfigError: there is no such dimension, or the range is empty.
    """
    if by is not None:
        attribution = funnel.breakdown.attribution if funnel.breakdown else "first"
        try:
            funnel = funnel.model_copy(update={"breakdown": Breakdown(by=by, attribution=attribution)})
        except ValueError:
            raise ConfigError(
                f"funnel {funnel.name}: cannot be split by {by!r}; by account, channel, event, page, "
                "source or properties.<key>"
            ) from None
    events = _session_events(tenant) if funnel.unit == "session" else EVENTS[funnel.unit]
    sql = compile_funnel(funnel, by_day=by_day, since=since, until=until, events=events)
    return f"SELECT * FROM ({sql}) AS funnel ORDER BY dimension, member, {'cohort_date, ' * by_day}step"


def retention_query(
    tenant: Tenant,
    *,
    kind: Kind = "n_day",
    start: str | None = None,
    back: str | None = None,
    since: date | None = None,
    until: date | None = None,
) -> str:
    """`marts.usage_retention` of cohorts in [since, until).

    Args:
        start: actors join with their first event of this name instead of their first event.
        back: and count as there again only with this event.
    """
    narrow = {"starts": _event(start), "returns": _event(back)}
    sql = _narrowed(_model("marts.usage_retention"), tenant, narrow)
    where = [f"kind = '{kind}'", *_days("cohort_date", since, until)]
    return f"SELECT * FROM ({sql}) AS cells WHERE {' AND '.join(where)} ORDER BY cohort_date, first_day"


def cohorts_query(
    tenant: Tenant,
    *,
    period: Literal["week", "month"] = "week",
    event: str | None = None,
    since: date | None = None,
    until: date | None = None,
) -> str:
    """`marts.usage_cohorts` of cohorts that begin in [since, until), by one event if given."""
    sql = _narrowed(_model("marts.usage_cohorts"), tenant, {"active": _event(event)})
    where = [f"period = '{period}'", *_days("cohort", since, until)]
    return f"SELECT * FROM ({sql}) AS cells WHERE {' AND '.join(where)} ORDER BY cohort, periods_since"


def stickiness_query(
    tenant: Tenant, *, event: str | None = None, since: date | None = None, until: date | None = None
) -> str:
    """`marts.usage_stickiness` for days in [since, until), by one event if given."""
    sql = _narrowed(_model("marts.usage_stickiness"), tenant, {"active": _event(event)})
    where = " AND ".join(["TRUE", *_days("day", since, until)])
    return f'SELECT * FROM ({sql}) AS days WHERE {where} ORDER BY "day"'


def paths_query(
    tenant: Tenant,
    *,
    start: str | None = None,
    since: date | None = None,
    until: date | None = None,
    top: int = 20,
) -> str:
    """What comes next within sessions that began in [since, until), as `marts.usage_paths` counts it.

    Args:
        start: only what follows this page or event; `(start)` for where sessions begin.
        top: so many rows, the most frequent ones.
    """
    zone = _text(tenant.timezone)
    begun = _days(f"CAST(session_started_at AT TIME ZONE {zone} AS DATE)", since, until)
    visit = "(PARTITION BY actor_id, session_started_at ORDER BY occurred_at, position)"
    return (
        "WITH steps AS (SELECT actor_id, coalesce(page, event) AS step, "
        f"lag(coalesce(page, event)) OVER {visit} AS previous, "
        f"lead(coalesce(page, event)) OVER {visit} AS following "
        f"FROM {_session_events(tenant)} AS e WHERE {' AND '.join(['TRUE', *begun])}), "
        "pairs AS (SELECT actor_id, step AS from_step, coalesce(following, '(end)') AS to_step FROM steps "
        "UNION ALL SELECT actor_id, '(start)', step FROM steps WHERE previous IS NULL), "
        "counted AS (SELECT from_step, to_step, count(*) AS transitions, count(DISTINCT actor_id) AS actors "
        "FROM pairs GROUP BY from_step, to_step) "
        "SELECT from_step, to_step, transitions, actors, CAST(transitions AS DOUBLE) "
        "/ sum(transitions) OVER (PARTITION BY from_step) AS share FROM counted "
        f"{f'WHERE from_step = {_text(start)} ' if start is not None else ''}"
        f"ORDER BY transitions DESC, from_step, to_step LIMIT {int(top)}"
    )


def sessions_query(
    *,
    grain: Grain = "day",
    by: str | None = None,
    since: date | None = None,
    until: date | None = None,
) -> str:
    """Sessions by the period they began in, and by one of `SESSION_DIMENSIONS` if given.

    Columns: period, the dimension, sessions, actors, bounce_rate, events_per_session, median_seconds.

    Raises:
        ConfigError: sessions have no such dimension.
    """
    if by is not None and by not in SESSION_DIMENSIONS:
        raise ConfigError(f"sessions cannot be split by {by!r}; by {', '.join(SESSION_DIMENSIONS)}")
    split = [f"coalesce({by}, '(none)') AS {by}"] if by else []
    columns = [f"CAST(date_trunc('{grain}', session_date) AS DATE) AS period", *split]
    numbers = ", ".join(str(n) for n in range(1, len(columns) + 1))
    return (
        f"SELECT {', '.join(columns)}, count(*) AS sessions, count(DISTINCT actor_id) AS actors, "
        "CAST(count(*) FILTER (WHERE is_bounced) AS DOUBLE) / count(*) AS bounce_rate, "
        "CAST(sum(events) AS DOUBLE) / count(*) AS events_per_session, "
        "quantile_cont(duration_seconds, 0.5) AS median_seconds FROM core.usage_sessions "
        f"WHERE {' AND '.join(['TRUE', *_days('session_date', since, until)])} "
        f"GROUP BY {numbers} ORDER BY {numbers}"
    )


def _model(name: str) -> Model:
    return cached_models(settings().data / "models")[name]


def _session_events(tenant: Tenant) -> str:
    """The view of events with their sessions as a SELECT: the published tables have no views."""
    return f"({_model('core.usage_session_events').bound(tenant)})"


def _event(name: str | None) -> str | None:
    return None if name is None else f"event = {_text(name)}"


def _days(column: str, since: date | None, until: date | None) -> list[str]:
    if since and until and since >= until:
        raise ConfigError(f"The range [{since}, {until}) is empty; `until` is the day after the last")
    bounds = [f"{column} >= DATE '{since}'"] if since else []
    return bounds + ([f"{column} < DATE '{until}'"] if until else [])


def _narrowed(model: Model, tenant: Tenant, conditions: Mapping[str, str | None]) -> str:
    """A model's SELECT with a condition more in some of its WITH clauses."""
    query = sqlglot.parse_one(model.bound(tenant), read="duckdb")
    for cte in query.find_all(exp.CTE):
        condition = conditions.get(cte.alias)
        if condition is not None:
            cte.this.where(condition, dialect="duckdb", copy=False)
    return query.sql("duckdb")


def _text(value: str) -> str:
    return exp.Literal.string(value).sql("duckdb")
