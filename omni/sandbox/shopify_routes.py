"""Shopify's endpoints: GraphQL with its cost throttle, bulk results, the older REST API, and changes.

`POST /_sandbox/shopify/change` (`{"id", "set": {field: value}, "at"?}`) and `POST /_sandbox/shopify/delete`
(`{"id"}`) alter the shop while it runs; a change moves `updatedAt`.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from omni.sandbox.faults import BULK, Fault
from omni.sandbox.limits import RESTORE_RATES, Bucket
from omni.sandbox.reply import Refusal, Reply
from omni.sandbox.serving import DOWN, Endpoint, Instead, State, deliver, retry_header, target_of
from omni.sandbox.shopify import SCOPES, Asked, ShopApi, answering_version, root_fields
from omni.sandbox.shopify_bulk import PATH as BULK_PATH
from omni.sandbox.shopify_rest import RestApi

REST_RATES = {"standard": 2.0, "advanced": 4.0, "plus": 20.0, "enterprise": 20.0}
"""REST calls a second by plan; the bucket holds twenty seconds' worth."""


def _unauthorized() -> Reply:
    message = "[API] Invalid API key or access token (unrecognized login or wrong password)"
    return Reply({"errors": message}, 401)


def _failing(shop: ShopApi) -> Instead:
    """The answers of faults that keep a request from being served."""

    def instead(fault: Fault) -> Reply | None:
        if fault.kind in DOWN:
            return Reply({"errors": DOWN[fault.kind]}, int(fault.kind))
        if fault.kind == "throttled":
            return shop.throttled()
        if fault.kind == "401":
            return _unauthorized()
        if fault.kind in ("429", "429_retry_after"):
            wait = 1.0 if fault.kind == "429_retry_after" else None
            return Reply({"errors": "Too Many Requests"}, 429, retry_header(wait))
        return None

    return instead


def _allowed(state: State, request: Request) -> bool:
    return state.accepts(request.headers.get("x-shopify-access-token"))


def _graphql(state: State, shop: ShopApi) -> Endpoint:
    """The one endpoint of GraphQL."""

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
        fault = state.faults.draw(f"{request.url.path}#{'#'.join(names)}", shopify=True)
        doom = fault.kind if fault and fault.kind in BULK else None

        def make() -> Reply:
            if not _allowed(state, request):
                return _unauthorized()
            reply = shop.answer(body, Asked(version, str(request.base_url), doom))
            errors = reply.payload.get("errors")
            if isinstance(errors, list) and errors[0].get("message") == "Throttled":
                state.throttled[label] += 1
            return reply

        response = await deliver(state, fault, _failing(shop), make)
        response.headers["X-Shopify-API-Version"] = version
        return response

    return endpoint


def _bulk(state: State, shop: ShopApi) -> Endpoint:
    """Results of bulk operations; whoever knows the address may read them."""

    async def endpoint(request: Request) -> Response:
        state.requests["shopify bulk result"] += 1

        def make() -> Reply:
            found = shop.bulk.result(request.query_params.get("Signature", ""))
            if found is None:
                return Reply(
                    "<Error><Code>ExpiredToken</Code></Error>", 403, {"Content-Type": "application/xml"}
                )
            return Reply(found, 200, {"Content-Type": "application/jsonl"})

        fault = state.faults.draw(target_of(request), shopify=False)
        return await deliver(state, fault, _failing(shop), make)

    return endpoint


def _rest(state: State, shop: ShopApi) -> Endpoint:
    """Everything of the REST API that is read here."""
    api = RestApi(shop.rows, shop.about())
    bucket = Bucket(REST_RATES[state.options.plan])

    async def endpoint(request: Request) -> Response:
        version, path = answering_version(request.path_params["version"]), request.path_params["path"]
        label = f"shopify rest {path.split('/')[0]}"
        state.requests[label] += 1

        def make() -> Reply:
            if not _allowed(state, request):
                return _unauthorized()
            if not bucket.take(1):
                state.throttled[label] += 1
                message = (
                    "Exceeded 2 calls per second for api client. Reduce request rates to resume service."
                )
                return Reply({"errors": message}, 429, {"Retry-After": "2.0"})
            base = f"{str(request.base_url).rstrip('/')}/admin/api/{request.path_params['version']}"
            try:
                return api.answer(path, request.query_params, base)
            except Refusal as refused:
                return refused.reply

        fault = state.faults.draw(target_of(request), shopify=False)
        response = await deliver(state, fault, _failing(shop), make)
        response.headers["X-Shopify-API-Version"] = version
        used = bucket.maximum - int(bucket.available)
        # Set past Starlette, which writes names in small letters: ShopifyAPI looks for it as it stands here.
        limit = f"{used:.0f}/{bucket.maximum:.0f}".encode()
        response.raw_headers.append((b"X-Shopify-Shop-Api-Call-Limit", limit))
        return response

    return endpoint


def _scopes(state: State) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        if not _allowed(state, request):
            return JSONResponse(_unauthorized().payload, 401)
        return JSONResponse({"access_scopes": [{"handle": scope} for scope in SCOPES]})

    return endpoint


def _alter(shop: ShopApi, what: str) -> Endpoint:
    """Changes and deletions by other processes."""

    async def endpoint(request: Request) -> Response:
        try:
            body: dict[str, Any] = json.loads(await request.body())
            wanted = str(body["id"])
            if what == "change":
                found = shop.change(wanted, dict(body["set"]), body.get("at"))
            else:
                found = shop.delete(wanted)
        except (ValueError, KeyError, TypeError) as error:
            example = '{"id": "gid://shopify/Order/500001", "set": {"email": null}}'
            return JSONResponse({"error": f"{error}; send for example {example}"}, 400)
        if not found:
            return JSONResponse({"error": f"there is no {wanted}"}, 404)
        return JSONResponse({"status": f"{what}d"})

    return endpoint


def routes(state: State) -> list[Route]:
    """Shopify's routes over the company's shop."""
    shop = ShopApi(state.company, Bucket(RESTORE_RATES[state.options.plan]))
    return [
        Route("/admin/api/{version}/graphql.json", _graphql(state, shop), methods=["POST"]),
        Route(BULK_PATH + "/{file}.jsonl", _bulk(state, shop)),
        Route("/admin/oauth/access_scopes.json", _scopes(state)),
        Route("/admin/api/{version}/{path:path}.json", _rest(state, shop)),
        Route("/_sandbox/shopify/change", _alter(shop, "change"), methods=["POST"]),
        Route("/_sandbox/shopify/delete", _alter(shop, "delete"), methods=["POST"]),
    ]
