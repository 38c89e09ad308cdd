"""One local Prefect server for all tests of this folder, in a state folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from omni.settings import PROJECT, settings


@dataclass(frozen=True)
class Local:
    """The running server, its state folder, and what its two simultaneous starters said."""

    home: Path
    url: str
    said: list[str]

    def variables(self, **extra: str) -> dict[str, str]:
        """Environment of a process that works with this server."""
        return {**clean_environment(self.home), "PREFECT_API_URL": self.url, **extra}


def clean_environment(home: Path) -> dict[str, str]:
    """This process's variables without Prefect's, the state in `home`, the project importable."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "OMNI"))}
    return {**kept, "OMNI_HOME": str(home), "OMNI_SERVER_PORT": "47210", "PYTHONPATH": str(PROJECT)}


@pytest.fixture
def isolated(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty state folder and none of Prefect's variables."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    return home


@pytest.fixture(scope="session")
def _session_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    home = tmp_path_factory.mktemp("server")
    variables = clean_environment(home)
    command = [sys.executable, "-m", "omni.orchestrator"]
    starters = [
        subprocess.Popen(
            [*command, "start"], env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    said = [starter.communicate(timeout=300)[0] for starter in starters]
    try:
        assert all(starter.returncode == 0 for starter in starters), said
        yield Local(home, said[0].split("PREFECT_API_URL=")[1].strip(), said)
    finally:
        subprocess.run([*command, "stop"], env=variables, check=False, timeout=60)


@pytest.fixture
def local(_session_server: Local, isolated: Path, monkeypatch: pytest.MonkeyPatch) -> Local:
    """The session's server, with this process's settings pointing at its state folder."""
    assert isolated.parent.exists()
    monkeypatch.setenv("OMNI_HOME", str(_session_server.home))
    settings.cache_clear()
    return _session_server
