"""The authorization servers of HubSpot, Shopify and Stripe; Salesforce's is among its own routes.

Each knows one app: `omni-sandbox` (`ca_omni-sandbox` at Stripe), whose secret is the sandbox's token. Consent
is given at once, without a page. `POST /_sandbox/oauth` acts on all: `{"expire": true}` ends access tokens,
`{"deny": 1}` refuses the next consent, `{"token_seconds": 5}` sets how long new ones last.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from omni.sandbox import oauth
from omni.sandbox.faults import Fault
from omni.sandbox.oauth import CLIENT_ID, STRIPE_CLIENT_ID, Family, Rules, Server
from omni.sandbox.reply import Refusal, Reply
from omni.sandbox.serving import DOWN, Endpoint, State, bearer, deliver, retry_header, target_of

HUBSPOT = Rules("hubspot", CLIENT_ID, "CN", 1800.0)
SHOPIFY = Rules("shopify", CLIENT_ID, "shpat_", 3600.0, rotates=True)
STRIPE = Rules("stripe", STRIPE_CLIENT_ID, "sk_test_", None)
SHOPIFY_REFRESH_SECONDS = 7_776_000
SHOPIFY_APP_SECONDS = 86_399
HUB_ID = 24_700_000
STRIPE_ACCOUNT = "acct_1SandboxOmni"

Handler = Callable[[Request, dict[str, str]], Reply]


def _instead(fault: Fault) -> Reply | None:
    if fault.kind in DOWN:
        return Reply({"error": "server_error", "error_description": DOWN[fault.kind]}, int(fault.kind))
    if fault.kind in ("429", "429_retry_after"):
        wait = 1.0 if fault.kind == "429_retry_after" else None
        return Reply({"error": "temporarily_unavailable"}, 429, retry_header(wait))
    if fault.kind == "401":
        return oauth.no("invalid_client", "client authentication failed", 401).reply
    return None


def _endpoint(state: State, label: str, handle: Handler) -> Endpoint:
    """An endpoint around a function of request and fields, which come as form or JSON."""

    async def endpoint(request: Request) -> Response:
        state.requests[f"oauth {label}"] += 1
        raw = (await request.body()).decode(errors="replace")

        def make() -> Reply:
            try:
                return handle(request, _fields(request, raw))
            except Refusal as refusal:
                return refusal.reply

        return await deliver(state, state.faults.draw(target_of(request), shopify=False), _instead, make)

    return endpoint


def _fields(request: Request, raw: str) -> dict[str, str]:
    if request.method == "GET":
        return dict(request.query_params)
    if "json" not in request.headers.get("content-type", ""):
        return dict(parse_qsl(raw, keep_blank_values=True))
    try:
        body = json.loads(raw)
        return {str(key): str(value) for key, value in body.items()}
    except (ValueError, AttributeError):
        raise oauth.no("invalid_request", "the body is no JSON object") from None


def _redirect(back: str, answer: dict[str, str]) -> Reply:
    location = f"{back}{'&' if '?' in back else '?'}{urlencode(answer)}"
    return Reply("", 302, {"Location": location, "Content-Type": "text/html"})


def _consent(server: Server) -> Handler:
    """HubSpot's and Stripe's page, which share a path; Stripe's apps are called `ca_…`."""

    def handle(_: Request, params: dict[str, str]) -> Reply:
        rules = STRIPE if params.get("client_id", "").startswith("ca_") else HUBSPOT
        return _redirect(*oauth.authorize(server, rules, params))

    return handle


def _shop_consent(server: Server) -> Handler:
    """Shopify's page, which signs the redirect with the app's secret."""

    def handle(request: Request, params: dict[str, str]) -> Reply:
        back, answer = oauth.authorize(server, SHOPIFY, params)
        if "code" in answer:
            answer |= {"shop": request.url.hostname or "", "timestamp": str(int(time.time()))}
            text = urlencode(sorted(answer.items()))
            secret = server.state.options.token.encode()
            answer["hmac"] = hmac.digest(secret, text.encode(), "sha256").hex()
        return _redirect(back, answer)

    return handle


def _hubspot_token(server: Server) -> Handler:
    def handle(_: Request, form: dict[str, str]) -> Reply:
        oauth.check_client(server, HUBSPOT, form)
        family, _grant = oauth.token(server, HUBSPOT, form)
        more = {"token_type": "bearer", "hub_id": HUB_ID, "scopes": family.scope.split()}
        return Reply(oauth.description(family) | more)

    return handle


def _introspect(server: Server) -> Handler:
    def handle(_: Request, form: dict[str, str]) -> Reply:
        oauth.check_client(server, HUBSPOT, form)
        given = form.get("token", "")
        until = server.state.valid_tokens.get(given, 0.0) - time.monotonic()
        if until <= 0:
            return Reply({"active": False})
        family = next((f for f in server.families.values() if f.access == given), None)
        scopes = family.scope.split() if family else []
        seconds = {} if until == float("inf") else {"expires_in": int(until)}
        return Reply(
            {"active": True, "token_use": "access_token", "client_id": CLIENT_ID, "hub_id": HUB_ID}
            | {"scopes": scopes, "token_type": "bearer"}
            | seconds
        )

    return handle


def _revoke(server: Server) -> Handler:
    def handle(_: Request, form: dict[str, str]) -> Reply:
        oauth.check_client(server, HUBSPOT, form)
        oauth.revoke(server, form.get("token", ""))
        return Reply({})

    return handle


def _shop_token(server: Server) -> Handler:
    """Shopify's: without `expiring` a token for good, with it one that must be renewed."""

    def handle(_: Request, form: dict[str, str]) -> Reply:
        oauth.check_client(server, SHOPIFY, form)
        asked = form.get("grant_type")
        if asked == "client_credentials":
            rules = replace(SHOPIFY, seconds=SHOPIFY_APP_SECONDS)
        elif asked == "refresh_token" or form.get("expiring") == "1":
            rules = SHOPIFY
        else:
            rules = replace(SHOPIFY, seconds=None)
        family, grant = oauth.token(server, rules, form)
        body = oauth.description(family) | {"scope": family.scope}
        if grant != "client_credentials" and rules.seconds is not None:
            return Reply(body | {"refresh_token_expires_in": SHOPIFY_REFRESH_SECONDS})
        body.pop("refresh_token", None)
        return Reply(body)

    return handle


def _stripe_token(server: Server) -> Handler:
    def handle(request: Request, form: dict[str, str]) -> Reply:
        oauth.check_client(server, STRIPE, {"client_secret": bearer(request) or ""} | form)
        family, _grant = oauth.token(server, STRIPE, form)
        return Reply(oauth.description(family) | _stripe_more(family))

    return handle


def _stripe_more(family: Family) -> dict[str, Any]:
    return {
        "token_type": "bearer",
        "scope": family.scope or "read_write",
        "livemode": False,
        "stripe_user_id": STRIPE_ACCOUNT,
        "stripe_publishable_key": "pk_test_sandbox",
    }


def _stripe_end(server: Server) -> Handler:
    def handle(request: Request, form: dict[str, str]) -> Reply:
        oauth.check_client(server, STRIPE, {"client_secret": bearer(request) or ""} | form)
        account = form.get("stripe_user_id", "")
        if account != STRIPE_ACCOUNT:
            raise oauth.no("invalid_client", "this app is not connected to that account", 401)
        for family in [f for f in server.families.values() if f.rules.name == "stripe"]:
            oauth.revoke(server, family.access)
        return Reply({"stripe_user_id": account})

    return handle


def _control(server: Server) -> Endpoint:
    async def control(request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            server.deny = int(body.get("deny", server.deny))
            if "token_seconds" in body:
                server.seconds = None if body["token_seconds"] is None else float(body["token_seconds"])
            if body.get("expire"):
                server.expire()
        except (ValueError, TypeError, AttributeError) as error:
            return JSONResponse({"error": f'{error}; send for example {{"expire": true}}'}, 400)
        return JSONResponse({"status": "done"})

    return control


def routes(state: State) -> list[Route]:
    """The authorization servers' routes."""
    server = Server(state)
    hubspot = "/oauth/2026-09/token"
    table: list[tuple[str, str, str, Handler]] = [
        ("authorize", "GET", "/oauth/authorize", _consent(server)),
        ("hubspot token", "POST", hubspot, _hubspot_token(server)),
        ("hubspot introspect", "POST", f"{hubspot}/introspect", _introspect(server)),
        ("hubspot revoke", "POST", f"{hubspot}/revoke", _revoke(server)),
        ("shopify authorize", "GET", "/admin/oauth/authorize", _shop_consent(server)),
        ("shopify token", "POST", "/admin/oauth/access_token", _shop_token(server)),
        ("stripe token", "POST", "/oauth/token", _stripe_token(server)),
        ("stripe deauthorize", "POST", "/oauth/deauthorize", _stripe_end(server)),
    ]
    found = [
        Route(path, _endpoint(state, label, handle), methods=[way]) for label, way, path, handle in table
    ]
    return [*found, Route("/_sandbox/oauth", _control(server), methods=["POST"])]
