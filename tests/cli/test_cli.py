"""The command line: quick to start, clear when wrong, honest in its exit status."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from omni.cli import app
from omni.settings import PROJECT, settings
from omni.tenancy import get
from omni.warehouse.database import open_warehouse
from omni.warehouse.publish import publish

HEAVY = {"prefect", "pandas", "mlflow", "sklearn", "altair", "optuna", "scipy", "polars", "duckdb"}


def omni(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def said(result: Result) -> str:
    """What was printed, line breaks of the terminal's width undone."""
    return re.sub(r"\s+", " ", result.output)


@pytest.fixture
def published(home: Path) -> Path:
    """A demo company with one small table, published."""
    with open_warehouse(get("demo")) as warehouse:
        with warehouse.transaction() as con:
            con.execute("CREATE TABLE core.t AS SELECT i AS n, '=1+1' AS formula FROM range(3) r(i)")
        publish(warehouse)
    return home


def test_it_starts_without_loading_anything_heavy():
    code = f"import omni.cli, sys; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["nightly", "run", "status", "query", "ask", "doctor", "check", "portal"])
def test_every_command_explains_itself(command):
    result = omni(command, "--help")
    assert result.exit_code == 0
    assert f"omni {command}" in said(result).replace("root ", "omni ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nightly", "--company", "nobody"], "Unknown tenant 'nobody'. Known: demo, olist"),
        (["run", "nightlly"], "There is no flow 'nightlly'. Did you mean nightly?"),
        (["run", "build_models", "--full"], "Flow build_models takes no --full"),
        (
            ["query", "SELECT 1"],
            "Nothing is published for tenant 'demo' yet. Run `omni nightly --company demo`",
        ),
        (["ask", "How long?"], "Nothing is published"),
        (["status", "--company", "nobody"], "Unknown tenant"),
        (["sandbox", "serve", "--company", "nobody"], "nobody"),
        (["sandbox", "serve", "--until", "yesterday"], "--until yesterday: not a day"),
    ],
)
def test_mistakes_are_answered_clearly(home, arguments, message):
    result = omni(*arguments)
    assert result.exit_code == 2
    assert message in said(result)
    assert "Traceback" not in result.output


def test_a_wrong_setting_names_its_variable(monkeypatch):
    monkeypatch.setenv("OMNI_SERVER_PORT", "99999999")
    settings.cache_clear()
    result = omni("status")
    settings.cache_clear()
    assert result.exit_code == 2
    assert (
        "OMNI_SERVER_PORT: Input should be less than or equal to 65535; for example OMNI_SERVER_PORT=4200"
        in said(result)
    )


def test_queries_are_printed_as_asked(published):
    assert json.loads(omni("query", "SELECT n FROM core.t ORDER BY n", "-f", "json").output) == [
        {"n": 0}, {"n": 1}, {"n": 2}
    ]  # fmt: skip
    csv = omni("query", "SELECT * FROM core.t ORDER BY n", "--format", "csv").output
    assert csv.splitlines()[:2] == ["n,formula", "0,'=1+1"]
    assert "│ 2 │" in omni("query", "SELECT n FROM core.t WHERE n = 2").output


def test_more_rows_than_asked_for_are_announced(published):
    result = omni("query", "SELECT n FROM core.t", "--limit", "2", "-f", "csv")
    assert "more than 2 rows" in result.output


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM core.t",
        "SELECT 1; SELECT 2",
        "COPY core.t TO 'x.csv'",
        "FROM read_text('/etc/passwd')",
        "SELEC 1",
    ],
)
def test_queries_only_read_the_snapshot(published, sql):
    result = omni("query", sql)
    assert result.exit_code == 2
    assert "root:" not in result.output
    assert omni("query", "SELECT count(*) FROM core.t", "-f", "csv").output.splitlines()[1] == "3"


def test_status_lists_tables_and_cursors(published):
    found = json.loads(omni("status", "--json").output)
    assert set(found) == {"runs", "cursors", "tables"}


def test_ask_without_an_index_says_so(published):
    result = omni("ask", "How long may I return an item?")
    assert result.exit_code == 2
    assert "index" in said(result)


@pytest.mark.slow
def test_the_doctor_is_content_with_a_fresh_machine(home):
    result = omni("doctor")
    assert result.exit_code == 0, result.output
    assert "none yet for demo" in said(result)


@pytest.mark.slow
def test_the_doctor_says_what_to_do(monkeypatch):
    monkeypatch.setenv("OMNI_HOME", "/dev/null/state")
    settings.cache_clear()
    result = omni("doctor")
    settings.cache_clear()
    assert result.exit_code == 1
    assert "make the folder writable" in said(result)


def broken(folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of the declarations with one mistake."""
    data = folder / "data"
    shutil.copytree(PROJECT / "data", data, ignore=shutil.ignore_patterns("var"))
    text = (data / file).read_text()
    assert old in text
    (data / file).write_text(text.replace(old, new, 1))
    return data


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "models/core/crm_deals.sql",
            "staging.hubspot__deals",
            "staging.hubspot__dels",
            "did you mean staging.hubspot__deals",
        ),
        ("contracts/raw/hubspot__deals.yml", "key: [id]\n", "", "key: Field required"),
        ("contracts/raw/hubspot__contacts.yml", "protect: hash", "protekt: hash", "protekt"),
        ("metrics/revenue.yml", "model: core.orders", "model: core.order", "did you mean core.orders"),
        ("tenants/demo.yml", "contacts,", "contacs,", "has no stream 'contacs'"),
        ("tenants/demo.yml", "Europe/Berlin", "Europe/Berln", "unknown time zone"),
        ("experiments/spring_mail.yml", "marts.experiment_units", "marts.units", "marts.units"),
        ("dashboards/overview.yml", "metric: revenue", "metric: revenu", "revenu"),
    ],
)
def test_a_mistake_in_a_declaration_is_found(home, tmp_path, monkeypatch, file, old, new, message):
    monkeypatch.setenv("OMNI_DATA", str(broken(tmp_path, file, old, new)))
    settings.cache_clear()
    result = omni("check")
    assert result.exit_code == 2
    assert message in said(result)


def test_the_declarations_are_right(home):
    result = omni("check")
    assert result.exit_code == 0, result.output
    assert re.search(r"\d+ models", result.output)


README = (PROJECT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"^(?:\$ )?((?:omni|make) [^\n#]*?)\s*(?:#.*)?$", README, re.MULTILINE)))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readmes_commands_exist(command):
    program, *arguments = re.findall(r'"[^"]*"|\S+', command)
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
        assert arguments[0] in targets
        return
    result = omni(*arguments, "--help")
    assert result.exit_code == 0, result.output
    for option in (argument for argument in arguments if argument.startswith("--")):
        assert option in result.output
