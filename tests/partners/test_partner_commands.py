"""`omni partners …` and the monthly step, on a published snapshot."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from omni.cli import app
from omni.control import database
from omni.tenancy import get
from omni.warehouse.database import open_warehouse
from omni.warehouse.publish import publish
from tasks.partners import draft_statements

TABLES = """
CREATE TABLE core.partner_terms AS SELECT * FROM (VALUES
    ('P-1', 'Trail Notes Magazine', 'TRAIL', 'affiliate', DATE '2024-01-01', CAST(NULL AS DATE),
        CAST(30 AS BIGINT), CAST(30 AS BIGINT), CAST(50 AS DECIMAL(18, 2)), 'EUR'),
    ('P-3', '=HYPERLINK("x")', 'ALPINE', 'reseller', DATE '2025-06-01', NULL, 90, 14, 100, 'EUR')
) AS t(partner_id, partner_name, code, program, joined_on, left_on, window_days, hold_days, minimum_payout,
    currency);
CREATE TABLE marts.partner_commissions AS SELECT * FROM (VALUES
    ('order:1', 'P-1', 'commission', '1', DATE '2026-04-02', DATE '2026-05-02',
        CAST(900 AS DECIMAL(18, 2)), CAST(45 AS DECIMAL(18, 2)), 'EUR'),
    ('order:2', 'P-1', 'commission', '2', DATE '2026-04-20', DATE '2026-05-20', 400, 26, 'EUR'),
    ('refund:9', 'P-1', 'clawback', '2', DATE '2026-05-25', DATE '2026-05-25', -100, -6.50, 'EUR'),
    ('order:3', 'P-3', 'commission', '3', DATE '2026-05-04', DATE '2026-05-18', 250, 20, 'EUR')
) AS t(line_id, partner_id, kind, order_id, line_date, payable_on, base_amount, amount, currency);
INSERT INTO ops.cursors (vendor, stream, cursor) VALUES ('shopify', 'orders', '2026-06-03 10:00:00+00');
"""


def omni(*arguments: str):
    result = CliRunner().invoke(app, ["partners", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def rows(*arguments: str):
    code, said = omni(*arguments, "--format", "json")
    assert code == 0, said
    return json.loads(said)


@pytest.fixture
def published(home: Path):
    with open_warehouse(get("demo")) as warehouse:
        with warehouse.transaction() as con:
            for statement in TABLES.split(";\n"):
                con.execute(statement)
        publish(warehouse)
    yield home
    database.close()


def test_a_month_from_draft_to_payout(published):
    assert [(row["partner"], row["minimum"]) for row in rows("list")] == [("P-1", "50.00"), ("P-3", "100.00")]
    first, second = rows("statement", "--month", "2026-05")
    assert (first["state"], first["commission"], first["clawback"], first["total"]) == (
        "draft", "71.00", "-6.50", "64.50",
    )  # fmt: skip
    lines = rows("statement", "-m", "2026-05", "--lines")
    assert [row["line"] for row in lines if row["partner"] == "P-1"] == [
        "order:1", "order:2", "refund:9",
    ]  # fmt: skip
    assert omni("approve", "-m", "2026-05", "-p", "P-1", "--digest", second["digest"])[0] == 2
    code, said = omni("approve", "-m", "2026-05", "-p", "P-1", "--digest", first["digest"])
    assert (code, said) == (0, "P-1: 64.50 EUR, 3 lines, approved\n")
    assert omni("approve", "-m", "2026-05") == (0, "P-3: 20.00 EUR, 1 lines, approved\n")
    assert omni("approve", "-m", "2026-05") == (0, "Nothing of 2026-05 is left to be approved.\n")
    assert [(row["partner"], row["open"], row["payable"]) for row in rows("balance")] == [
        ("P-1", "64.50", "yes"), ("P-3", "20.00", "no"),
    ]  # fmt: skip
    code, said = omni("payout", "--batch", "2026-06")
    assert code == 0
    assert re.sub(r"\s+", " ", said).endswith("payout-2026-06.csv: 1 payouts ")
    path = published / "tenants" / "demo" / "partners" / "payout-2026-06.csv"
    content = path.read_bytes()
    (row,) = csv.DictReader(content.decode().splitlines())
    assert (row["partner_id"], row["amount"], row["statements"]) == ("P-1", "64.50", "2026-05")
    path.unlink()
    assert omni("payout", "--batch", "2026-06")[0] == 0
    assert path.read_bytes() == content
    assert omni("payout", "--batch", "2026-07")[1].startswith("No balance has reached its minimum.")
    assert omni("payout") == (0, "2026-06\n")
    assert [row["state"] for row in rows("statement", "-m", "2026-05")] == ["paid by 2026-06", "approved"]


def test_printed_csv_runs_no_formula(published):
    assert "'=HYPERLINK" in omni("list", "--format", "csv")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["statement", "-m", "May"], "write it as 2026-05"),
        (["statement", "-m", "2026-05", "-p", "P-7"], "omni partners list"),
        (["approve", "-m", "2026-05", "--digest", "aa"], "say whose with --partner"),
        (["approve", "-m", "2026-06"], "are complete through 2026-06-02"),
        (["payout", "--batch", "a/b"], "for example 2026-06"),
    ],
)
def test_mistakes_are_answered_clearly(published, arguments, message):
    code, said = omni(*arguments)
    assert code == 2
    assert message in re.sub(r"\s+", " ", said)


def test_without_partner_tables_the_next_step_is_named(home):
    with open_warehouse(get("demo")) as warehouse:
        publish(warehouse)
    code, said = omni("list")
    assert (code, "omni nightly" in said) == (2, True)


def test_the_monthly_step_drafts_the_last_whole_month_and_approves_nothing(published):
    done = draft_statements.fn("demo", None)
    assert (done["month"], done["rows"], done["approved"]) == ("2026-05", 4, 0)
    assert done["drafts"] == {"P-1": "64.50 EUR", "P-3": "20.00 EUR"}
    lines = list(csv.DictReader(Path(done["path"]).read_text(encoding="utf-8").splitlines()))
    assert {line["state"] for line in lines} == {"draft"}
    assert rows("balance") == []
    assert draft_statements.fn("demo", "2026-04")["rows"] == 0
