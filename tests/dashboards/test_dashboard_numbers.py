"""What a dashboard says equals what the tables say, and what cannot be said is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni.bi.board import Board, load_board
from omni.bi.charts import embedded, painted, weekly_means
from omni.bi.dashboards import publish, sparkline
from omni.bi.metrics import Metric
from omni.bi.numbers import change, show
from omni.bi.series import OTHER, compare, open_for_reading, read_series, window_totals
from omni.errors import ConfigError
from omni.tenancy import Tenant

pytestmark = pytest.mark.slow


def one(con: duckdb.DuckDBPyConnection, sql: str) -> Any:
    row = con.execute(sql).fetchone()
    assert row is not None
    return row[0]


def payload(page: Path) -> dict[str, Any]:
    found = re.search(r'id="charts">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    content: dict[str, Any] = json.loads(found[1])
    return content


@pytest.mark.parametrize(
    ("panels", "message"),
    [
        ("{kind: line, metric: revenues}", "no metric 'revenues'; did you mean revenue"),
        ("{kind: line, metric: revenue, dimension: planet}", "has no dimension 'planet'"),
        ("{kind: number, metric: active_customers}", "do not add up to 28 days; give grain: month"),
        ("{kind: number, metric: review_score}", "do not add up to 28 days"),
        ("{kind: bar, metric: active_customers, dimension: channel}", "do not add up to be stacked"),
        ("{kind: bar, metric: refund_rate, dimension: channel}", "do not add up to be stacked"),
        ("{kind: table, metric: review_score, dimension: country}", "do not add up to 28 days"),
        ("{kind: table, metric: revenue}", "kind table needs a dimension"),
        ("{kind: number, metric: revenue, dimension: channel}", "takes no dimension"),
        ("{kind: number, metric: revenue, grain: week, last_days: 7}", "not both"),
        ("{kind: anomalies, metric: revenue}", "kind anomalies takes no metric"),
        ("{kind: line}", "kind line needs a metric"),
        ("{kind: pie, metric: revenue}", "kind"),
        ("{kind: line, metric: revenue, colour: red}", "colour"),
    ],
)
def test_board_refuses_what_would_be_wrong(
    panels: str, message: str, metrics: dict[str, Metric], tmp_path: Path
) -> None:
    file = tmp_path / "wrong.yml"
    file.write_text(f"title: Wrong\npanels:\n  - {panels}\n")
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        load_board(file, metrics)
    assert str(file) in str(caught.value)


def test_window_and_the_one_before_are_sums_of_the_table(
    snapshot: duckdb.DuckDBPyConnection, metrics: dict[str, Metric]
) -> None:
    reader = open_for_reading(snapshot, metrics, "Europe/Berlin")
    found = compare(reader, metrics["revenue"], None, 28)
    assert found is not None
    assert (found.first, found.last) == (date(2026, 6, 3), date(2026, 6, 30))
    total = "SELECT sum(revenue) FROM core.orders WHERE order_date BETWEEN '{}' AND '{}'"
    assert found.value == pytest.approx(one(snapshot, total.format("2026-06-03", "2026-06-30")))
    assert found.before == pytest.approx(one(snapshot, total.format("2026-05-06", "2026-06-02")))


def test_ratio_of_a_window_is_the_ratio_of_sums(
    snapshot: duckdb.DuckDBPyConnection, metrics: dict[str, Metric]
) -> None:
    reader = open_for_reading(snapshot, metrics, "Europe/Berlin")
    found = compare(reader, metrics["average_order_value"], None, 28)
    assert found is not None
    expected = one(
        snapshot,
        "SELECT sum(revenue) / count(*) FILTER (WHERE NOT is_cancelled) FROM core.orders "
        "WHERE order_date BETWEEN '2026-06-03' AND '2026-06-30'",
    )
    assert found.value == pytest.approx(expected)


def test_distinct_counts_of_months_come_from_the_rows(
    snapshot: duckdb.DuckDBPyConnection, metrics: dict[str, Metric]
) -> None:
    reader = open_for_reading(snapshot, metrics, "Europe/Berlin")
    points = {p.period: p.value for p in read_series(reader, metrics["active_customers"], "month", 100)}
    for month in (date(2026, 5, 1), date(2026, 6, 1)):
        distinct = one(
            snapshot,
            "SELECT count(DISTINCT customer_id) FROM core.orders "
            f"WHERE NOT is_cancelled AND date_trunc('month', order_date) = '{month}'",
        )
        days = one(
            snapshot,
            "SELECT sum(value) FROM metrics.active_customers "
            f"WHERE dimension = '' AND date_trunc('month', day) = '{month}'",
        )
        assert points[month] == distinct < days


def test_members_and_all_others_add_up_to_the_total(
    snapshot: duckdb.DuckDBPyConnection, metrics: dict[str, Metric]
) -> None:
    reader = open_for_reading(snapshot, metrics, "Europe/Berlin")
    parts = read_series(reader, metrics["new_leads"], "month", 200, "lead_source")
    whole = {p.period: p.value for p in read_series(reader, metrics["new_leads"], "month", 200)}
    assert len({p.member for p in parts}) == 7
    assert parts[-1].member == OTHER
    for period, value in whole.items():
        assert sum(p.value or 0 for p in parts if p.period == period) == pytest.approx(value)
    last, first = date(2026, 6, 30), date(2026, 6, 1)
    totals = window_totals(reader, metrics["revenue"], first, last, "country")
    assert sum(totals.values()) == pytest.approx(window_totals(reader, metrics["revenue"], first, last)[""])


def test_a_day_that_is_not_over_is_left_out(
    snapshot_of: Callable[..., duckdb.DuckDBPyConnection],
    tables: dict[str, pl.DataFrame],
    metrics: dict[str, Metric],
) -> None:
    midnight_passed = datetime(2026, 6, 29, 22, 30, tzinfo=UTC)  # 00:30 on the 30th in Berlin
    con = snapshot_of(tables, loaded=midnight_passed)
    reader = open_for_reading(con, metrics, "Europe/Berlin")
    assert reader.last_day(metrics["orders"]) == date(2026, 6, 29)
    june = read_series(reader, metrics["orders"], "month", 40)[-1]
    assert (june.period, june.complete) == (date(2026, 6, 1), False)
    expected = "SELECT count(*) FROM core.orders WHERE order_date BETWEEN '2026-06-01' AND '2026-06-29'"
    assert june.value == one(con, expected)


def test_page_shows_the_numbers_their_age_and_their_anomalies(
    snapshot: duckdb.DuckDBPyConnection, tenant: Tenant, metrics: dict[str, Metric], tmp_path: Path
) -> None:
    made = publish(snapshot, tenant, tmp_path, metrics=metrics)
    text = made.path.read_text(encoding="utf-8")
    revenue = one(
        snapshot,
        "SELECT sum(revenue) FROM core.orders WHERE order_date BETWEEN '2026-06-03' AND '2026-06-30'",
    )
    assert f"€{revenue:,.0f}" in text
    assert "Data as of <b>2026-07-01 03:20</b>" in text
    assert "complete through 2026-06-30" in text
    assert made.empty == ("Compliance evidence",)
    drawn = payload(made.path)["charts"]
    flagged = [chart["spec"]["datasets"]["flags"] for chart in drawn if "flags" in chart["spec"]["datasets"]]
    assert [[flag["day"] for flag in flags] for flags in flagged] == [["2026-03-28", "2026-05-22"]]
    assert flagged[0][0] | {"lower": 31.0, "upper": 64.0, "direction": "up"} == flagged[0][0]
    assert text.count("<noscript><img") == len(drawn) == 9


def test_same_snapshot_gives_the_same_bytes(
    snapshot: duckdb.DuckDBPyConnection, tenant: Tenant, metrics: dict[str, Metric], tmp_path: Path
) -> None:
    first = publish(snapshot, tenant, tmp_path / "a", metrics=metrics)
    second = publish(snapshot, tenant, tmp_path / "b", metrics=metrics)
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.bytes == first.path.stat().st_size


def test_empty_warehouse_says_no_data_everywhere(
    snapshot_of: Callable[..., duckdb.DuckDBPyConnection],
    tables: dict[str, pl.DataFrame],
    tenant: Tenant,
    metrics: dict[str, Metric],
    tmp_path: Path,
) -> None:
    con = snapshot_of({name: frame.clear() for name, frame in tables.items()}, loaded=None)
    made = publish(con, tenant, tmp_path, metrics=metrics)
    text = made.path.read_text(encoding="utf-8")
    assert len(made.empty) == made.panels == 24
    assert "Nothing loaded yet" in text
    assert text.count("No data") == 24


def test_metric_that_was_never_rolled_up_is_an_empty_panel(
    tenant: Tenant, metrics: dict[str, Metric], tmp_path: Path
) -> None:
    board = Board.model_validate(
        {"title": "Bare", "panels": [{"kind": "line", "metric": "revenue"}, {"kind": "models"}]}
    )
    with duckdb.connect() as con:
        made = publish(con, tenant, tmp_path, metrics=metrics, board=board)
    assert made.empty == ("Revenue", "Lead scores")


def test_compliance_panel_reads_the_report(
    snapshot: duckdb.DuckDBPyConnection, tenant: Tenant, metrics: dict[str, Metric], tmp_path: Path
) -> None:
    board = Board.model_validate({"title": "Evidence", "panels": [{"kind": "compliance"}]})
    file = tmp_path / "report.json"
    checks = [
        {"title": "Tables declared", "status": "pass", "remediation": "-"},
        {"title": "Rows <b>kept</b>", "status": "fail", "remediation": "Delete the rows"},
        {"title": "Settings", "status": "unknown", "remediation": "Tell them"},
        {"title": "Transfers", "status": "not_applicable", "remediation": "-"},
    ]
    file.write_text(json.dumps({"generated_at": "2026-07-01T02:00:00Z", "checks": checks}))
    text = publish(snapshot, tenant, tmp_path, metrics=metrics, board=board, compliance=file).path.read_text()
    assert '<div class="big">1<span class="dim"> of 3</span></div>' in text
    assert "Rows &lt;b&gt;kept&lt;/b&gt;" in text
    file.write_text("[]")
    with pytest.raises(ConfigError, match="not a compliance report"):
        publish(snapshot, tenant, tmp_path, metrics=metrics, board=board, compliance=file)


@pytest.mark.parametrize(
    ("value", "unit", "compact", "text"),
    [
        (1234.5, "currency", False, "€1,234"),
        (12.345, "currency", False, "€12.35"),
        (-3.5, "currency", False, "−€3.50"),
        (2_692_857.45, "currency", True, "€2.69M"),
        (99_999.0, "currency", True, "€99,999"),
        (0.2512, "percent", False, "25.1%"),
        (0.0012, "percent", False, "0.12%"),
        (4.186, "score", False, "4.19"),
        (12.34, "days", False, "12.3 days"),
        (1500.0, "count", False, "1,500"),
        (None, "count", False, "–"),
    ],
)
def test_numbers_are_written_by_unit(value: float | None, unit: Any, compact: bool, text: str) -> None:
    assert show(value, unit, "EUR", compact=compact) == text


def test_currency_without_a_sign_shows_its_code() -> None:
    assert show(5.0, "currency", "SEK") == "SEK\u00a05.00"
    assert show(5.0, "currency", "BRL") == "R$5.00"


@given(
    st.floats(0.01, 1e9),
    st.floats(0.01, 1e9),
    st.sampled_from(["currency", "count", "percent", "score"]),
)
def test_tone_turns_with_the_direction_of_good(now: float, before: float, unit: Any) -> None:
    up = change(now, before, unit, "up_is_good", "EUR")
    down = change(now, before, unit, "down_is_good", "EUR")
    neutral = change(now, before, unit, "neutral", "EUR")
    assert up is not None
    assert down is not None
    assert neutral is not None
    assert {up.tone, down.tone} in ({"good", "bad"}, {"flat"})
    assert neutral.tone == "flat"
    assert up.text == down.text == neutral.text


def test_no_change_is_told_from_nothing() -> None:
    assert change(5.0, 0.0, "count", "up_is_good", "EUR") is None
    assert change(5.0, None, "count", "up_is_good", "EUR") is None


@given(st.lists(st.one_of(st.none(), st.floats(-1e12, 1e12)), max_size=60))
def test_sparkline_stays_in_its_box(values: list[float | None]) -> None:
    for line in sparkline(values):
        for pair in line.split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= 120
            assert 0 <= y <= 32


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), max_size=40))
def test_weekly_mean_needs_seven_days(values: list[float | None]) -> None:
    for place, mean in enumerate(weekly_means(values)):
        week = values[max(0, place - 6) : place + 1]
        assert (mean is None) == (len(week) < 7 or None in week)


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_embedded_json_cannot_leave_its_script(value: Any) -> None:
    text = embedded(value)
    assert not set(text) & set("<>&")
    assert json.loads(text) == value


def test_colours_of_data_are_not_painted() -> None:
    spec = {"color": "@accent", "datasets": {"main": [{"member": "@accent"}]}, "domain": ["@accent"]}
    assert painted(spec, {"accent": "#123456"}) == spec | {"color": "#123456"}


def test_days_are_consecutive_also_where_nothing_happened(
    snapshot: duckdb.DuckDBPyConnection, metrics: dict[str, Metric]
) -> None:
    reader = open_for_reading(snapshot, metrics, "Europe/Berlin")
    points = read_series(reader, metrics["average_days_to_win"], "day", 60)
    assert [b.period - a.period for a, b in pairwise(points)] == [timedelta(days=1)] * 59
    assert any(point.value is None for point in points)
