"""A company's data in the shapes its vendors would hold them.

CRM records carry HubSpot's property names and string values; shop records are the nodes of Shopify's graph
(an order refers to its customer's and products' very dictionaries). A company is rendered *as of* a day:
what happens later has not happened, so an order shows up unpaid first and refunded weeks after.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omni.errors import ConfigError

if TYPE_CHECKING:
    from omni.sandbox.salesforce_org import Org

Node = dict[str, Any]
"""One object of Shopify's graph, by GraphQL field name."""

DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Property:
    """A CRM property's definition.

    `type` is one of string, number, bool, date, datetime, enumeration; `options` are an enumeration's values.
    `custom` ones are the account's own, `unique` ones identify a record, `sensitive` ones are marked so.
    """

    name: str
    type: str
    label: str
    options: tuple[str, ...] = ()
    calculated: bool = False
    custom: bool = False
    unique: bool = False
    sensitive: bool = False


@dataclass(frozen=True, slots=True)
class CrmRecord:
    """One CRM object. Times are milliseconds since the epoch (UTC)."""

    id: str
    properties: dict[str, str | None] = field(repr=False)
    created_ms: int
    updated_ms: int
    archived_ms: int | None = None


@dataclass(frozen=True)
class CrmObjects:
    """All objects of one CRM type, oldest id first, with the properties the account declares for it."""

    name: str
    properties: tuple[Property, ...]
    records: tuple[CrmRecord, ...] = field(repr=False)


@dataclass(frozen=True)
class Shop:
    """What the shop holds, each list in order of id."""

    name: str
    currency: str
    customers: tuple[Node, ...] = field(repr=False)
    products: tuple[Node, ...] = field(repr=False)
    orders: tuple[Node, ...] = field(repr=False)


class Anomaly(NamedTuple):
    """A day on which a daily metric is known to be out of line (`direction`: up or down)."""

    metric: str
    day: date
    direction: str


@dataclass(frozen=True)
class ExperimentTruth:
    """What an e-mail experiment really did, per contact, within `window_days` of the first e-mail.

    Effects are treatment minus control: `conversion_effect` in probability of at least one order,
    `spend_effect` in expected order value (the shop's currency).
    """

    name: str
    window_days: int
    base_conversion: float
    conversion_effect: float
    spend_effect: float


@dataclass(frozen=True)
class Truth:
    """What is known about the data because it was put there; never served.

    `lead_auc` is the ROC area reached by the true effect of every recorded property of a lead, nothing
    missing: a score learnt from what is served can be expected to stay below it.
    """

    anomalies: tuple[Anomaly, ...] = ()
    experiment: ExperimentTruth | None = None
    lead_auc: float | None = None


@dataclass(frozen=True)
class Company:
    """A company, as its CRM and its shop show it.

    `associations` maps (from type, to type) to {from id: to ids}; both directions are present. `owners` are
    the CRM's users in HubSpot's shape. `org` makes its Salesforce org, a new one each time, since an org
    changes while it is served.
    """

    name: str
    timezone: str
    crm: Mapping[str, CrmObjects]
    associations: Mapping[tuple[str, str], Mapping[str, tuple[str, ...]]] = field(repr=False)
    shop: Shop
    documents: Path | None
    truth: Truth = field(default_factory=Truth)
    owners: tuple[Node, ...] = field(default=(), repr=False)
    org: Callable[[], Org] | None = field(default=None, repr=False, compare=False)


@lru_cache(maxsize=65_536)
def crm_time(milliseconds: int) -> str:
    """HubSpot's form of a time: `2026-10-31T12:00:00.000Z`."""
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def shop_time(seconds: int) -> str:
    """Shopify's form of a time: `2026-10-31T12:00:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19] + "Z"


def end_of_day(day: date) -> int:
    """First second after a UTC day, since the epoch."""
    return int(datetime.combine(day + timedelta(days=1), time(), UTC).timestamp())


def cents(amount: int) -> str:
    """Minor units as the decimal string vendors send: 1234 -> `12.34`."""
    sign = "-" if amount < 0 else ""
    return f"{sign}{abs(amount) // 100}.{abs(amount) % 100:02d}"


def money_maker(currency: str) -> Callable[[int], Node]:
    """A function from minor units to a `MoneyBag` in one currency; equal amounts share one dictionary."""

    @cache
    def money(amount: int) -> Node:
        value = {"amount": cents(amount), "currencyCode": currency}
        return {"shopMoney": value, "presentmentMoney": value}

    return money


def both_ways(
    pairs: Mapping[tuple[str, str], list[tuple[str, str]]],
) -> dict[tuple[str, str], dict[str, tuple[str, ...]]]:
    """Associations in both directions from pairs of ids by (from type, to type)."""
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    for (left, right), ids in pairs.items():
        there = found.setdefault((left, right), {})
        back = found.setdefault((right, left), {})
        for a, b in ids:
            there.setdefault(a, []).append(b)
            back.setdefault(b, []).append(a)
    return {kind: {k: tuple(v) for k, v in by_id.items()} for kind, by_id in found.items()}


def known_companies() -> tuple[str, ...]:
    """Names `load_company` accepts."""
    return ("demo", "olist", "sales")


def check_known(name: str) -> None:
    """Refuse names of companies there are none of.

    Raises:
        ConfigError: unknown name; the message lists the known ones.
    """
    if name not in known_companies():
        raise ConfigError(f"Unknown company {name!r}. Known ones: {', '.join(known_companies())}.")


def load_company(name: str, until: date | None = None) -> Company:
    """Build a company as of the end of a UTC day.

    Args:
        name: one of `known_companies()`.
        until: the last day that has happened; None for all there is.

    Raises:
        ConfigError: unknown name, or the real data set it needs is absent.
    """
    check_known(name)
    if name == "olist":
        from omni.sandbox import olist

        return olist.build(until)
    if name == "sales":
        from omni.sandbox import sales_org

        return sales_org.build(until)
    from omni.sandbox import demo

    return demo.build(until)
