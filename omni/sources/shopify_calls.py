"""Calls to the shop: what they cost, what its errors mean, which version answered.

Calls are paid in points from a bucket that refills at a steady rate; each answer says what it cost and what
is left, which tells how long to wait.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from omni.errors import AuthError, ConfigError, SchemaError, SourceError
from omni.sources.connection import Connection
from omni.sources.http import Again, Counters, Dialect, Http, Reply, need, retry_after
from omni.sources.shopify_query import where_of
from omni.warehouse.contracts import Contract

VERSION = "2026-10"
PATH = f"/admin/api/{VERSION}/graphql.json"
BULK_ABOVE = 10_000
"""More records are first loaded by a bulk operation; an account's option `bulk_above` sets another number."""
BULK_PATIENCE = 6 * 3600.0
"""Seconds a bulk operation may take before it is cancelled; the option `bulk_patience` sets others."""
BULK_POLL = 1.0
"""Seconds until a bulk operation is first asked about; an account's option `bulk_poll` sets others."""

NO_FIELD = re.compile(
    r"Field '\w+' doesn't exist on type|Cannot query field|must (not )?have a (sub-?)?selection"
)


class TooCostly(SourceError):
    """The query may cost more than the shop allows one query."""


@dataclass(frozen=True)
class Shop:
    """A shop's client.

    Attributes:
        http: sends.
        bulk_above: records from which on a first load runs as a bulk operation.
        bulk_poll: seconds until a bulk operation is first asked about.
        bulk_patience: seconds it may take before it is cancelled.
    """

    http: Http
    bulk_above: int = BULK_ABOVE
    bulk_poll: float = BULK_POLL
    bulk_patience: float = BULK_PATIENCE

    @property
    def counters(self) -> Counters:
        """What the calls cost so far."""
        return self.http.counters


@contextmanager
def open_shop(connection: Connection) -> Iterator[Shop]:
    """A client for an account.

    Raises:
        ConfigError: an option is no number, or the address or token cannot be used.
    """
    options = connection.options
    try:
        above = int(options.get("bulk_above", BULK_ABOVE))
        poll = float(options.get("bulk_poll", BULK_POLL))
        patience = float(options.get("bulk_patience", BULK_PATIENCE))
    except ValueError:
        names = "bulk_above, bulk_poll and bulk_patience"
        raise ConfigError(f"Shopify: the options {names} must be numbers.") from None
    with Http(connection, DIALECT) as http:
        yield Shop(http, above, poll, patience)


def ask(shop: Shop, tables: list[Contract], text: str, variables: dict[str, Any]) -> dict[str, Any]:
    """One query or mutation; returns its `data`.

    Raises:
        TooCostly: it may cost more than one query may.
        AuthError: a scope is missing.
        SchemaError: a field does not exist (any more).
        SourceError: the shop refuses it or ignored part of the search.
        TransientError: every try failed.
    """
    data = answered(shop, tables, text, variables)
    for value in data.values():
        problems = value.get("userErrors") if isinstance(value, dict) else None
        if problems:
            raise SourceError(f"{where_of(tables)}: {messages(problems)}")
    return data


def answered(shop: Shop, tables: list[Contract], text: str, variables: dict[str, Any]) -> dict[str, Any]:
    """As `ask`, but errors of a mutation's input are left to the caller."""
    where = where_of(tables)
    body = shop.http.post(PATH, {"query": text, "variables": variables})
    if errors := (body.get("errors") if isinstance(body, dict) else None):
        _refuse(errors, tables)
    data = need(body, "data", dict, where)
    if ignored := (body.get("extensions") or {}).get("search"):
        # Shopify leaves a search term out that it does not know, and answers as if it had not been there.
        raise SourceError(f"{where}: Shopify ignored part of the search: {str(ignored)[:300]}")
    if wait := _shortage(body):
        shop.http.hold(wait)
    return data


def _refuse(errors: Any, tables: list[Contract]) -> None:
    where, codes, said = where_of(tables), _codes(errors), messages(errors)
    if "MAX_COST_EXCEEDED" in codes:
        raise TooCostly(f"{where}: a page of 10 records costs more than one query may: {said}")
    if "ACCESS_DENIED" in codes:
        raise AuthError(f"{where}: access refused: {said}. {ADVICE}")
    if "SHOP_INACTIVE" in codes:
        raise SourceError(f"{where}: the shop is closed or frozen: {said}. Open it first.")
    if codes & {"undefinedField", "selectionMismatch"} or NO_FIELD.search(said):
        names = ", ".join(table.table for table in tables)
        raise SchemaError(
            f"{where} no longer fits the contracts of {names}: {said}. Correct the `from` paths in "
            "data/contracts."
        )
    raise SourceError(f"{where}: {said}")


def _codes(errors: Any) -> set[str]:
    found = errors if isinstance(errors, list) else []
    return {
        str((error.get("extensions") or {}).get("code")) for error in found if isinstance(error, dict)
    } - {"None"}


def messages(errors: Any) -> str:
    """The first errors' messages."""
    if not isinstance(errors, list):
        return str(errors)[:300]
    return "; ".join(str(e.get("message") if isinstance(e, dict) else e)[:200] for e in errors[:3])


def _shortage(body: Any) -> float:
    """Seconds until the bucket holds what the last query asked for; 0 when it does or nothing is said."""
    try:
        cost = body["extensions"]["cost"]
        bucket = cost["throttleStatus"]
        missing = float(cost["requestedQueryCost"]) - float(bucket["currentlyAvailable"])
        rate = float(bucket["restoreRate"])
    except (KeyError, TypeError, ValueError):
        return 0.0
    return missing / rate if missing > 0 and rate > 0 else 0.0


def _judge(reply: Reply, where: str) -> None:
    answered_by = reply.headers.get("x-shopify-api-version")
    if answered_by and answered_by != VERSION:
        raise SourceError(
            f"{where}: Shopify answered with version {answered_by} instead of {VERSION}, which it no longer "
            "(or not yet) serves; field meanings may differ. Update omni and its VERSION."
        )
    errors = reply.body.get("errors") if isinstance(reply.body, dict) else None
    codes = _codes(errors)
    if "THROTTLED" in codes:
        wait = _shortage(reply.body) or retry_after(reply.headers)
        raise Again("throttled", wait=wait, throttled=True)
    if "INTERNAL_SERVER_ERROR" in codes:
        raise Again(f"Shopify failed inside: {messages(errors)}")


ADVICE = (
    "Check the Admin API access token and its read scopes (read_orders, read_all_orders, read_customers, "
    "read_products, read_inventory, read_locations), then set it in the tenant's Shopify block or in "
    "OMNI_SHOPIFY__TOKEN."
)

DIALECT = Dialect(
    title="Shopify",
    headers=lambda token: {"X-Shopify-Access-Token": token},
    advice=ADVICE,
    judge=_judge,
)
