"""Who buys when at the demo company: new customers, repeat purchase, churn, and the e-mail's extra orders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from omni.sandbox.demo_calendar import DAYS, Ints, orders_expected, rng, seconds_of_day, to_epoch
from omni.sandbox.demo_leads import Leads
from omni.sandbox.demo_mail import Mailing, bought_anyway

ORGANIC_ORDERS = 11_680
LINKED = 1_650
"""How many customers are also contacts in the CRM."""
IDLE = 40
"""Accounts that never ordered."""
LIFETIME_DAYS = 420.0


@dataclass(frozen=True)
class Trade:
    """`customer`, `at`: one entry per order, oldest first. `lead`: per customer, the contact or -1.

    Customers are in order of first purchase; the last `IDLE` never bought and `joined` says when they came.
    `base_rate` is the share of contacts in the experiment who bought without being caused to.
    """

    customer: Ints
    at: Ints
    lead: Ints
    joined: Ints
    base_rate: float


def _organic(generator: np.random.Generator) -> tuple[Ints, Ints, int]:
    """Day and customer of each order not caused by e-mail, and the number of customers.

    Each day's orders are split into first ones, a share that falls from all to a quarter, and repeats, drawn
    among customers who have not churned in proportion to how keen each is.
    """
    per_day = generator.poisson(orders_expected(ORGANIC_ORDERS))
    share = 0.226 + 0.774 * np.exp(-np.arange(DAYS) / 45)
    new = generator.binomial(per_day, share)
    entry = np.repeat(np.arange(DAYS), new)
    keen = generator.gamma(0.7, 1.0, len(entry)) + 0.02
    leaves = entry + generator.exponential(LIFETIME_DAYS, len(entry))
    days, customers = [entry], [np.arange(len(entry))]
    known = 0
    for day in range(DAYS):
        repeats = int(per_day[day] - new[day])
        alive = np.flatnonzero(leaves[:known] > day)
        if repeats and len(alive):
            edges = np.cumsum(keen[alive])
            drawn = alive[np.searchsorted(edges, generator.random(repeats) * edges[-1])]
            days.append(np.full(repeats, day))
            customers.append(drawn)
        known += int(new[day])
    return np.concatenate(days), np.concatenate(customers), len(entry)


def _link(generator: np.random.Generator, leads: Leads, customers: int) -> Ints:
    """Pair contacts with customers in order of time: every one that was won, and others at random."""
    persons = np.flatnonzero(leads.duplicate_of < 0)
    won = persons[leads.won_at[persons] > 0]
    others = np.setdiff1d(persons, won)
    contacts = np.sort(np.concatenate([won, generator.choice(others, LINKED - len(won), replace=False)]))
    buyers = np.sort(generator.choice(customers, LINKED, replace=False))
    lead = np.full(customers, -1, dtype=np.int64)
    lead[buyers] = contacts
    return lead


def build_trade(leads: Leads, mailing: Mailing) -> Trade:
    """Draw all orders' times and buyers."""
    generator = rng("trade")
    day, customer, customers = _organic(generator)
    at = to_epoch(day, seconds_of_day(generator, len(day)))
    lead = _link(generator, leads, customers)
    base = bought_anyway(mailing, lead[customer], at, len(leads.created))
    customer_of = np.full(len(leads.created), -1, dtype=np.int64)
    customer_of[lead[lead >= 0]] = np.flatnonzero(lead >= 0)
    ordering = mailing.lead[mailing.order_at > 0]
    strangers = ordering[customer_of[ordering] < 0]
    customer_of[strangers] = customers + np.arange(len(strangers))
    lead = np.concatenate([lead, strangers])
    customer = np.concatenate([customer, customer_of[ordering]])
    at = np.concatenate([at, mailing.order_at[mailing.order_at > 0]])
    order = np.lexsort((customer, at))
    customer, at = customer[order], at[order]
    _, first = np.unique(customer, return_index=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    lead_by_rank = np.full(len(first) + IDLE, -1, dtype=np.int64)
    lead_by_rank[rank] = lead[: len(first)]
    joined = np.concatenate([np.sort(at[first]), np.sort(generator.choice(at, IDLE, replace=False))])
    return Trade(rank[customer], at, lead_by_rank, joined, float(base.mean()))
