"""The linter says what is not portable and what to write instead, and lets portable SQL pass."""

from __future__ import annotations

import pytest

from omni.errors import ConfigError
from omni.warehouse.models import Header, Model
from omni.warehouse.portable import lint, refuse_unportable

HEADER = Header(kind="full", owner="shop@demo.example", description="A model.", grain=["order_id"])


def model(sql: str) -> Model:
    return Model("core.m", HEADER, sql, "m.sql")


@pytest.mark.parametrize(
    ("sql", "instead"),
    [
        ("SELECT now() AS at FROM core.t", "newest date of the data"),
        ("SELECT current_date AS day FROM core.t", "newest date of the data"),
        ("SELECT random() AS x FROM core.t", "by the key"),
        ("SELECT a / b AS x FROM core.t", "nullif"),
        ("SELECT a / coalesce(nullif(b, 0), c) AS x FROM core.t", "nullif"),
        ("SELECT a // 2 AS x FROM core.t", "floor"),
        ("SELECT round(a, 2) AS x FROM core.t", "CAST"),
        ("SELECT quantile_cont(a, 0.5) AS x FROM core.t", "DOUBLE"),
        ("SELECT CAST(CAST(a AS DOUBLE) AS VARCHAR) AS x FROM core.t", "DECIMAL"),
        ("SELECT date_trunc('month', a) AS month FROM core.t", "AS DATE"),
        ("SELECT arg_max(a, b) AS x FROM core.t", "QUALIFY"),
        ("SELECT any_value(a) AS x FROM core.t", "min or max"),
        ("SELECT approx_count_distinct(a) AS x FROM core.t", "count(DISTINCT"),
        ("SELECT string_agg(a, ',') AS x FROM core.t", "ORDER BY"),
        ("SELECT [a, b] AS x FROM core.t", "lists"),
        ("SELECT * EXCLUDE (a) FROM core.t", "list the columns"),
        ("SELECT a, count(*) AS n FROM core.t GROUP BY ALL", "name what is grouped by"),
        ("SELECT a FROM core.t LIMIT 5", "ORDER BY"),
        ("SELECT a FROM core.t QUALIFY row_number() OVER (ORDER BY amount) = 1", "the key"),
        ("SELECT lag(a) OVER (w ORDER BY b) AS x FROM core.t WINDOW w AS (PARTITION BY c)", "write out"),
        ("SELECT * FROM core.t PIVOT (sum(b) FOR a IN ('x', 'y'))", "FILTER"),
        ("SELECT a FROM core.t ASOF JOIN core.u ON t.a >= u.a", "row_number"),
        ("SELECT * FROM core.t QUALIFY row_number() OVER (ORDER BY order_id) = 1", "list the columns"),
    ],
)  # fmt: skip
def test_lint_says_what_to_write(sql: str, instead: str) -> None:
    try:
        found = lint(model(sql))
    except ConfigError as error:
        found = [str(error)]
    assert any(instead in problem for problem in found), found


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a / nullif(b, 0) AS x, sum(a) / count(*) AS z FROM core.t GROUP BY a, b",
        "SELECT CAST(date_trunc('month', a) AS DATE) AS x FROM core.t",
        "SELECT date_trunc('day', m AT TIME ZONE :timezone) AS x FROM core.t",
        "SELECT row_number() OVER (PARTITION BY a ORDER BY b DESC, order_id) AS nth FROM core.t",
        "SELECT rank() OVER (ORDER BY b) AS place, a / 100 AS y FROM core.t",
        "SELECT round(CAST(a AS DECIMAL(18, 4)), 2) AS x FROM core.t",
        "SELECT quantile_cont(CAST(a AS DOUBLE), 0.9) AS q FROM core.t",
        "WITH u AS (SELECT * FROM core.t QUALIFY row_number() OVER (ORDER BY order_id) = 1) SELECT a FROM u",
        "SELECT json_extract_string(p, '$.plan') AS plan FROM core.t",
        "SELECT string_agg(a, ',' ORDER BY a) AS x FROM core.t",
    ],
)  # fmt: skip
def test_portable_sql_passes(sql: str) -> None:
    assert lint(model(sql)) == []


def test_all_wrong_models_are_named_at_once() -> None:
    wrong = {name: Model(name, HEADER, f"SELECT {sql} AS x FROM core.t", f"{name}.sql")
             for name, sql in (("core.a", "now()"), ("core.b", "random()"))}  # fmt: skip
    with pytest.raises(ConfigError, match=r"(?s)core\.a\.sql.*core\.b\.sql"):
        refuse_unportable(wrong)
