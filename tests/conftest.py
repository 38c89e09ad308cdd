"""Fixtures for every area: a state folder of its own for each test, declarations on demand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from omni.settings import settings
from omni.tenancy import Tenant

TEST_KEY = "a key for tests, long enough to pass the minimum"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty state folder and a fixed secret, so that hashes compare between runs."""
    monkeypatch.setenv("OMNI_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("OMNI_SECRET_KEY", TEST_KEY)
    settings.cache_clear()
    yield tmp_path / "state"
    settings.cache_clear()


@pytest.fixture
def tenant() -> Tenant:
    """A tenant for tests that need no source."""
    return Tenant(
        tenant="acme", title="Acme", timezone="Europe/Berlin", currency="EUR", company="demo", sources={}
    )
