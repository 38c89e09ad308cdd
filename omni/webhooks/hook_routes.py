"""The hooks' endpoints as Zapier's REST hook triggers use them: subscribe, unsubscribe, examples."""

from __future__ import annotations

import json
from collections.abc import Callable

import sqlalchemy as sa
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from omni import tenancy
from omni.errors import ConfigError, StorageError
from omni.webhooks import hooks

MAX_BODY = 64 * 1024


def _said(status: int, message: str, **headers: str) -> Response:
    return JSONResponse({"message": message}, status, headers)


def _answering(request: Request, body: bytes, handle: Callable[[Request, bytes], Response]) -> Response:
    """Let a request in by its key, and answer what goes wrong."""
    tenant = request.path_params["tenant"]
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    try:
        known = tenant in tenancy.tenants() and scheme.lower() == "bearer"
        if not (known and hooks.authorized(tenant, key.strip())):
            return _said(401, "An API key of this tenant is needed: Authorization: Bearer omk_…")
        return handle(request, body)
    except ConfigError as error:
        return _said(400, str(error))
    except (StorageError, sa.exc.SQLAlchemyError):
        return _said(503, "The database cannot be reached now; ask again.", **{"Retry-After": "30"})


def _me(request: Request, _: bytes) -> Response:
    """What a connection test asks."""
    return JSONResponse({"tenant": request.path_params["tenant"], "events": list(hooks.SAMPLES)})


def _samples(request: Request, _: bytes) -> Response:
    event = request.path_params["event"]
    if event not in hooks.SAMPLES:
        return _said(404, f"Unknown event. Known: {', '.join(hooks.SAMPLES)}.")
    return JSONResponse(hooks.sample(event))


def _subscribe(loopback: bool) -> Callable[[Request, bytes], Response]:
    def subscribe(request: Request, body: bytes) -> Response:
        try:
            wish = json.loads(body)
            event, target = wish["event"], wish.get("target_url") or wish["hookUrl"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            event = target = None
        if not (isinstance(event, str) and isinstance(target, str)):
            example = '{"event": "segment.entered", "target_url": "https://…"}'
            return _said(400, f"Send JSON such as {example}")
        number, secret = hooks.subscribe(request.path_params["tenant"], event, target, loopback=loopback)
        return JSONResponse({"id": number, "event": event, "signing_secret": secret}, 201)

    return subscribe


def _unsubscribe(request: Request, _: bytes) -> Response:
    if not hooks.unsubscribe(request.path_params["tenant"], request.path_params["number"]):
        return _said(404, "There is no such subscription.")
    return Response(None, 204)


def routes(*, loopback: bool = False) -> tuple[Route, ...]:
    """Routes to serve beside the receiver's.

    Args:
        loopback: this machine may be subscribed.
    """

    def endpoint(path: str, method: str, handle: Callable[[Request, bytes], Response]) -> Route:
        async def answer(request: Request) -> Response:
            announced = request.headers.get("content-length", "0")
            if not announced.isdigit() or int(announced) > MAX_BODY:
                return _said(413, f"At most {MAX_BODY} bytes.", connection="close")
            body = await request.body() if method == "POST" and "content-length" in request.headers else b""
            return await run_in_threadpool(_answering, request, body, handle)

        return Route(path, answer, methods=[method])

    base = "/hooks/{tenant}"
    return (
        endpoint(base, "GET", _me),
        endpoint(f"{base}/subscriptions", "POST", _subscribe(loopback)),
        endpoint(f"{base}/subscriptions/{{number}}", "DELETE", _unsubscribe),
        endpoint(f"{base}/samples/{{event}}", "GET", _samples),
    )
