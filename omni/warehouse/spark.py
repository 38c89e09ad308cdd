"""Models on Spark: the same SQL, transpiled, over Parquet copies of the raw tables (the extra `spark`).

For data that one machine's DuckDB cannot hold: point `master` at a cluster and the folder at storage that
every worker sees. DuckDB stays the reference: the tests build the demo company on both and compare.
"""

from __future__ import annotations

import fnmatch
import importlib
import importlib.util
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from omni.errors import ConfigError
from omni.tenancy import Tenant
from omni.warehouse.connection import Connection
from omni.warehouse.contracts import contracts
from omni.warehouse.dialect import to_spark
from omni.warehouse.models import Model, in_order

SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    # A product of two exact numbers keeps all its decimals, as in DuckDB.
    "spark.sql.decimalOperations.allowPrecisionLoss": "false",
    # Moments as DuckDB and Arrow write them, not as Spark's INT96 without a zone.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.shuffle.partitions": "4",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.catalogImplementation": "in-memory",
}


@dataclass(frozen=True)
class Ran:
    """What building one model on Spark did; `rows` is None for a view."""

    model: str
    rows: int | None
    seconds: float


def missing() -> str | None:
    """Why Spark cannot be used here; None if it can."""
    if importlib.util.find_spec("pyspark") is None:
        return "pyspark is not installed: pip install 'omni-pipelines[spark]' (needs Java 17 or newer)"
    return None


def with_parents(models: Mapping[str, Model], patterns: Sequence[str]) -> dict[str, Model]:
    """The models that match a glob, and all they read.

    Raises:
        ConfigError: a pattern matches no model.
    """
    wanted: list[str] = []
    for pattern in patterns:
        matching = fnmatch.filter(models, pattern)
        if not matching:
            raise ConfigError(f"No model matches {pattern!r}; `omni models plan --all` lists them")
        wanted += matching
    found: dict[str, Model] = {}
    while wanted:
        name = wanted.pop()
        if name in models and name not in found:
            found[name] = models[name]
            wanted += models[name].parents
    return found


def raw_tables(models: Mapping[str, Model]) -> list[str]:
    """The tables that some models read and no model makes."""
    return sorted({parent for model in models.values() for parent in model.parents} - set(models))


def export_raw(con: Connection, folder: Path, tables: Sequence[str]) -> None:
    """Write raw tables as Parquet, `<folder>/<schema>/<table>.parquet` each."""
    for table in tables:
        schema, _, name = table.partition(".")
        target = folder / schema / f"{name}.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        quoted = str(target).replace("'", "''")
        con.execute(f"COPY (SELECT * FROM {table}) TO '{quoted}' (FORMAT parquet)")


def types_of(models: Sequence[Model], tenant: Tenant) -> dict[str, dict[str, str]]:
    """Columns and DuckDB types of every table and model, from building them without rows.

    Args:
        models: in order, with all that they read.
        tenant: whose parameters stand in the SQL.
    """
    found: dict[str, dict[str, str]] = {}
    tables = {table: contract.column_types() for table, contract in contracts().items()}
    with duckdb.connect() as con:
        for schema in sorted({name.partition(".")[0] for name in [*tables, *(m.name for m in models)]}):
            con.execute(f"CREATE SCHEMA {schema}")
        for table, columns in tables.items():
            listed = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
            con.execute(f"CREATE TABLE {table} ({listed})")
            found[table] = columns
        for model in models:
            con.execute(f"CREATE TABLE {model.name} AS {model.stored(tenant)} LIMIT 0")
            found[model.name] = {r[0]: r[1] for r in con.execute(f"DESCRIBE {model.name}").fetchall()}
    return found


@contextmanager
def session(master: str = "local[2]", **more: str) -> Iterator[Any]:
    """A Spark session; it stops with the block.

    Args:
        master: Spark's address, `local[n]` for n threads of this machine.
        more: further settings, `spark_sql_x` for `spark.sql.x`.

    Raises:
        ConfigError: pyspark is not installed.
    """
    if reason := missing():
        raise ConfigError(reason)
    pyspark = importlib.import_module("pyspark.sql")
    builder = pyspark.SparkSession.builder.master(master).appName("omni")
    for name, value in (SETTINGS | {k.replace("_", "."): v for k, v in more.items()}).items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    try:
        yield spark
    finally:
        spark.stop()


def run(spark: Any, folder: Path, models: Mapping[str, Model], tenant: Tenant) -> Iterator[Ran]:
    """Build models in order over exported raw tables; each table becomes Parquet in the folder.

    Args:
        spark: the session.
        folder: of `export_raw`; a table `core.orders` is written to `<folder>/core/orders`.
        models: with all that they read; seeds come from their SELECT.
        tenant: whose parameters stand in the SQL.

    Yields:
        One entry per model, when it is built.

    Raises:
        ConfigError: a model says what Spark cannot; it names the model.
    """
    ordered = in_order(models, contracts())
    types = types_of(ordered, tenant)
    for schema in sorted({name.partition(".")[0] for name in types}):
        spark.sql(f"CREATE DATABASE IF NOT EXISTS {schema}")
    for table in contracts():
        schema, _, name = table.partition(".")
        if (file := folder / schema / f"{name}.parquet").exists():
            spark.sql(f"CREATE TABLE {table} USING parquet LOCATION '{file}'")
    for model in ordered:
        started = time.monotonic()
        try:
            query = to_spark(model.stored(tenant), types)
        except ConfigError as error:
            raise ConfigError(f"{model.origin}: {error}") from None
        with _named(model):
            rows = _build(spark, folder, model, query)
        yield Ran(model.name, rows, round(time.monotonic() - started, 3))


@contextmanager
def _named(model: Model) -> Iterator[None]:
    """Say which model Spark refused, and why in one line."""
    errors = importlib.import_module("pyspark.errors")
    try:
        yield
    except errors.PySparkException as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{model.origin}: Spark refuses it: {reason}") from error


def _build(spark: Any, folder: Path, model: Model, query: str) -> int | None:
    if model.header.kind == "view":
        spark.sql(f"CREATE VIEW {model.name} AS {query}")
        return None
    schema, _, name = model.name.partition(".")
    target = folder / schema / name
    spark.sql(query).write.mode("overwrite").parquet(str(target))
    spark.sql(f"CREATE TABLE {model.name} USING parquet LOCATION '{target}'")
    return int(spark.table(model.name).count())
