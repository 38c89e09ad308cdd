"""What the demo company's orders hold: lines, discounts, payment, shipping, cancellation, refund."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from omni.sandbox.company import DAY_SECONDS, end_of_day
from omni.sandbox.demo_calendar import (
    DAYS,
    ORDER_FACTORS,
    RECALL_DAY,
    START,
    Floats,
    Ints,
    day_index,
    rng,
    to_epoch,
)
from omni.sandbox.demo_catalogue import RECALLED, Catalogue, choose
from omni.sandbox.demo_trade import Trade

SHIPPING, FREE_SHIPPING_FROM = 490, 6_000
RECALLS = 36
CANCELLED, RETURNED = 0.025, 0.062
GATEWAYS = ("shopify_payments", "paypal", "klarna", "manual")
GATEWAY_SHARES = (0.58, 0.25, 0.12, 0.05)
CHANNELS = ("web", "mobile_app", "pos", "instagram")
CHANNEL_SHARES = (0.63, 0.24, 0.08, 0.05)


@dataclass(frozen=True)
class Orders:
    """Columns of all orders, oldest first; money in minor units, times in seconds since the epoch, 0: never.

    `first_line` has one entry more than there are orders: order n's lines are first_line[n]:first_line[n+1]
    of `product`, `quantity`, `line_discount`. `refund_line` is -1 where the whole order was paid back.
    """

    at: Ints
    customer: Ints
    first_line: Ints
    product: Ints
    quantity: Ints
    line_discount: Ints
    subtotal: Ints
    shipping: Ints
    gateway: Ints
    channel: Ints
    failed_first: Ints
    paid_at: Ints
    shipped_at: Ints
    cancelled_at: Ints
    refunded_at: Ints
    refund_line: Ints
    refund_note: Ints


def _percent(generator: np.random.Generator, days: Ints) -> Ints:
    """Discount of each order in percent: some have a code, most have one on a promotion's day."""
    percent = generator.choice([0, 10, 20, 100], size=len(days), p=[0.886, 0.08, 0.0335, 0.0005])
    for day, factor in ORDER_FACTORS.items():
        if factor > 1:
            sale = (days == day_index(day)) & (generator.random(len(days)) < 0.7)
            percent[sale] = 15
    return np.asarray(percent, dtype=np.int64)


def _refunds(
    generator: np.random.Generator, at: Ints, shipped: Ints, first_line: Ints, product: Ints
) -> tuple[Ints, Ints, Ints]:
    """When, which line (-1: all) and which note. The recall pays back one line of many orders on one day."""
    size, lines = len(at), np.diff(first_line)
    returns = (generator.random(size) < RETURNED) & (shipped > 0)
    refunded = np.where(returns, shipped + generator.integers(4 * DAY_SECONDS, 24 * DAY_SECONDS, size), 0)
    which = np.where(generator.random(size) < 0.45, -1, (generator.random(size) * lines).astype(np.int64))
    note = generator.integers(0, 6, size)
    recall = int(to_epoch(day_index(RECALL_DAY), 8 * 3600))
    recent = (at > recall - 120 * DAY_SECONDS) & (shipped > 0) & (shipped < recall) & (refunded == 0)
    candidates = np.flatnonzero(recent)
    has_it = np.array(
        [RECALLED in product[first_line[n] : first_line[n + 1]] for n in candidates], dtype=bool
    )
    chosen = np.concatenate([candidates[has_it], candidates[~has_it][::-1]])[:RECALLS]
    refunded[chosen] = recall + generator.integers(0, 11 * 3600, len(chosen))
    for n in chosen:
        held = np.flatnonzero(product[first_line[n] : first_line[n + 1]] == RECALLED)
        which[n] = held[0] if len(held) else 0
    note[chosen] = -1
    return np.asarray(refunded, dtype=np.int64), np.asarray(which, dtype=np.int64), note


def build_orders(trade: Trade, catalogue: Catalogue) -> Orders:
    """Draw what every order holds and what becomes of it."""
    generator = rng("orders")
    at, size = trade.at, len(trade.at)
    days = np.clip((at - (end_of_day(START) - DAY_SECONDS)) // DAY_SECONDS, 0, DAYS - 1)
    lines = np.minimum(1 + generator.poisson(0.65, size), 5)
    first_line = np.concatenate([[0], np.cumsum(lines)])
    product = choose(generator, catalogue, np.repeat(days, lines))
    odd = generator.random(len(product))
    quantity = 1 + (odd < 0.13).astype(np.int64) + (odd < 0.03)
    gross = catalogue.price[product] * quantity
    line_discount = gross * np.repeat(_percent(generator, days), lines) // 100
    subtotal = np.add.reduceat(gross - line_discount, first_line[:-1])
    shipping = np.where((subtotal < FREE_SHIPPING_FROM) & (subtotal > 0), SHIPPING, 0)
    gateway = generator.choice(len(GATEWAYS), size=size, p=GATEWAY_SHARES)
    cancelled = generator.random(size) < CANCELLED
    wait = np.where(gateway == 3, generator.integers(DAY_SECONDS, 4 * DAY_SECONDS, size), 30)
    paid_at = np.where(cancelled, 0, at + wait)
    cancelled_at = np.where(cancelled, at + generator.integers(1800, 40 * 3600, size), 0)
    shipped_at = np.where(cancelled, 0, paid_at + _handling(generator, size))
    refunded_at, refund_line, refund_note = _refunds(generator, at, shipped_at, first_line, product)
    return Orders(
        at=at,
        customer=trade.customer,
        first_line=first_line,
        product=product,
        quantity=quantity,
        line_discount=line_discount,
        subtotal=subtotal,
        shipping=shipping,
        gateway=gateway,
        channel=generator.choice(len(CHANNELS), size=size, p=CHANNEL_SHARES),
        failed_first=(generator.random(size) < 0.03).astype(np.int64),
        paid_at=paid_at,
        shipped_at=shipped_at,
        cancelled_at=cancelled_at,
        refunded_at=refunded_at,
        refund_line=refund_line,
        refund_note=refund_note,
    )


def _handling(generator: np.random.Generator, size: int) -> Ints:
    """Seconds from payment to parcel: half a day to about three."""
    days: Floats = 0.5 + generator.gamma(1.5, 0.6, size)
    return np.asarray(days * DAY_SECONDS, dtype=np.int64)
