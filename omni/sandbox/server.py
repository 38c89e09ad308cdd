"""The sandbox over HTTP: HubSpot and Shopify on one port, faults on request, statistics.

`/_sandbox/health` answers when ready, `/_sandbox/stats` counts what was asked, `POST /_sandbox/fault`
(`{"kind", "path", "times"}`) lets coming requests fail. A fault's `path` is a regular expression searched in
`path?query`; for Shopify, where all share one path, in `path#field` with the names of the root fields.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Lifespan, Receive, Scope, Send

from omni.errors import ConfigError
from omni.sandbox import hubspot
from omni.sandbox.company import Company
from omni.sandbox.faults import Fault, Faults, spoil
from omni.sandbox.hubspot_search import Searches
from omni.sandbox.limits import RESTORE_RATES, Bucket, Window
from omni.sandbox.reply import Refusal, Reply
from omni.sandbox.shopify import ShopApi, answering_version, root_fields

HUBSPOT_VERSION = "2026-09"

Endpoint = Callable[[Request], Awaitable[Response]]
Handler = Callable[[Request, Any], Reply]

_VENDOR_DOWN = {
    "500": (500, "internal error"),
    "502": (502, "bad gateway"),
    "503": (503, "service unavailable"),
}


@dataclass(frozen=True)
class Options:
    """How the sandbox behaves.

    Raises:
        ConfigError: a value out of range, or an unknown plan.
    """

    token: str
    faults: float = 0.0
    seed: int = 0
    plan: str = "enterprise"
    hubspot_per_10s: int = 190
    searches_per_second: int = 5

    def __post_init__(self) -> None:
        if not 0 <= self.faults < 1:
            raise ConfigError(f"faults is a share of requests from 0 to below 1, not {self.faults}; try 0.02")
        if self.plan not in RESTORE_RATES:
            raise ConfigError(f"Unknown plan {self.plan!r}. Known ones: {', '.join(RESTORE_RATES)}.")
        if self.hubspot_per_10s < 1:
            raise ConfigError(f"hubspot_per_10s must be at least 1, not {self.hubspot_per_10s}; try 190")


@dataclass
class State:
    """What the running sandbox holds."""

    options: Options
    account: hubspot.Account
    searches: Searches
    shop: ShopApi
    faults: Faults
    window: Window
    search_window: Window
    requests: Counter[str] = field(default_factory=Counter)
    throttled: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)


class CutResponse(Response):
    """Promises its whole body, sends half and lets the server close the connection."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the answer's first half."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body[: len(self.body) // 2])
        await send({"type": "http.response.body", "body": half, "more_body": True})


async def _deliver(state: State, fault: Fault | None, shopify: bool, make: Callable[[], Reply]) -> Response:
    """Turn a reply into bytes, with the fault's doing."""
    if fault is not None:
        state.injected[str(fault)] += 1
        if fault.kind == "slow":
            await asyncio.sleep(float(fault.arguments[0]))
    reply = (_instead(state, fault, shopify) if fault else None) or make()
    payload = spoil(reply.payload, fault) if fault else reply.payload
    body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    if fault is not None and fault.kind == "malformed_json":
        body = body[: len(body) // 2]
    answer = CutResponse if fault is not None and fault.kind == "cut_body" else Response
    return answer(body, reply.status, dict(reply.headers), "application/json")


def _instead(state: State, fault: Fault, shopify: bool) -> Reply | None:
    """The answer of a fault that keeps the request from being served."""
    if fault.kind in _VENDOR_DOWN:
        status, message = _VENDOR_DOWN[fault.kind]
        if shopify:
            return Reply({"errors": message}, status)
        return hubspot.problem(status, message, "INTERNAL_ERROR").reply
    if fault.kind == "throttled":
        return state.shop.throttled()
    if fault.kind == "401":
        return _shopify_unauthorized() if shopify else _hubspot_unauthorized().reply
    if fault.kind in ("429", "429_retry_after"):
        wait = 1.0 if fault.kind == "429_retry_after" else None
        return (
            Reply({"errors": "Too Many Requests"}, 429, _retry(wait))
            if shopify
            else _limited("DAILY", wait).reply
        )
    return None


def _retry(wait: float | None) -> dict[str, str]:
    return {} if wait is None else {"Retry-After": str(max(1, math.ceil(wait)))}


def _limited(policy: str, wait: float | None) -> Refusal:
    """HubSpot's 429, with the seconds to wait or, as happens, without."""
    name = policy.lower()
    more = {"errorType": "RATE_LIMIT", "policyName": policy}
    return hubspot.problem(
        429, f"You have reached your {name} limit.", "RATE_LIMITS", headers=_retry(wait), **more
    )


def _hubspot_unauthorized() -> Refusal:
    message = (
        "Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find "
        "more details in the authentication overview of the developer documentation"
    )
    return hubspot.problem(401, message, "INVALID_AUTHENTICATION")


def _shopify_unauthorized() -> Reply:
    message = "[API] Invalid API key or access token (unrecognized login or wrong password)"
    return Reply({"errors": message}, 401)


def _admit(state: State, request: Request, label: str, search: bool) -> None:
    """Let a HubSpot request in.

    Raises:
        Refusal: 414, 401 or 429.
    """
    if len(_target(request)) > hubspot.URL_LIMIT:
        raise hubspot.problem(414, "URI Too Long", "VALIDATION_ERROR")
    if request.headers.get("authorization") != f"Bearer {state.options.token}":
        raise _hubspot_unauthorized()
    wait = (state.search_window if search else state.window).take()
    if wait:
        state.throttled[label] += 1
        raise _limited("SECONDLY" if search else "TEN_SECONDLY_ROLLING", None if search else wait)


def _target(request: Request) -> str:
    query = request.url.query
    return f"{request.url.path}?{query}" if query else request.url.path


def _hubspot(state: State, name: str, handle: Handler, *, search: bool = False) -> Endpoint:
    """An endpoint of HubSpot around a function of request and body."""

    async def endpoint(request: Request) -> Response:
        label = f"hubspot {name} {'/'.join(v for k, v in request.path_params.items() if k != 'key')}"
        state.requests[label] += 1
        raw = await request.body() if request.method == "POST" else b""

        def make() -> Reply:
            try:
                _admit(state, request, label, search)
                reply = handle(request, _json(raw) if raw or request.method == "POST" else {})
            except Refusal as refusal:
                return refusal.reply
            left = {
                "X-HubSpot-RateLimit-Interval-Milliseconds": "10000",
                "X-HubSpot-RateLimit-Max": str(state.window.allowed),
                "X-HubSpot-RateLimit-Remaining": str(state.window.left),
            }
            return Reply(reply.payload, reply.status, {**reply.headers, **({} if search else left)})

        return await _deliver(state, state.faults.draw(_target(request), shopify=False), False, make)

    return endpoint


def _json(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise hubspot.invalid("Invalid input JSON: a JSON object is needed")
    return body


def _shopify(state: State) -> Endpoint:
    """The one endpoint of Shopify."""

    async def endpoint(request: Request) -> Response:
        version = answering_version(request.path_params["version"])
        try:
            body = json.loads(await request.body())
        except ValueError:
            body = None
        text = body.get("query") if isinstance(body, dict) else None
        names = root_fields(text) if isinstance(text, str) else ()
        label = f"shopify {' '.join(names) or 'malformed'}"
        state.requests[label] += 1

        def make() -> Reply:
            if request.headers.get("x-shopify-access-token") != state.options.token:
                return _shopify_unauthorized()
            reply = state.shop.answer(body)
            errors = reply.payload.get("errors")
            if isinstance(errors, list) and errors[0].get("message") == "Throttled":
                state.throttled[label] += 1
            return reply

        fault = state.faults.draw(f"{request.url.path}#{'#'.join(names)}", shopify=True)
        response = await _deliver(state, fault, True, make)
        response.headers["X-Shopify-API-Version"] = version
        return response

    return endpoint


def _own_routes(state: State) -> list[Route]:
    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "pid": os.getpid()})

    async def stats(_: Request) -> Response:
        counts = {"requests": state.requests, "throttled": state.throttled, "faults": state.injected}
        return JSONResponse({name: dict(sorted(counter.items())) for name, counter in counts.items()})

    async def fault(request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            state.faults.force(body["kind"], body.get("path", ""), body.get("times", 1))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            example = '{"kind": "503", "path": "contacts", "times": 2}'
            return JSONResponse({"error": f"{error}; send for example {example}"}, 400)
        return JSONResponse({"status": "armed"})

    async def calm(_: Request) -> Response:
        state.faults.clear()
        return JSONResponse({"status": "calm"})

    return [
        Route("/_sandbox/health", health),
        Route("/_sandbox/stats", stats),
        Route("/_sandbox/fault", fault, methods=["POST"]),
        Route("/_sandbox/fault", calm, methods=["DELETE"]),
    ]


def _hubspot_routes(state: State) -> list[Route]:
    account, searches = state.account, state.searches
    routes = []
    for root in (f"/crm/objects/{HUBSPOT_VERSION}", "/crm/v3/objects"):
        page = _hubspot(
            state,
            "list",
            lambda r, _: hubspot.list_objects(
                account, r.path_params["kind"], r.query_params, str(r.url.replace(query=""))
            ),
        )
        one = _hubspot(
            state,
            "get",
            lambda r, _: hubspot.get_object(
                account, r.path_params["kind"], r.path_params["key"], r.query_params
            ),
        )
        found = _hubspot(state, "search", lambda r, b: searches.search(r.path_params["kind"], b), search=True)
        batch = _hubspot(
            state, "batch", lambda r, b: hubspot.batch_read(account, r.path_params["kind"], b, r.query_params)
        )
        routes += [
            Route(f"{root}/{{kind}}", page, methods=["GET"]),
            Route(f"{root}/{{kind}}/search", found, methods=["POST"]),
            Route(f"{root}/{{kind}}/batch/read", batch, methods=["POST"]),
            Route(f"{root}/{{kind}}/{{key}}", one, methods=["GET"]),
        ]
    for root in (f"/crm/properties/{HUBSPOT_VERSION}", "/crm/v3/properties"):
        several = _hubspot(
            state, "properties", lambda r, _: hubspot.list_properties(account, r.path_params["kind"])
        )
        single = _hubspot(
            state,
            "property",
            lambda r, _: hubspot.get_property(account, r.path_params["kind"], r.path_params["key"]),
        )
        routes += [Route(f"{root}/{{kind}}", several), Route(f"{root}/{{kind}}/{{key}}", single)]
    for root in (f"/crm/associations/{HUBSPOT_VERSION}", "/crm/v4/associations"):
        links = _hubspot(
            state,
            "associations",
            lambda r, b: hubspot.batch_associations(
                account, r.path_params["source"], r.path_params["target"], b
            ),
        )
        routes.append(Route(f"{root}/{{source}}/{{target}}/batch/read", links, methods=["POST"]))
    return routes


def build_app(company: Company, options: Options, lifespan: Lifespan[Starlette] | None = None) -> Starlette:
    """The sandbox as an ASGI application.

    Args:
        company: what it serves.
        options: how it behaves.
        lifespan: what to do around serving, if anything.
    """
    account = hubspot.Account(company)
    state = State(
        options=options,
        account=account,
        searches=Searches(account),
        shop=ShopApi(company, Bucket(RESTORE_RATES[options.plan])),
        faults=Faults(options.faults, options.seed),
        window=Window(options.hubspot_per_10s, 10.0),
        search_window=Window(options.searches_per_second, 1.0),
    )
    shopify = Route("/admin/api/{version}/graphql.json", _shopify(state), methods=["POST"])
    routes = [*_own_routes(state), *_hubspot_routes(state), shopify]
    return Starlette(routes=routes, lifespan=lifespan)
