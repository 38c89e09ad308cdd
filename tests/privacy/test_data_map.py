"""The data map: no personal column gets lost on its way through SQL."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlglot
from sqlglot import exp

from omni.privacy.datamap import DataMap, build_map
from omni.settings import PROJECT
from omni.warehouse.contracts import Contract, load_contracts
from omni.warehouse.lineage import Carried, carried_columns
from omni.warehouse.models import Model, load_models, parse_model

KNOWN: dict[str, dict[str, Carried]] = {
    "raw.people": {
        "email": {("raw.people", "email"): "copied"},
        "name": {("raw.people", "name"): "copied"},
    }
}
SCHEMA = {
    "raw.people": {"id": "VARCHAR", "email": "VARCHAR", "name": "VARCHAR"},
    "raw.visits": {"id": "VARCHAR", "page": "VARCHAR"},
}


def trace(sql: str) -> dict[str, dict[str, str]]:
    query = sqlglot.parse_one(sql, read="duckdb")
    assert isinstance(query, exp.Query)
    found = carried_columns(query, KNOWN, SCHEMA)
    return {name: {column: how for (_, column), how in origins.items()} for name, origins in found.items()}


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT id, lower(trim(email)) AS e FROM raw.people", {"e": {"email": "copied"}}),
        ("SELECT * FROM raw.people", {"email": {"email": "copied"}, "name": {"name": "copied"}}),
        ("SELECT * EXCLUDE (email) FROM raw.people", {"name": {"name": "copied"}}),
        ("FROM raw.people", {"email": {"email": "copied"}, "name": {"name": "copied"}}),
        (
            "SELECT count(email) AS n, email IS NULL AS lacks, max(email) AS m FROM raw.people GROUP BY ALL",
            {"n": {"email": "computed"}, "lacks": {"email": "computed"}, "m": {"email": "copied"}},
        ),
        (
            "SELECT if(email = 'x', 1, 0) AS a, CASE WHEN id = '1' THEN email END AS b FROM raw.people",
            {"a": {"email": "computed"}, "b": {"email": "copied"}},
        ),
        (
            "SELECT rank() OVER (ORDER BY name) AS n, min(email) OVER (ORDER BY id) AS f FROM raw.people",
            {"n": {"name": "computed"}, "f": {"email": "copied"}},
        ),
        ("SELECT count(*) AS n FROM raw.people", {}),
        ("SELECT page FROM raw.visits WHERE id IN (SELECT email FROM raw.people)", {}),
        ("SELECT page FROM raw.people JOIN raw.visits USING (id)", {}),
        (
            "WITH t AS (SELECT p.*, 1 AS one FROM raw.people AS p) SELECT t.name AS n FROM t",
            {"n": {"name": "copied"}},
        ),
        (
            "SELECT id AS a, page AS b FROM raw.visits UNION ALL SELECT id, email FROM raw.people",
            {"b": {"email": "copied"}},
        ),
        (
            "SELECT id AS a, page AS b, id AS c FROM raw.visits UNION SELECT 1, 1, email FROM raw.people",
            {"c": {"email": "copied"}},
        ),
        (
            "SELECT id AS a, id AS b, id AS c FROM raw.visits UNION SELECT id, id, email FROM raw.people",
            {"c": {"email": "copied"}},
        ),
        (
            "SELECT id, page AS email FROM raw.visits UNION ALL BY NAME SELECT email, id FROM raw.people",
            {"email": {"email": "copied"}},
        ),
        (
            "SELECT v.id, (SELECT max(email) FROM raw.people AS p WHERE p.id = v.id) AS m FROM raw.visits v",
            {"m": {"email": "copied"}},
        ),
        (
            "SELECT u.w FROM raw.people AS p, UNNEST(string_split(p.name, ' ')) AS u(w)",
            {"w": {"name": "copied"}},
        ),
        (
            "WITH RECURSIVE r AS (SELECT email FROM raw.people UNION ALL FROM r) SELECT email AS z FROM r",
            {"z": {"email": "copied"}},
        ),
        ("SELECT {'a': email} AS s FROM raw.people", {"s": {"email": "copied"}}),
    ],
)
def test_columns_are_followed(sql: str, expected: dict[str, dict[str, str]]) -> None:
    assert trace(sql) == expected


@pytest.mark.parametrize(
    ("sql", "column"),
    [
        ("SELECT p AS whole FROM raw.people AS p", "whole"),
        ("SELECT COLUMNS('e.*') FROM raw.people", "email"),
        ("SELECT k, v FROM raw.people UNPIVOT (v FOR k IN (email, name))", "v"),
    ],
)
def test_what_cannot_be_followed_counts_as_everything(sql: str, column: str) -> None:
    assert trace(sql)[column] == {"email": "assumed", "name": "assumed"}


@pytest.fixture(scope="module")
def project_map() -> DataMap:
    return build_map(load_contracts(PROJECT / "data" / "contracts"), load_models(PROJECT / "data" / "models"))


def test_project_map_holds_every_declared_column(project_map: DataMap) -> None:
    contracts = load_contracts(PROJECT / "data" / "contracts")
    declared = {(c.table, name) for c in contracts.values() for name in c.personal_columns}
    assert {(d.table, d.column) for d in project_map.declared} == declared
    inventory = {row["table"]: row for row in project_map.inventory()}
    assert set(contracts) <= set(inventory)
    email = next(c for c in inventory["raw.hubspot__contacts"]["personal"] if c["column"] == "email")
    assert (email["protect"], email["retention"], email["lawful_basis"]) == (
        "hash",
        "P3Y",
        "legitimate interest",
    )


def test_project_map_follows_addresses_and_texts_into_core_and_marts(project_map: DataMap) -> None:
    through = {
        (d.table, d.column, f"{d.source.table}.{d.source.column}"): d.through for d in project_map.derived
    }
    assert through["core.orders", "email_hash", "raw.shopify__orders.email"] == "copied"
    assert through["core.orders", "email_hash", "raw.shopify__customers.email"] == "copied"
    assert through["marts.customer_value", "email_hash", "raw.shopify__customers.email"] == "copied"
    assert through["core.reviews", "message", "raw.hubspot__reviews.message"] == "copied"
    assert through["marts.review_scores", "with_message", "raw.hubspot__reviews.message"] == "computed"
    personal = project_map.personal_columns()
    assert "country" not in personal["core.customers"]
    assert "marts.daily_sales" not in personal


def test_only_columns_declared_clear_may_be_readable(project_map: DataMap) -> None:
    clear = project_map.clear_columns()
    assert clear["core.reviews"] == {"title", "message"}
    assert clear["core.customers"] == {"city"}
    assert "core.contacts" not in clear
    assert "marts.review_scores" not in clear


def test_new_model_is_covered_without_being_told(tmp_path: Path, project_map: DataMap) -> None:
    contracts: dict[str, Contract] = load_contracts(PROJECT / "data" / "contracts")
    folder = tmp_path / "marts"
    folder.mkdir()
    file = folder / "mailing.sql"
    file.write_text(
        "/*\nkind: full\nowner: a@demo.example\ndescription: A list.\ngrain: [address]\n*/\n"
        "SELECT upper(email) AS address FROM raw.hubspot__contacts"
    )
    model: Model = parse_model(file, tmp_path)
    found = build_map(contracts, {model.name: model}).personal_columns()
    assert found["marts.mailing"] == {"address"}
    assert "marts.mailing" not in project_map.personal_columns()
