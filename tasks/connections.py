"""How a tenant's vendors are reached: a saved block, else an account connected by OAuth, else settings, else
the sandbox.

A connection holds a token, so it never travels as a task's parameter: steps ask for it here by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, time, timedelta

from pydantic import SecretStr

from blocks.lookup import account_block, saved
from blocks.rest_api import RestApi
from omni import tenancy
from omni.errors import ConfigError
from omni.sandbox.process import running as sandbox_running
from omni.sandbox.process import searches_for
from omni.settings import VendorSettings, settings, variables_of
from omni.sources import rest
from omni.sources.connection import Connection
from omni.sources.oauth_store import stored_connection
from omni.sources.vendors import NAMES, vendor_named
from omni.tenancy import Tenant

NO_SANDBOX = ("mongodb", "firestore")
"""Vendors that the sandbox does not stand in for."""

SANDBOX_PER_10S = 5_000
"""The sandbox stands in for an account without a rate limit worth waiting for."""

_connections: dict[tuple[str, str], Connection] = {}


def _configured(tenant: Tenant, vendor: str) -> Connection | None:
    """The saved block of the tenant's name, the account it connected by `omni connect`, or for a tenant
    without sandbox company the settings."""
    if vendor in rest.declarations():
        # A tenant may have several, so a block is saved under "<tenant>-<vendor>".
        declared = saved(RestApi, f"{tenant.tenant}-{vendor}")
        return declared.connection(vendor) if declared else rest.configured(tenant, vendor)
    account = account_block(vendor) if vendor in NAMES else None
    if account is None:
        known = ", ".join([*filter(account_block, NAMES), *rest.declarations()])
        raise ConfigError(f"Tenant {tenant.tenant!r} names unknown vendor {vendor!r}; known: {known}")
    if (block := saved(account, tenant.tenant)) is not None:
        connection: Connection = block.connection()
        return connection
    if (stored := stored_connection(tenant.tenant, vendor)) is not None:
        return stored
    # A vendor that needs more than address, token and limits makes the connection from its settings itself.
    module = importlib.import_module(f"omni.sources.{vendor}")
    if hasattr(module, "configured"):
        own: Connection | None = module.configured(tenant)
        return own
    return _from_settings(tenant, vendor)


def _from_settings(tenant: Tenant, vendor: str) -> Connection | None:
    configured = getattr(settings(), vendor, settings().vendors.get(vendor, VendorSettings()))
    if tenant.company is not None or configured.base_url is None:
        return None
    if configured.token is None:
        prefix = variables_of(vendor)
        raise ConfigError(f"{prefix}TOKEN is not set, but {prefix}BASE_URL is")
    limits = configured.model_dump(exclude={"base_url", "token", "webhook_secret", "account"})
    account = getattr(configured, "account", None)
    options = {"account": account} if account else {}
    return Connection(
        vendor, str(configured.base_url).rstrip("/"), configured.token, options=options, **limits
    )


@contextmanager
def connected(tenant: Tenant) -> Iterator[None]:
    """Make the tenant's vendors reachable for the steps of this process.

    Raises:
        ConfigError: a vendor has neither block nor settings, and the tenant no sandbox company.
    """
    found = {vendor: _configured(tenant, vendor) for vendor in tenant.sources}
    missing = [vendor for vendor, connection in found.items() if connection is None]
    if bare := [vendor for vendor in missing if vendor in NO_SANDBOX]:
        raise ConfigError(_unconnected(tenant, bare[0]))
    if missing and tenant.company is None:
        prefix = variables_of(missing[0])
        raise ConfigError(
            f"Tenant {tenant.tenant!r} has no connection to {', '.join(missing)}. Run `omni connect`, save a "
            f"block named {tenant.tenant!r}, or set {prefix}BASE_URL and {prefix}TOKEN."
        )
    with _sandbox(tenant, missing) as simulated:
        for vendor, connection in (found | simulated).items():
            assert connection is not None
            _connections[tenant.tenant, vendor] = connection
        try:
            yield
        finally:
            for vendor in tenant.sources:
                _connections.pop((tenant.tenant, vendor), None)


def _unconnected(tenant: Tenant, vendor: str) -> str:
    return (
        f"Tenant {tenant.tenant!r} has no connection to {vendor}, which the sandbox does not stand in for. "
        f"Save a block named {tenant.tenant!r}, or set {variables_of(vendor)}BASE_URL."
    )


@contextmanager
def _sandbox(tenant: Tenant, vendors: list[str]) -> Iterator[dict[str, Connection]]:
    if not vendors or tenant.company is None:
        yield {}
        return
    chosen = settings()
    with sandbox_running(
        tenant.company,
        faults=chosen.sandbox_faults,
        until=chosen.sandbox_until,
        hubspot_per_10s=SANDBOX_PER_10S,
    ) as sandbox:
        token = SecretStr(sandbox.token)
        yield {
            vendor: Connection(
                vendor,
                sandbox.url,
                token,
                requests_per_10s=SANDBOX_PER_10S,
                searches_per_second=searches_for(SANDBOX_PER_10S),
            )
            for vendor in vendors
        }


def connection(tenant: str, vendor: str) -> Connection:
    """The connection of a tenant's vendor within `connected`; a process of its own looks it up again."""
    known = _connections.get((tenant, vendor)) or _configured(tenancy.get(tenant), vendor)
    if known is None and vendor in NO_SANDBOX:
        raise ConfigError(_unconnected(tenancy.get(tenant), vendor))
    if known is None:
        raise ConfigError(f"Tenant {tenant!r} is not connected to {vendor} in this process")
    return known


def now(tenant: Tenant, vendor: str) -> datetime:
    """The time it is for a tenant's vendor: the clock's, or where the sandbox's data were made to end."""
    day = settings().sandbox_until
    if tenant.company is None or day is None or vendor in NO_SANDBOX:
        return datetime.now(UTC)
    return datetime.combine(day + timedelta(days=1), time.min, UTC) + vendor_named(vendor).lag
