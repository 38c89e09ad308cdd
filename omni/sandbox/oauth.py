"""An authorization server: codes that are good once, proof keys, refresh tokens that rotate.

A refresh token of a vendor that rotates stays good until its replacement, or the access token that came with
it, is used: an answer may get lost. Using it later is a sign of theft, and ends all that came of the consent.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omni.sandbox.reply import Refusal, Reply
from omni.sandbox.serving import State

CLIENT_ID = "omni-sandbox"
"""The app every vendor of the sandbox knows; its secret is the sandbox's token."""
STRIPE_CLIENT_ID = "ca_omni-sandbox"
CODE_SECONDS = 60.0


@dataclass(frozen=True)
class Rules:
    """One vendor's ways.

    Attributes:
        name: its vendor.
        client_id: of the app it knows.
        prefix: how its tokens begin.
        seconds: how long access tokens last; None: without end.
        rotates: whether a renewal replaces the refresh token.
    """

    name: str
    client_id: str
    prefix: str
    seconds: float | None
    rotates: bool = False


@dataclass
class Code:
    """What a person consented to, until it is exchanged."""

    client_id: str
    redirect_uri: str
    challenge: str | None
    scope: str
    until: float


@dataclass
class Family:
    """All tokens that came of one consent."""

    rules: Rules
    scope: str
    seconds: float | None
    access: str = field(default="", repr=False)
    refresh: str = field(default="", repr=False)
    previous: str = field(default="", repr=False)
    ended: bool = False


@dataclass
class Server:
    """What the authorization servers of a sandbox know. `deny` counts consents still to be refused."""

    state: State
    codes: dict[str, Code] = field(default_factory=dict, repr=False)
    families: dict[str, Family] = field(default_factory=dict, repr=False)
    deny: int = 0
    seconds: float | None = None

    def expire(self) -> None:
        """End all access tokens; refresh tokens stay good."""
        self.state.valid_tokens.clear()


def no(error: str, description: str, status: int = 400) -> Refusal:
    """A refusal in OAuth's shape."""
    return Refusal(Reply({"error": error, "error_description": description}, status))


def authorize(server: Server, rules: Rules, params: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Consent at once to what a person would be asked for.

    Returns:
        Where the browser goes, and the parameters it takes along.

    Raises:
        Refusal: unknown app, no address to go back to, or a proof key of an unknown kind.
    """
    if params.get("client_id") != rules.client_id:
        raise no("invalid_client", "unknown client_id")
    back = params.get("redirect_uri", "")
    if not back.startswith(("http://", "https://")):
        raise no("invalid_request", "redirect_uri must be an address")
    answer = {"state": params["state"]} if "state" in params else {}
    if server.deny > 0:
        server.deny -= 1
        return back, {"error": "access_denied", "error_description": "The user denied access"} | answer
    challenge = params.get("code_challenge")
    if challenge is not None and params.get("code_challenge_method") != "S256":
        raise no("invalid_request", "code_challenge_method must be S256")
    code = secrets.token_urlsafe(24)
    until = time.monotonic() + CODE_SECONDS
    server.codes[code] = Code(rules.client_id, back, challenge, params.get("scope", ""), until)
    return back, {"code": code} | answer


def token(server: Server, rules: Rules, form: Mapping[str, str]) -> tuple[Family, str]:
    """Give tokens.

    Returns:
        The tokens, and the grant they were given by.

    Raises:
        Refusal: in OAuth's shape.
    """
    grant = form.get("grant_type", "authorization_code" if "code" in form else "")
    if grant == "authorization_code":
        family = Family(rules, _take_code(server, form), rules.seconds)
    elif grant == "refresh_token":
        return _refreshed(server, rules, form.get("refresh_token", "")), grant
    elif grant == "client_credentials":
        family = Family(rules, "", rules.seconds)
    else:
        raise no("unsupported_grant_type", "grant_type is not supported")
    _give(server, family, with_refresh=grant == "authorization_code")
    return family, grant


def check_client(server: Server, rules: Rules, form: Mapping[str, str]) -> None:
    """Raises a Refusal where client id or secret are wrong."""
    good = secrets.compare_digest(form.get("client_secret", "").encode(), server.state.options.token.encode())
    if form.get("client_id", rules.client_id) != rules.client_id or not good:
        raise no("invalid_client", "client id or secret is wrong", 401)


def revoke(server: Server, given: str) -> bool:
    """End a consent by one of its tokens; returns whether it was one."""
    family = next((f for f in server.families.values() if given in (f.access, f.refresh)), None)
    if family is None:
        return False
    _end(server, family)
    return True


def _take_code(server: Server, form: Mapping[str, str]) -> str:
    """Use a code up; gives the scope it stands for."""
    code = server.codes.pop(form.get("code", ""), None)
    if code is None or code.until < time.monotonic():
        raise no("invalid_grant", "the authorization code was not found, was used or is too old")
    if form.get("redirect_uri", code.redirect_uri) != code.redirect_uri:
        raise no("invalid_grant", "redirect_uri differs from the one consented to")
    if code.challenge is not None:
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != code.challenge:
            raise no("invalid_grant", "code_verifier does not match")
    return code.scope


def _refreshed(server: Server, rules: Rules, given: str) -> Family:
    family = server.families.get(given)
    if family is None or family.ended or family.rules.name != rules.name:
        raise no("invalid_grant", "the refresh token is unknown, ended or was revoked")
    if given != family.refresh:
        if given != family.previous or family.access in server.state.used_tokens:
            _end(server, family)
            raise no("invalid_grant", "the refresh token was used before")
        # The answer with the replacement seems to have got lost: give another one.
        server.families.pop(family.refresh, None)
        family.refresh = given
    server.state.valid_tokens.pop(family.access, None)
    _give(server, family, with_refresh=True)
    return family


def _give(server: Server, family: Family, *, with_refresh: bool) -> None:
    """Put new tokens into a family."""
    rules, state = family.rules, server.state
    chosen = server.seconds if server.seconds is not None else state.options.token_seconds
    family.seconds = chosen if chosen is not None else rules.seconds
    family.access = f"{rules.prefix}{secrets.token_urlsafe(32)}"
    state.valid_tokens[family.access] = (
        float("inf") if family.seconds is None else time.monotonic() + family.seconds
    )
    if with_refresh and (rules.rotates or not family.refresh):
        family.previous = family.refresh
        family.refresh = f"{rules.prefix}r_{secrets.token_urlsafe(32)}"
        server.families[family.refresh] = family


def _end(server: Server, family: Family) -> None:
    family.ended = True
    server.state.valid_tokens.pop(family.access, None)


def description(family: Family) -> dict[str, Any]:
    """Access and refresh token and how long the former lasts, as in every vendor's answer."""
    body: dict[str, Any] = {"access_token": family.access}
    if family.refresh:
        body["refresh_token"] = family.refresh
    if family.seconds is not None:
        whole = family.seconds == int(family.seconds)
        body["expires_in"] = int(family.seconds) if whole else family.seconds
    return body
