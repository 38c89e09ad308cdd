"""An account connected by `omni connect` comes before settings and before the sandbox company."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from omni.control import database
from omni.settings import settings
from omni.sources.oauth import Client, Tokens
from omni.sources.oauth_store import StoredLogin, keep
from tasks.connections import connected, connection


@pytest.fixture(autouse=True)
def _state(home, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("OMNI_SHOPIFY__BASE_URL", "https://settings.myshopify.com")
    monkeypatch.setenv("OMNI_SHOPIFY__TOKEN", "token-of-settings")
    settings.cache_clear()
    yield
    database.close()


@pytest.mark.parametrize("company", [None, "demo"])
def test_a_stored_account_is_the_one_that_is_read(tenant, company):
    ours = tenant.model_copy(update={"sources": {"shopify": ["orders"]}, "company": company})
    tokens = Tokens(SecretStr("stored-token"), "https://stored.myshopify.com")
    keep("acme", "shopify", "https://stored.myshopify.com", Client("app-1"), tokens)
    with connected(ours):
        found = connection("acme", "shopify")
        assert found.base_url == "https://stored.myshopify.com"
        assert found.login == StoredLogin("acme", "shopify")
        assert found.login.access().token.get_secret_value() == "stored-token"


def test_without_one_the_settings_count(tenant):
    ours = tenant.model_copy(update={"sources": {"shopify": ["orders"]}, "company": None})
    with connected(ours):
        assert connection("acme", "shopify").base_url == "https://settings.myshopify.com"
