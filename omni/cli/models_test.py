"""`omni models test`: the models' cases in memory, or the checks of the tables that were built."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import duckdb
import typer
from rich.console import Console
from rich.text import Text

from omni import tenancy
from omni.catalogue.project import all_models
from omni.errors import ConfigError
from omni.settings import PROJECT, settings
from omni.warehouse.catalog import exists
from omni.warehouse.check_runs import run_checks
from omni.warehouse.connection import Connection
from omni.warehouse.contracts import contracts
from omni.warehouse.database import open_warehouse
from omni.warehouse.models import Model
from omni.warehouse.quick import without_pandas
from omni.warehouse.selection import ancestors, select_models
from omni.warehouse.unit_tests import (
    Case,
    Result,
    build_empty,
    create_schemas,
    load_cases,
    run_case,
    sample_tenant,
    table_types,
)


def cases_folder() -> Path:
    """Where the cases are: `tests/` among the declarations, else the project's `tests/models`."""
    own = settings().data / "tests"
    return own if own.is_dir() else PROJECT / "tests" / "models"


def run_cases(select: list[str], folder: Path | None, *, as_json: bool) -> bool:
    """Run the cases of the selected models and print what differs.

    Returns:
        Whether all passed.

    Raises:
        ConfigError: no such folder, no case, or a wrong one.
    """
    models = all_models()
    chosen = select_models(models, select)
    where = folder or cases_folder()
    cases = load_cases(where, chosen if select else None)
    if not cases:
        raise ConfigError(f"{where} holds no case of these models: one is <schema>.<model>/<case>.yml")
    needed = {n: models[n] for n in models if n in ancestors(models, [case.model for case in cases])}
    with without_pandas():
        results = _results(cases, models, needed)
    _print(results, chosen, as_json=as_json)
    return all(result.passed for result in results)


def _results(cases: list[Case], models: dict[str, Model], needed: dict[str, Model]) -> list[Result]:
    """Run each case in a database of its own."""
    with _database() as con:
        build_empty(con, needed, contracts(), sample_tenant())
        types = table_types(con, needed, contracts())
    results = []
    for case in cases:
        with _database() as con:
            results.append(run_case(con, case, models, types))
    return results


@contextmanager
def _database() -> Iterator[Connection]:
    with duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false"}) as con:
        con.execute("SET TimeZone = 'UTC'")
        create_schemas(con)
        yield con


def _print(results: list[Result], chosen: list[str], *, as_json: bool) -> None:
    untested = [name for name in chosen if name not in {result.case.split("/")[0] for result in results}]
    if as_json:
        typer.echo(
            json.dumps({"cases": [asdict(r) | {"passed": r.passed} for r in results], "untested": untested})
        )
        return
    console = Console(highlight=False, soft_wrap=True)
    for result in results:
        mark, style = ("✓", "green") if result.passed else ("✗", "bold red")
        line = Text(f"{mark} ", style=style).append(result.case, style="default")
        console.print(line.append(f"  {result.seconds * 1000:.0f} ms", style="dim"))
        for problem in result.problems:
            console.print(Text(f"    {problem}", style="red"))
        if result.problems:
            console.print(Text(f"    {result.file}", style="dim"))
    failed = sum(not result.passed for result in results)
    style = "bold red" if failed else "green"
    told = f"{failed} of {len(results)} cases failed" if failed else f"{len(results)} cases passed"
    seconds = sum(result.seconds for result in results)
    console.print(Text(told, style=style).append(f" in {seconds:.2f} s", style="default"))


def check_tables(company: str, select: list[str], *, as_json: bool) -> bool:
    """Run the checks of the selected models' tables as they are now, and print what fails.

    Returns:
        Whether no check of severity `error` failed.
    """
    models = all_models()
    chosen = select_models(models, select)
    tenant = tenancy.get(company)
    with open_warehouse(tenant) as warehouse, warehouse.cursor() as con:
        results = [
            result
            for name in chosen
            if models[name].header.checks and exists(con, name)
            for result in run_checks(con, name, models[name].header.checks)
        ]
    if as_json:
        typer.echo(json.dumps([asdict(r) | {"passed": r.passed} for r in results], default=str))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for result in results:
            if not result.passed:
                style = "bold red" if result.severity == "error" else "yellow"
                mark = "✗ " if result.severity == "error" else "! "
                console.print(Text(mark, style=style).append(str(result), style="default"))
        failed = sum(not r.passed for r in results)
        console.print(
            f"{len(results)} checks of {tenant.title}: {len(results) - failed} passed, {failed} failed"
        )
    return not any(r.severity == "error" and not r.passed for r in results)
