"""Notebooks run on what a night published, and are kept without outputs."""

from __future__ import annotations

import json

import pytest

from omni.settings import PROJECT, settings

NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))


def cells(notebook) -> list[dict]:
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(notebook):
    assert [cell for cell in cells(notebook) if cell["outputs"] or cell["execution_count"]] == []


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(notebook, undisturbed, monkeypatch):
    monkeypatch.setenv("OMNI_HOME", str(undisturbed.home))
    settings.cache_clear()
    names: dict = {}
    for cell in cells(notebook):
        exec(compile("".join(cell["source"]), f"{notebook.name}:{cell['id']}", "exec"), names)
    settings.cache_clear()
    assert names["weekly"].height > 20
