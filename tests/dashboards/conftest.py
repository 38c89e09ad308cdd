"""A small company's warehouse for dashboards, and a browser to look at them with."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import ModuleType

import duckdb
import numpy as np
import polars as pl
import pytest

from omni.bi.daily import models_of
from omni.bi.metrics import Metric, in_order, load_metrics
from omni.settings import PROJECT, settings
from omni.tenancy import Tenant
from omni.warehouse.database import open_warehouse
from omni.warehouse.publish import open_snapshot, publish

LAST = date(2026, 6, 30)
DAYS = 500
CHANNELS = ["web", "app", "marketplace", "store"]
COUNTRIES = ["DE", "AT", "CH", "FR", "NL"]
LOADED = datetime(2026, 7, 1, 1, 20, tzinfo=UTC)
ACME = Tenant(
    tenant="acme", title="Acme", timezone="Europe/Berlin", currency="EUR", company="demo", sources={}
)


def _support() -> ModuleType:
    path = PROJECT / "tests" / "support" / "browser.py"
    spec = importlib.util.spec_from_file_location("support_browser", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A headless Chromium (`tests/support/browser.py`); skips, saying so, where none is installed."""
    support = _support()
    executable = support.find_chromium()
    if executable is None:
        pytest.skip("no Chromium found: install it (Debian: apt-get install chromium) or set CHROMIUM")
    with support.running(executable, tmp_path_factory.mktemp("chromium")) as started:
        yield started


def daily_orders() -> np.ndarray:
    """Orders per day: growth, weekdays, Christmas, one very good and one very bad day."""
    rng = np.random.default_rng(7)
    day = np.arange(DAYS)
    week = np.array([1.0, 0.95, 0.97, 1.05, 1.2, 1.35, 1.15])[day % 7]
    level = 30 + 14 * day / DAYS + 9 * np.exp(-(((day - 300) / 25) ** 2))
    mean = level * week
    mean[DAYS - 95] *= 2.6
    mean[DAYS - 40] *= 0.25
    return rng.poisson(mean)


def _days(counts: np.ndarray) -> list[date]:
    first = LAST - timedelta(days=DAYS - 1)
    return [first + timedelta(days=int(i)) for i in np.repeat(np.arange(DAYS), counts)]


def company_tables() -> dict[str, pl.DataFrame]:
    """The tables the project's metrics read, seeded."""
    rng = np.random.default_rng(11)
    days = _days(daily_orders())
    n = len(days)
    channel = rng.choice(CHANNELS, n, p=[0.5, 0.28, 0.16, 0.06])
    country = rng.choice(COUNTRIES, n, p=[0.55, 0.17, 0.13, 0.1, 0.05])
    amount = np.round(rng.lognormal(4.0, 0.5, n), 2)
    cancelled = rng.random(n) < 0.03
    orders = pl.DataFrame(
        {
            "order_id": [f"o{i}" for i in range(n)],
            "customer_id": [f"c{i}" for i in rng.integers(0, n // 2, n)],
            "order_date": days,
            "channel": channel,
            "country": country,
            "province": ["-"] * n,
            "is_cancelled": cancelled,
            "is_home_currency": [True] * n,
            "revenue": np.where(cancelled, 0.0, amount),
            "total_amount_home": amount,
        }
    )
    refunded = rng.random(n) < 0.05
    leads = _days(rng.poisson(9, DAYS))
    sources = ["paid search", "organic", "social", "referral", "events", "partners", "direct", "e-mail"]
    reviews = _days(rng.poisson(6, DAYS))
    visits = _days(rng.poisson(60 * np.array([1, 1.1, 1, 1, 0.9, 0.7, 0.8])[np.arange(DAYS) % 7]))
    won = _days(rng.poisson(0.6, DAYS))
    return {
        "core.orders": orders,
        "core.order_items": orders.select("order_date", "channel", "country", "is_cancelled").with_columns(
            quantity=pl.Series(rng.integers(1, 4, n)),
            product_type=pl.Series(rng.choice(["jackets", "shoes", "tents", "packs", "lamps"], n)),
        ),
        "core.refunds": orders.filter(pl.Series(refunded)).select(
            "channel", "country", refund_date="order_date", amount_home="total_amount_home"
        ),
        "core.contacts": pl.DataFrame(
            {
                "first_contact_date": leads,
                "lead_source": rng.choice(sources, len(leads)),
                "country": rng.choice(COUNTRIES, len(leads)),
            }
        ),
        "core.deals": pl.DataFrame(
            {
                "closed_date": won,
                "is_won": [True] * len(won),
                "is_lost": [False] * len(won),
                "amount": np.round(rng.lognormal(8, 0.6, len(won)), 2),
                "days_to_close": rng.integers(5, 90, len(won)),
                "lead_source": rng.choice(sources, len(won)),
                "segment": ["b2b"] * len(won),
            }
        ),
        "core.reviews": pl.DataFrame(
            {
                "review_date": reviews,
                "score": rng.choice([1, 2, 3, 4, 5], len(reviews), p=[0.06, 0.06, 0.12, 0.3, 0.46]),
                "product_type": ["jackets"] * len(reviews),
                "country": ["DE"] * len(reviews),
            }
        ),
        "core.web_events": pl.DataFrame(
            {
                "event_date": visits,
                "visitor_id": [f"v{i}" for i in rng.integers(0, 9000, len(visits))],
                "channel": ["web"] * len(visits),
                "starts_visit": [True] * len(visits),
            }
        ),
        "core.email_sends": pl.DataFrame(
            schema={
                "sent_date": pl.Date,
                "campaign": pl.String,
                "variant": pl.String,
                "is_opened": pl.Boolean,
            }
        ),
        "core.returns": orders.filter(pl.Series(refunded)).select(
            "channel", "country", return_date="order_date", product_type=pl.lit("jackets"), quantity=pl.lit(1)
        ),
        "core.tickets": pl.DataFrame(
            schema={
                "created_date": pl.Date,
                "category": pl.String,
                "channel": pl.String,
                "priority": pl.String,
            }
        ),
        "marts.revenue_daily": orders.select(
            "channel", sale_date="order_date", currency=pl.lit("EUR"), net_home="revenue"
        ),
        "marts.mrr": pl.DataFrame(schema={"month": pl.Date, "currency": pl.String, "mrr_home": pl.Float64}),
        "marts.customer_value": orders.group_by("customer_id", maintain_order=True).agg(
            first_order_date=pl.col("order_date").min(), country=pl.col("country").first()
        ),
    }


def add_results(con: duckdb.DuckDBPyConnection, loaded: datetime) -> None:
    """Anomalies, an experiment, scores and a load, as the other stages would have written them."""
    counts = daily_orders()
    for back, direction in ((95, "up"), (40, "down")):
        day, value = LAST - timedelta(days=back - 1), float(counts[DAYS - back])
        normal = 46.0 if direction == "up" else 41.0
        con.execute(
            "INSERT INTO anomaly.flags BY NAME SELECT 'orders' AS metric, '' AS dimension, '' AS member, "
            "$1::DATE AS day, $2 AS value, $3 AS expected, $3 - 15 AS lower, $3 + 18 AS upper, "
            "7.2 AS score, $4 AS severity, $5 AS direction, now() AS _loaded_at, 'r1' AS _run_id",
            [day, value, normal, "critical" if direction == "up" else "warning", direction],
        )
    for outcome, kind, numbers, decision in (
        ("converted", "proportion", [0.131, 0.104, 0.027, 0.009, 0.045, 0.26, 0.004], "better"),
        ("spend", "mean", [8.91, 8.42, 0.49, -0.61, 1.59, 0.058, 0.38], "inconclusive"),
        ("unsubscribed", "proportion", [0.019, 0.008, 0.011, 0.004, 0.018, 1.375, 0.003], "worse"),
    ):
        mean, control, effect, low, high, relative, p = numbers
        con.execute(
            "INSERT INTO experiments.results BY NAME SELECT 'spring_mail' AS experiment, $1 AS outcome, "
            "$2 AS kind, 'personal' AS variant, 'plain' AS control, 2011 AS n, 1989 AS n_control, "
            "$3 AS mean, $4 AS mean_control, $5 AS effect, $6 AS ci_low, $7 AS ci_high, "
            "$8 AS relative_effect, $9 AS p_value, $9 AS p_adjusted, 0.73 AS srm_p, true AS srm_ok, "
            "$10 AS decision, now() AS _loaded_at, 'r1' AS _run_id",
            [outcome, kind, mean, control, effect, low, high, relative, p, decision],
        )
    con.execute(
        "INSERT INTO ml.lead_scores BY NAME SELECT 'l' || i AS lead_id, "
        "round(0.02 + 0.5 * pow(i / 1000.0, 3), 4) AS score, CAST(1 + floor(i / 100) AS BIGINT) AS decile, "
        "'lead_conversion' AS model, 3 AS model_version, now() AS _loaded_at, 'r1' AS _run_id "
        "FROM range(1000) AS t(i)"
    )
    for stream, table, age in (("orders", "shopify__orders", 0), ("contacts", "hubspot__contacts", 40)):
        con.execute(
            "INSERT INTO ops.loads VALUES ('r1', $1, $2, $3, 120, 100, 20, 0, 0, 120, $4)",
            [table.split("__")[0], stream, f"raw.{table}", loaded - timedelta(hours=age)],
        )


def _measured(con: duckdb.DuckDBPyConnection, metrics: dict[str, Metric]) -> dict[str, Metric]:
    """The metrics that the tables at hand have the columns for, and those made of such."""
    rows = con.execute(
        "SELECT table_schema || '.' || table_name, column_name FROM information_schema.columns"
    ).fetchall()
    known: dict[str, Metric] = {}
    for metric in in_order(metrics):
        columns = {column for table, column in rows if table == metric.model}
        used = {column for names in metric.columns.values() for column in names}
        if used <= columns and all(part in known for part in metric.parts):
            known[metric.name] = metric
    return known


def build_company(
    tenant: Tenant,
    metrics: dict[str, Metric],
    tables: dict[str, pl.DataFrame],
    *,
    loaded: datetime | None = LOADED,
) -> None:
    """Write tables and metrics into the tenant's warehouse, and results of other stages; publish it."""
    with open_warehouse(tenant) as warehouse:
        with warehouse.transaction() as con:
            for name, frame in tables.items():
                con.register("frame", frame.to_arrow())
                con.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM frame")
                con.unregister("frame")
            if loaded is not None:
                add_results(con, loaded)
            for model in models_of(_measured(con, metrics), {}).values():
                what = "VIEW" if model.header.kind == "view" else "TABLE"
                con.execute(f"CREATE OR REPLACE {what} {model.name} AS {model.sql}")
        publish(warehouse)


@pytest.fixture(scope="session")
def metrics() -> dict[str, Metric]:
    """The project's own metrics."""
    return load_metrics(PROJECT / "data" / "metrics")


@pytest.fixture(scope="session")
def company_home(tmp_path_factory: pytest.TempPathFactory, metrics: dict[str, Metric]) -> Path:
    """A state folder with the published company, built once."""
    home = tmp_path_factory.mktemp("company")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNI_HOME", str(home))
        settings.cache_clear()
        build_company(ACME, metrics, company_tables())
    settings.cache_clear()
    return home


@pytest.fixture
def snapshot(company_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[duckdb.DuckDBPyConnection]:
    """The company's published snapshot, open for reading."""
    monkeypatch.setenv("OMNI_HOME", str(company_home))
    settings.cache_clear()
    with open_snapshot(ACME) as con:
        yield con
    settings.cache_clear()


@pytest.fixture
def snapshot_of(home: Path, metrics: dict[str, Metric]) -> Iterator[Callable[..., duckdb.DuckDBPyConnection]]:
    """Publish other tables than the company's and open that snapshot."""
    with ExitStack() as stack:

        def build(
            tables: dict[str, pl.DataFrame], *, loaded: datetime | None = LOADED
        ) -> duckdb.DuckDBPyConnection:
            build_company(ACME, metrics, tables, loaded=loaded)
            return stack.enter_context(open_snapshot(ACME))

        yield build


@pytest.fixture
def tables() -> dict[str, pl.DataFrame]:
    """The company's tables, to be changed by a test."""
    return company_tables()
