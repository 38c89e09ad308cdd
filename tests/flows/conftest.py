"""One Prefect server for all flow tests, nights in processes of their own, and tables to compare."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pytest

from omni.ml import Registry
from omni.orchestrator.server import Server, server
from omni.settings import PROJECT, settings
from omni.warehouse.versions import content_hash

UNTIL = "2025-09-30"
"""Eleven months of the demo company is enough to exercise every stage."""

DRIVER = Path(__file__).with_name("night_driver.py")
BOOKKEEPING = {"run_id"}


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory) -> Iterator[Server]:
    """A real server for the session."""
    previous = os.environ.get("OMNI_HOME")
    os.environ["OMNI_HOME"] = str(tmp_path_factory.mktemp("server"))
    settings.cache_clear()
    try:
        with server(ephemeral=True) as running:
            yield running
    finally:
        os.environ.pop("OMNI_HOME")
        if previous is not None:
            os.environ["OMNI_HOME"] = previous
        settings.cache_clear()


@dataclass
class Night:
    """How a night in a process of its own ended."""

    home: Path
    returncode: int
    output: str
    summary: dict = field(default_factory=dict)

    @property
    def killed(self) -> bool:
        return self.returncode == -signal.SIGKILL


@pytest.fixture(scope="session")
def registry(tmp_path_factory) -> Path:
    """A registry database whose tables exist: making them takes MLflow seconds in every new state folder."""
    folder = tmp_path_factory.mktemp("registry")
    Registry(f"sqlite:///{folder / 'mlflow.db'}", folder / "models").load_champion("nothing")
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def night(prefect_server, registry) -> Callable[..., Night]:
    """Run a flow on the demo company in a process of its own, killed at an event if one is named."""

    def run(
        home: Path, *, flow: str = "nightly", kill: str = "", full: bool = False, **environment: str
    ) -> Night:
        if not (home / "registry").exists():
            (home / "registry").mkdir(parents=True, mode=0o700)
            shutil.copy(registry, home / "registry")
        variables = os.environ | {
            "OMNI_HOME": str(home),
            "OMNI_SECRET_KEY": "a key for tests, long enough to pass the minimum",
            "OMNI_SANDBOX_UNTIL": UNTIL,
            "PREFECT_API_URL": prefect_server.url,
            **environment,
        }
        arguments = ["--flow", flow, "--kill", kill, *(["--full"] if full else [])]
        done = subprocess.run(
            [sys.executable, str(DRIVER), *arguments],
            env=variables, cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        output = done.stdout + done.stderr
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        return Night(home, done.returncode, output, json.loads(lines[-1]) if lines else {})

    return run


@pytest.fixture(scope="session")
def until() -> str:
    """The last day these nights see."""
    return UNTIL


@pytest.fixture(scope="session")
def tables_of() -> Callable[[Path], dict[str, str]]:
    """A hash of every stored table's rows below a state folder, bookkeeping left out."""
    return _tables_of


def _tables_of(home: Path, tenant: str = "demo") -> dict[str, str]:
    found = {}
    with duckdb.connect(home / "tenants" / tenant / "warehouse.duckdb") as con:
        con.execute("SET TimeZone = 'UTC'")
        names = con.execute(
            "SELECT schema_name || '.' || table_name FROM duckdb_tables() "
            "WHERE schema_name <> 'ops' ORDER BY 1"
        ).fetchall()
        for (name,) in names:
            columns = [row[0] for row in con.execute(f"DESCRIBE {name}").fetchall()]
            kept = ", ".join(f'"{c}"' for c in columns if c not in BOOKKEEPING)
            con.execute(f"CREATE OR REPLACE TEMP VIEW compared AS SELECT {kept} FROM {name}")
            found[name] = content_hash(con, "compared")
    return found


@pytest.fixture(scope="session")
def undisturbed(night, tmp_path_factory) -> Night:
    """A night from nothing that nothing disturbed."""
    ended = night(tmp_path_factory.mktemp("undisturbed"))
    assert ended.returncode == 0, ended.output
    return ended
