"""Sealed secrets: they open where they belong and nowhere else, also after the master key changed."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni.errors import ConfigError
from omni.security.vault import Vault, pack, unpack
from omni.settings import settings


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("OMNI_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("OMNI_SECRET_KEY", "k" * 40)
    monkeypatch.delenv("OMNI_OLD_SECRET_KEYS", raising=False)
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def secret_key(monkeypatch):
    """Change the master key: `secret_key("new", old=["earlier"])`; None: the one in the state folder."""

    def change(value, old=()):
        monkeypatch.delenv("OMNI_SECRET_KEY", raising=False)
        if value is not None:
            monkeypatch.setenv("OMNI_SECRET_KEY", value)
        monkeypatch.setenv("OMNI_OLD_SECRET_KEYS", json.dumps(list(old)))
        settings.cache_clear()

    return change


@given(st.binary(max_size=300), st.text(max_size=20))
def test_a_secret_opens_under_its_name(secret, name):
    vault = Vault("acme")
    sealed = vault.seal(secret, purpose="oauth", name=name)
    assert vault.open(sealed, purpose="oauth", name=name) == secret
    assert vault.seal(secret, purpose="oauth", name=name) != sealed


@given(st.binary(min_size=8, max_size=80))
def test_it_hides_what_it_holds(secret):
    vault = Vault("acme")
    assert secret not in vault.seal(secret, purpose="oauth", name="hubspot")
    assert "k" * 8 not in repr(vault)


@pytest.mark.parametrize(
    ("tenant", "purpose", "name"),
    [("other", "oauth", "hubspot"), ("acme", "keys", "hubspot"), ("acme", "oauth", "shopify")],
)
def test_it_does_not_open_elsewhere(tenant, purpose, name):
    sealed = Vault("acme").seal(b"secret", purpose="oauth", name="hubspot")
    with pytest.raises(ConfigError, match="damaged or belongs elsewhere"):
        Vault(tenant).open(sealed, purpose=purpose, name=name)


@given(st.data())
def test_a_changed_byte_is_noticed(data):
    vault = Vault("acme")
    sealed = bytearray(vault.seal(b"a secret", purpose="oauth", name="hubspot"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ConfigError):
        vault.open(bytes(sealed), purpose="oauth", name="hubspot")


@pytest.mark.parametrize("sealed", [b"", b"\x01", b"\x02" + bytes(40), bytes(10)])
def test_what_was_never_sealed_is_refused(sealed):
    with pytest.raises(ConfigError, match="Restore it from a backup"):
        Vault("acme").open(sealed, purpose="oauth", name="hubspot")


def test_a_wrong_master_key_is_named_without_showing_it(secret_key):
    sealed = Vault("acme").seal(b"secret", purpose="oauth", name="hubspot")
    secret_key("l" * 40)
    with pytest.raises(
        ConfigError, match=r"another master key .* OMNI_SECRET_KEY .* OMNI_OLD_SECRET_KEYS"
    ) as it:
        Vault("acme").open(sealed, purpose="oauth", name="hubspot")
    assert not re.search("[kl]{8}", str(it.value))


def test_an_earlier_master_key_still_opens_and_what_is_sealed_anew_uses_the_present_one(secret_key):
    sealed = Vault("acme").seal(b"secret", purpose="oauth", name="hubspot")
    secret_key("l" * 40, old=["m" * 40, "k" * 40])
    vault = Vault("acme")
    assert vault.open(sealed, purpose="oauth", name="hubspot") == b"secret"
    assert not vault.current(sealed)
    again = vault.seal(b"secret", purpose="oauth", name="hubspot")
    assert vault.current(again)
    secret_key("l" * 40)
    assert Vault("acme").open(again, purpose="oauth", name="hubspot") == b"secret"


def test_the_key_of_the_state_folder_still_opens_after_a_secret_key_was_set(secret_key):
    secret_key(None)
    sealed = Vault("acme").seal(b"secret", purpose="oauth", name="hubspot")
    secret_key("l" * 40)
    assert Vault("acme").open(sealed, purpose="oauth", name="hubspot") == b"secret"


def test_a_list_of_keys_that_is_no_json_is_explained(monkeypatch):
    monkeypatch.setenv("OMNI_OLD_SECRET_KEYS", "not json")
    settings.cache_clear()
    with pytest.raises(ConfigError, match=r"old_secret_keys.*written as JSON") as error:
        settings()
    assert "not json" not in str(error.value)


@given(st.dictionaries(st.text(), st.none() | st.text()))
def test_values_survive_packing(values):
    assert unpack(pack(values)) == values
