"""Who may read the control database's files: their owner."""

from __future__ import annotations

import os
import stat

import pytest
import sqlalchemy as sa

from omni.control import database
from omni.security.hashing import master_key
from omni.settings import settings


@pytest.fixture(autouse=True)
def _usual_umask(home):
    before = os.umask(0o022)
    yield
    os.umask(before)
    database.close()


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_state_folder_and_all_of_its_database_are_the_owners(home, monkeypatch):
    monkeypatch.delenv("OMNI_SECRET_KEY")
    settings.cache_clear()
    master_key()
    with database.session() as opened:
        opened.execute(sa.text("DELETE FROM tenant_keys"))
        assert {path.name: mode(path) for path in home.iterdir()} == {
            "keys": 0o700,
            "control.db": 0o600,
            "control.db-wal": 0o600,
            "control.db-shm": 0o600,
        }
    assert mode(home) == 0o700


def test_a_database_that_is_there_keeps_the_permissions_it_was_given(home, monkeypatch):
    file = home.parent / "shared.db"
    file.touch(0o640)
    monkeypatch.setenv("OMNI_CONTROL_URL", f"sqlite:///{file}")
    settings.cache_clear()
    database.engine()
    assert mode(file) == 0o640
