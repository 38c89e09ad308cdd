"""The hooks' endpoints as Zapier's REST hook triggers use them: subscribe, unsubscribe, examples."""

from __future__ import annotations

import json
from collections.abc import Callable

import sqlalchemy as sa
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from omni import tenancy
from omni.errors import ConfigError, StorageError
from omni.webhooks import bodies, hooks

MAX_BODY = 64 * 1024


def _said(status: int, message: str, **headers: str) -> Response:
    return JSONResponse({"message": message}, status, headers)


def _refusal(request: Request) -> Response | None:
    """Let a request in by its key, before anything of its body is read."""
    tenant = request.path_params["tenant"]
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    known = tenant in tenancy.tenants() and scheme.lower() == "bearer"
    if known and hooks.authorized(tenant, key.strip()):
        return None
    said = "An API key of this tenant is needed: Authorization: Bearer omk_…"
    return _said(401, said, connection="close")


def _answering(work: Callable[[], Response | None]) -> Response | None:
    """Do something with the database, and answer what goes wrong."""
    try:
        return work()
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
            if (refused := await run_in_threadpool(_answering, lambda: _refusal(request))) is not None:
                return refused
            try:
                body = await bodies.read(request, MAX_BODY) if method == "POST" else b""
            except bodies.TooLarge:
                return _said(413, f"At most {MAX_BODY} bytes.", connection="close")
            except TimeoutError:
                return _said(408, "The body did not arrive in time.", connection="close")
            except ClientDisconnect:
                return _said(400, "The body was cut.")
            done = await run_in_threadpool(_answering, lambda: handle(request, body))
            return done or Response(None, 204)

        return Route(path, answer, methods=[method])

    base = "/hooks/{tenant}"
    return (
        endpoint(base, "GET", _me),
        endpoint(f"{base}/subscriptions", "POST", _subscribe(loopback)),
        endpoint(f"{base}/subscriptions/{{number}}", "DELETE", _unsubscribe),
        endpoint(f"{base}/samples/{{event}}", "GET", _samples),
    )
