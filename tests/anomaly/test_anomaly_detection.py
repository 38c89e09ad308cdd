"""Detection of anomalous days: real and seeded series, invariances, degenerate series."""

from __future__ import annotations

from datetime import date, timedelta

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from omni.anomaly import ANOMALIES, Detector, detect, detect_all
from omni.errors import SchemaError
from omni.settings import settings

pytestmark = pytest.mark.slow

START = date(2024, 1, 1)
WEEK = np.array([1.0, 0.95, 0.95, 1.0, 1.1, 1.3, 0.8])


def frame(values: np.ndarray | list[float | None]) -> pl.DataFrame:
    days = [START + timedelta(days=i) for i in range(len(values))]
    return pl.DataFrame(
        {"day": days, "value": [None if v is None else float(v) for v in values]},
        schema={"day": pl.Date, "value": pl.Float64},
    )


def orders(seed: int, size: int = 500, base: float = 120) -> np.ndarray:
    """Daily counts with weekly and yearly season and growth."""
    random = np.random.default_rng(seed)
    day = np.arange(size)
    return random.poisson(base * WEEK[day % 7] * (1 + 0.2 * np.sin(day / 58) + day / 2000)).astype(float)


def inject(values: np.ndarray, seed: int) -> tuple[np.ndarray, set[date]]:
    """Five spikes (x 1.9 to 3) and five drops (x 0.05 to 0.4) at least ten days apart."""
    random = np.random.default_rng(seed)
    slots = random.permutation(np.arange(70, len(values) - 5, 20))[:10]
    places = slots + random.integers(0, 10, size=10)
    changed = values.copy()
    factors = [*random.uniform(1.9, 3, 5), *random.uniform(0.05, 0.4, 5)]
    changed[places] = np.rint(values[places] * factors)
    return changed, {START + timedelta(days=int(i)) for i in places}


def test_injected_spikes_and_drops_are_found_with_few_false_alarms() -> None:
    hits = alarms = 0
    for seed in range(6):
        values, labels = inject(orders(seed), seed)
        flagged = set(detect(frame(values))["day"].to_list())
        hits += len(flagged & labels)
        alarms += len(flagged - labels)
    assert hits >= 57
    assert alarms <= 6 * 500 * 0.004


def test_money_is_judged_like_counts() -> None:
    hits = alarms = 0
    for seed in range(4):
        counts, labels = inject(orders(seed), seed)
        random = np.random.default_rng(seed)
        values = [random.lognormal(4, 0.5, int(n)).sum() for n in counts]
        flagged = set(detect(frame(values))["day"].to_list())
        hits += len(flagged & labels)
        alarms += len(flagged - labels)
    assert hits >= 38
    assert alarms <= 4 * 500 * 0.004


def test_a_flag_says_what_was_expected() -> None:
    values = orders(1)
    values[300] *= 4
    values[400] = 0
    found = detect(frame(values))
    rows = {row["day"]: row for row in found.iter_rows(named=True)}
    spike, drop = rows[START + timedelta(days=300)], rows[START + timedelta(days=400)]
    assert (spike["direction"], drop["direction"]) == ("up", "down")
    assert spike["severity"] == drop["severity"] == "critical"
    assert spike["upper"] < spike["value"]
    assert drop["value"] < drop["lower"]
    for row in rows.values():
        assert 0 <= row["lower"] < row["expected"] < row["upper"]
        assert row["score"] > 2.5
    assert spike["expected"] == pytest.approx(values[300] / 4, rel=0.2)


def test_a_lasting_change_is_one_alert_not_one_a_day() -> None:
    values = orders(2)
    values[300:] *= 3
    flagged = detect(frame(values)).filter(pl.col("day") >= START + timedelta(days=300))
    assert flagged["day"][0] == START + timedelta(days=300)
    assert flagged.height <= 3


@given(st.integers(0, 50), st.integers(150, 299))
@hypothesis_settings(max_examples=8, deadline=None)
def test_later_days_do_not_change_a_verdict(seed: int, cut: int) -> None:
    values, _ = inject(orders(seed, size=300), seed)
    whole = detect(frame(values))
    prefix = detect(frame(values[:cut]))
    assert prefix.equals(whole.filter(pl.col("day") < START + timedelta(days=cut)))


@given(st.integers(0, 50), st.floats(1e-3, 1e6))
@hypothesis_settings(max_examples=8, deadline=None)
def test_the_unit_of_money_does_not_matter(seed: int, factor: float) -> None:
    values, _ = inject(orders(seed, size=300), seed)
    money = values * 19.99 + 0.005
    plain, scaled = detect(frame(money)), detect(frame(money * factor))
    assert scaled["day"].to_list() == plain["day"].to_list()
    assert scaled["score"].to_list() == pytest.approx(plain["score"].to_list(), rel=1e-6)
    assert scaled["expected"].to_list() == pytest.approx((plain["expected"] * factor).to_list(), rel=1e-6)


@given(st.integers(0, 9999))
@hypothesis_settings(max_examples=5, deadline=None)
def test_order_of_rows_does_not_matter(seed: int) -> None:
    values, _ = inject(orders(3, size=300), 3)
    series = frame(values)
    shuffled = series.sample(fraction=1, shuffle=True, seed=seed)
    assert detect(shuffled).equals(detect(series))


@given(st.floats(-1e9, 1e9, allow_subnormal=False), st.integers(0, 200))
@hypothesis_settings(max_examples=30, deadline=None)
def test_a_constant_series_has_no_anomalies(value: float, size: int) -> None:
    assert detect(frame([value] * size)).is_empty()


def test_a_constant_that_jumps_is_flagged() -> None:
    assert detect(frame([0.98] * 100 + [0.5] + [0.98] * 10)).height == 1


def test_values_below_zero_are_judged_on_their_own_scale() -> None:
    random = np.random.default_rng(0)
    values = random.normal(0, 10, 400)
    values[[200, 300]] = -90, 90
    found = detect(frame(values))
    assert {START + timedelta(days=200), START + timedelta(days=300)} <= set(found["day"].to_list())
    assert found.height <= 4


@pytest.mark.parametrize(
    "values",
    [
        [],
        [5.0],
        list(orders(0, size=55)),
        [None] * 200,
        [float("nan")] * 200,
        [0.0] * 300,
        [0.0, 0.0, 7.0] * 100,
    ],
    ids=["empty", "one day", "short", "all null", "all NaN", "all zero", "mostly zero"],
)
def test_series_that_cannot_be_judged_have_no_anomalies(values: list[float | None]) -> None:
    found = detect(frame(values))
    assert found.is_empty()
    assert found.schema == detect(frame(orders(0))).schema


def test_unknown_values_are_skipped_and_do_not_spread() -> None:
    values: list[float | None] = list(orders(4))
    plain = detect(frame(values))
    values[250], values[251], values[252] = None, float("nan"), float("inf")
    values[300] = 5000.0
    found = detect(frame(values))
    assert np.isfinite(found.select(pl.col(pl.Float64)).to_numpy()).all()
    assert START + timedelta(days=300) in found["day"].to_list()
    assert found.height <= plain.height + 2
    absent = frame(values).filter(pl.col("value").is_not_null() & pl.col("value").is_finite())
    assert detect(absent).equals(found)


def test_wrong_series_are_refused() -> None:
    series = frame(orders(0))
    with pytest.raises(SchemaError, match="2024-01-03 more than once"):
        detect(pl.concat([series, series[2:3]]))
    with pytest.raises(SchemaError, match="day"):
        detect(series.rename({"day": "date"}))
    with pytest.raises(SchemaError, match="value"):
        detect(series.with_columns(pl.col("value").cast(pl.String)))


def test_watched_metrics_are_read_from_the_rollup() -> None:
    con = duckdb.connect()
    con.execute("CREATE SCHEMA metrics")
    con.execute(
        """CREATE TABLE metrics.daily
           (metric VARCHAR, dimension VARCHAR, member VARCHAR, day DATE, value DOUBLE)"""
    )
    values = orders(5)
    values[450] = 900
    series = frame(values)
    con.register("series", series)
    for metric in ("orders", "unwatched"):
        con.execute("INSERT INTO metrics.daily SELECT $m, '', '', day, value FROM series", {"m": metric})
    con.execute("INSERT INTO metrics.daily SELECT 'orders', 'country', 'BR', day, value * 2 FROM series")
    found = detect_all(con, ["orders", "no_such_metric"])
    assert dict(found.schema) == ANOMALIES
    assert set(found["metric"]) == {"orders"}
    assert set(found["dimension"]) == {""}
    assert found.filter(pl.col("day") == START + timedelta(days=450))["value"].to_list() == [900.0]
    assert found.select(pl.exclude("metric", "dimension", "member")).equals(detect(series))
    early = detect_all(con, ["orders"], through=START + timedelta(days=449))
    assert early.equals(found.filter(pl.col("day") < START + timedelta(days=450)))
    assert detect_all(con, []).is_empty()


def test_a_stricter_detector_flags_less() -> None:
    values, _ = inject(orders(6), 6)
    strict = detect(frame(values), Detector(alpha=1e-9))
    assert set(strict["day"].to_list()) < set(detect(frame(values))["day"].to_list())


@pytest.mark.real_data
def test_black_friday_stands_out_among_the_marketplace_orders() -> None:
    path = settings().real_data / "olist" / "orders.parquet"
    if not path.exists():
        pytest.skip("Olist's orders are not in the folder of real data")
    counts = (
        pl.read_parquet(path)
        .group_by(day=pl.col("order_purchase_timestamp").dt.date())
        .agg(value=pl.len())
        .sort("day")
    )
    every_day = pl.select(day=pl.date_range(counts["day"][0], counts["day"][-1]))
    filled = every_day.join(counts, on="day", how="left").with_columns(pl.col("value").fill_null(0))
    for series in (counts, filled):
        found = detect(series)
        friday = found.filter(pl.col("day") == date(2017, 11, 24)).row(0, named=True)
        assert (friday["value"], friday["direction"], friday["severity"]) == (215, "up", "critical")
        assert friday["score"] == found["score"].max()
        assert found.height <= 0.01 * series.height
