"""The demo company's products."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from omni.sandbox import demo_words as words
from omni.sandbox.company import DAY_SECONDS, Node, cents, shop_time
from omni.sandbox.demo_calendar import DAYS, Floats, Ints, day_index, rng, to_epoch

PRODUCTS = 300
LAUNCHED_LATER = 80
RECALLED = 7
"""Index of the product that is recalled."""


@dataclass(frozen=True)
class Catalogue:
    """One entry per product. `price` in minor units; `launched` is a day index, negative before the start."""

    title: tuple[str, ...]
    category: tuple[str, ...]
    brand: tuple[str, ...]
    price: Ints
    launched: Ints
    popularity: Floats


def build_catalogue() -> Catalogue:
    """Draw titles, prices, launch days and how much each product is liked."""
    generator = rng("catalogue")
    kinds = [(c, noun, base) for c, (nouns, base) in words.CATEGORIES.items() for noun in nouns]
    chosen = [kinds[int(i)] for i in generator.integers(0, len(kinds), PRODUCTS)]
    title = tuple(
        f"{words.SERIES[n % len(words.SERIES)]} {noun}{'' if n < 200 else ' II'}"
        for n, (_, noun, _) in enumerate(chosen)
    )
    spread = np.exp(generator.normal(0, 0.35, PRODUCTS))
    price = (np.array([base for _, _, base in chosen]) * spread / 1000).round().astype(np.int64) * 1000 - 10
    launched = np.full(PRODUCTS, -17, dtype=np.int64)
    launched[-LAUNCHED_LATER:] = np.sort(generator.integers(10, DAYS - 30, LAUNCHED_LATER))
    popularity = generator.permutation(1 / np.arange(1, PRODUCTS + 1) ** 0.6)
    brand = tuple(words.BRANDS[int(i)] for i in generator.integers(0, len(words.BRANDS), PRODUCTS))
    category = tuple(c for c, _, _ in chosen)
    return Catalogue(title, category, brand, np.maximum(price, 990), launched, popularity)


def choose(generator: np.random.Generator, catalogue: Catalogue, days: Ints) -> Ints:
    """A product for each order line, among those launched by the line's day."""
    weight = catalogue.popularity / catalogue.popularity.sum()
    chosen = generator.choice(PRODUCTS, size=len(days), p=weight)
    early = catalogue.launched[chosen] > days
    start = weight[: PRODUCTS - LAUNCHED_LATER]
    chosen[early] = generator.choice(len(start), size=int(early.sum()), p=start / start.sum())
    return np.asarray(chosen, dtype=np.int64)


def _launch(day: int) -> int:
    """Launch moment: 10:00 local; the first assortment came before the company's first day."""
    return int(to_epoch(max(day, 0), 10 * 3600)) + min(day, 0) * DAY_SECONDS


def render_products(catalogue: Catalogue, limit: int) -> list[Node]:
    """Product nodes as of `limit` (first second that has not happened); those not launched are left out.

    A few are as shops leave them: no category, a price of zero, no longer sold.
    """
    retired = int(to_epoch(day_index(date(2026, 2, 1)), 0))
    nodes = []
    for n, title in enumerate(catalogue.title):
        created = _launch(int(catalogue.launched[n]))
        if created >= limit:
            continue
        gone = n % 25 == 24 and created < retired < limit
        price = {"amount": cents(0 if n == 113 else int(catalogue.price[n])), "currencyCode": "EUR"}
        nodes.append(
            {
                "__typename": "Product",
                "id": f"gid://shopify/Product/{7001 + n}",
                "legacyResourceId": str(7001 + n),
                "title": f"  {title}" if n == 57 else title,
                "handle": f"{title.lower().replace(' ', '-')}-{n + 1}",
                "productType": "" if n % 60 == 41 else catalogue.category[n],
                "vendor": catalogue.brand[n],
                "status": "ARCHIVED" if gone else "ACTIVE",
                "priceRangeV2": {"minVariantPrice": price, "maxVariantPrice": price},
                "createdAt": shop_time(created),
                "updatedAt": shop_time(retired if gone else created),
            }
        )
    return nodes
