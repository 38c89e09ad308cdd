"""Models on a local Spark yield what DuckDB yields, over dirty rows of every raw table they read."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import duckdb
import pytest

from omni.catalogue.project import all_models
from omni.errors import ConfigError
from omni.tenancy import Tenant
from omni.warehouse import spark
from omni.warehouse.contracts import contracts
from omni.warehouse.dialect import to_spark
from omni.warehouse.models import in_order

pytestmark = pytest.mark.slow

ACME = Tenant(tenant="acme", title="Acme", timezone="Europe/Berlin", currency="EUR", sources={})
CHOSEN = [
    "marts.daily_sales", "marts.customer_value", "marts.experiment_units", "marts.lead_features",
    "core.web_events", "core.tickets", "metrics.revenue",
]  # fmt: skip
TYPES = {
    "core.t": {"d": "DATE", "e": "DATE", "n": "BIGINT", "x": "DOUBLE", "m": "TIMESTAMPTZ", "s": "VARCHAR"}
}


def _support(name: str) -> Any:
    path = Path(__file__).parents[1] / "support" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"support_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("sql", "written"),
    [
        ("SELECT d - e AS n FROM core.t", "CAST(DATEDIFF(t.d, t.e) AS BIGINT)"),
        ("SELECT d + n AS d FROM core.t", "DATE_ADD(t.d, CAST(t.n AS INT))"),
        ("SELECT CAST(x AS INTEGER) AS n FROM core.t", "CAST(RINT(t.x) AS INT)"),
        ("SELECT CAST(m AT TIME ZONE 'UTC' AS DATE) AS d FROM core.t", "FROM_UTC_TIMESTAMP(t.m, 'UTC')"),
        ("SELECT quantile_cont(x, 0.9) AS q FROM core.t", "PERCENTILE(t.x, 0.9)"),
        ("SELECT upper(s) AS s FROM core.t", "UPPER(REPLACE(t.s, 'ß', 'ẞ'))"),
    ],
)
def test_spark_gets_its_own_words(sql, written):
    assert written in to_spark(sql, TYPES)


def test_what_spark_cannot_say_is_refused():
    with pytest.raises(ConfigError, match="EXCLUDE"):
        to_spark("SELECT * EXCLUDE (d) FROM core.t", TYPES)


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"No model matches 'marts\.salez'"):
        spark.with_parents(all_models(), ["marts.salez"])


def test_models_on_spark_equal_duckdb(tmp_path):
    if reason := spark.missing():
        pytest.skip(reason)
    twins = _support("twins")
    models = spark.with_parents(all_models(), CHOSEN)
    raw, ordered = spark.raw_tables(models), in_order(models, contracts())
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        for schema in {name.partition(".")[0] for name in [*models, *raw]}:
            con.execute(f"CREATE SCHEMA {schema}")
        for table in raw:
            con.execute(contracts()[table].ddl())
        twins.invent(con, raw)
        spark.export_raw(con, tmp_path, raw)
        for model in ordered:
            con.execute(f"CREATE TABLE {model.name} AS {model.stored(ACME)}")
        with spark.session() as session:
            ran = {entry.model: entry.rows for entry in spark.run(session, tmp_path, models, ACME)}
        assert set(ran) == set(models)
        for name, rows in ran.items():
            if rows is None:
                continue
            columns = twins.columns_of(con, name)
            listed, kinds = ", ".join(f'"{column}"' for column in columns), list(columns.values())
            files = f"read_parquet('{tmp_path / name.replace('.', '/')}/*.parquet')"
            actual = twins.rows_of(con.execute(f"SELECT {listed} FROM {files}").fetchall(), kinds)
            assert len(actual) == rows
            assert actual == twins.rows_of(con.execute(f"SELECT {listed} FROM {name}").fetchall(), kinds), (
                name
            )
