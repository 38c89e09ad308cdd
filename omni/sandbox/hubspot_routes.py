"""HubSpot's endpoints: the date-versioned paths and their v3 and v4 twins, with limits and faults."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from omni.sandbox import hubspot, hubspot_write
from omni.sandbox import hubspot_schema as schema
from omni.sandbox.faults import Fault
from omni.sandbox.hubspot_search import Searches
from omni.sandbox.limits import Window
from omni.sandbox.reply import Refusal, Reply
from omni.sandbox.serving import DOWN, Endpoint, State, bearer, deliver, retry_header, target_of

HUBSPOT_VERSION = "2026-09"

Handler = Callable[[Request, Any], Reply]


@dataclass(frozen=True)
class _Limits:
    """The account's windows: of all requests but searches, of searches, and of all requests in a day."""

    all: Window
    searches: Window
    daily: Window

    def headers(self) -> dict[str, str]:
        """What HubSpot says of them in its answers, except to searches."""
        return {
            "X-HubSpot-RateLimit-Interval-Milliseconds": "10000",
            "X-HubSpot-RateLimit-Max": str(self.all.allowed),
            "X-HubSpot-RateLimit-Remaining": str(self.all.left),
            "X-HubSpot-RateLimit-Daily": str(self.daily.allowed),
            "X-HubSpot-RateLimit-Daily-Remaining": str(self.daily.left),
        }


def _instead(fault: Fault) -> Reply | None:
    """The answer of a fault that keeps the request from being served."""
    if fault.kind in DOWN:
        return hubspot.problem(int(fault.kind), DOWN[fault.kind], "INTERNAL_ERROR").reply
    if fault.kind == "401":
        return _unauthorized().reply
    if fault.kind in ("429", "429_retry_after"):
        return _limited("DAILY", 1.0 if fault.kind == "429_retry_after" else None).reply
    return None


def _limited(policy: str, wait: float | None) -> Refusal:
    """HubSpot's 429, with the seconds to wait or, as happens, without."""
    name = policy.lower()
    more = {"errorType": "RATE_LIMIT", "policyName": policy}
    return hubspot.problem(
        429, f"You have reached your {name} limit.", "RATE_LIMITS", headers=retry_header(wait), **more
    )


def _unauthorized() -> Refusal:
    message = (
        "Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find "
        "more details in the authentication overview of the developer documentation"
    )
    return hubspot.problem(401, message, "INVALID_AUTHENTICATION")


def _admit(state: State, limits: _Limits, request: Request, label: str, search: bool) -> None:
    """Let a HubSpot request in.

    Raises:
        Refusal: 414, 401 or 429.
    """
    if len(target_of(request)) > hubspot.URL_LIMIT:
        raise hubspot.problem(414, "URI Too Long", "VALIDATION_ERROR")
    if not state.accepts(bearer(request)):
        raise _unauthorized()
    if limits.daily.take():
        state.throttled[label] += 1
        raise _limited("DAILY", None)
    wait = (limits.searches if search else limits.all).take()
    if wait:
        state.throttled[label] += 1
        raise _limited("SECONDLY" if search else "TEN_SECONDLY_ROLLING", None if search else wait)


def _endpoint(state: State, limits: _Limits, name: str, handle: Handler, *, search: bool = False) -> Endpoint:
    """An endpoint of HubSpot around a function of request and body."""

    async def endpoint(request: Request) -> Response:
        label = f"hubspot {name} {'/'.join(v for k, v in request.path_params.items() if k != 'key')}".rstrip()
        state.requests[label] += 1
        raw = await request.body() if request.method in ("POST", "PATCH", "PUT") else b""

        def make() -> Reply:
            try:
                _admit(state, limits, request, label, search)
                reply = handle(request, _json(raw) if raw or request.method == "POST" else {})
            except Refusal as refusal:
                return refusal.reply
            left = {} if search else limits.headers()
            return Reply(reply.payload, reply.status, {**reply.headers, **left})

        return await deliver(state, state.faults.draw(target_of(request), shopify=False), _instead, make)

    return endpoint


def _json(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise hubspot.invalid("Invalid input JSON: a JSON object is needed")
    return body


def routes(state: State) -> list[Route]:
    """HubSpot's routes over the company's CRM."""
    account = hubspot.Account(state.company)
    options = state.options
    limits = _Limits(
        Window(options.hubspot_per_10s, 10.0),
        Window(options.searches_per_second, 1.0),
        Window(options.hubspot_per_day, 86_400.0),
    )

    def at(method: str, path: str, name: str, handle: Handler, *, search: bool = False) -> Route:
        return Route(path, _endpoint(state, limits, name, handle, search=search), methods=[method])

    found: list[Route] = []
    for root in (f"/crm/objects/{HUBSPOT_VERSION}", "/crm/v3/objects"):
        found += _object_routes(account, root, at)
    for root in (f"/crm/properties/{HUBSPOT_VERSION}", "/crm/v3/properties"):
        found += _property_routes(account, root, at)
    for root in (f"/crm/associations/{HUBSPOT_VERSION}", "/crm/v4/associations"):
        found.append(
            at(
                "POST",
                f"{root}/{{source}}/{{target}}/batch/read",
                "associations",
                lambda r, b: hubspot.batch_associations(
                    account, r.path_params["source"], r.path_params["target"], b
                ),
            )
        )
    for version in (HUBSPOT_VERSION, "v3"):
        found += _account_routes(account, version, at)
    restored = at(
        "POST",
        "/_sandbox/hubspot/restore",
        "restore",
        lambda _, b: hubspot_write.restore(account, str(b.get("type")), str(b.get("id"))),
    )
    return [*found, restored]


def _kind(request: Request) -> str:
    return str(request.path_params["kind"])


def _key(request: Request) -> str:
    return str(request.path_params["key"])


def _object_routes(account: hubspot.Account, root: str, at: Callable[..., Route]) -> list[Route]:
    searches = Searches(account)
    many, one = f"{root}/{{kind}}", f"{root}/{{kind}}/{{key}}"
    return [
        at(
            "GET",
            many,
            "list",
            lambda r, _: hubspot.list_objects(
                account, _kind(r), r.query_params, str(r.url.replace(query=""))
            ),
        ),
        at("POST", many, "create", lambda r, b: hubspot_write.create(account, _kind(r), b)),
        at("POST", f"{many}/search", "search", lambda r, b: searches.search(_kind(r), b), search=True),
        at("POST", f"{many}/merge", "merge", lambda r, b: hubspot_write.merge(account, _kind(r), b)),
        at("POST", f"{many}/gdpr-delete", "forget", lambda r, b: hubspot_write.forget(account, _kind(r), b)),
        at(
            "POST",
            f"{many}/batch/read",
            "batch",
            lambda r, b: hubspot.batch_read(account, _kind(r), b, r.query_params),
        ),
        *(
            at("POST", f"{many}/batch/{name}", f"batch_{name}", _batch(account, handle))
            for name, handle in _BATCHES.items()
        ),
        at("GET", one, "get", lambda r, _: hubspot.get_object(account, _kind(r), _key(r), r.query_params)),
        at(
            "PATCH",
            one,
            "update",
            lambda r, b: hubspot_write.update(
                account, _kind(r), _key(r), b, r.query_params.get("idProperty")
            ),
        ),
        at("DELETE", one, "archive", lambda r, _: hubspot_write.archive(account, _kind(r), _key(r))),
    ]


_BATCHES = {
    "create": hubspot_write.batch_create,
    "update": hubspot_write.batch_update,
    "upsert": hubspot_write.batch_upsert,
    "archive": hubspot_write.batch_archive,
}


def _batch(account: hubspot.Account, handle: Callable[[hubspot.Account, str, Any], Reply]) -> Handler:
    return lambda r, b: handle(account, _kind(r), b)


def _property_routes(account: hubspot.Account, root: str, at: Callable[..., Route]) -> list[Route]:
    many, one = f"{root}/{{kind}}", f"{root}/{{kind}}/{{key}}"
    return [
        at("GET", many, "properties", lambda r, _: schema.list_properties(account, _kind(r))),
        at("POST", many, "create_property", lambda r, b: schema.create_property(account, _kind(r), b)),
        at("GET", one, "property", lambda r, _: schema.get_property(account, _kind(r), _key(r))),
        at("DELETE", one, "drop_property", lambda r, _: schema.archive_property(account, _kind(r), _key(r))),
    ]


def _account_routes(account: hubspot.Account, version: str, at: Callable[..., Route]) -> list[Route]:
    schemas, owners = f"/crm-object-schemas/{version}/schemas", _OWNERS[version]
    listed = [owners] if version == HUBSPOT_VERSION else [owners, f"{owners}/"]
    return [
        at("GET", schemas, "schemas", lambda _, __: schema.list_schemas(account)),
        at("GET", f"{schemas}/{{kind}}", "schema", lambda r, _: schema.get_schema(account, _kind(r))),
        *(
            at("GET", path, "owners", lambda r, _: schema.list_owners(account, r.query_params))
            for path in listed
        ),
        at(
            "GET",
            f"{owners}/{{key}}",
            "owner",
            lambda r, _: schema.get_owner(account, _key(r), r.query_params),
        ),
    ]


_OWNERS = {HUBSPOT_VERSION: f"/crm/owners/{HUBSPOT_VERSION}", "v3": "/crm/v3/owners"}
