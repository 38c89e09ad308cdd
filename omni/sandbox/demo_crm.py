"""The demo company's sales side: contacts, companies and deals as HubSpot would show them on a given day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from omni.sandbox import demo_words as words
from omni.sandbox.company import DAY_SECONDS, CrmObjects, CrmRecord, crm_time
from omni.sandbox.crm_schema import declared, modified_property
from omni.sandbox.demo_calendar import Ints, horizon, rng, to_epoch
from omni.sandbox.demo_leads import INDUSTRIES, Leads

COMPANIES = 200
DEALS = 600
FIRST_CONTACT, FIRST_COMPANY, FIRST_DEAL = 20_001, 4_001, 60_001

Value = str | int | bool | None


@dataclass(frozen=True)
class Deals:
    """One entry per deal, oldest first.

    `outcome`: 1 won, 0 open for now, -1 lost; `closed_at` is 0 for the open ones.
    """

    lead: Ints
    created: Ints
    closed_at: Ints
    outcome: Ints
    amount: Ints
    company: Ints
    stage: Ints


def text(value: Value) -> str | None:
    """A property's value as HubSpot sends it: a string, or null."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)


def record(
    kind: str,
    number: int,
    created: int,
    updated: int,
    values: Mapping[str, Value],
    *,
    archived: int = 0,
) -> CrmRecord:
    """A CRM record with its standard properties; times in seconds since the epoch.

    The thousandths are made from the id, so that times do not all fall on whole seconds.
    """
    thousandths = number * 37 % 1000
    created_ms, updated_ms = created * 1000 + thousandths, updated * 1000 + thousandths
    properties: dict[str, str | None] = {
        "hs_object_id": str(number),
        "createdate": crm_time(created_ms),
        modified_property(kind): crm_time(updated_ms),
    }
    properties.update((name, text(value)) for name, value in values.items())
    archived_ms = archived * 1000 + thousandths if archived else None
    return CrmRecord(str(number), properties, created_ms, updated_ms, archived_ms)


def objects(kind: str, records: list[CrmRecord], without: tuple[str, ...] = ()) -> CrmObjects:
    """A CRM type of one account."""
    return CrmObjects(kind, declared(kind, without), tuple(records))


def build_deals(leads: Leads) -> Deals:
    """Draw deals: won ones for converting contacts, lost ones for promising others, open ones at the end.

    Who would convert only after the company's last day has an open deal by then.
    """
    generator = rng("deals")
    end = horizon(None)
    won = np.flatnonzero((leads.won_at > 0) & (leads.won_at < end))
    rest = np.flatnonzero((leads.won_at == 0) & (leads.duplicate_of < 0))
    soon = np.flatnonzero(leads.won_at >= end)
    young = rest[leads.created[rest] > end - 75 * DAY_SECONDS]
    old = rest[leads.created[rest] < end - 75 * DAY_SECONDS]
    still = generator.choice(young, size=min(48, len(young)), replace=False)
    lost_count = DEALS - len(won) - len(soon) - len(still)
    chance = np.exp(0.5 * leads.likelihood[old])
    lost = generator.choice(old, size=lost_count, replace=False, p=chance / chance.sum())
    lead = np.concatenate([won, lost, soon, still])
    outcome = np.repeat([1, -1, 0], [len(won), len(lost), len(soon) + len(still)])
    lag = (generator.gamma(1.6, 20, len(lead)) * DAY_SECONDS).astype(np.int64) + 2 * DAY_SECONDS
    closed = np.where(outcome == 1, leads.won_at[lead], np.minimum(leads.created[lead] + lag, end - 3600))
    created = leads.created[lead] + ((closed - leads.created[lead]) * 0.4).astype(np.int64)
    amount = np.exp(generator.normal(7.6, 0.8, len(lead))).astype(np.int64) * 100
    company = generator.integers(0, COMPANIES, len(lead))
    company[generator.random(len(lead)) < 0.08] = -1
    order = np.argsort(created, kind="stable")
    stage = generator.integers(0, 4, len(lead))
    columns = (lead, created, np.where(outcome == 0, 0, closed), outcome, amount, company, stage)
    return Deals(*(c[order] for c in columns))


def render_companies(limit: int) -> CrmObjects:
    """Organisations known to sales."""
    generator = rng("companies")
    industries = list(INDUSTRIES)
    start = int(to_epoch(0, 9 * 3600))
    records = []
    for n in range(COMPANIES):
        name = f"{words.COMPANY_FIRST[n % 20]} {words.COMPANY_SECOND[n // 20]} {words.COMPANY_FORMS[n % 5]}"
        city, country, state, _ = words.CITIES[int(generator.choice(len(words.CITIES), p=words.CITY_WEIGHTS))]
        created = start + int(generator.integers(0, 400)) * DAY_SECONDS if n >= 60 else start
        industry = industries[int(generator.integers(0, len(industries)))]
        values: dict[str, Value] = {
            "name": name.upper() if n % 67 == 3 else name,
            "city": None if n % 41 == 9 else city,
            "country": country,
            "state": state,
            "external_id": f"C-{n + 1:04d}",
            "domain": None if n % 29 == 5 else f"company{n + 1}.example",
            "industry": None if n % 23 == 11 else industry,
        }
        if created < limit:
            records.append(record("companies", FIRST_COMPANY + n, created, created, values))
    return objects("companies", records)


def render_contacts(leads: Leads, deals: Deals, limit: int) -> CrmObjects:
    """Contacts with the stage they have reached by `limit`."""
    generator = rng("contacts")
    size = len(leads.created)
    dirt, stage = generator.random(size).tolist(), generator.random(size).tolist()
    progress = _progress(deals, limit)
    records = []
    for n, created in enumerate(leads.created.tolist()):
        if created >= limit:
            continue
        reached, changed = progress.get(n, (None, created))
        if reached is None:
            reached = (
                "marketingqualifiedlead" if stage[n] < 0.15 else "subscriber" if stage[n] > 0.95 else "lead"
            )
        city = words.CITIES[int(leads.city[n])]
        values: dict[str, Value] = {
            "email": _contact_mail(str(leads.email[n]), dirt[n], duplicate=bool(leads.duplicate_of[n] >= 0)),
            "firstname": None if 0.1 < dirt[n] < 0.12 else leads.first[n],
            "lastname": f" {leads.last[n]}" if 0.2 < dirt[n] < 0.21 else leads.last[n],
            "lifecyclestage": reached,
            "lead_source": leads.source[n],
            "first_contact_date": crm_time(created * 1000)[:10],
            "external_id": f"L-{n + 1:05d}",
            "phone": f"+49 30 555{n:05d}" if dirt[n] > 0.5 else None,
            "country": city[1] if dirt[n] < 0.97 else city[1].lower(),
            "landing_page": leads.page[n],
            "job_level": leads.level[n],
            "industry": leads.industry[n],
            "employees": leads.employees[n],
            "visits_before_signup": leads.visits[n],
            "newsletter": leads.newsletter[n],
        }
        archived = created + 90 * DAY_SECONDS if leads.duplicate_of[n] >= 0 and n % 2 else 0
        archived = archived if archived < limit else 0
        updated = max(changed, archived)
        records.append(record("contacts", FIRST_CONTACT + n, created, updated, values, archived=archived))
    return objects("contacts", records)


def _progress(deals: Deals, limit: int) -> dict[int, tuple[str, int]]:
    """Stage and time of the last change of each contact that has a deal by `limit`."""
    found = {}
    rows = zip(
        *(c.tolist() for c in (deals.lead, deals.created, deals.closed_at, deals.outcome)), strict=True
    )
    for lead, created, closed, outcome in rows:
        if created >= limit:
            continue
        if closed and closed < limit:
            found[lead] = ("customer" if outcome == 1 else "other", closed)
        else:
            found[lead] = ("opportunity", created)
    return found


def _contact_mail(email: str, dirt: float, *, duplicate: bool) -> str:
    """How the address was typed: some shouted it, some put a space; a duplicate person wrote it anew."""
    if duplicate:
        return email.upper() if dirt < 0.5 else email.title()
    if dirt < 0.012:
        return f" {email}"
    if 0.3 < dirt < 0.33:
        return email.upper()
    return email


def render_deals(deals: Deals, limit: int) -> CrmObjects:
    """Deals in the stage they have reached by `limit`; a few without amount, one zero, one negative."""
    open_stages = ("appointmentscheduled", "qualifiedtobuy", "presentationscheduled", "contractsent")
    records = []
    for n, created in enumerate(deals.created.tolist()):
        if created >= limit:
            continue
        closed = int(deals.closed_at[n])
        over = 0 < closed < limit
        stage = open_stages[int(deals.stage[n])]
        if over:
            stage = "closedwon" if deals.outcome[n] == 1 else "closedlost"
        cents = {100: 0, 200: -5000}.get(n, int(deals.amount[n]))
        values: dict[str, Value] = {
            "dealname": None if n % 149 == 7 else f"Outfitting {FIRST_CONTACT + int(deals.lead[n])}",
            "amount": None if n % 43 == 5 else f"{cents / 100:.2f}",
            "dealstage": stage,
            "pipeline": "default",
            "closedate": crm_time(closed * 1000) if over else None,
            "external_id": f"D-{n + 1:04d}",
            "segment": None if n % 17 == 3 else _segment(int(deals.amount[n])),
            "lead_type": ("inbound", "outbound", "partner")[int(deals.lead[n]) % 3],
            "external_company_id": f"C-{int(deals.company[n]) + 1:04d}" if deals.company[n] >= 0 else None,
        }
        updated = closed if over else created
        records.append(record("deals", FIRST_DEAL + n, created, updated, values))
    return objects("deals", records)


def _segment(amount: int) -> str:
    return "small" if amount < 150_000 else "medium" if amount < 400_000 else "large"


def deal_links(deals: Deals, limit: int) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Which contacts and companies each deal that exists by `limit` belongs to, as pairs of ids."""
    contacts, companies = [], []
    for n in np.flatnonzero(deals.created < limit).tolist():
        contacts.append((str(FIRST_DEAL + n), str(FIRST_CONTACT + int(deals.lead[n]))))
        if deals.company[n] >= 0:
            companies.append((str(FIRST_DEAL + n), str(FIRST_COMPANY + int(deals.company[n]))))
    return {("deals", "contacts"): contacts, ("deals", "companies"): companies}
