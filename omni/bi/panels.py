"""Panels about the work itself: anomalies, experiments, scores, freshness, evidence.

Each reads a table of another domain from the snapshot and gives plain rows for the page; a table that is
missing or empty gives none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from omni.bi.metrics import Metric
from omni.bi.numbers import NOTHING, show
from omni.bi.series import Snapshot

ARROWS = {"up": "▲", "down": "▼"}
DECISIONS = {"better": "good", "worse": "bad", "invalid": "warn", "inconclusive": "flat"}


def read_flags(snapshot: Snapshot, metric: Metric, since: date, currency: str) -> list[dict[str, Any]]:
    """Anomalous days of a metric's total from `since` on, ready to be drawn."""
    if "anomaly.flags" not in snapshot.tables:
        return []
    rows = _records(
        snapshot,
        "SELECT day, value, expected, lower, upper, severity, direction FROM anomaly.flags "
        "WHERE metric = $1 AND dimension = '' AND day >= $2 ORDER BY day",
        [metric.name, since],
    )
    return [_flag(row, metric, currency) for row in rows]


def _flag(row: Mapping[str, Any], metric: Metric, currency: str) -> dict[str, Any]:
    shown = {
        key: show(_finite(row[key]), metric.unit, currency) for key in ("value", "expected", "lower", "upper")
    }
    return {
        "day": row["day"].isoformat(),
        **{key: _finite(row[key]) for key in ("value", "expected", "lower", "upper")},
        "severity": row["severity"],
        "direction": row["direction"],
        "label": f"{row['day']:%a} {row['day'].isoformat()}",
        "shown": shown["value"],
        "wanted": shown["expected"],
        "range": f"{shown['lower']} to {shown['upper']}",
    }


def anomalies(snapshot: Snapshot, days: int, currency: str) -> list[dict[str, Any]]:
    """Anomalous days of all metrics, newest first, at most 50; `days` count back from the newest load."""
    if "anomaly.flags" not in snapshot.tables:
        return []
    rows = _records(
        snapshot,
        "SELECT metric, dimension, member, day, value, expected, lower, upper, score, severity, direction "
        "FROM anomaly.flags ORDER BY day DESC, score DESC, metric, dimension, member",
    )
    if not rows:
        return []
    since = rows[0]["day"] - timedelta(days=days - 1)
    found = []
    for row in [row for row in rows if row["day"] >= since][:50]:
        metric = snapshot.metrics.get(row["metric"])
        if metric is None:
            continue
        good = (
            None
            if metric.direction == "neutral"
            else (row["direction"] == "up") == (metric.direction == "up_is_good")
        )
        found.append(
            _flag(row, metric, currency)
            | {
                "title": metric.title,
                "part": f"{row['dimension']}: {row['member']}" if row["dimension"] else "",
                "arrow": ARROWS.get(row["direction"], ""),
                "tone": "flat" if good is None else "good" if good else "bad",
                "off": _relative(row["value"], row["expected"]),
            }
        )
    return found


def _relative(value: float | None, expected: float | None) -> str:
    if value is None or not expected or not math.isfinite(value / expected):
        return NOTHING
    return f"{100 * (value / expected - 1):+.0f}%".replace("-", "−")


@dataclass(frozen=True)
class Interval:
    """An effect's interval on a strip of 0 to 100 with no effect at 50; None where it is not known."""

    low: float
    middle: float
    high: float


def experiments(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Every comparison of every experiment, with its interval drawn to the scale of its outcome."""
    if "experiments.results" not in snapshot.tables:
        return []
    rows = _records(snapshot, "SELECT * FROM experiments.results ORDER BY experiment, outcome, variant")
    reach: dict[tuple[str, str], float] = {}
    for row in rows:
        key = row["experiment"], row["outcome"]
        ends = [abs(end) for end in (_finite(row["ci_low"]), _finite(row["ci_high"])) if end is not None]
        reach[key] = max([reach.get(key, 0.0), *ends])
    return [_comparison(row, reach[row["experiment"], row["outcome"]]) for row in rows]


def _comparison(row: Mapping[str, Any], reach: float) -> dict[str, Any]:
    share = row.get("kind") == "proportion"
    low, middle, high = (_finite(row[key]) for key in ("ci_low", "effect", "ci_high"))
    strip = None
    if low is not None and middle is not None and high is not None and reach > 0:
        strip = Interval(*(round(50 + 46 * end / reach, 2) for end in (low, middle, high)))
    relative = _finite(row["relative_effect"])
    return {
        "experiment": row["experiment"],
        "outcome": row["outcome"],
        "variant": row["variant"],
        "control": row["control"],
        "n": f"{row['n'] or 0:,} / {row['n_control'] or 0:,}",
        "mean": _measure(_finite(row["mean"]), share=share),
        "mean_control": _measure(_finite(row["mean_control"]), share=share),
        "effect": _measure(middle, share=share, signed=True),
        "interval": f"{_measure(low, share=share, signed=True)} to {_measure(high, share=share, signed=True)}"
        if strip
        else NOTHING,
        "strip": strip,
        "relative": NOTHING if relative is None else f"{100 * relative:+.1f}%".replace("-", "−"),
        "p": _probability(_finite(row["p_adjusted"])),
        "srm_ok": row["srm_ok"],
        "srm_p": _probability(_finite(row["srm_p"])),
        "decision": row["decision"] or "unknown",
        "tone": DECISIONS.get(row["decision"], "flat"),
    }


def _measure(value: float | None, *, share: bool, signed: bool = False) -> str:
    if value is None:
        return NOTHING
    plus = "+" if signed else ""
    text = f"{100 * value:{plus}.2f}{' pp' if signed else '%'}" if share else f"{value:{plus},.2f}"
    return text.replace("-", "−")


def _probability(value: float | None) -> str:
    if value is None:
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def models(snapshot: Snapshot) -> dict[str, Any] | None:
    """The lead model's scores by decile, best first."""
    if "ml.lead_scores" not in snapshot.tables:
        return None
    rows = _records(
        snapshot,
        "SELECT decile, count(*) AS leads, avg(score) AS score, min(score) AS low, max(score) AS high "
        "FROM ml.lead_scores WHERE decile IS NOT NULL GROUP BY decile ORDER BY avg(score) DESC, decile",
    )
    if not rows:
        return None
    version = _records(snapshot, "SELECT max(model_version) AS version FROM ml.lead_scores")[0]["version"]
    largest = max(row["score"] for row in rows) or 1.0
    return {
        "version": version,
        "leads": f"{sum(row['leads'] for row in rows):,}",
        "rows": [
            {
                "decile": row["decile"],
                "leads": f"{row['leads']:,}",
                "score": f"{100 * row['score']:.1f}%",
                "range": f"{100 * row['low']:.1f} to {100 * row['high']:.1f}%",
                "width": round(100 * row["score"] / largest, 1),
            }
            for row in rows
        ],
    }


def freshness(snapshot: Snapshot, timezone: str) -> dict[str, Any]:
    """Each table loaded from a source: rows, last load, last change; and rows that were refused."""
    if not {"ops.loads", "ops.tables"} <= snapshot.tables:
        return {"rows": [], "refused": None}
    rows = _records(
        snapshot,
        """
        WITH last AS (
            SELECT *, row_number() OVER (PARTITION BY table_name ORDER BY loaded_at DESC, run_id) AS nth
            FROM ops.loads
        )
        SELECT l.vendor, l.stream, l.table_name, l.loaded_at, l.rows_read, t.rows, t.changed_at
        FROM last AS l LEFT JOIN ops.tables AS t ON t.table_name = l.table_name
        WHERE l.nth = 1 ORDER BY l.vendor, l.stream, l.table_name
        """,
    )
    newest = max((row["loaded_at"] for row in rows), default=None)
    refused = None
    if "ops.dead_letters" in snapshot.tables:
        counted = _records(snapshot, "SELECT count(*) AS n FROM ops.dead_letters WHERE replayed_at IS NULL")
        refused = counted[0]["n"]
    return {
        "refused": refused,
        "rows": [
            {
                "vendor": row["vendor"],
                "table": row["table_name"],
                "rows": NOTHING if row["rows"] is None else f"{row['rows']:,}",
                "read": f"{row['rows_read'] or 0:,}",
                "loaded": moment(row["loaded_at"], timezone),
                "changed": moment(row["changed_at"], timezone),
                "late": (newest - row["loaded_at"]) > timedelta(hours=24) if newest else False,
            }
            for row in rows
        ],
    }


def evidence(report: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The last compliance report's counts and what did not pass."""
    if report is None:
        return None
    checks: Sequence[Mapping[str, Any]] = report["checks"]
    counts = {status: sum(c["status"] == status for c in checks) for status in ("pass", "fail", "unknown")}
    applicable = sum(counts.values())
    return {
        "generated_at": report["generated_at"],
        "passed": counts["pass"],
        "applicable": applicable,
        "share": round(100 * counts["pass"] / applicable) if applicable else 0,
        "open": [
            {"title": c["title"], "status": c["status"], "remediation": c["remediation"]}
            for c in checks
            if c["status"] in ("fail", "unknown")
        ],
    }


def moment(value: datetime | None, timezone: str) -> str:
    """A moment in the company's zone, to the minute."""
    return NOTHING if value is None else f"{value.astimezone(ZoneInfo(timezone)):%Y-%m-%d %H:%M}"


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _records(snapshot: Snapshot, sql: str, parameters: Sequence[object] = ()) -> list[dict[str, Any]]:
    cursor = snapshot.con.execute(sql, list(parameters))
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
