"""prefect.toml as environment variables."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni.errors import ConfigError, StorageError
from omni.orchestrator import environment
from omni.settings import PROJECT

KEYS = st.text("abc_", min_size=1, max_size=5)
LEAVES = st.booleans() | st.integers() | st.text("xyz", max_size=4)
TABLES = st.recursive(
    st.dictionaries(KEYS, LEAVES, max_size=3), lambda t: st.dictionaries(KEYS, LEAVES | t, max_size=3)
)


def leaves(table: dict[str, object]) -> int:
    return sum(leaves(value) if isinstance(value, dict) else 1 for value in table.values())


@given(TABLES)
def test_every_leaf_becomes_one_text(table: dict[str, object]) -> None:
    flat = list(environment._flatten(table, "PREFECT"))
    assert len(flat) == leaves(table)
    assert all(name.startswith("PREFECT_") and isinstance(value, str) for name, value in flat)


def test_values_are_written_as_prefect_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "prefect.toml"
    file.write_text(
        '[tasks]\ndefault_no_cache = true\n[logging]\nextra_loggers = ["omni", "httpx"]\n[a.b]\nc = 1.5\n'
    )
    assert environment.project_settings(file) == {
        "PREFECT_TASKS_DEFAULT_NO_CACHE": "true",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "omni,httpx",
        "PREFECT_A_B_C": "1.5",
    }


def test_what_the_user_set_stays(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_TASKS_DEFAULT_NO_CACHE", "false")
    monkeypatch.setenv("PREFECT_HOME", str(isolated / "elsewhere"))
    found = environment.environment()
    assert found["PREFECT_TASKS_DEFAULT_NO_CACHE"] == "false"
    assert found["PREFECT_HOME"] == str(isolated / "elsewhere")
    assert found["PREFECT_RESULTS_LOCAL_STORAGE_PATH"] == str(isolated / "elsewhere" / "results")
    assert found["DO_NOT_TRACK"] == "1"


def test_state_lies_under_the_state_folder(isolated: Path) -> None:
    assert environment.environment()["PREFECT_HOME"] == str(isolated / "prefect")


@pytest.mark.parametrize("content", [None, "[tasks\n"], ids=["missing", "no TOML"])
def test_an_unusable_file_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "prefect.toml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=r"prefect\.toml"):
        environment.project_settings(file)


def test_applying_too_late_is_said(
    isolated: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in environment.environment():
        monkeypatch.setenv(name, "")
    monkeypatch.setitem(sys.modules, "prefect.settings", environment)
    with caplog.at_level(logging.WARNING):
        environment.apply_environment()
    assert "PREFECT_TASKS_DEFAULT_NO_CACHE" in caplog.text
    assert os.environ["PREFECT_HOME"] == str(isolated / "prefect")


_READ = """
import json
from omni.orchestrator.environment import apply_environment
apply_environment()
from prefect.settings import get_current_settings
print(json.dumps(get_current_settings().model_dump(mode="json")))
"""


@pytest.mark.slow
def test_prefect_sees_each_setting_from_any_folder(isolated: Path, tmp_path: Path) -> None:
    """A misspelt key of prefect.toml would be dropped silently: each must come back from Prefect."""
    answer = subprocess.run(
        [sys.executable, "-c", _READ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    seen = json.loads(answer.stdout)

    def compare(wanted: dict[str, object], found: dict[str, object], where: str) -> None:
        for key, value in wanted.items():
            assert key in found, f"Prefect knows no setting {where}{key}"
            if isinstance(value, dict):
                compare(value, found[key], f"{where}{key}.")
            else:
                assert found[key] in (value, [value]), f"{where}{key}"

    compare(tomllib.loads((PROJECT / "prefect.toml").read_text()), seen, "")
    assert seen["home"] == str(isolated / "prefect")
    assert seen["results"]["local_storage_path"] == str(isolated / "prefect" / "results")


def test_a_state_folder_that_cannot_be_made_is_named(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolated.parent.mkdir(exist_ok=True)
    isolated.write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="OMNI_HOME"):
        environment.apply_environment()
