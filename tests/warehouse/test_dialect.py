"""What DuckDB's dialect says, said to PostgreSQL: the text of it, and what both answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from omni.errors import ConfigError
from omni.warehouse.dialect import by_name, statements, to_postgres

EXPRESSIONS = """
a / nullif(b, 0) | a % nullif(b, 0) | xor(a, b) | a // nullif(b, 0)
round(CAST(x AS DOUBLE), 2) | round(CAST(x AS DECIMAL(18, 4)), 2) | round(-CAST(x AS DOUBLE), 1)
CAST(x AS INTEGER) | CAST(CAST(x AS DECIMAL(9, 1)) AS BIGINT) | floor(x) | greatest(a, b) | least(a, NULL, b)
upper(s) | lower(s) | trim(s) | contains(s, 'b') | starts_with(s, 'a') | ends_with(s, 'c') | length(s)
split_part(s, 'b', 2) | regexp_matches(s, '[0-9]') | regexp_extract(s, '([a-z])(b)', 2) | concat_ws('|', s, a)
regexp_replace(s, 'b', 'x', 'g') | substr(s, 2, 1) | coalesce(s, 'none') | s || 'x' | sha256(s) | md5(s)
try_cast(s AS INTEGER) | CAST(a AS VARCHAR) | s IS NOT DISTINCT FROM 'abc' | (s = 'abc') IS NOT TRUE
d - e | d + 3 | CAST(d + INTERVAL 1 MONTH AS DATE) | CAST(d + INTERVAL (a) DAY AS DATE)
d + INTERVAL 5 HOUR
CAST(date_trunc('week', d) AS DATE) | CAST(date_trunc('quarter', d) AS DATE)
extract(ISODOW FROM d) | year(d)
date_diff('day', e, d) | date_diff('month', e, d) | date_diff('quarter', e, d)
dayofweek(d) | isodow(d) | CAST(m AT TIME ZONE 'Europe/Berlin' AS DATE) | epoch(m) | date_diff('hour', e, m)
time_bucket(INTERVAL '15 minutes', m) | date_trunc('day', m AT TIME ZONE 'America/Sao_Paulo')
json_extract_string(j, '$.k') | json_extract_string(j, '$.deep.er') | CAST(json_extract(j, '$.n') AS BIGINT)
"""
AGGREGATES = """
avg(a) | sum(a) | median(x) | quantile_cont(CAST(x AS DOUBLE), 0.9)
stddev(CAST(x AS DOUBLE)) | bool_or(a > 2)
arg_max(b, a * 10 + b) | arg_min(b, a * 10 + b)
count(DISTINCT (a, b)) | count(*) FILTER (WHERE a > 1)
string_agg(s, ',' ORDER BY a DESC, b, s) | quantile_cont(CAST(x AS DOUBLE), 0.5) FILTER (WHERE a > 0) | min(s)
first(s ORDER BY a DESC, b, s) | last(s ORDER BY a, b, s)
"""


def listed(text: str) -> list[str]:
    return [part.strip() for line in text.splitlines() for part in line.split(" | ") if part]


QUERIES = [
    *[f"SELECT {expression} FROM t" for expression in listed(EXPRESSIONS + AGGREGATES)],
    "SELECT a, count(*) AS n FROM t GROUP BY ALL ORDER BY ALL",
    "SELECT a, b FROM t QUALIFY row_number() OVER (PARTITION BY a ORDER BY b DESC, s) = 1",
    "SELECT a FROM t WHERE a IS NOT NULL ORDER BY a DESC LIMIT 3",
    "SELECT b FROM (SELECT DISTINCT b FROM t) ORDER BY b DESC",
    "SELECT s FROM (SELECT DISTINCT s FROM t) ORDER BY s",
    "SELECT t.a FROM t SEMI JOIN (SELECT 2 AS k) u ON t.a = u.k",
    "SELECT t.a FROM t ANTI JOIN (SELECT 2 AS a) u USING (a)",
    "FROM (SELECT a FROM t UNION ALL SELECT b FROM t)",
    "SELECT r.a FROM (SELECT s, a FROM t UNION ALL BY NAME SELECT a, s FROM t) AS r",
    ("SELECT CAST(g.x AS DATE) FROM (SELECT min(d) AS lo, max(d) AS hi FROM t) "
    "CROSS JOIN generate_series(lo, hi, INTERVAL 1 DAY) AS g(x)"),
    "SELECT percent_rank() OVER (ORDER BY a), rank() OVER (ORDER BY a DESC) FROM t",
    "WITH t2 AS (SELECT a FROM t) SELECT count(*) FROM t2 JOIN t USING (a)",
]  # fmt: skip


@pytest.fixture(scope="module")
def pg(postgres: Any) -> Iterator[Any]:
    psycopg = pytest.importorskip("psycopg")
    postgres.run("CREATE DATABASE words TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'")
    with psycopg.connect(host=str(postgres.folder), user="omni", dbname="words", autocommit=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        yield con
    postgres.run("DROP DATABASE words WITH (FORCE)")


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


START = datetime.fromisoformat("2024-03-30")
TABLE = (
    "CREATE OR REPLACE TEMP TABLE t (a BIGINT, b INTEGER, x DOUBLE, s VARCHAR, d DATE, e DATE, "
    "m TIMESTAMPTZ, j JSON)"
)
ROWS = st.lists(
    st.tuples(
        st.integers(-5, 5) | st.none(),
        st.integers(1, 4),
        st.sampled_from([0.125, 1.005, 2.5, -2.5, 7.0, 1234.5678]) | st.none(),
        st.sampled_from(["abc", "ABC", "Straße", " b ", "", "12", "ábc", "b1b2"]) | st.none(),
        st.dates(date(2023, 12, 20), date(2024, 3, 5)),
        st.dates(date(2023, 12, 20), date(2024, 3, 5)),
        st.datetimes(START, START + timedelta(days=2)).map(lambda m: m.replace(tzinfo=UTC)),
        st.sampled_from(['{"k": "v", "n": 3}', '{"deep": {"er": "x"}, "n": null}', "{}"]) | st.none(),
    ),
    min_size=1,
    max_size=8,
)


def fill(con: duckdb.DuckDBPyConnection, pg: Any, rows: list[tuple]) -> None:
    con.execute(TABLE)
    con.executemany("INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", rows)
    for statement in statements(TABLE):
        pg.execute(statement)
    with pg.cursor() as cursor:
        cursor.executemany("INSERT INTO t VALUES (%s, %s, %s, %s, %s, %s, %s, %s)", rows)


def normal(value: Any) -> Any:
    match value:
        case bool() | None | str() | date() | timedelta():
            return value.timestamp() if isinstance(value, datetime) and value.tzinfo else value
        case Decimal() | int() | float():
            return float(f"{float(value):.9e}")
    raise AssertionError(type(value))


def answers(con: duckdb.DuckDBPyConnection, pg: Any, query: str) -> tuple[list, list]:
    expected = con.execute(query).fetchall()
    actual = pg.execute(to_postgres(query)).fetchall()
    found = [[tuple(map(normal, row)) for row in rows] for rows in (actual, expected)]
    if "ORDER BY" not in query.rpartition(")")[2]:
        found = [sorted(rows, key=repr) for rows in found]
    return found[0], found[1]


@pytest.mark.slow
@hypothesis_settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=ROWS)
def test_both_answer_the_same(rows: list[tuple], con: duckdb.DuckDBPyConnection, pg: Any) -> None:
    fill(con, pg, rows)
    for query in QUERIES:
        actual, expected = answers(con, pg, query)
        assert actual == expected, query


@pytest.mark.slow
def test_a_row_hash_sees_every_change(con: duckdb.DuckDBPyConnection, pg: Any) -> None:
    rows = ["1, NULL", "NULL, 1", "1, ''", "'1', '0'", "'a', 'b,c'", "'a,b', 'c'"]
    hashed = [pg.execute(to_postgres(f"SELECT hash(row({row}))")).fetchone()[0] for row in rows]
    assert len(set(hashed)) == len(rows)
    assert pg.execute(to_postgres(f"SELECT hash(row({rows[0]}))")).fetchone()[0] == hashed[0]


@pytest.mark.slow
def test_by_name_puts_each_column_in_its_place(pg: Any) -> None:
    pg.execute(to_postgres("CREATE TEMP TABLE target (x INTEGER, y VARCHAR, z DATE)"))
    found = by_name("INSERT INTO target BY NAME SELECT 'why' AS y, source.* FROM (SELECT 7 AS x) AS source")
    assert found is not None
    names = [column.name for column in pg.execute(found.probe).description]
    pg.execute(found.insert(names))
    assert pg.execute("SELECT x, y, z FROM target").fetchall() == [(7, "why", None)]


@pytest.mark.slow
def test_a_conflict_names_the_stored_column(pg: Any) -> None:
    pg.execute("CREATE TEMP TABLE kept (k TEXT PRIMARY KEY, v TEXT)")
    upsert = to_postgres(
        "INSERT INTO kept (k, v) VALUES ('a', NULL) ON CONFLICT (k) DO UPDATE SET v = coalesce(excluded.v, v)"
    )
    pg.execute("INSERT INTO kept VALUES ('a', 'old')")
    pg.execute(upsert)
    assert pg.execute("SELECT v FROM kept").fetchone() == ("old",)


@pytest.mark.parametrize(
    ("sql", "written"),
    [
        ("SELECT core.orders.id FROM core.orders", "SELECT acme_core.orders.id FROM acme_core.orders"),
        ("WITH t AS (SELECT 1 AS a) SELECT t.a FROM t", "WITH t AS (SELECT 1 AS a) SELECT t.a FROM t"),
        ("SELECT * FROM temp.result", "SELECT * FROM pg_temp.result"),
        ("SELECT * FROM information_schema.tables", "SELECT * FROM information_schema.tables"),
        ("SELECT nextval('ops.version')", "SELECT NEXTVAL('acme_ops.version')"),
        ("CREATE SCHEMA IF NOT EXISTS raw", "CREATE SCHEMA IF NOT EXISTS acme_raw"),
        ("SELECT $1, $2::DATE", "SELECT $1, CAST($2 AS DATE)"),
        ("SELECT unnest($1::VARCHAR[])", "SELECT UNNEST(CAST($1 AS TEXT[]))"),
        (
            "CREATE TABLE raw.t (h UBIGINT, n HUGEINT, j JSON)",
            "CREATE TABLE acme_raw.t (h DECIMAL(20, 0), n DECIMAL(38, 0), j JSONB)",
        ),
    ],
)  # fmt: skip
def test_statement_is_written_as(sql: str, written: str) -> None:
    assert to_postgres(sql, "acme_") == written


def test_replacing_a_table_takes_two_statements() -> None:
    assert statements("CREATE OR REPLACE TEMP TABLE x AS FROM y") == (
        "DROP TABLE IF EXISTS pg_temp.x",
        "CREATE TEMPORARY TABLE x AS SELECT * FROM y",
    )


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("PIVOT t ON a USING sum(b)", "FILTER"),
        ("SELECT * EXCLUDE (a) FROM t", "list the columns"),
        ("SELECT * FROM t QUALIFY row_number() OVER (ORDER BY a) = 1", "list the columns"),
        ("SELECT a FROM t ASOF JOIN u ON t.a >= u.a", "row_number"),
        ("INSERT OR REPLACE INTO t VALUES (1)", "ON CONFLICT"),
        ("INSERT INTO t BY NAME SELECT 1 AS a", "by_name"),
        ("SELECT * FROM a UNION ALL BY NAME SELECT * FROM b", "list the columns of each branch"),
        ("SELECT list_transform(x, y -> y + 1) FROM t", "unnest the list"),
        ("SELECT * FROM read_parquet('x')", "does not run on PostgreSQL"),
        ("SELECT time_bucket(INTERVAL '1 month', m) FROM t", "date_trunc"),
        ("SELECT first(a) FROM t", "min, max"),
        ("SELECT date_diff('week', d, e) FROM t", "Mondays"),
        ("SELECT 1; SELECT 2", "2 SQL statements"),
        ("SELECT FROM WHERE", "does not parse"),
    ],
)
def test_what_has_no_equal_is_refused_with_what_to_write(sql: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        to_postgres(sql)
