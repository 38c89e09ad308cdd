"""Publishing a dashboard: one file that needs nothing else, drawn by scripts of its own.

Charts are Vega-Lite specifications drawn in the browser by Vega's scripts, which are part of the page;
a content security policy admits these two scripts by their hashes and no request to anywhere. Readers
without scripts get images of the main charts. The page depends only on the snapshot: publishing the same
snapshot twice gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from omni.bi import charts, panels
from omni.bi.board import Board, Panel, load_board
from omni.bi.metrics import Metric
from omni.bi.numbers import NOTHING, change, show
from omni.bi.series import (
    Comparison,
    Point,
    Snapshot,
    compare,
    open_for_reading,
    read_series,
    window_totals,
)
from omni.errors import ConfigError
from omni.files import write_atomic
from omni.settings import settings
from omni.tenancy import Tenant

TEMPLATES = Path(__file__).parent / "templates"
TABLE_ROWS = 12


@dataclass(frozen=True)
class Dashboard:
    """What was published.

    Attributes:
        path: the page.
        panels: panels on it.
        empty: titles of panels that have no data.
        bytes: the page's size.
    """

    path: Path
    panels: int
    empty: tuple[str, ...]
    bytes: int


@dataclass(frozen=True)
class _Drawing:
    """What panels need in order to be filled in."""

    snapshot: Snapshot
    tenant: Tenant
    compliance: Mapping[str, Any] | None

    @property
    def currency(self) -> str:
        return self.tenant.currency


def publish(
    con: duckdb.DuckDBPyConnection,
    tenant: Tenant,
    folder: Path,
    *,
    metrics: Mapping[str, Metric],
    board: Board | None = None,
    compliance: Path | None = None,
) -> Dashboard:
    """Write a tenant's dashboard as `index.html`.

    Args:
        con: a read-only connection to the published snapshot (`omni.warehouse.publish.open_snapshot`).
        tenant: whose; gives currency and time zone.
        folder: where the page goes.
        metrics: every metric by name (`omni.bi.metrics.metrics`).
        board: what to show; default `data/dashboards/overview.yml`.
        compliance: the last compliance report's `report.json`; its panel is empty without one.

    Raises:
        ConfigError: the board asks for what its metrics cannot give, or the report is not one.
        StorageError: the folder cannot be written.
    """
    if board is None:
        board = load_board(settings().data / "dashboards" / "overview.yml", metrics)
    snapshot = open_for_reading(con, metrics, tenant.timezone)
    drawing = _Drawing(snapshot, tenant, _read_report(compliance))
    filled = [_fill(drawing, panel, f"p{number}") for number, panel in enumerate(board.panels)]
    page = _render(board, drawing, filled)
    path = folder / "index.html"
    write_atomic(path, page)
    empty = tuple(view["title"] for view in filled if view["empty"])
    return Dashboard(path, len(filled), empty, len(page.encode()))


def _read_report(path: Path | None) -> Mapping[str, Any] | None:
    if path is None or not path.exists():
        return None
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        panels.evidence(report)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is not a compliance report: {error!r}. Write it anew or leave it out."
        ) from None
    return report


def _fill(drawing: _Drawing, panel: Panel, identity: str) -> dict[str, Any]:
    """A panel's content for the template: `kind`, `title`, `empty` and what its kind shows."""
    view: dict[str, Any] = {"id": identity, "kind": panel.kind, "wide": panel.wide, "empty": False}
    snapshot = drawing.snapshot
    if panel.metric is not None:
        metric = snapshot.metrics[panel.metric]
        view |= {
            "title": panel.title or metric.title,
            "description": metric.description,
            "owner": metric.owner,
        }
        fill = {"number": _number, "line": _line, "bar": _bar, "table": _table}[panel.kind]
        content = fill(drawing, panel, metric)
        return view | (content or {"empty": True})
    title, content = _special(drawing, panel)
    return view | {"title": panel.title or title, "content": content, "empty": not content}


def _special(drawing: _Drawing, panel: Panel) -> tuple[str, Any]:
    snapshot, zone = drawing.snapshot, drawing.tenant.timezone
    match panel.kind:
        case "anomalies":
            return "Unusual days", panels.anomalies(snapshot, panel.days, drawing.currency)
        case "experiments":
            return "Experiments", panels.experiments(snapshot)
        case "models":
            return "Lead scores", panels.models(snapshot)
        case "freshness":
            found = panels.freshness(snapshot, zone)
            return "Data freshness", found if found["rows"] else None
        case _:
            return "Compliance evidence", panels.evidence(drawing.compliance)


def _number(drawing: _Drawing, panel: Panel, metric: Metric) -> dict[str, Any] | None:
    found = compare(drawing.snapshot, metric, panel.grain, panel.days)
    if found is None or found.value is None:
        return None
    moved = change(found.value, found.before, metric.unit, metric.direction, drawing.currency)
    values = [point.value for point in read_series(drawing.snapshot, metric, "day", 90)]
    if metric.additivity == "additive":
        values = charts.weekly_means(values)[6:]
    return {
        "value": show(found.value, metric.unit, drawing.currency, compact=True),
        "exact": show(found.value, metric.unit, drawing.currency),
        "change": moved,
        "before": show(found.before, metric.unit, drawing.currency, compact=True),
        "period": _period_text(found, panel),
        "through": found.last.isoformat(),
        "spark": sparkline(values),
    }


def _period_text(found: Comparison, panel: Panel) -> str:
    if panel.grain == "month":
        return f"{found.first:%B %Y}"
    if panel.grain == "week":
        return f"week of {found.first.isoformat()}"
    return found.last.isoformat() if panel.grain == "day" or panel.days == 1 else f"{panel.days} days"


def sparkline(values: Sequence[float | None], *, width: int = 120, height: int = 32) -> list[str]:
    """A series as polylines of `x,y` pairs in a box; a missing value breaks the line."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return []
    low, high = min(known), max(known)
    lines: list[list[str]] = [[]]
    for place, value in enumerate(values):
        if value is None:
            lines.append([])
            continue
        x = 1 + (width - 2) * place / (len(values) - 1)
        y = height / 2 if high == low else 2 + (height - 4) * (high - value) / (high - low)
        lines[-1].append(f"{x:.1f},{y:.1f}")
    return [" ".join(pairs) for pairs in lines if len(pairs) > 1]


def _line(drawing: _Drawing, panel: Panel, metric: Metric) -> dict[str, Any] | None:
    grain = panel.grain or "day"
    points = read_series(drawing.snapshot, metric, grain, panel.days, panel.dimension)
    points = [point for point in points if point.complete]
    if not any(point.value is not None for point in points):
        return None
    adds_up = metric.additivity == "additive"
    flags: list[dict[str, Any]] = []
    if grain == "day" and panel.dimension is None:
        last = points[-1].period.isoformat()
        flags = panels.read_flags(drawing.snapshot, metric, points[0].period, drawing.currency)
        flags = [flag for flag in flags if flag["day"] <= last]
    smooth = adds_up and grain == "day" and panel.dimension is None and len(points) >= charts.SMOOTH_FROM
    spec = charts.line(
        points,
        unit=metric.unit,
        currency=drawing.currency,
        adds_up=metric.fills_zero,
        flags=flags,
        smooth=smooth,
    )
    notes = ["thin: each day; bold: mean of 7 days"] if smooth else []
    if flags:
        notes.append(
            f"▲▼ {len(flags)} unusual day{'s' if len(flags) > 1 else ''}, bars show the expected range"
        )
    return _chart(drawing, panel, metric, points, spec, notes)


def _bar(drawing: _Drawing, panel: Panel, metric: Metric) -> dict[str, Any] | None:
    grain = panel.grain or "month"
    points = read_series(drawing.snapshot, metric, grain, panel.days, panel.dimension)
    if not any(point.value is not None for point in points):
        return None
    spec = charts.bars(points, unit=metric.unit, currency=drawing.currency, grain=grain)
    notes = ["paler: not the whole period"] if any(not point.complete for point in points) else []
    return _chart(drawing, panel, metric, points, spec, notes)


def _chart(
    drawing: _Drawing,
    panel: Panel,
    metric: Metric,
    points: list[Point],
    spec: dict[str, Any],
    notes: list[str],
) -> dict[str, Any]:
    grain = panel.grain or ("month" if panel.kind == "bar" else "day")
    by = f" by {panel.dimension.replace('_', ' ')}" if panel.dimension else ""
    periods = sorted({point.period for point in points})
    return {
        "spec": spec,
        "svg": charts.static_svg(spec, drawing.currency, width=1100 if panel.wide else 560),
        "subtitle": f"per {grain}{by}",
        "notes": notes,
        "through": _through(drawing, metric),
        "spoken": f"{metric.title} per {grain}{by}, {periods[0].isoformat()} to {periods[-1].isoformat()}",
        "figures": _figures(drawing, metric, points, periods[-TABLE_ROWS:]),
    }


def _figures(drawing: _Drawing, metric: Metric, points: list[Point], periods: list[date]) -> dict[str, Any]:
    """The newest values of a chart as a table: a row per period, a column per member."""
    members = list(dict.fromkeys(point.member for point in points))
    cells = {(point.period, point.member): point for point in points}

    def text(period: date, member: str) -> str:
        point = cells.get((period, member))
        if point is None:
            return NOTHING
        return show(point.value, metric.unit, drawing.currency) + ("" if point.complete else " so far")

    rows = [
        (period.isoformat(), [text(period, member) for member in members]) for period in reversed(periods)
    ]
    return {"columns": [member or metric.title for member in members], "rows": rows}


def _table(drawing: _Drawing, panel: Panel, metric: Metric) -> dict[str, Any] | None:
    found = compare(drawing.snapshot, metric, None, panel.days)
    if found is None or panel.dimension is None:
        return None
    length = found.last - found.first
    totals = window_totals(drawing.snapshot, metric, found.first, found.last, panel.dimension)
    before = found.first - timedelta(days=1)
    earlier = window_totals(drawing.snapshot, metric, before - length, before, panel.dimension)
    adds_up = metric.additivity == "additive"
    whole = sum(totals.values())
    largest = max((abs(value) for value in totals.values()), default=0.0)
    ranked = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    if not ranked:
        return None
    rows = [
        {
            "member": member,
            "value": show(value, metric.unit, drawing.currency),
            "share": f"{100 * value / whole:.1f}%" if adds_up and whole else NOTHING,
            "width": round(100 * max(value, 0.0) / largest, 1) if largest else 0,
            "change": change(value, earlier.get(member), metric.unit, metric.direction, drawing.currency)
            if found.before is not None
            else None,
        }
        for member, value in ranked[:TABLE_ROWS]
    ]
    return {
        "subtitle": f"by {panel.dimension.replace('_', ' ')}, {panel.days} days",
        "dimension": panel.dimension.replace("_", " "),
        "rows": rows,
        "adds_up": adds_up,
        "left_out": len(ranked) - len(rows),
        "through": _through(drawing, metric),
    }


def _through(drawing: _Drawing, metric: Metric) -> str:
    last = drawing.snapshot.last_day(metric)
    return last.isoformat() if last else NOTHING


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["batch_numbers"] = _rows_of_numbers
    return environment


def _rows_of_numbers(views: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Panels in runs of numbers and runs of others, in order."""
    return [list(run) for _, run in groupby(views, key=lambda view: bool(view["kind"] == "number"))]


def _render(board: Board, drawing: _Drawing, filled: list[dict[str, Any]]) -> str:
    library, code = charts.script(), (TEMPLATES / "dashboard.js").read_text(encoding="utf-8")
    drawn = [{"id": view["id"], "spec": view["spec"]} for view in filled if "spec" in view]
    payload = {
        "charts": drawn,
        "palettes": charts.PALETTES,
        "config": charts.CONFIG,
        "locale": charts.locale(drawing.currency),
    }
    as_of = drawing.snapshot.as_of
    return (
        _environment()
        .get_template("dashboard.html")
        .render(
            board=board,
            tenant=drawing.tenant,
            as_of=f"{as_of:%Y-%m-%d %H:%M}" if as_of else None,
            panels=filled,
            style=(TEMPLATES / "dashboard.css").read_text(encoding="utf-8"),
            library=library,
            code=code,
            payload=charts.embedded(payload),
            hashes=[_hash(library), _hash(code)],
        )
    )


def _hash(text: str) -> str:
    """A script's hash for the content security policy (CSP level 3, `sha256-…`)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
