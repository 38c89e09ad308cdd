"""The sandbox over HTTP: all vendors on one port, faults on request, statistics.

`/_sandbox/health` answers when ready, `/_sandbox/stats` counts what was asked, `POST /_sandbox/fault`
(`{"kind", "path", "times"}`) lets coming requests fail. A fault's `path` is a regular expression searched in
`path?query`; for Shopify, where all share one path, in `path#field` with the names of the root fields.
"""

from __future__ import annotations

import json
import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Lifespan

from omni.sandbox import (
    hubspot_routes,
    oauth_routes,
    rest_routes,
    salesforce_routes,
    shopify_routes,
    stripe_routes,
    zapier_routes,
)
from omni.sandbox.company import Company
from omni.sandbox.faults import Faults
from omni.sandbox.serving import Options, State

__all__ = ["Options", "build_app"]

VENDORS = (
    hubspot_routes.routes,
    shopify_routes.routes,
    salesforce_routes.routes,
    stripe_routes.routes,
    oauth_routes.routes,
    rest_routes.routes,
    zapier_routes.routes,
)


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


def build_app(company: Company, options: Options, lifespan: Lifespan[Starlette] | None = None) -> Starlette:
    """The sandbox as an ASGI application.

    Args:
        company: what it serves.
        options: how it behaves.
        lifespan: what to do around serving, if anything.
    """
    state = State(company, options, Faults(options.faults, options.seed))
    vendors = [route for routes in VENDORS for route in routes(state)]
    return Starlette(routes=[*_own_routes(state), *vendors], lifespan=lifespan)
