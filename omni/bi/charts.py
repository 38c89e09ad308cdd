"""Charts as Vega-Lite specifications, the scripts that draw them, and the same charts as fixed images.

A specification names colours by what they stand for (`@accent`, `@warn`); the page and `static_svg` put
in those of a theme. Values from data are only ever data: never field names, never expressions.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import Any

from omni.bi.metrics import Unit
from omni.bi.numbers import show, symbol
from omni.bi.series import OTHER, Point

Spec = dict[str, Any]

HEIGHT = 230
HOVER = "hover"
"""The layer that follows the pointer; a fixed image has no use for it."""
MONTHLY = {"interval": "month", "step": 1}
SMOOTH_FROM = 56
"""Days from which the mean of seven days is drawn over the daily values."""

PALETTES: dict[str, dict[str, str]] = {
    "light": {
        "accent": "#3257c8", "soft": "#a9bbef", "good": "#13795b", "warn": "#c77700", "bad": "#c62f3e",
        "other": "#a3acb8", "ink": "#1b2430", "muted": "#5c6876", "grid": "#e8ebf0", "card": "#ffffff",
        "c1": "#3257c8", "c2": "#e08a1e", "c3": "#159a8c", "c4": "#b2447f", "c5": "#7f8c2b", "c6": "#8a63d2",
    },
    "dark": {
        "accent": "#8aa6ff", "soft": "#41548f", "good": "#4cc79a", "warn": "#f0ad4e", "bad": "#ff7b86",
        "other": "#6f7b8a", "ink": "#e7ebf1", "muted": "#9aa6b5", "grid": "#2a3340", "card": "#171e28",
        "c1": "#8aa6ff", "c2": "#f2b263", "c3": "#4fd1c1", "c4": "#e58abb", "c5": "#bccb63", "c6": "#b79bf2",
    },
}  # fmt: skip
"""Colours by theme. The six of series differ in lightness too, for those who confuse hues."""

CONFIG: Spec = {
    "background": None,
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif",
    "padding": {"left": 2, "right": 8, "top": 6, "bottom": 2},
    "view": {"stroke": None},
    "axis": {
        "labelColor": "@muted", "labelFontSize": 11, "labelPadding": 6, "domainColor": "@grid",
        "tickColor": "@grid", "gridColor": "@grid", "titleColor": "@muted", "labelOverlap": "greedy",
    },
    "axisY": {"domain": False, "ticks": False, "tickCount": 5, "minExtent": 34},
    "axisX": {"grid": False, "ticks": False},
    "legend": {
        "labelColor": "@ink", "labelFontSize": 11, "orient": "top", "title": None, "symbolType": "circle",
        "symbolSize": 70, "columnPadding": 14, "offset": 8, "labelLimit": 140,
    },
}  # fmt: skip


def locale(currency: str) -> Spec:
    """d3-format's locale of a currency."""
    return {"decimal": ".", "thousands": ",", "grouping": [3], "currency": [symbol(currency), ""]}


def axis_format(unit: Unit, largest: float) -> str:
    """d3-format of an axis whose largest value is given."""
    money = "$" if unit == "currency" else ""
    if unit == "percent":
        return "~%"
    if largest >= 10_000:
        return f"{money}~s"
    return f"{money},.0f" if largest >= 10 and unit != "score" else f"{money},~r"


def line(
    points: Sequence[Point],
    *,
    unit: Unit,
    currency: str,
    adds_up: bool,
    flags: Sequence[dict[str, Any]] = (),
    smooth: bool = False,
) -> Spec:
    """Values over time as a line, or one line per member.

    Args:
        points: one per period and member; a value of None breaks the line.
        adds_up: whether the axis starts at zero and the space below the line means something.
        flags: anomalous days: day, value, expected, lower, upper, severity, arrow, label.
        smooth: draw the mean of seven days over the daily values.
    """
    import altair as alt

    members = list(dict.fromkeys(point.member for point in points))
    x, y = _axes(points, unit, zero=adds_up)
    base = alt.Chart(alt.NamedData(name="main")).encode(x=x)
    several = len(members) > 1
    if several:
        layers = [base.mark_line(strokeWidth=2).encode(y=y, color=_colour(members))]
    else:
        layers = [base.mark_area(color="@accent", opacity=0.08).encode(y=y)] if adds_up else []
        layers.append(
            base.mark_line(color="@soft" if smooth else "@accent", strokeWidth=1.25 if smooth else 2).encode(
                y=y
            )
        )
        if smooth:
            layers.append(
                base.mark_line(color="@accent", strokeWidth=2.25).encode(y=alt.Y("smooth:Q", title=None))
            )
    layers.append(_hover(base, y, _colour(members) if several else alt.value("@accent"), several=several))
    if flags:
        layers += _marked()
    spec = _finished(alt.layer(*layers), {"main": _rows(points, unit, currency, smooth=smooth)})
    if flags:
        spec["datasets"]["flags"] = list(flags)
    return spec


def bars(points: Sequence[Point], *, unit: Unit, currency: str, grain: str) -> Spec:
    """Values by period as bars, stacked by member; periods that are not over yet are drawn paler."""
    import altair as alt

    members = list(dict.fromkeys(point.member for point in points))
    largest = max((point.value or 0.0 for point in points), default=0.0)
    rows = _rows(points, unit, currency)
    for row, point in zip(rows, points, strict=True):
        row["label"] = _label(point.period, grain)
        row["place"] = members.index(point.member)
        row["shade"] = 1 if point.complete else 0
    encoding: dict[str, Any] = {
        "x": alt.X(
            "label:O", sort=alt.EncodingSortField("day", op="min"), title=None, axis=alt.Axis(labelAngle=0)
        ),
        "y": alt.Y("value:Q", title=None, axis=alt.Axis(format=axis_format(unit, largest))),
        "opacity": alt.Opacity("shade:O", scale=alt.Scale(domain=[0, 1], range=[0.45, 1]), legend=None),
        "tooltip": _tooltip(several=len(members) > 1),
    }
    if len(members) > 1:
        encoding |= {"color": _colour(members), "order": alt.Order("place:Q", sort="descending")}
        mark = {"cornerRadius": 1.5, "stroke": "@card", "strokeWidth": 0.75}
    else:
        mark = {"color": "@accent", "cornerRadiusEnd": 3}
    chart = alt.Chart(alt.NamedData(name="main")).mark_bar(**mark).encode(**encoding)
    return _finished(chart, {"main": rows})


def _axes(points: Sequence[Point], unit: Unit, *, zero: bool) -> tuple[Any, Any]:
    import altair as alt

    largest = max((abs(point.value) for point in points if point.value is not None), default=0.0)
    # Days are drawn and labelled as UTC, so that the reader's own zone cannot shift them.
    days = (points[-1].period - points[0].period).days
    ticks = {"format": "%d %b", "tickCount": 6} if days <= 45 else {"format": "%b %Y", "tickCount": MONTHLY}
    x = alt.X("day:T", title=None, scale=alt.Scale(type="utc"), axis=alt.Axis(**ticks))
    step = alt.Undefined if unit in ("percent", "score") or largest >= 10 else 1
    y = alt.Y(
        "value:Q",
        title=None,
        scale=alt.Scale(zero=zero, nice=True),
        axis=alt.Axis(format=axis_format(unit, largest), tickMinStep=step),
    )
    return x, y


def _colour(members: Sequence[str]) -> Any:
    import altair as alt

    named = [f"@c{1 + place % 6}" for place in range(len(members))]
    colours = ["@other" if member == OTHER else colour for member, colour in zip(members, named, strict=True)]
    return alt.Color("member:N", scale=alt.Scale(domain=list(members), range=colours))


def _tooltip(*, several: bool) -> list[Any]:
    import altair as alt

    member = [alt.Tooltip("member:N", title="Part")] if several else []
    return [alt.Tooltip("when:N", title="Period"), *member, alt.Tooltip("shown:N", title="Value")]


def _hover(base: Any, y: Any, colour: Any, *, several: bool) -> Any:
    """A point and its value under the pointer, wherever in the chart it is."""
    import altair as alt

    near = alt.selection_point(
        name="near", nearest=True, on="pointermove", clear="pointerout", fields=["day", "member"], empty=False
    )
    return (
        base.mark_point(filled=True, size=60)
        .encode(
            y=y,
            color=colour,
            opacity=alt.condition(near, alt.value(1), alt.value(0)),
            tooltip=_tooltip(several=several),
        )
        .add_params(near)
        .properties(name=HOVER)
    )


def _marked() -> list[Any]:
    """Anomalous days: the range that was expected, what was expected in it, and what came."""
    import altair as alt

    base = alt.Chart(alt.NamedData(name="flags")).encode(x=alt.X("day:T", scale=alt.Scale(type="utc")))
    colour = alt.Color(
        "severity:N", scale=alt.Scale(domain=["warning", "critical"], range=["@warn", "@bad"]), legend=None
    )
    tooltip = [
        alt.Tooltip("label:N", title="Unusual day"),
        alt.Tooltip("shown:N", title="Value"),
        alt.Tooltip("wanted:N", title="Expected"),
        alt.Tooltip("range:N", title="Range"),
        alt.Tooltip("severity:N", title="Severity"),
    ]
    return [
        base.mark_rule(strokeWidth=7, opacity=0.22, strokeCap="round").encode(
            y=alt.Y("lower:Q"), y2=alt.Y2("upper:Q"), color=colour
        ),
        base.mark_tick(thickness=2, size=9, orient="horizontal").encode(y=alt.Y("expected:Q"), color=colour),
        base.mark_point(filled=True, size=75, opacity=1, stroke="@card", strokeWidth=1).encode(
            y=alt.Y("value:Q"),
            color=colour,
            shape=alt.Shape(
                "direction:N",
                scale=alt.Scale(domain=["up", "down"], range=["triangle-up", "triangle-down"]),
                legend=None,
            ),
            tooltip=tooltip,
        ),
    ]


def _rows(
    points: Sequence[Point], unit: Unit, currency: str, *, smooth: bool = False
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    means = weekly_means([point.value for point in points]) if smooth else []
    for place, point in enumerate(points):
        row: dict[str, Any] = {
            "day": point.period.isoformat(),
            "member": point.member,
            "value": None if point.value is None else round(point.value, 6),
            "when": f"{point.period:%a} {point.period.isoformat()}",
            "shown": show(point.value, unit, currency) + ("" if point.complete else " so far"),
        }
        if smooth:
            row["smooth"] = means[place]
        rows.append(row)
    return rows


def weekly_means(values: Sequence[float | None]) -> list[float | None]:
    """The mean of each day and the six before it; None unless all seven are known."""
    weeks = [values[max(0, place - 6) : place + 1] for place in range(len(values))]
    known = [[value for value in week if value is not None] for week in weeks]
    return [round(sum(week) / 7, 6) if len(week) == 7 else None for week in known]


def _label(period: date, grain: str) -> str:
    return f"{period:%b %Y}" if grain == "month" else f"{period.day} {period:%b %y}"


def _finished(chart: Any, datasets: dict[str, list[dict[str, Any]]]) -> Spec:
    spec: Spec = chart.properties(
        width="container", height=HEIGHT, autosize={"type": "fit-x", "contains": "padding"}
    ).to_dict()
    spec.pop("config", None)
    spec["datasets"] = datasets
    return spec


def painted(node: Any, palette: dict[str, str]) -> Any:
    """A specification with a theme's colours in place of their names; data and domains stay as they are."""
    if isinstance(node, dict):
        return {k: v if k in ("datasets", "domain") else painted(v, palette) for k, v in node.items()}
    if isinstance(node, list):
        return [painted(item, palette) for item in node]
    return palette.get(node[1:], node) if isinstance(node, str) and node.startswith("@") else node


def static_svg(spec: Spec, currency: str, *, width: int = 640) -> str:
    """The chart as a `data:` address of an SVG image in the light theme, drawn without a browser."""
    import vl_convert

    palette = PALETTES["light"]
    fixed = painted({key: value for key, value in spec.items() if key != "params"}, palette)
    if "layer" in fixed:
        fixed["layer"] = [layer for layer in fixed["layer"] if layer.get("name") != HOVER]
    config = painted(CONFIG, palette) | {"aria": False}
    fixed |= {"width": width, "config": config, "background": palette["card"]}
    drawn: str = vl_convert.vegalite_to_svg(fixed, format_locale=locale(currency), allowed_base_urls=[])
    return "data:image/svg+xml;base64," + base64.b64encode(_renumbered(drawn).encode()).decode()


def _renumbered(svg: str) -> str:
    """The ids of an SVG counted from its own start: the library counts on from the image before."""
    ids = dict.fromkeys(re.findall(r'\bid="([^"]+)"', svg))
    fresh = {old: f"d{number}" for number, old in enumerate(ids)}
    return re.sub(
        r'(\bid="|url\(#|href="#)([^")]+)', lambda found: found[1] + fresh.get(found[2], found[2]), svg
    )


@lru_cache(maxsize=1)
def script() -> str:
    """Vega, Vega-Lite and Vega-Embed as one ES module that sets `window.vegaEmbed`."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    if "</script" in bundle.lower() or "<!--" in bundle:
        raise AssertionError("the chart library's text would end its own script element")
    return bundle


def embedded(value: object) -> str:
    """JSON that may stand in a script element: no text in it can end the element."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
