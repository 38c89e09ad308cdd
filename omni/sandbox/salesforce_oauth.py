"""Salesforce's OAuth 2.0 endpoints: who may get a token, and which tokens are good."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlencode

from omni.sandbox.reply import Refusal, Reply

CLIENT_ID = "omni-sandbox"
"""The connected app every sandbox org has; its secret is the sandbox's token."""
REFRESH_TOKEN = "refresh-sandbox"  # noqa: S105
"""A refresh token the app holds from the beginning."""
USER = "integration@sandbox.example"
AUDIENCES = ("https://login.salesforce.com", "https://test.salesforce.com")
JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@dataclass
class App:
    """A connected app: its secret, the key its JWTs are signed with, and the users it may act for."""

    client_id: str
    secret: str = field(repr=False)
    public_key: str | None = None
    users: tuple[str, ...] = (USER,)


@dataclass
class Logins:
    """Apps, codes and tokens of an org. `fixed` is a token that never ends."""

    fixed: str = field(repr=False)
    apps: dict[str, App] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set, repr=False)
    refresh: dict[str, str] = field(default_factory=dict, repr=False)
    codes: dict[str, tuple[str, str, str | None]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.apps.setdefault(CLIENT_ID, App(CLIENT_ID, self.fixed))
        self.refresh.setdefault(REFRESH_TOKEN, CLIENT_ID)

    def good(self, token: str) -> bool:
        """Whether a token opens the org."""
        return token == self.fixed or token in self.tokens

    def expire(self) -> None:
        """End all sessions that logins have opened."""
        self.tokens.clear()


def _no(error: str, description: str, status: int = 400) -> Refusal:
    return Refusal(Reply({"error": error, "error_description": description}, status))


def authorize(logins: Logins, params: Mapping[str, str]) -> Reply:
    """Grant at once what a person would be asked for, and send the browser back with a code.

    Raises:
        Refusal: unknown app, or no address to go back to.
    """
    if params.get("client_id") not in logins.apps or params.get("response_type") != "code":
        raise _no("invalid_client_id", "client identifier invalid")
    back = params.get("redirect_uri", "")
    if not back.startswith(("http://", "https://")):
        raise _no("redirect_uri_mismatch", "redirect_uri must match configuration")
    code = f"aPrx{secrets.token_urlsafe(24)}"
    logins.codes[code] = (params["client_id"], back, params.get("code_challenge"))
    answer = {"code": code} | ({"state": params["state"]} if "state" in params else {})
    location = f"{back}{'&' if '?' in back else '?'}{urlencode(answer)}"
    return Reply("", 302, {"Location": location, "Content-Type": "text/html"})


def token(logins: Logins, form: Mapping[str, str], authorization: str, instance: str) -> Reply:
    """Give an access token.

    Args:
        logins: the org's.
        form: the request's form.
        authorization: its header; client credentials may come by HTTP Basic.
        instance: the org's own address.

    Raises:
        Refusal: in OAuth's shape.
    """
    grant = form.get("grant_type")
    if grant == JWT_GRANT:
        app = _by_jwt(logins, form.get("assertion", ""), instance)
    else:
        app = _client(logins, form, authorization, needs_secret=grant != "authorization_code")
        if grant == "authorization_code":
            _check_code(logins, app, form)
        elif grant == "refresh_token":
            if logins.refresh.get(form.get("refresh_token", "")) != app.client_id:
                raise _no("invalid_grant", "expired access/refresh token")
        elif grant != "client_credentials":
            raise _no("unsupported_grant_type", "grant type not supported")
    made = f"00D5g0000000001!{secrets.token_urlsafe(32)}"
    logins.tokens.add(made)
    body: dict[str, Any] = {
        "access_token": made,
        "instance_url": instance,
        "id": f"{instance}/id/00D5g0000000001EAA/0055g0000000001AAA",
        "token_type": "Bearer",
        "scope": "api refresh_token",
        "issued_at": "1790000000000",
    }
    if grant == "authorization_code":
        body["refresh_token"] = f"5Aep{secrets.token_urlsafe(32)}"
        logins.refresh[body["refresh_token"]] = app.client_id
    return Reply(body)


def revoke(logins: Logins, form: Mapping[str, str]) -> Reply:
    """End a token, and with a refresh token what it stands for.

    Raises:
        Refusal: it is none of ours.
    """
    asked = form.get("token", "")
    if asked in logins.refresh:
        del logins.refresh[asked]
    elif asked in logins.tokens:
        logins.tokens.discard(asked)
    else:
        raise _no("unsupported_token_type", "this token type is not supported")
    return Reply({})


def _client(logins: Logins, form: Mapping[str, str], authorization: str, *, needs_secret: bool) -> App:
    client_id, secret = form.get("client_id", ""), form.get("client_secret")
    if authorization.startswith("Basic "):
        try:
            user, _, password = base64.b64decode(authorization[6:], validate=True).decode().partition(":")
        except (ValueError, UnicodeDecodeError):
            raise _no("invalid_client", "invalid client credentials") from None
        client_id, secret = unquote(user), unquote(password)
    app = logins.apps.get(client_id)
    if app is None:
        raise _no("invalid_client_id", "client identifier invalid")
    if secret is None and not needs_secret:
        return app
    if secret is None or not secrets.compare_digest(secret, app.secret):
        raise _no("invalid_client", "invalid client credentials")
    return app


def _check_code(logins: Logins, app: App, form: Mapping[str, str]) -> None:
    client_id, back, challenge = logins.codes.pop(form.get("code", ""), ("", "", None))
    if client_id != app.client_id or form.get("redirect_uri") != back:
        raise _no("invalid_grant", "expired authorization code")
    if challenge is not None:
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != challenge:
            raise _no("invalid_grant", "invalid code verifier")
    elif form.get("client_secret") is None:
        raise _no("invalid_client", "invalid client credentials")


def _by_jwt(logins: Logins, assertion: str, instance: str) -> App:
    import jwt

    try:
        claimed = jwt.decode(assertion, options={"verify_signature": False}).get("iss")
        app = logins.apps.get(str(claimed))
        if app is None or app.public_key is None:
            raise _no("invalid_client_id", "client identifier invalid")
        claims = jwt.decode(
            assertion,
            app.public_key,
            algorithms=["RS256"],
            audience=[*AUDIENCES, instance],
            options={"require": ["exp", "iss", "sub", "aud"]},
        )
    except jwt.InvalidTokenError as error:
        raise _no("invalid_grant", f"invalid assertion ({type(error).__name__})") from None
    if claims["sub"] not in app.users:
        raise _no("invalid_grant", "user hasn't approved this consumer")
    return app
