"""What the sandbox's vendors share: options, counters, tokens, how a reply becomes bytes with its faults."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from omni.errors import ConfigError
from omni.sandbox.company import Company
from omni.sandbox.faults import Fault, Faults, spoil
from omni.sandbox.limits import RESTORE_RATES
from omni.sandbox.reply import Reply

Endpoint = Callable[[Request], Awaitable[Response]]
Instead = Callable[[Fault], Reply | None]
"""A vendor's own answer to a fault that keeps a request from being served."""

DOWN = {"500": "internal error", "502": "bad gateway", "503": "service unavailable"}
"""Statuses of a vendor that fails, and what it says."""


@dataclass(frozen=True)
class Options:
    """How the sandbox behaves.

    `token_seconds` is how long access tokens given out by OAuth last; None: as long as each vendor's.

    Raises:
        ConfigError: a value out of range, or an unknown plan.
    """

    token: str
    faults: float = 0.0
    seed: int = 0
    plan: str = "enterprise"
    hubspot_per_10s: int = 190
    searches_per_second: int = 5
    hubspot_per_day: int = 650_000
    token_seconds: float | None = None
    stripe_per_second: int = 4_000
    zapier_per_second: int = 30

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

    company: Company
    options: Options
    faults: Faults
    requests: Counter[str] = field(default_factory=Counter)
    throttled: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    valid_tokens: dict[str, float] = field(default_factory=dict, repr=False)
    """Tokens given out by the authorization server, and when each ends, on the clock of `time.monotonic`."""
    used_tokens: set[str] = field(default_factory=set, repr=False)
    """Those of them that a vendor has seen."""

    def accepts(self, token: str | None) -> bool:
        """Whether an access token is good, at every vendor: the sandbox's own, or one given out of late."""
        if token is None:
            return False
        if self.valid_tokens.get(token, 0.0) > time.monotonic():
            self.used_tokens.add(token)
            return True
        return token == self.options.token


class CutResponse(Response):
    """Promises its whole body, sends half and lets the server close the connection."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the answer's first half."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body[: len(self.body) // 2])
        await send({"type": "http.response.body", "body": half, "more_body": True})


async def deliver(state: State, fault: Fault | None, instead: Instead, make: Callable[[], Reply]) -> Response:
    """Turn a reply into bytes, with the fault's doing.

    A payload of bytes or text is sent as it is (its content type among the headers), others as JSON.
    """
    if fault is not None:
        state.injected[str(fault)] += 1
        if fault.kind == "slow":
            await asyncio.sleep(float(fault.arguments[0]))
    reply = (instead(fault) if fault else None) or make()
    payload = spoil(reply.payload, fault) if fault else reply.payload
    if isinstance(payload, str):
        payload = payload.encode()
    body = (
        payload
        if isinstance(payload, bytes)
        else json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    )
    if fault is not None and fault.kind == "malformed_json":
        body = body[: len(body) // 2]
    answer = CutResponse if fault is not None and fault.kind == "cut_body" else Response
    headers = {k: v for k, v in reply.headers.items() if k.lower() != "content-type"}
    kind = next((v for k, v in reply.headers.items() if k.lower() == "content-type"), "application/json")
    if reply.status == 204:
        return Response(None, 204, headers)
    return answer(body, reply.status, headers, kind)


def retry_header(wait: float | None) -> dict[str, str]:
    """`Retry-After` in whole seconds; nothing when there is no wait to tell."""
    return {} if wait is None else {"Retry-After": str(max(1, math.ceil(wait)))}


def bearer(request: Request) -> str | None:
    """The token of a request's `Authorization: Bearer` header."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token if kind == "Bearer" and token else None


def target_of(request: Request) -> str:
    """`path?query`, as faults match it."""
    query = request.url.query
    return f"{request.url.path}?{query}" if query else request.url.path
