"""Values between DuckDB's types and PostgreSQL's: names of types, rows out, COPY in and out.

Python sees what DuckDB would give: whole numbers of a `sum` as int, decimals as Decimal, moments in UTC,
JSON as text.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    import polars as pl
    import psycopg
    import pyarrow as pa

BLOCK = 32 << 20
"""Bytes of CSV that are read at once; no row may be longer."""
BATCH = 65_536

UNSIGNED = 1 << 64
"""PostgreSQL's hashes have a sign; as DuckDB's they have none."""

_NAMES = {
    "bool": "BOOLEAN",
    "int2": "SMALLINT",
    "int4": "INTEGER",
    "int8": "BIGINT",
    "float4": "FLOAT",
    "float8": "DOUBLE",
    "numeric": "DECIMAL",
    "text": "VARCHAR",
    "varchar": "VARCHAR",
    "bpchar": "VARCHAR",
    "name": "VARCHAR",
    "unknown": "VARCHAR",
    "date": "DATE",
    "time": "TIME",
    "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMPTZ",
    "interval": "INTERVAL",
    "json": "JSON",
    "jsonb": "JSON",
    "bytea": "BLOB",
    "uuid": "UUID",
}
_WIDE = {(20, 0): "UBIGINT", (38, 0): "HUGEINT"}
_POSTGRES = {
    "VARCHAR": "TEXT",
    "TINYINT": "SMALLINT",
    "UTINYINT": "SMALLINT",
    "USMALLINT": "INTEGER",
    "UINTEGER": "BIGINT",
    "UBIGINT": "NUMERIC(20,0)",
    "HUGEINT": "NUMERIC(38,0)",
    "FLOAT": "REAL",
    "DOUBLE": "DOUBLE PRECISION",
    "JSON": "JSONB",
    "BLOB": "BYTEA",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ",
    "TIMESTAMP_S": "TIMESTAMP",
    "TIMESTAMP_MS": "TIMESTAMP",
    "TIMESTAMP_NS": "TIMESTAMP",
    '"NULL"': "TEXT",
}


@cache
def _polars_types() -> dict[str, Any]:
    import polars as pl  # here: most runs need no frame, and the import costs 0.1 s

    return {
        "BOOLEAN": pl.Boolean,
        "SMALLINT": pl.Int16,
        "INTEGER": pl.Int32,
        "BIGINT": pl.Int64,
        "UBIGINT": pl.UInt64,
        "FLOAT": pl.Float32,
        "DOUBLE": pl.Float64,
        "VARCHAR": pl.String,
        "JSON": pl.String,
        "UUID": pl.String,
        "BLOB": pl.Binary,
        "DATE": pl.Date,
        "TIME": pl.Time,
        "TIMESTAMP": pl.Datetime("us"),
        "TIMESTAMPTZ": pl.Datetime("us", "UTC"),
        "INTERVAL": pl.Duration("us"),
    }


@cache
def _arrow_types() -> dict[str, pa.DataType]:
    """Types that are read from CSV as such; the others come as text, which DuckDB casts."""
    import pyarrow as pa

    return {"SMALLINT": pa.int16(), "INTEGER": pa.int32(), "BIGINT": pa.int64(), "DOUBLE": pa.float64()}


def postgres_type(duckdb_type: str) -> str:
    """PostgreSQL's name of a type of DuckDB's."""
    if duckdb_type.endswith("]"):
        element, _, _ = duckdb_type.rpartition("[")
        return f"{postgres_type(element)}[]"
    return _POSTGRES.get(duckdb_type, duckdb_type)


def duckdb_type(name: str, precision: int | None = None, scale: int | None = None) -> str:
    """DuckDB's name of a type of PostgreSQL's; a numeric without bounds is DECIMAL."""
    if name.startswith("_") or name.endswith("[]"):
        return f"{duckdb_type(name.strip('_[]'))}[]"
    if name == "numeric" and precision is not None:
        return _WIDE.get((precision, scale or 0), f"DECIMAL({precision},{scale or 0})")
    return _NAMES.get(name, name.upper())


def types_of(cursor: psycopg.RawCursor[Any]) -> list[tuple[str, str]]:
    """Names and DuckDB types of a result's columns."""
    known = cursor.connection.adapters.types
    found = []
    for column in cursor.description or ():
        info = known.get(column.type_code)
        name = "text" if info is None else info.name
        if info is not None and info.array_oid == column.type_code:
            name = f"_{name}"
        found.append((column.name, duckdb_type(name, column.precision, column.scale)))
    return found


def as_duckdb_gives(rows: list[tuple[Any, ...]], types: Sequence[tuple[str, str]]) -> list[tuple[Any, ...]]:
    """Rows with whole numbers that PostgreSQL calls numeric (a sum of integers) as int."""
    wide = [n for n, (_, kind) in enumerate(types) if kind in ("DECIMAL", "UBIGINT", "HUGEINT")]
    if not wide:
        return rows
    changed = []
    for row in rows:
        values = list(row)
        for n in wide:
            value = values[n]
            if isinstance(value, Decimal) and value.is_finite() and value.as_tuple().exponent == 0:
                values[n] = int(value) % UNSIGNED if types[n][1] == "UBIGINT" else int(value)
        changed.append(tuple(values))
    return changed


def frame(rows: list[tuple[Any, ...]], types: Sequence[tuple[str, str]]) -> pl.DataFrame:
    """Rows as a frame, typed as DuckDB's would be."""
    import polars as pl

    schema = {name: _polars(kind, [row[n] for row in rows]) for n, (name, kind) in enumerate(types)}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _polars(kind: str, values: Iterable[Any]) -> Any:
    import polars as pl

    if kind.endswith("[]"):
        return pl.List(_polars(kind[:-2], ()))
    if bounds := re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", kind):
        return pl.Decimal(int(bounds[1]), int(bounds[2]))
    if kind in ("DECIMAL", "HUGEINT"):
        scales = (-int(value.as_tuple().exponent) for value in values if isinstance(value, Decimal))
        return pl.Decimal(38, max(scales, default=0))
    return _polars_types().get(kind, pl.String)


def arrow_reader(python_object: object) -> pa.RecordBatchReader:
    """What can be registered, as Arrow with plain types: an Arrow table or a frame.

    Lists become PostgreSQL's array literals. PostgreSQL's text holds no NUL; it becomes U+FFFD.
    """
    with duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false"}) as con:
        con.register("given", python_object)
        return plain(con, "given")


def plain(con: duckdb.DuckDBPyConnection, relation: str) -> pa.RecordBatchReader:
    """A relation of DuckDB's as Arrow that CSV can hold, see `arrow_reader`; its schema keeps the types.

    The field metadata `type` of each column is DuckDB's name of its type.
    """
    import pyarrow as pa

    described = con.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    columns = ", ".join(_plain(name, kind) for name, kind, *_ in described)
    table = con.execute(f"SELECT {columns} FROM {relation}").to_arrow_table()
    fields = [
        field.with_metadata({"type": kind})
        for field, (_, kind, *_) in zip(table.schema, described, strict=True)
    ]
    schema = pa.schema(fields)
    return pa.RecordBatchReader.from_batches(schema, table.cast(schema).to_batches(max_chunksize=BATCH))


def _plain(name: str, kind: str) -> str:
    quoted = '"' + name.replace('"', '""') + '"'
    if kind.endswith("]"):
        return f"translate({quoted}::VARCHAR, '[]', '{{}}') AS {quoted}"
    if kind in ("VARCHAR", "JSON") or kind.startswith("ENUM"):
        return f"replace({quoted}::VARCHAR, chr(0), chr(65533)) AS {quoted}"
    if kind in ("BOOLEAN", "SMALLINT", "INTEGER", "BIGINT", "FLOAT", "DOUBLE", "DATE"):
        return quoted
    if kind == "BLOB":
        return f"'\\x' || hex({quoted}) AS {quoted}"
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"strftime({quoted} AT TIME ZONE 'UTC', '%Y-%m-%d %H:%M:%S.%f+00') AS {quoted}"
    return f"{quoted}::VARCHAR AS {quoted}"


def copy_in(connection: psycopg.Connection[Any], table: str, reader: pa.RecordBatchReader) -> None:
    """Make a temporary table of an Arrow reader's rows (`plain`).

    Args:
        connection: its own session's.
        table: the temporary table's name, quoted.
        reader: whose schema names DuckDB's types.
    """
    import pyarrow as pa
    import pyarrow.csv

    columns = ", ".join(
        '"{}" {}'.format(field.name.replace('"', '""'), postgres_type(field.metadata[b"type"].decode()))
        for field in reader.schema
    )
    options = pa.csv.WriteOptions(include_header=False, quoting_style="needed")
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMP TABLE {table} ({columns})".encode())
        with cursor.copy(f"COPY pg_temp.{table} FROM STDIN (FORMAT csv)".encode()) as copy:
            for batch in reader:
                sink = pa.BufferOutputStream()
                pa.csv.write_csv(batch, sink, options)
                copy.write(sink.getvalue().to_pybytes())
        cursor.execute(f"ANALYZE pg_temp.{table}".encode())


def copy_out(
    connection: psycopg.Connection[Any], relation: str, types: Sequence[tuple[str, str]], folder: Path
) -> Iterator[pa.RecordBatch]:
    """A relation's rows as Arrow, through an unnamed file in `folder`.

    Numbers come as such, everything else as text, as DuckDB casts it.
    """
    import pyarrow as pa
    import pyarrow.csv

    columns = ", ".join(_out(name, kind) for name, kind in types)
    with tempfile.TemporaryFile(dir=folder) as file, connection.cursor() as cursor:
        with cursor.copy(f"COPY (SELECT {columns} FROM {relation}) TO STDOUT (FORMAT csv)".encode()) as copy:
            for data in copy:
                file.write(data)
        if file.tell() == 0:
            return
        file.seek(0)
        yield from pa.csv.open_csv(
            file,
            read_options=pa.csv.ReadOptions(column_names=[name for name, _ in types], block_size=BLOCK),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            convert_options=pa.csv.ConvertOptions(
                column_types={name: _arrow_types().get(kind, pa.string()) for name, kind in types},
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )


def arrow_schema(types: Sequence[tuple[str, str]]) -> pa.Schema:
    """The schema of what `copy_out` yields."""
    import pyarrow as pa

    return pa.schema([(name, _arrow_types().get(kind, pa.string())) for name, kind in types])


def _out(name: str, kind: str) -> str:
    quoted = '"' + name.replace('"', '""') + '"'
    return f"array_to_json({quoted}) AS {quoted}" if kind.endswith("[]") else quoted
