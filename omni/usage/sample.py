"""Made-up events of the demo product, the same for the same seed, to try things out and to measure with."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import numpy as np

CHANNELS = ("organic", "paid", "social", "email", "direct", "referral")
MIX = {
    "page_view": 0.55, "product_view": 0.2, "feature_used": 0.08, "login": 0.06, "search": 0.04,
    "add_to_cart": 0.04, "checkout": 0.015, "purchase": 0.01, "signup": 0.005,
}  # fmt: skip
"""Share of each event."""


def sample_events(
    number: int, *, since: datetime, until: datetime, seed: int = 0, users: int = 5_000
) -> Iterator[dict[str, Any]]:
    """Events as senders send them, in order of time.

    Args:
        number: how many.
        since: time of the earliest; with a zone.
        until: they lie before it.
        seed: another one gives other events with other ids.
        users: how many different users there are at most.
    """
    rng = np.random.default_rng(seed)
    seconds = np.sort(rng.uniform(0, (until - since).total_seconds(), number))
    names = rng.choice(list(MIX), size=number, p=np.array([*MIX.values()]) / sum(MIX.values()))
    actors, products = rng.zipf(1.2, number) % users, rng.integers(0, 500, number)
    chosen = rng.integers(0, len(CHANNELS), number)
    for n in range(number):
        name, actor, product = str(names[n]), int(actors[n]), int(products[n])
        yield {
            "id": f"{seed}-{n}",
            "source": "web",
            "type": name,
            "time": (since + timedelta(seconds=float(seconds[n]))).isoformat(),
            "actor": f"user-{actor}",
            "session": f"{actor}-{n // 200}",
            "account": f"account-{actor % 200}",
            "data": _data(name, product, CHANNELS[int(chosen[n])]),
        }


def _data(name: str, product: int, channel: str) -> dict[str, Any]:
    page = f"/products/{product}"
    match name:
        case "page_view":
            return {"page": page, "channel": channel}
        case "product_view" | "add_to_cart":
            return {"product_id": f"p{product}", "page": page, "channel": channel}
        case "checkout":
            return {"items": product % 5 + 1, "channel": channel}
        case "purchase":
            return {"order_id": f"o{product}", "amount_minor": product * 100, "currency": "EUR"}
        case "feature_used":
            return {"feature": f"feature {product % 12}", "seconds": product / 7}
        case "login":
            return {"method": "password", "successful": product % 20 > 0}
        case "search":
            return {"results": product % 40}
        case _:
            return {"plan": "free", "channel": channel}
