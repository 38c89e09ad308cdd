"""Every vendor is whole: module, block, account, contracts, views, tests, documentation."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks.lookup import ELSEWHERE, account_block, block_types
from omni.control import database
from omni.settings import PROJECT, settings, variables_of
from omni.sources import rest
from omni.sources.vendors import NAMES, vendor_named
from omni.tenancy import Tenant
from tasks.connections import connected, connection


def _support():
    path = PROJECT / "tests" / "support" / "pieces.py"
    spec = importlib.util.spec_from_file_location("support_pieces", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pieces = _support()
OWN = [name for name in NAMES if name not in pieces.WITHOUT_ACCOUNT]
ALL = pieces.vendors(PROJECT)
ADDRESSES = {"mongodb": "mongodb://db.example/shop", "firestore": "firestore://my-project"}
PARTS = ("omni/sources", "blocks", "data/contracts/raw", "data/models/staging", "data/rest", "tests/sources")


@pytest.mark.parametrize("vendor", ALL)
def test_nothing_is_missing(vendor):
    assert pieces.missing_pieces(PROJECT, vendor) == []


def test_every_vendor_is_looked_at():
    assert sorted([*OWN, *rest.declarations()]) == ALL
    assert {"hubspot", "shopify", "stripe", "salesforce", "files", "mongodb", "firestore", "feedback"} <= set(
        ALL
    )


@pytest.fixture
def alone(home, tmp_path, monkeypatch) -> Iterator[None]:
    """Accounts by settings alone: no server that could hold blocks."""
    for name in OWN:
        address = ADDRESSES.get(name, str(tmp_path) if name == "files" else f"https://{name}.example")
        monkeypatch.setenv(f"{variables_of(name)}BASE_URL", address)
        if name != "files":
            monkeypatch.setenv(f"{variables_of(name)}TOKEN", "token-for-tests")
    for api in rest.declarations().values():
        monkeypatch.setenv(f"{api.variable}TOKEN", "token-for-tests")
    settings.cache_clear()
    with temporary_settings({PREFECT_API_URL: None}):
        yield
    database.close()


@pytest.mark.parametrize("vendor", ALL)
def test_its_functions_load_and_its_account_is_reached(alone, vendor):
    found = vendor_named(vendor)
    assert found.name == vendor
    assert all(map(callable, (found.open, found.check, found.count, found.read)))
    if vendor in OWN:
        assert account_block(vendor) in block_types()
    tenant = Tenant(tenant="t", title="T", timezone="UTC", currency="EUR", sources={vendor: []})
    with connected(tenant):
        assert connection("t", vendor).vendor == vendor


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The pieces of all vendors, to take some away."""
    root = tmp_path_factory.mktemp("pieces")
    for part in PARTS:
        shutil.copytree(PROJECT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "docs").mkdir()
    shutil.copy(PROJECT / "docs" / "sources.md", root / "docs")
    return root


def without(path: Path, vendor: str, root: Path) -> list[str]:
    """What is missed while a file is away."""
    text = path.read_text("utf-8")
    path.unlink()
    try:
        assert vendor in pieces.vendors(root)
        return pieces.missing_pieces(root, vendor)
    finally:
        path.write_text(text, "utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("vendor", ALL)
def test_each_file_that_goes_is_named(copy, vendor):
    files = [*copy.glob(f"data/*/*/{vendor}__*"), copy / "docs" / "sources.md"]
    if vendor in OWN:
        files += [
            copy / "omni/sources" / f"{vendor}.py",
            copy / "blocks" / f"{ELSEWHERE.get(vendor, vendor)}.py",
        ]
    for path in files:
        missed = without(path, vendor, copy)
        assert any(line.startswith(f"{path.relative_to(copy)}:") for line in missed), path
    assert pieces.missing_pieces(copy, vendor) == []


@pytest.mark.parametrize("vendor", ALL)
def test_a_vendor_without_tests_is_named(copy, vendor):
    name = vendor if vendor in OWN else "rest"
    taken = {}
    for path in copy.glob(f"tests/sources/test_{name}*.py"):
        taken[path] = path.read_text("utf-8")
        path.unlink()
    missed = pieces.missing_pieces(copy, vendor)
    for path, text in taken.items():
        path.write_text(text, "utf-8")
    assert taken
    assert missed == [f"tests/sources/test_{name}.py: no test"]


def test_a_declaration_that_goes_is_named(copy):
    missed = without(copy / "data/rest/feedback.yml", "feedback", copy)
    assert "data/rest/feedback.yml" in missed[0]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("def count(", "def counts(", "count names count, which is not there"),
        ('    name="stripe",\n', '    name="strype",\n', "VENDOR is named 'strype'"),
        ("    read=read,\n", "", "VENDOR lacks read"),
        ("VENDOR: Vendor[Http] =", "VALUE: Vendor[Http] =", "no module with a VENDOR"),
    ],
)
def test_a_module_that_is_not_whole_says_what_it_lacks(copy, old, new, said):
    path = copy / "omni" / "sources" / "stripe.py"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    try:
        missed = pieces.missing_pieces(copy, "stripe")
    finally:
        path.write_text(text, "utf-8")
    assert any(line.startswith("omni/sources/stripe.py: ") and said in line for line in missed)


def test_a_block_of_another_slug_and_a_section_of_another_title_are_named(copy):
    for name, old, new in (
        ("blocks/stripe.py", "omni-stripe", "omni-strype"),
        ("docs/sources.md", "## Stripe\n", "## Strype\n"),
    ):
        path = copy / name
        text = path.read_text("utf-8")
        path.write_text(text.replace(old, new), "utf-8")
        missed = pieces.missing_pieces(copy, "stripe")
        path.write_text(text, "utf-8")
        assert [line.partition(":")[0] for line in missed] == [name]
