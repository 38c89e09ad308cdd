"""OAuth 2: asking an authorization server for tokens, in the ways vendors offer.

Authorization code with PKCE (RFC 7636), refresh with or without rotation, client credentials, and JWT
bearer (RFC 7523). Nothing is stored here, see `oauth_store`. Secrets go into forms and headers, never into
addresses; what a server says about an error is quoted without any secret it was sent.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import quote, urlencode

import httpx
from pydantic import SecretStr

from omni.errors import AuthError, ConfigError, SourceError, TransientError
from omni.settings import settings
from omni.sources.connection import Access
from omni.sources.http import retry_after
from omni.sources.oauth_providers import Provider, checked_site

ATTEMPTS = 4
BACKOFF, MAX_PAUSE = 0.5, 30.0
RENEW_AT = 0.75
"""The share of a token's life after which it is renewed."""
MAX_LIFE = 10 * 365 * 86_400
ASSERTION_SECONDS = 180
JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"

Grant = Literal["authorization_code", "client_credentials", "jwt_bearer"]


class NeedsConsent(AuthError):
    """The server will give no token any more until somebody consents again."""


@dataclass(frozen=True)
class Client:
    """Our app as the vendor knows it, and how it obtains tokens.

    Attributes:
        client_id: its public name.
        grant: the way.
        secret: its secret; None for an app without.
        private_key: PEM of an RSA key, for `jwt_bearer`.
        user: on whose behalf, for `jwt_bearer`.
    """

    client_id: str
    grant: Grant = "authorization_code"
    secret: SecretStr | None = None
    private_key: SecretStr | None = None
    user: str | None = None


@dataclass(frozen=True)
class Tokens:
    """What a server gave. Times are UTC; `expires_at` None: until it is refused."""

    access: SecretStr
    base_url: str
    refresh: SecretStr | None = None
    scope: str = ""
    issued_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    expires_at: datetime | None = None
    renewable_until: datetime | None = None

    def fresh(self, moment: datetime) -> bool:
        """Whether it has a good part of its life before it."""
        if self.expires_at is None:
            return True
        return moment < self.issued_at + RENEW_AT * (self.expires_at - self.issued_at)

    def valid(self, moment: datetime) -> bool:
        """Whether it has not ended yet."""
        return self.expires_at is None or moment < self.expires_at

    @property
    def given(self) -> Access:
        """The token as a client uses it."""
        return Access(self.access, self.base_url)


@dataclass(frozen=True)
class Consent:
    """One attempt to obtain consent: what must be the same when the redirect comes back."""

    redirect_uri: str
    state: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48), repr=False)

    @property
    def challenge(self) -> str:
        """The verifier's S256 challenge."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def consent_url(provider: Provider, client: Client, consent: Consent, scopes: str | None = None) -> str:
    """The address of the page where a person consents."""
    params = {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": consent.redirect_uri,
        "scope": provider.scopes if scopes is None else scopes,
        "state": consent.state,
        **provider.extra,
    }
    if provider.pkce:
        params |= {"code_challenge": consent.challenge, "code_challenge_method": "S256"}
    return f"{provider.consent_at}?{urlencode(params, quote_via=quote)}"


def code_from(provider: Provider, client: Client, consent: Consent, answer: Mapping[str, str]) -> str:
    """The code in a redirect's parameters.

    Raises:
        AuthError: consent was refused, or the redirect does not belong to this attempt.
    """
    if not hmac.compare_digest(answer.get("state", "").encode(), consent.state.encode()):
        raise AuthError(
            "The redirect does not belong to this attempt (its state differs); nothing was stored. "
            "Run the command again and use the page it opens."
        )
    if error := answer.get("error"):
        said = {"access_denied": "consent was refused"}.get(error, f"the server says {_plain(error)}")
        raise AuthError(f"{provider.title}: {said}; nothing was stored. Run the command again to retry.")
    if provider.signed and not _signature_holds(client, answer):
        raise AuthError(f"{provider.title}: the redirect's signature is wrong. Check the client secret.")
    if not (code := answer.get("code")):
        raise AuthError(f"{provider.title}: the redirect carries no code; nothing was stored.")
    return code


def _signature_holds(client: Client, answer: Mapping[str, str]) -> bool:
    """Shopify: hexadecimal HMAC of the other parameters, sorted, under the client secret."""
    text = urlencode(sorted((k, v) for k, v in answer.items() if k not in ("hmac", "signature")))
    secret = client.secret.get_secret_value() if client.secret else ""
    expected = hmac.digest(secret.encode(), text.encode(), "sha256").hex()
    return hmac.compare_digest(answer.get("hmac", "").encode(), expected.encode())


def exchange(provider: Provider, client: Client, consent: Consent, code: str) -> Tokens:
    """Tokens for a code, which is good once.

    Raises:
        NeedsConsent: the code is not good any more.
        AuthError, TransientError, SourceError: as `obtain`.
    """
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": consent.redirect_uri}
    if provider.pkce:
        form["code_verifier"] = consent.verifier
    return _tokens(provider, _ask(provider, client, form | dict(provider.code_extra), once=True), None)


def obtain(provider: Provider, client: Client, previous: Tokens | None = None) -> Tokens:
    """New tokens without a person: by the refresh token, or as the app itself.

    Raises:
        NeedsConsent: there is no refresh token, or it is not good any more.
        AuthError: the server does not accept the app.
        TransientError: the server cannot be reached or fails; tries are bounded.
        SourceError: its answer cannot be used.
    """
    if client.grant == "client_credentials":
        form = {"grant_type": "client_credentials"}
    elif client.grant == "jwt_bearer":
        form = {"grant_type": JWT_GRANT, "assertion": assertion(provider, client)}
    elif previous is not None and previous.refresh is not None:
        form = {"grant_type": "refresh_token", "refresh_token": previous.refresh.get_secret_value()}
    else:
        raise NeedsConsent(f"{provider.title}: the access token ended and there is no refresh token.")
    return _tokens(provider, _ask(provider, client, form), previous)


def revoke(provider: Provider, client: Client, tokens: Tokens) -> bool:
    """End the tokens at the vendor, if it offers that; returns whether it did.

    Raises:
        AuthError, TransientError, SourceError: as `obtain`.
    """
    if provider.revoke_at is None:
        return False
    token = (tokens.refresh or tokens.access).get_secret_value()
    _ask(provider, client, {"token": token}, url=provider.revoke_at)
    return True


def assertion(provider: Provider, client: Client) -> str:
    """A JWT that says who we are and for whom we act, good for three minutes.

    Raises:
        ConfigError: user or private key is missing, or it is no RSA key.
    """
    import jwt

    if provider.audience is None:
        raise ConfigError(f"{provider.title} knows no JWT bearer grant. Use another one.")
    if client.private_key is None or client.user is None:
        raise ConfigError(
            f"{provider.title}: a private key and the user's name are needed to sign in by JWT."
        )
    claims = {
        "iss": client.client_id,
        "sub": client.user,
        "aud": provider.audience,
        "exp": int(time.time()) + ASSERTION_SECONDS,
    }
    try:
        return jwt.encode(claims, client.private_key.get_secret_value(), algorithm="RS256")
    except (jwt.PyJWTError, ValueError, TypeError):
        # Without the cause: its text can quote the key.
        raise ConfigError(
            f"{provider.title}: the private key is no unencrypted RSA key in PEM form."
        ) from None


def _ask(
    provider: Provider,
    client: Client,
    form: Mapping[str, str],
    *,
    once: bool = False,
    url: str | None = None,
) -> dict[str, Any]:
    """Post a form to the server, repeated within bounds.

    `once`: what was sent may have been used up, so it is sent again only if it certainly did not arrive.
    """
    where = f"{provider.title} {(url or provider.tokens_at).rpartition('/')[2]}"
    headers, body = _identified(provider, client, form)
    target = httpx.URL(url or provider.tokens_at)
    local = target.host in ("localhost", "127.0.0.1", "::1")
    with httpx.Client(timeout=settings().http_timeout, trust_env=not local) as http:
        for attempt in range(1, ATTEMPTS + 1):
            wait = None
            try:
                response = http.post(target, data=body, headers=headers)
            except httpx.RequestError as error:
                # Only the kind: texts of protocol errors can quote what was sent.
                problem = f"the connection failed ({type(error).__name__})"
                again = not once or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            else:
                if response.status_code != 429 and response.status_code < 500:
                    return _judged(where, response, body)
                problem, again = f"HTTP {response.status_code}", True
                wait = retry_after(response.headers)
            if not again or attempt == ATTEMPTS:
                break
            jitter = random.uniform(0.5, 1.0)  # noqa: S311 (not a secret)
            time.sleep(min(wait if wait is not None else BACKOFF * 2.0 ** (attempt - 1) * jitter, MAX_PAUSE))
    raise TransientError(f"{where}: {problem}; gave up after {attempt} tries. Try again later.")


def _identified(
    provider: Provider, client: Client, form: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Headers and form with the app's own credentials."""
    headers, secret = (
        {"Accept": "application/json"},
        client.secret.get_secret_value() if client.secret else "",
    )
    if form.get("grant_type") == JWT_GRANT:
        return headers, dict(form)
    if provider.basic and secret:
        pair = f"{quote(client.client_id, safe='')}:{quote(secret, safe='')}"
        return headers | {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}, dict(form)
    return headers, {**form, "client_id": client.client_id} | ({"client_secret": secret} if secret else {})


def _judged(where: str, response: httpx.Response, sent: Mapping[str, str]) -> dict[str, Any]:
    """The answer's fields, or the error it stands for."""
    try:
        body = response.json() if response.content else {}
    except ValueError:
        body = None
    if response.status_code < 300:
        if not isinstance(body, dict):
            raise SourceError(f"{where}: the answer is no JSON object (HTTP {response.status_code}).")
        return body
    raise _refusal(where, response.status_code, body if isinstance(body, dict) else {}, sent)


def _refusal(where: str, status: int, body: Mapping[str, Any], sent: Mapping[str, str]) -> AuthError:
    code = str(body.get("error") or body.get("status") or f"HTTP {status}")
    said = str(body.get("error_description") or body.get("message") or "")
    for secret in sorted((value for value in sent.values() if len(value) >= 6), key=len, reverse=True):
        code, said = code.replace(secret, "…"), said.replace(secret, "…")
    text = f"{where}: refused ({_plain(code)}{': ' + _plain(said) if said else ''})."
    if code in ("invalid_grant", "BAD_REFRESH_TOKEN", "BAD_AUTH_CODE"):
        return NeedsConsent(text)
    if code in ("invalid_client", "unauthorized_client", "invalid_client_id") or status in (401, 403):
        return AuthError(f"{text} Check client id and secret.")
    return AuthError(text)


def _plain(text: str) -> str:
    """One line of a server's words, of bounded length."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]


def _tokens(provider: Provider, body: Mapping[str, Any], previous: Tokens | None) -> Tokens:
    """What an answer gives; a refresh token it leaves out stays as it was.

    Raises:
        SourceError: no usable token in it.
    """
    where = f"{provider.title} token"
    token = body.get("access_token")
    if (
        not isinstance(token, str)
        or not token.isascii()
        or not token.isprintable()
        or " " in token
        or not token
    ):
        raise SourceError(f"{where}: the answer holds no access token. The vendor's format may have changed.")
    refresh = body.get("refresh_token")
    kept, until = (previous.refresh, previous.renewable_until) if previous else (None, None)
    issued = datetime.now(UTC)
    life = _seconds(body.get("expires_in", provider.lifetime), where)
    renewable = _seconds(body.get("refresh_token_expires_in"), where)
    address = body.get("instance_url") or provider.api or (previous.base_url if previous else None)
    if not isinstance(address, str):
        raise SourceError(f"{where}: the answer does not say where the token is used.")
    return Tokens(
        access=SecretStr(token),
        base_url=checked_site(address, provider.hint),
        refresh=SecretStr(refresh) if isinstance(refresh, str) and refresh else kept,
        scope=str(body.get("scope") or (previous.scope if previous else "")),
        issued_at=issued,
        expires_at=issued + timedelta(seconds=life) if life is not None else None,
        renewable_until=issued + timedelta(seconds=renewable) if renewable is not None else until,
    )


def _seconds(value: Any, where: str) -> float | None:
    """A lifetime; None where none is given."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds <= MAX_LIFE:
        raise SourceError(f"{where}: a token's lifetime is no number of seconds that makes sense.")
    return seconds


class AppLogin:
    """A login of an app that needs no person, kept in memory: client credentials or JWT bearer.

    Args:
        provider: the server.
        client: the app; its grant is not `authorization_code`.
    """

    def __init__(self, provider: Provider, client: Client) -> None:
        self._provider = provider
        self._client = client
        self._tokens: Tokens | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"AppLogin({self._provider.vendor!r}, {self._client.grant!r})"

    def access(self) -> Access:
        """A token that is valid for a while yet; raises as `obtain`."""
        with self._lock:
            if self._tokens is None or not self._tokens.fresh(datetime.now(UTC)):
                self._tokens = obtain(self._provider, self._client, self._tokens)
            return self._tokens.given

    def renew(self, refused: SecretStr) -> Access:
        """A token in place of a refused one; raises as `obtain`."""
        with self._lock:
            if self._tokens is None or self._tokens.access == refused:
                self._tokens = obtain(self._provider, self._client, self._tokens)
            return self._tokens.given
