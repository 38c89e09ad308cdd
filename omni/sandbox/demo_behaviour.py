"""What the demo company's people do besides buying: reviews, e-mails received, visits to the web site."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from omni.sandbox import demo_words as words
from omni.sandbox.company import CrmObjects, crm_time
from omni.sandbox.demo_calendar import END, Ints, day_index, rng, seconds_of_day, to_epoch
from omni.sandbox.demo_catalogue import Catalogue
from omni.sandbox.demo_crm import FIRST_CONTACT, Value, objects, record
from omni.sandbox.demo_leads import Leads
from omni.sandbox.demo_mail import ARMS, CAMPAIGN, Mailing
from omni.sandbox.demo_orders import Orders
from omni.sandbox.demo_trade import Trade

REVIEWS, WEB_EVENTS = 1_000, 7_000
CHANNELS = ("organic", "paid", "social", "email", "direct", "referral")
PARTNERS = ("TRAIL", "PACKLIST", "ALPINE")
"""Codes of the partners whose links buyers followed (data/seeds/partner_partners.csv)."""
Event = tuple[int, str, str, str, str | None, str]
"""time, event, page, visitor, contact id, channel"""


def render_reviews(orders: Orders, catalogue: Catalogue, limit: int) -> CrmObjects:
    """Reviews of delivered orders. The text agrees with the score nineteen times in twenty."""
    generator = rng("reviews")
    shipped = np.flatnonzero(
        (orders.shipped_at > 0) & (orders.shipped_at < int(to_epoch(day_index(END) - 15, 0)))
    )
    chosen = np.sort(generator.choice(shipped, size=REVIEWS, replace=False))
    written = orders.shipped_at[chosen] + generator.integers(2 * 86_400, 14 * 86_400, REVIEWS)
    happy = generator.choice([5, 4, 3, 2, 1], size=REVIEWS, p=[0.54, 0.22, 0.09, 0.06, 0.09])
    sorry = generator.choice([5, 4, 3, 2, 1], size=REVIEWS, p=[0.06, 0.1, 0.22, 0.27, 0.35])
    score = np.where(orders.refunded_at[chosen] > 0, sorry, happy)
    records = []
    for n, order in enumerate(chosen.tolist()):
        noun = catalogue.title[int(orders.product[orders.first_line[order]])].removesuffix(" II")
        title, message = _review(generator, int(score[n]), noun.split(" ", 1)[1].lower())
        values: dict[str, Value] = {
            "external_id": None,
            "order_ref": f"#{1001 + order}",
            "score": 0 if n in (211, 640) else int(score[n]),
            "title": title,
            "message": message,
        }
        at = int(written[n])
        if at < limit:
            records.append(record("reviews", 30_001 + n, at, at, values))
    return objects("reviews", records)


def _review(generator: np.random.Generator, score: int, item: str) -> tuple[str | None, str | None]:
    """Title and message for a score; some people only leave stars."""
    odd, length = generator.random(), int(generator.integers(1, 4))
    mood = "good" if score >= 4 else "mixed" if score == 3 else "bad"
    if odd < 0.05:
        mood = {"good": "bad", "mixed": "good", "bad": "good"}[mood]
    pool = {"good": words.GOOD, "mixed": words.MIXED, "bad": words.BAD}[mood]
    picked = generator.permutation(len(pool))[:length]
    message = " ".join(pool[int(i)].format(item=item) for i in picked)
    title = words.TITLES[mood][int(generator.integers(0, len(words.TITLES[mood])))]
    return (None if odd > 0.7 else title), (None if odd > 0.92 else message)


def render_sends(leads: Leads, mailing: Mailing, limit: int) -> CrmObjects:
    """The experiment's e-mails, with the address as it was typed into the campaign."""
    records = []
    columns = (mailing.send_of, mailing.sent_at, mailing.opened_at, mailing.clicked_at)
    for n, (unit, sent, opened, clicked) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
        if sent >= limit:
            continue
        lead = int(mailing.lead[unit])
        seen = [at for at in (opened, clicked) if 0 < at < limit]
        values: dict[str, Value] = {
            "campaign": CAMPAIGN,
            "variant": ARMS[int(mailing.arm[unit])],
            "contact_id": str(FIRST_CONTACT + lead),
            "email": str(leads.email[lead]),
            "sent_at": crm_time(sent * 1000),
            "opened_at": crm_time(opened * 1000) if opened in seen else None,
            "clicked_at": crm_time(clicked * 1000) if clicked in seen else None,
        }
        records.append(record("email_sends", 100_001 + n, sent, max([sent, *seen]), values))
    return objects("email_sends", records)


def render_events(leads: Leads, trade: Trade, orders: Orders, catalogue: Catalogue, limit: int) -> CrmObjects:
    """Visits: those that end in a sign-up, those that end in an order, and those that end in nothing."""
    generator = rng("web_events")
    product = [f"/products/{t.lower().replace(' ', '-')}" for t in catalogue.title]
    events = [
        *_signups(generator, leads),
        *_purchases(generator, trade, orders, product),
    ]
    events += _browsing(generator, product, WEB_EVENTS - len(events))
    events.sort()
    records = []
    for n, (at, event, page, visitor, contact, channel) in enumerate(events):
        values: dict[str, Value] = {
            "visitor_id": visitor,
            "contact_id": contact,
            "event": event,
            "page": None if n % 401 == 13 else page,
            "channel": channel,
            "occurred_at": crm_time(at * 1000),
        }
        if at < limit:
            records.append(record("web_events", 200_001 + n, at, at, values))
    return objects("web_events", records)


def _visitor(generator: np.random.Generator) -> str:
    return f"v{int(generator.integers(0, 2**48)):012x}"


def _channel(generator: np.random.Generator) -> str:
    return CHANNELS[int(generator.integers(0, len(CHANNELS)))]


def _signups(generator: np.random.Generator, leads: Leads) -> Iterator[Event]:
    chosen = np.sort(generator.choice(len(leads.created), size=500, replace=False))
    for lead in chosen.tolist():
        at, visitor, channel = int(leads.created[lead]), _visitor(generator), _channel(generator)
        for step in range(int(generator.integers(1, 4)), 0, -1):
            yield at - 70 * step, "page_view", str(leads.page[lead]), visitor, None, channel
        yield at, "signup", str(leads.page[lead]), visitor, str(FIRST_CONTACT + lead), channel


def _purchases(
    generator: np.random.Generator, trade: Trade, orders: Orders, product: list[str]
) -> Iterator[Event]:
    known = np.flatnonzero(trade.lead[orders.customer] >= 0)
    chosen = np.sort(generator.choice(known, size=450, replace=False))
    for order in chosen.tolist():
        at, visitor, channel = int(orders.at[order]), _visitor(generator), _channel(generator)
        contact = str(FIRST_CONTACT + int(trade.lead[orders.customer[order]]))
        page = product[int(orders.product[orders.first_line[order]])]
        referred = f"?ref={PARTNERS[order % len(PARTNERS)]}" if channel == "referral" else ""
        steps = (
            ("product_view", page + referred),
            ("add_to_cart", page),
            ("checkout", "/checkout"),
            ("purchase", "/thanks"),
        )
        for step, (event, where) in enumerate(steps):
            yield at - 95 * (len(steps) - 1 - step), event, where, visitor, contact, channel


def _browsing(generator: np.random.Generator, product: list[str], size: int) -> list[Event]:
    """Anonymous visits of one to five pages, `size` events in all."""
    lengths = generator.integers(1, 6, size)
    visits = int(np.searchsorted(np.cumsum(lengths), size)) + 1
    days: Ints = generator.integers(0, day_index(END) + 1, visits)
    begins = to_epoch(days, seconds_of_day(generator, visits))
    events: list[Event] = []
    for begin, length in zip(begins.tolist(), lengths[:visits].tolist(), strict=True):
        visitor, channel = _visitor(generator), _channel(generator)
        page = product[int(generator.integers(0, len(product)))]
        steps = [
            ("page_view", "/"),
            ("product_view", page),
            ("product_view", page),
            ("add_to_cart", page),
            ("checkout", "/checkout"),
        ]
        events += [(begin + 40 * n, e, p, visitor, None, channel) for n, (e, p) in enumerate(steps[:length])]
    return events[:size]
