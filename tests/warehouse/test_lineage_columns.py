"""Which columns a SELECT reads, what it makes of them, and what it names in vain."""

from __future__ import annotations

import pytest
import sqlglot
from sqlglot import exp

from omni.warehouse.lineage import Reading, carried_columns, read_columns

SCHEMA = {
    "core.a": {"id": "VARCHAR", "x": "BIGINT", "day": "DATE"},
    "core.b": {"id": "VARCHAR", "y": "BIGINT"},
}


def reading(sql: str) -> Reading:
    query = sqlglot.parse_one(sql, read="duckdb")
    assert isinstance(query, exp.Query)
    return read_columns(query, SCHEMA)


@pytest.mark.parametrize(
    ("sql", "missing"),
    [
        ("SELECT x FROM core.a", []),
        ("SELECT gone FROM core.a", ["gone"]),
        ("SELECT a.gone AS x FROM core.a AS a JOIN core.b AS b ON b.also = a.id", ["also", "gone"]),
        ("SELECT x FROM core.a WHERE gone > 1 ORDER BY x", ["gone"]),
        ("SELECT sum(x) AS total FROM core.a ORDER BY total", []),
        ("SELECT coalesce(gone, 'n') AS gone FROM core.a GROUP BY 1", ["gone"]),
        ("WITH w AS (SELECT a.* FROM core.a AS a) SELECT w.gone, w.x FROM w", ["gone"]),
        ("WITH w AS (SELECT * FROM core.a) SELECT x FROM w WHERE w.y = 1", ["y"]),
        ("SELECT x FROM core.a WHERE EXISTS (SELECT 1 FROM core.b WHERE core.b.id = core.a.id)", []),
        ("SELECT x FROM core.a WHERE id IN (SELECT gone FROM core.b)", ["gone"]),
        ("SELECT y FROM core.a JOIN core.b USING (day)", ["day"]),
        ("SELECT x AS z, z + 1 AS u FROM core.a", []),
        ("SELECT d FROM generate_series(DATE '2026-01-01', DATE '2026-02-01', INTERVAL 1 DAY) AS t(d)", []),
        ("WITH w AS (SELECT x, -gone AS g FROM core.a), v AS (SELECT 1 gone) SELECT x FROM w, v", ["gone"]),
        ("WITH w AS (SELECT x FROM core.a WHERE gone), s(gone) AS (VALUES (1)) SELECT x FROM w, s", ["gone"]),
        ("WITH gone AS (SELECT gone FROM core.a) SELECT gone FROM gone", ["gone"]),
        ("WITH w AS (SELECT x FROM core.a WHERE gone) SELECT x FROM w, generate_series(0, 3) o(n)", ["gone"]),
        ("SELECT a.x FROM core.a AS a CROSS JOIN (VALUES (1)) AS v(n) WHERE gone = n", ["gone"]),
        ("SELECT a.x FROM core.a AS a, unnest([1]) AS u(n) WHERE gone = n", ["gone"]),
        ("SELECT id FROM core.b WHERE EXISTS (SELECT 1 FROM core.a WHERE y = x)", []),
        ("SELECT id FROM core.b WHERE EXISTS (SELECT 1 FROM (SELECT y AS k FROM core.a) AS d)", []),
        ("SELECT c.k, c.day FROM core.a AS c(k)", []),
        ("SELECT c.id, k FROM core.a AS c(k, x)", ["id"]),
    ],
)  # fmt: skip
def test_missing_columns_are_all_found(sql: str, missing: list[str]) -> None:
    assert sorted(column for column, _ in reading(sql).missing) == missing


def test_conditions_are_read_but_not_made_of() -> None:
    found = reading("SELECT a.x AS n FROM core.a AS a JOIN core.b AS b ON b.id = a.id WHERE b.y > 1")
    assert found.made_of == {"n": {("core.a", "x"): "copied"}}
    assert found.read == {"core.a": {"x", "id"}, "core.b": {"id", "y"}}
    assert found.followed


def test_star_passes_on_what_there_is() -> None:
    found = reading("SELECT b.*, 1 AS one FROM core.b AS b")
    assert found.columns == ["id", "y", "one"]
    assert found.made_of["one"] == {}


@pytest.mark.parametrize(
    ("sql", "column", "through"),
    [
        ("SELECT c.n FROM core.a AS c(k, n)", "n", "copied"),
        ("SELECT n AS m FROM core.a AS c(k, n) JOIN core.b ON k = core.b.id", "m", "copied"),
        (
            "SELECT n FROM (SELECT id, x FROM core.a UNION ALL SELECT id, y FROM core.b) AS u(k, n)",
            "n",
            "copied",
        ),
        ("SELECT l.n FROM core.b, LATERAL (SELECT x AS n FROM core.a) AS l", "n", "copied"),
        ("SELECT n FROM (VALUES (1)) AS v(b), LATERAL (SELECT x AS n FROM core.a) AS l", "n", "copied"),
        ("SELECT p.* FROM (PIVOT core.a ON id USING max(x)) AS p", "x", "assumed"),
    ],
)
def test_other_names_do_not_hide_what_a_column_holds(sql: str, column: str, through: str) -> None:
    query = sqlglot.parse_one(sql, read="duckdb")
    assert isinstance(query, exp.Query)
    found = carried_columns(query, {"core.a": {"x": {("core.a", "x"): "copied"}}}, SCHEMA)
    assert found[column] == {("core.a", "x"): through}
    assert reading(sql).made_of[column][("core.a", "x")] == through
