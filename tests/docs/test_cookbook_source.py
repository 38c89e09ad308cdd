"""The cookbook `add-a-source` is true: its files, taken from the page, make two vendors that load."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from omni.settings import PROJECT

COOKBOOK = PROJECT / "docs" / "cookbooks" / "add-a-source.md"
BLOCK = re.compile(r"^`([\w./-]+)`[^\n]*:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COPIED = ("omni", "blocks", "tasks", "data", "tests/support")
SINGLE = (
    "pyproject.toml",
    "prefect.toml",
    "docs/sources.md",
    "tests/conftest.py",
    "tests/sources/conftest.py",
    "tests/sources/test_rest_reading.py",
    "tests/blocks/test_blocks.py",
)
MOST_LINES = 111


def shown() -> tuple[dict[str, str], dict[str, str]]:
    """The files of the declaration and those of the vendor, by path."""
    parts = COOKBOOK.read_text("utf-8").split("\n## ")
    declaration, vendor = (dict(BLOCK.findall(part)) for part in parts[1:])
    assert {path.split("/")[0] for path in declaration} == {"data"}
    return declaration, vendor


def lines(text: str) -> int:
    return sum(bool(line.strip()) for line in text.splitlines())


def test_a_declaration_is_below_twenty_lines():
    declaration, _ = shown()
    assert lines(declaration["data/rest/surveys.yml"]) < 20


def test_a_vendor_is_seven_files_of_about_a_hundred_lines():
    _, found = shown()
    assert len(found) == 7
    assert sum(map(lines, found.values())) <= MOST_LINES
    assert (
        max(len(line) for path in found if path.endswith(".py") for line in found[path].splitlines()) <= 110
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project with the page's files in it."""
    root = tmp_path_factory.mktemp("project")
    for folder in COPIED:
        shutil.copytree(PROJECT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "var"))
    for name in SINGLE:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, root / name)
    for files in shown():
        for name, text in files.items():
            with (root / name).open("a", encoding="utf-8") as file:  # a file that exists takes lines more
                file.write(text)
    shutil.copy(
        Path(__file__).with_name("cookbook_checks.py"), root / "tests/sources/test_cookbook_checks.py"
    )
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen",
    [
        ["tests/sources/test_helpdesk.py"],
        ["tests/sources/test_cookbook_checks.py"],
        ["tests/blocks/test_blocks.py", "-k", "Helpdesk or helpdesk"],
    ],
    ids=["its own test", "loading and the command", "its block"],
)
def test_what_it_shows_works(project, chosen):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OMNI_", "PREFECT_"))}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *chosen],
        cwd=project,
        env=env | {"PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.slow
def test_its_code_is_in_the_houses_style(project):
    code = [path for path in shown()[1] if path.endswith(".py")]
    for command in (["check"], ["format", "--check"]):
        ended = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", *code],
            cwd=project,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
