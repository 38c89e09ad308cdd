"""Keyed hashes: known vectors, tenants apart, one key per installation."""

from __future__ import annotations

import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni.errors import ConfigError, StorageError
from omni.security.hashing import Hasher, hkdf
from omni.settings import settings


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("OMNI_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("OMNI_SECRET_KEY", raising=False)
    settings.cache_clear()
    yield
    settings.cache_clear()


def test_hkdf_gives_the_vectors_of_rfc_5869():
    derived = hkdf(
        bytes.fromhex("0b" * 22),
        salt=bytes.fromhex("000102030405060708090a0b0c"),
        info=bytes.fromhex("f0f1f2f3f4f5f6f7f8f9"),
        length=42,
    )
    assert derived.hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    without_salt = hkdf(bytes.fromhex("0b" * 22), salt=b"", info=b"", length=42)
    assert without_salt.hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


def test_equal_values_join_whatever_their_case_and_padding():
    hasher = Hasher.for_tenant("acme")
    assert hasher.digest(" Ann@Example.COM ") == hasher.digest("ann@example.com")
    assert hasher.digest("ann@example.com") != hasher.digest("bob@example.com")
    assert hasher.digest("  ") is None
    assert hasher.digest(None) is None


def test_the_key_lasts_and_differs_between_tenants():
    first = Hasher.for_tenant("acme").digest("ann@example.com")
    assert first == Hasher.for_tenant("acme").digest("ann@example.com")
    assert first != Hasher.for_tenant("other").digest("ann@example.com")


def test_a_secret_key_takes_the_place_of_the_stored_one(monkeypatch):
    monkeypatch.setenv("OMNI_SECRET_KEY", "k" * 32)
    settings.cache_clear()
    first = Hasher.for_tenant("acme").digest("ann@example.com")
    assert not (settings().home / "keys").exists()
    monkeypatch.setenv("OMNI_SECRET_KEY", "l" * 32)
    settings.cache_clear()
    assert Hasher.for_tenant("acme").digest("ann@example.com") != first


def test_the_key_file_is_private_and_the_key_is_never_shown():
    hasher = Hasher.for_tenant("acme")
    path = settings().home / "keys" / "master.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for folder in (path.parent, settings().home):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert hasher.key.hex() not in repr(hasher)
    assert [file.name for file in path.parent.iterdir()] == ["master.key"]


def test_threads_that_start_together_agree_on_one_key():
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: Hasher.for_tenant("acme").key, range(32)))
    assert len(keys) == 1


@pytest.mark.slow
def test_processes_that_start_together_agree_on_one_key():
    code = "from omni.security.hashing import Hasher; print(Hasher.for_tenant('acme').digest('x'))"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(4)]
    assert len({process.communicate(timeout=60)[0] for process in running}) == 1


@pytest.mark.parametrize("content", ["", "abc", "zz" * 32, "ab" * 31])
def test_a_damaged_key_is_refused(content):
    path = settings().home / "keys" / "master.key"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ConfigError, match="Restore it from a backup"):
        Hasher.for_tenant("acme")


def test_a_state_folder_that_cannot_be_written_is_named():
    settings().home.parent.mkdir(exist_ok=True)
    settings().home.write_text("a file in the way")
    with pytest.raises(StorageError, match="OMNI_SECRET_KEY"):
        Hasher.for_tenant("acme")


@given(st.text())
def test_a_digest_is_hexadecimal_or_absent(value):
    digest = Hasher(b"k" * 32).digest(value)
    if value.strip():
        assert digest is not None
        assert len(bytes.fromhex(digest)) == 32
    else:
        assert digest is None
