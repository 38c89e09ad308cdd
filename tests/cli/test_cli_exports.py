"""`omni export` of a table without a declared export: what nobody describes stays in the house."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from omni.cli import app
from omni.tenancy import get
from omni.warehouse.database import open_warehouse
from omni.warehouse.publish import publish


@pytest.fixture
def published(home: Path) -> Path:
    """Tables of which only `marts.pipeline` is declared."""
    with open_warehouse(get("demo")) as warehouse:
        with warehouse.transaction() as con:
            con.execute("CREATE TABLE marts.left_over AS SELECT 'x' AS email_hash, 'max@x.example' AS note")
            con.execute("CREATE TABLE marts.pipeline AS SELECT 1 AS n")
        publish(warehouse)
    return home


def export(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["export", *arguments])
    return done.exit_code, re.sub(r"\s+", " ", done.output)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("marts.left_over", "no contract and no model declares marts.left_over"),
        ("ops.changes", "no contract and no model declares ops.changes"),
        ('marts."pipeline"', "is not the name of a table: schema.name"),
        ("marts.pipeline; DROP TABLE x", "is not the name of a table"),
        ("marts.nowhere", "is not a published table"),
    ],
)
def test_what_is_not_declared_or_no_table_is_refused(
    published: Path, tmp_path: Path, name: str, said: str
) -> None:
    target = tmp_path / "out.csv"
    for more in ([], ["--dry-run"]):
        status, output = export(name, "-o", str(target), *more)
        assert status != 0
        assert said in output
        assert "Traceback" not in output
    assert not target.exists()


def test_a_declared_table_is_written(published: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    assert export("marts.pipeline", "-o", str(target))[0] == 0
    assert target.read_text() == '"n"\n1\n'
