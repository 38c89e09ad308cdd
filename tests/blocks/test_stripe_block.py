"""A Stripe account: its connected account travels as an option, and its key does not show."""

from __future__ import annotations

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr, ValidationError

from blocks.stripe import Stripe
from omni.settings import settings
from omni.tenancy import Tenant
from tasks import connections

TOKEN = "not-a-real-key"


def test_a_connected_account_is_an_option() -> None:
    block = Stripe(token=SecretStr(TOKEN), account="acct_1A", base_url="https://api.example.com/")
    opened = block.connection()
    assert (opened.vendor, opened.base_url) == ("stripe", "https://api.example.com")
    assert (dict(opened.options), opened.requests_per_10s) == ({"account": "acct_1A"}, 1_000)
    assert TOKEN not in repr(block) + str(block.model_dump()) + repr(opened)
    assert Stripe(token=SecretStr(TOKEN)).connection().options == {}


@pytest.mark.parametrize("account", ["1A", "acct_", "acct_1\r\nX-Other: 1", "acct_1 "])
def test_what_is_no_account_is_refused(account: str) -> None:
    with pytest.raises(ValidationError):
        Stripe(token=SecretStr(TOKEN), account=account)


def test_settings_name_the_account_too(home: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNI_STRIPE__BASE_URL", "https://api.example.com")
    monkeypatch.setenv("OMNI_STRIPE__TOKEN", TOKEN)
    monkeypatch.setenv("OMNI_STRIPE__ACCOUNT", "acct_1A")
    monkeypatch.setenv("OMNI_STRIPE__REQUESTS_PER_10S", "250")
    settings.cache_clear()
    tenant = Tenant(tenant="real", title="R", timezone="UTC", currency="EUR", sources={"stripe": ["charges"]})
    with temporary_settings({PREFECT_API_URL: None}), connections.connected(tenant):
        opened = connections.connection("real", "stripe")
    assert opened.token.get_secret_value() == TOKEN
    assert (dict(opened.options), opened.requests_per_10s) == ({"account": "acct_1A"}, 250)
