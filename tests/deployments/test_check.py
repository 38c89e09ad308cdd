"""The checker of prefect.yaml, on a small project and on what can be wrong with it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments import check

FLOW = """
from typing import Annotated
from prefect import flow
from pydantic import Field

@flow
def tally(tenant: str, days: Annotated[int, Field(ge=1)] = 7, full: bool = False) -> None:
    return None
"""

DOCUMENT: dict[str, Any] = {
    "name": "small",
    "definitions": {"anything": 1},
    "pull": [{"deployments.steps.enter_project": {"variable": "OMNI_PROJECT"}}],
    "deployments": [
        {
            "name": "tally",
            "entrypoint": "flows/tally_things.py:tally",
            "tags": ["owner:analytics", "severity:low"],
            "parameters": {"days": 3},
            "work_pool": {"name": "omni", "job_variables": {"env": {"A": "b"}}},
            "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
            "schedules": [
                {
                    "cron": "0 2 * * *",
                    "timezone": "Europe/Berlin",
                    "slug": "tally-demo",
                    "parameters": {"tenant": "demo"},
                }
            ],
        }
    ],
}

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that is right."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "tally_things.py").write_text(FLOW)
    write(tmp_path, DOCUMENT)
    return tmp_path


def write(project: Path, document: dict[str, Any]) -> None:
    (project / "prefect.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


def first(document: dict[str, Any]) -> dict[str, Any]:
    deployment: dict[str, Any] = document["deployments"][0]
    return deployment


def night(document: dict[str, Any]) -> dict[str, Any]:
    schedule: dict[str, Any] = first(document)["schedules"][0]
    return schedule


def test_a_right_project_has_no_problem(project: Path) -> None:
    assert check.problems(project) == []


CHANGES: dict[str, tuple[Change, str]] = {
    "bad cron": (lambda d: night(d).update(cron="0 25 * * *"), "tally-demo"),
    "no such zone": (lambda d: night(d).update(timezone="Europe/Berln"), "tally-demo"),
    "no zone": (lambda d: night(d).pop("timezone"), "runs in UTC"),
    "no slug": (lambda d: night(d).pop("slug"), "no slug"),
    "cron and interval": (lambda d: night(d).update(interval=60), "Exactly one"),
    "schedule without tenant": (lambda d: night(d).pop("parameters"), "needs tenant"),
    "unknown schedule parameter": (lambda d: night(d)["parameters"].update(dayz=1), "did you mean 'days'"),
    "wrong schedule parameter": (lambda d: night(d)["parameters"].update(days="many"), "days"),
    "constraint broken": (lambda d: night(d)["parameters"].update(days=0), "greater than or equal to 1"),
    "schedule twice": (lambda d: first(d)["schedules"].append(night(d)), "more than one schedule"),
    "unknown parameter": (lambda d: first(d)["parameters"].update(tenantt="x"), "did you mean 'tenant'"),
    "wrong parameter": (lambda d: first(d)["parameters"].update(full="perhaps"), "boolean"),
    "no work pool": (lambda d: first(d).pop("work_pool"), "no work_pool"),
    "unnamed work pool": (lambda d: first(d)["work_pool"].pop("name"), "no work_pool"),
    "unknown job variable": (
        lambda d: first(d)["work_pool"]["job_variables"].update(working_directory="/x"),
        "did you mean 'working_dir'",
    ),
    "unset variable": (
        lambda d: first(d)["work_pool"]["job_variables"].update(working_dir="{{ $OMNI_NOT_SET }}"),
        "$OMNI_NOT_SET is not set",
    ),
    "unknown strategy": (
        lambda d: first(d)["concurrency_limit"].update(collision_strategy="ENQUE"),
        "did you mean 'ENQUEUE'",
    ),
    "no strategy": (lambda d: first(d)["concurrency_limit"].pop("collision_strategy"), "collision_strategy"),
    "limit of none": (lambda d: first(d)["concurrency_limit"].update(limit=0), "at least 1"),
    "no owner": (lambda d: first(d).update(tags=["severity:low"]), "no owner"),
    "no severity": (lambda d: first(d).update(tags=["owner:analytics", "severity:huge"]), "no severity"),
    "no name": (lambda d: first(d).pop("name"), "no name"),
    "same name twice": (lambda d: d["deployments"].append({**first(d), "schedules": []}), "this name"),
    "no entrypoint": (lambda d: first(d).pop("entrypoint"), "entrypoint"),
    "no such file": (lambda d: first(d).update(entrypoint="flows/talley.py:tally"), "does not exist"),
    "no such flow": (lambda d: first(d).update(entrypoint="flows/tally_things.py:count"), "not found"),
    "no such step": (lambda d: d.update(pull=[{"deployments.steps.enter": {}}]), "cannot be imported"),
    "wrong step input": (
        lambda d: d.update(pull=[{"deployments.steps.enter_project": {"folder": "x"}}]),
        "unexpected keyword argument 'folder'",
    ),
    "wrong trigger": (lambda d: first(d).update(triggers=[{"type": "event", "within": "x"}]), "triggers[1]"),
    "deployments are no list": (lambda d: d.update(deployments={}), "list of deployments"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_mistake_is_named(project: Path, name: str) -> None:
    change, expected = CHANGES[name]
    document = copy.deepcopy(DOCUMENT)
    change(document)
    write(project, document)
    assert any(expected in problem for problem in check.problems(project)), check.problems(project)


def keys(node: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Paths of all keys whose names Prefect gives."""
    free = {"definitions", "env", "parameters", "pull"}
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*path, key)
            if key not in free:
                yield from keys(value, (*path, key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from keys(value, (*path, number))


@pytest.mark.parametrize("path", list(keys(DOCUMENT)), ids=lambda path: ".".join(map(str, path)))
def test_every_misspelt_key_is_found(project: Path, path: tuple[str | int, ...]) -> None:
    document = copy.deepcopy(DOCUMENT)
    owner: Any = document
    for part in path[:-1]:
        owner = owner[part]
    right = str(path[-1])
    owner[right + "z"] = owner.pop(right)
    write(project, document)
    found = " ".join(check.problems(project))
    if path == ("deployments",):
        assert "list of deployments" in found
    else:
        assert f"unknown key '{right}z'; did you mean '{right}'" in found


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import a_module_that_is_not_there\n" + FLOW, "ModuleNotFoundError"),
        ("raise RuntimeError('at import')\n" + FLOW, "at import"),
        (FLOW.replace("@flow\n", ""), "not a flow"),
        (
            FLOW + "\n@flow(name='more')\ndef more() -> None:\n    return None\n",
            "tally_things.py:more: this flow has no deployment",
        ),
        ("def tally(:", "SyntaxError"),
    ],
    ids=["missing module", "fails at import", "no decorator", "another flow", "no Python"],
)
def test_a_flow_that_cannot_run_is_named(project: Path, code: str, expected: str) -> None:
    (project / "flows" / "tally_things.py").write_text(code)
    assert any(expected in problem for problem in check.problems(project)), check.problems(project)


@pytest.mark.parametrize("name", ["email", "polars"])
def test_a_file_named_like_a_library_is_refused(project: Path, name: str) -> None:
    (project / "flows" / "tally_things.py").rename(project / "flows" / f"{name}.py")
    document = copy.deepcopy(DOCUMENT)
    first(document)["entrypoint"] = f"flows/{name}.py:tally"
    write(project, document)
    assert check.problems(project) == [
        f"flows/{name}.py: hides the module {name!r} of the same name; rename the file"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("deployments: [", "prefect.yaml"),
        ("- a\n", "mapping"),
        ("name: a\nname: b\ndeployments: []\n", "given twice"),
    ],
    ids=["no YAML", "no mapping", "a key twice"],
)
def test_a_file_that_cannot_be_read_is_named(project: Path, text: str, expected: str) -> None:
    (project / "prefect.yaml").write_text(text)
    assert any(expected in problem for problem in check.problems(project))


def test_a_missing_file_is_named(project: Path) -> None:
    (project / "prefect.yaml").unlink()
    assert "prefect.yaml" in check.problems(project)[0]
