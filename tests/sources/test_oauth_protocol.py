"""What is asked of an authorization server, how its answers are taken, and that no secret gets out."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
import shopify
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from omni.errors import AuthError, ConfigError, OmniError, SourceError, TransientError
from omni.sources.oauth import (
    JWT_GRANT,
    AppLogin,
    Client,
    Consent,
    NeedsConsent,
    Tokens,
    code_from,
    consent_url,
    exchange,
    obtain,
    revoke,
)
from omni.sources.oauth_providers import PROVIDERS, provider_of

SECRET = "client-secret-0123456789"
CLIENT = Client("app-1", secret=SecretStr(SECRET))
CONSENT = Consent("http://127.0.0.1:5000/callback")
NOW = datetime(2026, 5, 1, tzinfo=UTC)


def held(**changes):
    """Tokens as they were given an hour ago."""
    first = Tokens(SecretStr("access-0-secret"), "https://api.hubapi.com", SecretStr("refresh-0-secret"))
    return replace(first, **changes)


def parameters(url):
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


@pytest.fixture(scope="module")
def rsa_key():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return SecretStr(pem.decode()), key.public_key()


def test_the_challenge_is_that_of_rfc_7636():
    consent = Consent("http://127.0.0.1", verifier="dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
    assert consent.challenge == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@pytest.mark.parametrize("vendor", list(PROVIDERS))
def test_the_consent_page_is_told_what_it_needs_and_no_secret(vendor):
    provider = provider_of(vendor, PROVIDERS[vendor].hint)
    url = consent_url(provider, CLIENT, CONSENT)
    asked = parameters(url)
    assert asked["state"] == CONSENT.state
    assert asked["redirect_uri"] == CONSENT.redirect_uri
    assert asked["scope"] == provider.scopes
    assert (asked.get("code_challenge_method") == "S256") == provider.pkce
    assert SECRET not in url
    assert CONSENT.verifier not in url
    assert CONSENT.state not in repr(CONSENT)
    assert CONSENT.verifier not in repr(CONSENT)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({}, "does not belong to this attempt"),
        ({"state": "another", "code": "c"}, "does not belong to this attempt"),
        ({"state": CONSENT.state, "error": "access_denied"}, "consent was refused"),
        ({"state": CONSENT.state, "error": "server\nerror"}, "the server says server error"),
        ({"state": CONSENT.state}, "carries no code"),
    ],
)
def test_a_redirect_that_is_none_of_ours_or_a_refusal_gives_no_code(answer, message):
    with pytest.raises(AuthError, match=message):
        code_from(provider_of("hubspot"), CLIENT, CONSENT, answer)


@given(st.text(max_size=60))
def test_only_the_very_state_is_taken(state):
    if state != CONSENT.state:
        with pytest.raises(AuthError):
            code_from(provider_of("hubspot"), CLIENT, CONSENT, {"state": state, "code": "c"})


def signed_by_shopify(**answer):
    shopify.Session.setup(api_key="app-1", secret=SECRET)
    return answer | {"hmac": shopify.Session.calculate_hmac(answer)}


def test_shopifys_signature_is_checked_as_its_own_library_makes_it():
    provider = provider_of("shopify", "https://acme.myshopify.com")
    answer = signed_by_shopify(
        state=CONSENT.state, code="c-1", shop="acme.myshopify.com", timestamp="1790000000"
    )
    assert code_from(provider, CLIENT, CONSENT, answer) == "c-1"
    for wrong in (answer | {"code": "c-2"}, answer | {"hmac": ""}, answer | {"more": "1"}):
        with pytest.raises(AuthError, match="signature"):
            code_from(provider, CLIENT, CONSENT, wrong)


def test_a_code_is_exchanged_with_its_proof(serve, answering):
    server = serve(lambda _: answering({"access_token": "a1", "refresh_token": "r1", "expires_in": 1800}))
    tokens = exchange(provider_of("hubspot", server.url), CLIENT, CONSENT, "the-code")
    (asked,) = server.asked
    assert asked.target == "/oauth/2026-09/token"
    assert asked.body == {
        "grant_type": "authorization_code",
        "code": "the-code",
        "redirect_uri": CONSENT.redirect_uri,
        "code_verifier": CONSENT.verifier,
        "client_id": "app-1",
        "client_secret": SECRET,
    }
    assert tokens.access.get_secret_value() == "a1"
    assert tokens.expires_at - tokens.issued_at == timedelta(seconds=1800)
    assert "a1" not in repr(tokens)


def test_a_refresh_keeps_the_refresh_token_unless_a_new_one_comes(serve, answering):
    answers = [{"access_token": "a1"}, {"access_token": "a2", "refresh_token": "r2"}]
    server = serve(lambda _: answering(answers[len(server.asked) - 1]))
    provider = provider_of("hubspot", server.url)
    first = obtain(provider, CLIENT, held())
    assert first.refresh.get_secret_value() == "refresh-0-secret"
    assert first.expires_at - first.issued_at == timedelta(seconds=1800)
    assert obtain(provider, CLIENT, first).refresh.get_secret_value() == "r2"
    assert server.asked[0].body["grant_type"] == "refresh_token"


def test_client_credentials_go_into_the_form_or_a_basic_header(serve, answering):
    server = serve(lambda _: answering({"access_token": "a1", "expires_in": "86399"}))
    client = Client("app:1", "client_credentials", SecretStr("s/1"))
    provider = provider_of("shopify", server.url)
    obtain(provider, client)
    obtain(replace(provider, basic=True), client)
    form, basic = server.asked
    assert form.body == {"grant_type": "client_credentials", "client_id": "app:1", "client_secret": "s/1"}
    assert basic.body == {"grant_type": "client_credentials"}
    assert base64.b64decode(basic.headers["authorization"].split()[1]) == b"app%3A1:s%2F1"


def test_a_jwt_says_who_for_whom_and_until_when(serve, answering, rsa_key):
    private, public = rsa_key
    answer = {"access_token": "a1", "instance_url": "https://acme.my.salesforce.com/", "token_type": "Bearer"}
    server = serve(lambda _: answering(answer))
    client = Client("app-1", "jwt_bearer", private_key=private, user="ann@example.com")
    tokens = obtain(provider_of("salesforce", server.url), client)
    (asked,) = server.asked
    assert asked.body["grant_type"] == JWT_GRANT
    assert set(asked.body) == {"grant_type", "assertion"}
    claims = jwt.decode(
        asked.body["assertion"], public, algorithms=["RS256"], audience="https://login.salesforce.com"
    )
    assert (claims["iss"], claims["sub"]) == ("app-1", "ann@example.com")
    assert 170 < claims["exp"] - datetime.now(UTC).timestamp() <= 180
    assert tokens.base_url == "https://acme.my.salesforce.com"
    assert "PRIVATE" not in repr(client)


@pytest.mark.parametrize(
    "key", ["", "no key", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----"]
)
def test_a_broken_private_key_is_not_quoted(key):
    client = Client("app-1", "jwt_bearer", private_key=SecretStr(key), user="ann")
    with pytest.raises(ConfigError, match="no unencrypted RSA key") as error:
        obtain(provider_of("salesforce"), client)
    assert "c2VjcmV0" not in f"{error.value!r}{error.value.__cause__!r}"


@pytest.mark.parametrize(
    "site", ["https://test.salesforce.com", "https://acme--dev.sandbox.my.salesforce.com"]
)
def test_a_salesforce_sandbox_is_addressed_as_such(site):
    assert provider_of("salesforce", site).audience == "https://test.salesforce.com"


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (
            400,
            {"error": "invalid_grant", "error_description": "expired"},
            NeedsConsent,
            "invalid_grant: expired",
        ),
        (401, {"error": "invalid_client"}, AuthError, "Check client id and secret"),
        (400, {"status": "BAD_REFRESH_TOKEN", "message": "missing"}, NeedsConsent, "BAD_REFRESH_TOKEN"),
        (302, {}, AuthError, "HTTP 302"),
        (403, b"<html>no</html>", AuthError, "HTTP 403"),
        (200, b"<html>hello</html>", SourceError, "no JSON object"),
        (200, [1], SourceError, "no JSON object"),
        (200, {"token": "x"}, SourceError, "no access token"),
        (200, {"access_token": "two words"}, SourceError, "no access token"),
        (200, {"access_token": "a", "expires_in": "soon"}, SourceError, "lifetime"),
        (200, {"access_token": "a", "expires_in": -5}, SourceError, "lifetime"),
        (200, {"access_token": "a", "instance_url": "http://elsewhere.example"}, ConfigError, "https"),
    ],
)
def test_answers_that_cannot_be_used_are_explained(serve, answering, status, body, kind, message):
    server = serve(lambda _: answering(body, status))
    with pytest.raises(kind, match=message):
        obtain(provider_of("hubspot", server.url), CLIENT, held())
    assert len(server.asked) == 1


def test_a_server_that_fails_is_asked_again_within_bounds(serve, answering):
    server = serve(lambda _: answering({}, 503, {"Retry-After": "0"}))
    with pytest.raises(TransientError, match="HTTP 503; gave up after 4 tries"):
        obtain(provider_of("hubspot", server.url), CLIENT, held())
    assert len(server.asked) == 4


def test_a_throttled_server_is_asked_again(serve, answering):
    answers = [({}, 429, {"Retry-After": "0"}), ({"access_token": "a1"}, 200, {})]
    server = serve(lambda _: answering(*answers[len(server.asked) - 1]))
    assert obtain(provider_of("hubspot", server.url), CLIENT, held()).access.get_secret_value() == "a1"


def test_a_code_whose_answer_got_lost_is_not_sent_again(serve, answering):
    server = serve(lambda _: answering({"access_token": "a1"}, cut=True))
    with pytest.raises(TransientError, match="gave up after 1 tries"):
        exchange(provider_of("hubspot", server.url), CLIENT, CONSENT, "the-code")
    assert len(server.asked) == 1


@pytest.mark.slow
def test_a_refresh_whose_answer_got_lost_is_repeated(serve, answering):
    server = serve(lambda _: answering({"access_token": "a1"}, cut=len(server.asked) == 1))
    assert obtain(provider_of("hubspot", server.url), CLIENT, held()).access.get_secret_value() == "a1"


def test_without_a_refresh_token_consent_is_needed():
    with pytest.raises(NeedsConsent, match="no refresh token"):
        obtain(provider_of("stripe"), CLIENT, held(refresh=None))


def test_nothing_secret_is_quoted_addressed_or_logged(serve, answering, caplog):
    """A server may quote what it was sent; that must not reach messages or logs."""
    caplog.set_level("DEBUG")

    def quoting(asked):
        return answering({"error": "invalid_grant", "error_description": f"unknown: {asked.body}"}, 400)

    server = serve(quoting)
    provider = provider_of("hubspot", server.url)
    texts = []
    for ask in (
        lambda: obtain(provider, CLIENT, held()),
        lambda: exchange(provider, CLIENT, CONSENT, "code-as-secret"),
        lambda: revoke(provider, CLIENT, held()),
    ):
        with pytest.raises(OmniError) as error:
            ask()
        texts += [str(error.value), repr(error.value)]
    texts += [record.getMessage() for record in caplog.records] + [asked.target for asked in server.asked]
    everything = "\n".join(texts)
    for secret in (SECRET, "refresh-0-secret", "access-0-secret", "code-as-secret", CONSENT.verifier):
        assert secret not in everything
    assert "unknown" in everything


def test_an_app_that_needs_no_person_asks_once_and_again_when_refused(serve, answering):
    server = serve(lambda _: answering({"access_token": f"a{len(server.asked)}", "expires_in": 3600}))
    login = AppLogin(provider_of("shopify", server.url), replace(CLIENT, grant="client_credentials"))
    first = login.access()
    assert login.access() == first
    assert login.renew(first.token).token.get_secret_value() == "a2"
    assert login.renew(first.token).token.get_secret_value() == "a2"
    assert len(server.asked) == 2
    assert "a2" not in repr(login)


@given(st.integers(1, 10**6), st.floats(0, 2))
def test_a_token_is_renewed_after_three_quarters_of_its_life(life, share):
    tokens = held(issued_at=NOW, expires_at=NOW + timedelta(seconds=life))
    moment = NOW + share * timedelta(seconds=life)
    assert tokens.fresh(moment) == (moment < NOW + 0.75 * timedelta(seconds=life))
    assert tokens.valid(moment) == (moment < NOW + timedelta(seconds=life))
    assert held().fresh(moment)


@pytest.mark.parametrize(
    ("vendor", "site", "message"),
    [
        ("zapier", None, "cannot be connected by OAuth. Known: hubspot"),
        ("shopify", None, "give --at https://acme.myshopify.com"),
        ("shopify", "acme.myshopify.com", "scheme and host"),
        ("shopify", "http://acme.myshopify.com", "reached by https"),
        ("salesforce", "https://user:pw@acme.my.salesforce.com", "scheme and host"),
    ],
)
def test_a_wrong_account_address_is_explained(vendor, site, message):
    with pytest.raises(ConfigError, match=message):
        provider_of(vendor, site)


def test_the_challenge_fits_the_verifier_of_each_attempt():
    one, two = Consent("http://127.0.0.1"), Consent("http://127.0.0.1")
    assert one.verifier != two.verifier
    digest = base64.urlsafe_b64decode(one.challenge + "=")
    assert digest == hashlib.sha256(one.verifier.encode()).digest()
