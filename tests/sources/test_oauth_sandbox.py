"""Whole logins at the sandbox: consent, codes, proofs, rotation, and reading with what came of it."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
import shopify
import stripe
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr

from omni.control import database
from omni.errors import AuthError
from omni.sandbox.oauth import CLIENT_ID, STRIPE_CLIENT_ID
from omni.sandbox.process import running
from omni.sources import hubspot, shopify_calls
from omni.sources.http import Http
from omni.sources.oauth import (
    AppLogin,
    Client,
    Consent,
    NeedsConsent,
    code_from,
    consent_url,
    exchange,
    obtain,
    revoke,
)
from omni.sources.oauth_providers import provider_of
from omni.sources.oauth_store import find, keep, stored_connection

pytestmark = pytest.mark.slow
BACK = "http://127.0.0.1:9/callback"


@pytest.fixture(scope="module")
def sandbox():
    with running("demo", hubspot_per_10s=5_000) as started:
        yield started


@pytest.fixture
def act(sandbox):
    """Tell the authorization servers something; undone after the test."""

    def tell(**body):
        httpx.post(f"{sandbox.url}/_sandbox/oauth", json=body, trust_env=False).raise_for_status()

    yield tell
    tell(token_seconds=None, deny=0)
    httpx.delete(f"{sandbox.url}/_sandbox/fault", trust_env=False)


@pytest.fixture
def login(sandbox):
    """Consent to a vendor: the redirect's parameters, and what is needed to exchange its code."""

    def consent(vendor, **changes):
        provider = provider_of(vendor, sandbox.url)
        name = STRIPE_CLIENT_ID if vendor == "stripe" else CLIENT_ID
        client = replace(Client(name, secret=SecretStr(sandbox.token)), **changes)
        attempt = Consent(BACK)
        response = httpx.get(consent_url(provider, client, attempt), trust_env=False)
        assert response.status_code == 302, response.text
        answer = dict(parse_qsl(urlsplit(response.headers["location"]).query))
        return provider, client, attempt, answer

    return consent


def connected(login, vendor):
    provider, client, attempt, answer = login(vendor)
    return provider, client, exchange(provider, client, attempt, code_from(provider, client, attempt, answer))


@pytest.mark.parametrize("vendor", ["hubspot", "shopify", "stripe", "salesforce"])
def test_every_vendor_can_be_connected_and_renewed(login, sandbox, vendor):
    provider, client, tokens = connected(login, vendor)
    assert tokens.base_url == sandbox.url
    again = obtain(provider, client, tokens)
    assert again.access != tokens.access
    assert (again.refresh != tokens.refresh) == provider.rotates


def test_a_code_is_good_once_and_only_with_its_proof_and_address(login):
    provider, client, attempt, answer = login("hubspot")
    wrong = replace(attempt, verifier="another")
    with pytest.raises(NeedsConsent, match="code_verifier"):
        exchange(provider, client, wrong, answer["code"])
    for change in ({}, {"redirect_uri": "http://127.0.0.1:10/callback"}):
        provider, client, attempt, answer = login("hubspot")
        other = replace(attempt, **change)
        if not change:
            exchange(provider, client, attempt, answer["code"])
        with pytest.raises(NeedsConsent):
            exchange(provider, client, other, answer["code"])


def test_a_wrong_secret_and_a_refusal_are_told_apart(login, act):
    provider, client, attempt, answer = login("hubspot", secret=SecretStr("wrong-secret"))
    with pytest.raises(AuthError, match="Check client id and secret"):
        exchange(provider, client, attempt, answer["code"])
    act(deny=1)
    provider, client, attempt, answer = login("shopify")
    with pytest.raises(AuthError, match="consent was refused"):
        code_from(provider, client, attempt, answer)


def test_a_used_refresh_token_ends_all_that_came_of_the_consent(login, sandbox):
    provider, client, first = connected(login, "shopify")
    second = obtain(provider, client, first)
    assert ask_shop(sandbox, second).status_code == 200
    with pytest.raises(NeedsConsent, match="used before"):
        obtain(provider, client, first)
    assert ask_shop(sandbox, second).status_code == 401
    with pytest.raises(NeedsConsent):
        obtain(provider, client, second)


def test_a_lost_answer_costs_nothing_while_its_tokens_are_unused(login, sandbox, act):
    provider, client, first = connected(login, "shopify")
    fault = {"kind": "cut_body", "path": "access_token", "times": 1}
    httpx.post(f"{sandbox.url}/_sandbox/fault", json=fault, trust_env=False).raise_for_status()
    second = obtain(provider, client, first)
    assert ask_shop(sandbox, second).status_code == 200
    assert obtain(provider, client, second).refresh != second.refresh


def ask_shop(sandbox, tokens):
    return httpx.post(
        f"{sandbox.url}/admin/api/2026-10/graphql.json",
        json={"query": "{ shop { name } }"},
        headers={"X-Shopify-Access-Token": tokens.access.get_secret_value()},
        trust_env=False,
    )


def test_short_lives_end(login, sandbox, act):
    act(token_seconds=0.0)
    _, _, tokens = connected(login, "shopify")
    assert tokens.expires_at == tokens.issued_at
    assert ask_shop(sandbox, tokens).status_code == 401


def test_hubspot_tells_about_tokens_and_ends_them(login, sandbox):
    provider, client, tokens = connected(login, "hubspot")
    form = {"client_id": CLIENT_ID, "client_secret": sandbox.token, "token": tokens.access.get_secret_value()}

    def told():
        return httpx.post(f"{provider.tokens_at}/introspect", data=form, trust_env=False).json()

    assert told()["active"]
    assert 1700 < told()["expires_in"] <= 1800
    assert revoke(provider, client, tokens)
    assert told() == {"active": False}
    with pytest.raises(NeedsConsent):
        obtain(provider, client, tokens)


def test_an_app_gets_tokens_in_its_own_name(sandbox):
    client = Client(CLIENT_ID, "client_credentials", SecretStr(sandbox.token))
    tokens = obtain(provider_of("shopify", sandbox.url), client)
    assert tokens.refresh is None
    assert ask_shop(sandbox, tokens).status_code == 200


def test_salesforce_takes_a_signed_assertion_and_refuses_another_keys(sandbox):
    keys = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public = keys[0].public_key().public_bytes(serialization.Encoding.PEM, form).decode()
    body = {"action": "register", "client_id": "jwt-app", "public_key": public, "users": ["ann@example.com"]}
    httpx.post(f"{sandbox.url}/_sandbox/salesforce", json=body, trust_env=False).raise_for_status()
    provider = provider_of("salesforce", sandbox.url)

    def login(key, user):
        kind = serialization.PrivateFormat.PKCS8
        pem = key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption()).decode()
        return AppLogin(provider, Client("jwt-app", "jwt_bearer", private_key=SecretStr(pem), user=user))

    access = login(keys[0], "ann@example.com").access()
    query = {"q": "SELECT Id FROM Account LIMIT 1"}
    headers = {"Authorization": f"Bearer {access.token.get_secret_value()}"}
    url = f"{access.base_url}/services/data/v68.0/query"
    assert httpx.get(url, params=query, headers=headers, trust_env=False).json()["totalSize"] == 1
    for key, user in ((keys[1], "ann@example.com"), (keys[0], "bob@example.com")):
        with pytest.raises(NeedsConsent, match="invalid_grant"):
            login(key, user).access()


def test_shopify_without_expiring_gives_a_token_for_good(login):
    provider, client, attempt, answer = login("shopify")
    tokens = exchange(replace(provider, code_extra={}), client, attempt, answer["code"])
    assert (tokens.expires_at, tokens.refresh) == (None, None)


def test_shopifys_library_finds_the_redirects_signature_good(login, sandbox):
    shopify.Session.setup(api_key=CLIENT_ID, secret=sandbox.token)
    *_, answer = login("shopify")
    assert shopify.Session.validate_params(answer)
    assert not shopify.Session.validate_params(answer | {"code": "another"})


def test_stripes_library_connects_and_disconnects(login, sandbox):
    *_, answer = login("stripe")
    addresses = {"api": sandbox.url, "connect": sandbox.url}
    client = stripe.StripeClient(sandbox.token, client_id=STRIPE_CLIENT_ID, base_addresses=addresses)
    got = client.oauth.token({"grant_type": "authorization_code", "code": answer["code"]})
    assert got["access_token"].startswith("sk_test_")
    with pytest.raises(stripe.oauth_error.InvalidGrantError):
        client.oauth.token({"grant_type": "authorization_code", "code": answer["code"]})
    with pytest.raises(stripe.oauth_error.InvalidClientError):
        client.oauth.deauthorize({"stripe_user_id": "acct_other"})
    account = got["stripe_user_id"]
    assert client.oauth.deauthorize({"stripe_user_id": account})["stripe_user_id"] == account


@pytest.fixture
def stored(home, login, sandbox):
    """A connected account of the test's own control database."""

    def connect(vendor):
        _, client, tokens = connected(login, vendor)
        keep("acme", vendor, sandbox.url, client, tokens)
        return stored_connection("acme", vendor), tokens

    yield connect
    database.close()


def test_a_client_whose_token_is_refused_midway_goes_on_with_a_new_one(stored, act):
    connection, first = stored("hubspot")
    with Http(connection, hubspot.DIALECT) as http:
        path = f"/crm/objects/{hubspot.VERSION}/contacts"
        before = http.get(path, {"limit": "2"})
        act(expire=True)
        assert http.get(path, {"limit": "2"}) == before
    assert find("acme", "hubspot").tokens.access != first.access


def test_a_token_that_ended_is_renewed_before_it_is_used(stored, act):
    act(token_seconds=0.0)
    connection, _ = stored("shopify")
    act(token_seconds=None)
    with Http(connection, shopify_calls.DIALECT) as http:
        answer = http.post("/admin/api/2026-10/graphql.json", {"query": "{ shop { name } }"})
    assert answer["data"]["shop"]["name"]
    assert find("acme", "shopify").renewals == 1
