"""The demo company's service side: tickets of its contacts, and the colleagues who own records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from omni.sandbox.company import DAY_SECONDS, CrmObjects, Node, crm_time
from omni.sandbox.crm_schema import TICKET_CATEGORIES
from omni.sandbox.demo_calendar import Ints, horizon, rng, to_epoch
from omni.sandbox.demo_crm import FIRST_CONTACT, Value, objects, record
from omni.sandbox.demo_leads import Leads

TICKETS, FIRST_TICKET, FIRST_OWNER = 300, 80_001, 901
CLOSED = 4
_STAFF = (("Nora", "Brandt"), ("Emil", "Sauer"), ("Ida", "Voss"), ("Jan", "Petry"), ("Lea", "Kolb"))
_LEFT = 3
"""Index of the colleague who left, half-way through."""
_SUBJECTS = {
    "PRODUCT_ISSUE": "A seam came undone",
    "BILLING_ISSUE": "A question about the invoice",
    "FEATURE_REQUEST": "More sizes, please",
    "GENERAL_INQUIRY": "When will it arrive?",
}


@dataclass(frozen=True)
class Tickets:
    """One entry per ticket, oldest first. `lead` is whose, `owner` indexes the staff."""

    lead: Ints
    created: Ints
    closed_at: Ints
    category: Ints
    priority: Ints
    source: Ints
    owner: Ints


def build_tickets(leads: Leads) -> Tickets:
    """Draw tickets: some time after their contact came, most closed within days."""
    generator = rng("tickets")
    end = horizon(None)
    early = np.flatnonzero((leads.created < end - 30 * DAY_SECONDS) & (leads.duplicate_of < 0))
    lead = generator.choice(early, size=TICKETS)
    created = leads.created[lead] + (generator.random(TICKETS) * (end - leads.created[lead])).astype(np.int64)
    closed = created + (generator.gamma(1.4, 2.0, TICKETS) * DAY_SECONDS).astype(np.int64) + 1800
    order = np.argsort(created, kind="stable")
    columns = (
        lead,
        created,
        closed,
        generator.integers(0, len(TICKET_CATEGORIES), TICKETS),
        generator.choice(4, size=TICKETS, p=[0.35, 0.45, 0.15, 0.05]),
        generator.integers(0, 4, TICKETS),
        generator.integers(0, len(_STAFF), TICKETS),
    )
    return Tickets(*(column[order] for column in columns))


def render_tickets(tickets: Tickets, limit: int) -> CrmObjects:
    """Tickets in the stage they have reached by `limit`; spam among them is archived."""
    records = []
    for n, created in enumerate(tickets.created.tolist()):
        if created >= limit:
            continue
        closed = int(tickets.closed_at[n])
        over = closed < limit
        category = TICKET_CATEGORIES[int(tickets.category[n])]
        spam = n % 57 == 13 and created + 7200 < limit
        values: dict[str, Value] = {
            "subject": None if n % 61 == 9 else _SUBJECTS[category],
            "content": f"{_SUBJECTS[category]} Please call me back, contact {int(tickets.lead[n])}.",
            "hs_pipeline": "0",
            "hs_pipeline_stage": str(CLOSED if over else 1 + n % 3),
            "hs_ticket_priority": ("LOW", "MEDIUM", "HIGH", "URGENT")[int(tickets.priority[n])],
            "hs_ticket_category": None if n % 23 == 4 else category,
            "source_type": ("CHAT", "EMAIL", "FORM", "PHONE")[int(tickets.source[n])],
            "hubspot_owner_id": str(FIRST_OWNER + int(tickets.owner[n])),
            "closed_date": crm_time(closed * 1000) if over else None,
        }
        archived = created + 7200 if spam else 0
        updated = max(closed if over else created, archived)
        records.append(record("tickets", FIRST_TICKET + n, created, updated, values, archived=archived))
    return objects("tickets", records)


def ticket_links(tickets: Tickets, limit: int) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Whose each ticket that exists by `limit` is, as pairs of ids."""
    pairs = [
        (str(FIRST_TICKET + n), str(FIRST_CONTACT + int(tickets.lead[n])))
        for n in np.flatnonzero(tickets.created < limit).tolist()
    ]
    return {("tickets", "contacts"): pairs}


def render_owners(limit: int) -> tuple[Node, ...]:
    """The colleagues, as HubSpot shows its users; one of them left."""
    joined, left = int(to_epoch(0, 9 * 3600)), int(to_epoch(400, 17 * 3600))
    found: list[Node] = []
    for n, (first, last) in enumerate(_STAFF):
        gone = n == _LEFT and left < limit
        found.append(
            {
                "id": str(FIRST_OWNER + n),
                "email": f"{first}.{last}@outfitters.example".lower(),
                "type": "PERSON",
                "firstName": first,
                "lastName": last,
                "userId": None if gone else 5_001 + n,
                "userIdIncludingInactive": 5_001 + n,
                "createdAt": crm_time(joined * 1000 + n),
                "updatedAt": crm_time((left if gone else joined) * 1000 + n),
                "archived": gone,
                "teams": [{"id": str(1 + n % 2), "name": ("Sales", "Service")[n % 2], "primary": True}],
            }
        )
    return tuple(found)
