"""Calls to Stripe: version, connected account, limits, and what its refusals mean."""

from __future__ import annotations

import re
from typing import Any, NoReturn

from omni.errors import AuthError, ConfigError, SourceError
from omni.sources.connection import Connection
from omni.sources.http import RETRY_STATUS, Again, Dialect, Http, Reply, retry_after
from omni.sources.limits import Limit
from omni.sources.stripe_streams import STREAMS

VERSION = "2026-10-28.endive"
ADVICE = (
    "Check the secret or restricted key (read permission for each stream's resource and for events), then "
    "set it in the tenant's Stripe block or in OMNI_STRIPE__TOKEN."
)


class Missing(SourceError):
    """Stripe knows no such object; `param` names the parameter that asked for it."""

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__(message)
        self.param = param


def _judge(reply: Reply, where: str) -> None:
    if 200 <= reply.status < 300:
        answered = reply.headers.get("stripe-version")
        if answered != VERSION:
            raise SourceError(
                f"{where}: Stripe answered with version {answered or 'unknown'} instead of {VERSION}; field "
                "meanings may differ. Update omni and its VERSION."
            )
        return
    body = reply.body if isinstance(reply.body, dict) else {}
    error = body["error"] if isinstance(body.get("error"), dict) else {}
    _refuse(reply, error, where)


def _refuse(reply: Reply, error: dict[str, Any], where: str) -> NoReturn:
    status, code, param = reply.status, error.get("code"), error.get("param")
    trace = reply.headers.get("request-id")
    if status in (401, 403):
        # Stripe's own text quotes part of the key; of it only the permission that lacks is told.
        lacking = " ".join(sorted(set(re.findall(r"\brak_[a-z_]+", str(error.get("message"))))))
        said = f": permission {lacking} is missing" if lacking else f": {code}" if code else ""
        raise AuthError(f"{where}: access refused (HTTP {status}){said}. {ADVICE}")
    said = (
        f": {' '.join(str(error.get('message') or error.get('type') or '').split())[:300]}" if error else ""
    )
    said += f" [id {str(trace)[:80]}]" if trace else ""
    later = status in RETRY_STATUS or status == 409 or status >= 500
    if later or reply.headers.get("stripe-should-retry") == "true":
        raise Again(f"HTTP {status}{said}", wait=retry_after(reply.headers), throttled=status == 429)
    message = f"{where}: refused (HTTP {status}){said}."
    if code == "resource_missing":
        raise Missing(message, param if isinstance(param, str) else None)
    raise SourceError(message)


def _limits(connection: Connection) -> tuple[Limit, ...]:
    """Stripe's limits are of a second: for the account, and a quarter of it for each endpoint."""
    whole = max(connection.requests_per_10s // 10, 1)
    paths = [
        *(f"/v1/{name}" for name in STREAMS),
        "/v1/subscription_items",
        "/v1/invoice_payments",
        "/v1/events",
    ]
    return (Limit(whole, 1.0), *(Limit(max(whole // 4, 1), 1.0, path) for path in paths))


def client(connection: Connection) -> Http:
    """A client for an account, or for the connected account that `connection.options` names.

    Raises:
        ConfigError: address, key or account cannot be used in a request.
    """
    account = connection.options.get("account")
    if account and not re.fullmatch(r"acct_\w{1,64}", account, re.ASCII):
        raise ConfigError(
            "Stripe: a connected account's id looks like acct_1234; correct the option account."
        )
    more = {"Stripe-Version": VERSION} | ({"Stripe-Account": account} if account else {})
    dialect = Dialect(
        title="Stripe",
        headers=lambda token: {"Authorization": f"Bearer {token}", **more},
        limits=_limits,
        advice=ADVICE,
        judge=_judge,
    )
    return Http(connection, dialect)
