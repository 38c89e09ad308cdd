"""Zapier's side of webhooks: addresses that catch hooks, remember what they got, and can answer badly.

`POST /zapier/hooks/catch/{account}/{hook}` takes a hook as `hooks.zapier.com` does; forced faults apply (429
with and without `Retry-After`, 5xx, slow, cut). `GET /_sandbox/zapier/{account}/{hook}` tells what came, in
order, the refused too; `DELETE` of it turns the Zap off, after which the address answers 410 Gone.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from omni.sandbox.faults import Fault
from omni.sandbox.limits import Window
from omni.sandbox.reply import Reply
from omni.sandbox.serving import DOWN, State, deliver, retry_header, target_of

LARGEST = 10 * 1024 * 1024
RETRY_SECONDS = 1


@dataclass
class _Hooks:
    """What each hook got, and which are gone."""

    pace: Window
    caught: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)


def _failure(status: int, said: str, wait: float | None = None) -> Reply:
    return Reply({"status": "error", "message": said}, status, retry_header(wait))


def _instead(fault: Fault) -> Reply | None:
    """Zapier's answer to a fault that keeps a hook from being caught."""
    if fault.kind in ("429", "429_retry_after"):
        return _failure(429, "throttled", RETRY_SECONDS if fault.kind == "429_retry_after" else None)
    if fault.kind in DOWN:
        return _failure(int(fault.kind), DOWN[fault.kind])
    return None


def _catch(hooks: _Hooks, key: str, body: bytes) -> Reply:
    if key in hooks.gone:
        return _failure(410, "this Zap is off")
    if len(body) > LARGEST:
        return _failure(413, "payload too large")
    if wait := hooks.pace.take():
        return _failure(429, "throttled", wait)
    try:
        json.loads(body)
    except ValueError:
        return _failure(400, "invalid JSON")
    number = str(uuid.uuid4())
    return Reply({"status": "success", "id": number, "request_id": number, "attempt": number})


def routes(state: State) -> list[Route]:
    """Zapier's catch hooks, and the sandbox's own window on them."""
    hooks = _Hooks(Window(state.options.zapier_per_second, 1.0))

    def key_of(request: Request) -> str:
        return f"{request.path_params['account']}/{request.path_params['hook']}"

    async def catch(request: Request) -> Response:
        state.requests["zapier catch"] += 1
        key, body = key_of(request), await request.body()
        fault = state.faults.draw(target_of(request), shopify=False)
        answer = await deliver(state, fault, _instead, lambda: _catch(hooks, key, body))
        hooks.caught.setdefault(key, []).append(
            {"status": answer.status_code, "headers": dict(request.headers), "body": body.decode("latin-1")}
        )
        return answer

    async def caught(request: Request) -> Response:
        return JSONResponse(hooks.caught.get(key_of(request), []))

    async def turn_off(request: Request) -> Response:
        hooks.gone.add(key_of(request))
        return JSONResponse({"status": "gone"})

    return [
        Route("/zapier/hooks/catch/{account}/{hook}", catch, methods=["POST"]),
        Route("/_sandbox/zapier/{account}/{hook}", caught, methods=["GET"]),
        Route("/_sandbox/zapier/{account}/{hook}", turn_off, methods=["DELETE"]),
    ]
