"""Stripe's endpoints, with its limits, versions, idempotency and faults."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from omni.sandbox.company import Company
from omni.sandbox.faults import Fault
from omni.sandbox.limits import Window
from omni.sandbox.reply import Refusal, Reply
from omni.sandbox.serving import DOWN, Endpoint, State, bearer, deliver, retry_header, target_of
from omni.sandbox.stripe_account import KINDS, Account, problem, unknown
from omni.sandbox.stripe_events import ACCOUNT_VERSION

VERSION = "2026-10-28.endive"
ACCOUNT = "acct_sandbox"
"""The one connected account, which is the account itself."""

Handler = Callable[[Account, Request, dict[str, str]], Reply]


@dataclass
class Stripe:
    """The vendor's state: its account, built when first asked for, limits, and remembered writes."""

    company: Company
    per_second: int
    windows: dict[str, Window] = field(default_factory=dict)
    done: dict[str, tuple[str, Reply]] = field(default_factory=dict)
    requests: int = 0

    @cached_property
    def account(self) -> Account:
        """The objects; most runs of the sandbox never need them."""
        return Account(self.company)

    def admit(self, resource: str) -> None:
        """Count a request.

        Raises:
            Refusal: 429, for the account or, at a quarter of it, for one endpoint.
        """
        for name, share in (("", 1), (resource, 4)):
            window = self.windows.setdefault(name, Window(max(self.per_second // share, 1), 1.0))
            if window.take():
                raise limited(None, "endpoint-rate" if name else "global-rate")


def limited(wait: float | None, reason: str = "global-rate") -> Refusal:
    """Stripe's 429, with the seconds to wait or, as is usual, without."""
    message = "Request rate limit exceeded. Learn more: https://stripe.com/docs/rate-limits"
    headers = {"Stripe-Rate-Limited-Reason": reason, **retry_header(wait)}
    return problem(429, message, code="rate_limit", headers=headers)


def _unauthorized() -> Refusal:
    return problem(401, "Invalid API Key provided: sk_test_****")


def _version(request: Request) -> str:
    """The version that answers.

    Raises:
        Refusal: there is no such version.
    """
    asked = request.headers.get("stripe-version", ACCOUNT_VERSION)
    if asked not in (VERSION, ACCOUNT_VERSION):
        raise problem(400, f"Invalid Stripe API version: {asked}")
    return asked


def _admit(state: State, stripe: Stripe, request: Request, resource: str, label: str) -> None:
    if not state.accepts(bearer(request)):
        raise _unauthorized()
    connected = request.headers.get("stripe-account", ACCOUNT)
    if connected != ACCOUNT:
        message = f"The provided key does not have access to account '{connected}'"
        raise problem(403, message, code="account_invalid")
    try:
        stripe.admit(resource)
    except Refusal:
        state.throttled[label] += 1
        raise


def _once(stripe: Stripe, request: Request, form: dict[str, str], make: Callable[[], Reply]) -> Reply:
    """Do a write once for its idempotency key."""
    key = request.headers.get("idempotency-key")
    if request.method == "GET" or key is None:
        return make()
    what = f"{request.method} {request.url.path} {sorted(form.items())}"
    if (known := stripe.done.get(key)) is not None:
        if known[0] != what:
            message = f"Keys for idempotent requests can only be used with the same parameters. Key: {key}"
            raise problem(400, message, "idempotency_error")
        return Reply(known[1].payload, known[1].status, {"Idempotent-Replayed": "true"})
    try:
        reply = make()
    except Refusal as refusal:
        reply = refusal.reply
    stripe.done[key] = (what, Reply(_copy(reply.payload), reply.status))
    return reply


def _copy(payload: Any) -> Any:
    return dict(payload) if isinstance(payload, dict) else payload


def _instead(make: Callable[[], Reply]) -> Callable[[Fault], Reply | None]:
    """The answers of faults: refusals, and lists that are not whole."""

    def instead(fault: Fault) -> Reply | None:
        if fault.kind in DOWN:
            return problem(int(fault.kind), DOWN[fault.kind], "api_error").reply
        if fault.kind == "401":
            return _unauthorized().reply
        if fault.kind in ("429", "429_retry_after"):
            return limited(1.0 if fault.kind == "429_retry_after" else None).reply
        if fault.kind not in ("missing_results", "truncate_page"):
            return None
        reply = make()
        if isinstance(reply.payload.get("data"), list):
            rows = reply.payload["data"]
            cut = {} if fault.kind == "missing_results" else {"data": rows[: len(rows) // 2]}
            rest = {name: value for name, value in reply.payload.items() if name != "data"}
            return Reply(rest | cut, reply.status, reply.headers)
        return reply

    return instead


def _endpoint(state: State, stripe: Stripe, resource: str, handle: Handler) -> Endpoint:
    """An endpoint of Stripe around a function of account, request and parameters."""

    async def endpoint(request: Request) -> Response:
        label = f"stripe {request.method.lower()} {resource}"
        state.requests[label] += 1
        stripe.requests += 1
        raw = await request.body()
        sent = request.url.query if request.method == "GET" else raw.decode(errors="replace")
        params = _numbered(parse_qsl(sent, keep_blank_values=True))
        trace = {"Request-Id": f"req_{stripe.requests:016x}"}

        def make() -> Reply:
            try:
                _admit(state, stripe, request, resource, label)
                version = _version(request)
                reply = _once(stripe, request, params, lambda: handle(stripe.account, request, params))
            except Refusal as refusal:
                reply = refusal.reply
                version = request.headers.get("stripe-version", ACCOUNT_VERSION)
            return Reply(reply.payload, reply.status, {**reply.headers, **trace, "Stripe-Version": version})

        fault = state.faults.draw(target_of(request), shopify=False)
        return await deliver(state, fault, _instead(make), make)

    return endpoint


def _numbered(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Parameters by name; `expand[]`, which may come several times, gets numbers."""
    found: dict[str, str] = {}
    for place, (name, value) in enumerate(pairs):
        found[name.replace("[]", f"[{place}]") if name.endswith("[]") else name] = value
    return found


def _customer(account: Account, request: Request, params: dict[str, str]) -> Reply:
    key = request.path_params["key"]
    if request.method == "DELETE":
        return account.delete_customer(key)
    return account.update_customer(key, params)


def _lines(account: Account, request: Request, params: dict[str, str]) -> Reply:
    return account.nested(account.lines, request.path_params["key"], params, request.url.path)


def _items(account: Account, _: Request, params: dict[str, str]) -> Reply:
    owner = _owner(params, "subscription", "sub")
    return account.nested(account.lines, owner, params, "/v1/subscription_items")


def _payments(account: Account, _: Request, params: dict[str, str]) -> Reply:
    owner = _owner(params, "invoice", "in")
    return account.nested(account.payments, owner, params, "/v1/invoice_payments")


def _owner(params: dict[str, str], name: str, prefix: str) -> str:
    owner = params.get(name)
    if owner is None:
        raise problem(400, f"Missing required param: {name}.", code="parameter_missing", param=name)
    if not re.fullmatch(rf"{prefix}_\w+", owner):
        raise unknown(f"{name}s", owner, name, 400)
    return owner


def routes(state: State) -> list[Route]:
    """Stripe's routes over the company's payments."""
    stripe = Stripe(state.company, state.options.stripe_per_second)

    def made(resource: str, handle: Handler) -> Endpoint:
        return _endpoint(state, stripe, resource, handle)

    found: list[Route] = []
    for kind in KINDS:
        listing = made(kind, lambda account, _, params, kind=kind: account.listing(kind, params))  # type: ignore[misc]
        single = made(
            kind,
            lambda account, request, params, kind=kind: account.retrieve(  # type: ignore[misc]
                kind, request.path_params["key"], params
            ),
        )
        found += [
            Route(f"/v1/{kind}", listing, methods=["GET"]),
            Route(f"/v1/{kind}/{{key}}", single, methods=["GET"]),
        ]
    create = made("customers", lambda account, _, params: account.create_customer(params))
    change = made("customers", _customer)
    return [
        *found,
        Route("/v1/invoices/{key}/lines", made("invoices", _lines), methods=["GET"]),
        Route("/v1/invoice_payments", made("invoice_payments", _payments), methods=["GET"]),
        Route("/v1/subscription_items", made("subscription_items", _items), methods=["GET"]),
        Route("/v1/customers", create, methods=["POST"]),
        Route("/v1/customers/{key}", change, methods=["POST", "DELETE"]),
    ]
