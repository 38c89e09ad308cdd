"""What a worker does before a flow, and this project's own prefect.yaml."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deployments import bootstrap, check, steps
from omni.settings import PROJECT


def test_the_worker_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prefect.yaml").touch()
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setenv("OMNI_PROJECT", str(tmp_path))
    assert steps.enter_project() == {"directory": str(tmp_path)}
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
def test_unset_means_the_installed_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMNI_PROJECT", raising=False)
    if value is not None:
        monkeypatch.setenv("OMNI_PROJECT", value)
    steps.enter_project()
    assert Path.cwd() == PROJECT


def test_another_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Path.cwd()
    monkeypatch.setenv("OMNI_PROJECT", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="OMNI_PROJECT"):
        steps.enter_project()
    assert Path.cwd() == before


def test_flow_runs_get_no_setting_of_the_server_and_no_path() -> None:
    chosen = bootstrap.run_settings()
    assert chosen["PREFECT_TASKS_DEFAULT_NO_CACHE"] == "true"
    assert not any(name.startswith("PREFECT_SERVER_") or os.sep in value for name, value in chosen.items())
    assert bootstrap.pools() == ["omni"]


@pytest.mark.slow
def test_every_deployment_of_this_project_is_right() -> None:
    assert check.problems() == []
