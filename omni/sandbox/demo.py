"""The bundled company: an outdoor outfitter in Germany, two years long, drawn from a fixed seed."""

from __future__ import annotations

from datetime import date
from functools import partial
from pathlib import Path

import numpy as np

from omni.sandbox.company import Company, ExperimentTruth, Shop, Truth, both_ways
from omni.sandbox.demo_behaviour import render_events, render_reviews, render_sends
from omni.sandbox.demo_calendar import ZONE, anomalies, horizon
from omni.sandbox.demo_catalogue import build_catalogue, render_products
from omni.sandbox.demo_crm import build_deals, deal_links, render_companies, render_contacts, render_deals
from omni.sandbox.demo_leads import build_leads
from omni.sandbox.demo_mail import CAMPAIGN, CAUSED, WINDOW_DAYS, build_mailing
from omni.sandbox.demo_orders import Orders, build_orders
from omni.sandbox.demo_shop import render_customers, render_orders
from omni.sandbox.demo_support import build_tickets, render_owners, render_tickets, ticket_links
from omni.sandbox.demo_trade import build_trade
from omni.sandbox.salesforce_demo import build_org

HANDBOOK = Path(__file__).parent / "handbook"


def _experiment(orders: Orders, base_rate: float) -> ExperimentTruth:
    """The true effect follows from how the e-mails' orders are drawn (see `demo_mail`).

    An extra order turns a contact into a buyer only if there was no other order in the window; spending is
    added in any case, an average order's worth.
    """
    caused = CAUSED[1] - CAUSED[0]
    value = float(np.mean(orders.subtotal + orders.shipping)) / 100
    return ExperimentTruth(
        name=CAMPAIGN,
        window_days=WINDOW_DAYS,
        base_conversion=base_rate,
        conversion_effect=caused * (1 - base_rate),
        spend_effect=caused * value,
    )


def build(until: date | None = None) -> Company:
    """The company as of the end of a UTC day (see `company.load_company`)."""
    limit = horizon(until)
    leads = build_leads()
    deals = build_deals(leads)
    tickets = build_tickets(leads)
    mailing = build_mailing(leads)
    trade = build_trade(leads, mailing)
    catalogue = build_catalogue()
    orders = build_orders(trade, catalogue)
    products = render_products(catalogue, limit)
    customers = render_customers(trade, leads, limit)
    shown = render_orders(orders, catalogue, customers, products, limit)
    types = (
        render_contacts(leads, deals, limit),
        render_companies(limit),
        render_deals(deals, limit),
        render_tickets(tickets, limit),
        render_reviews(orders, catalogue, limit),
        render_sends(leads, mailing, limit),
        render_events(leads, trade, orders, catalogue, limit),
    )
    crm = {objects.name: objects for objects in types}
    links = both_ways(deal_links(deals, limit) | ticket_links(tickets, limit))
    shop = Shop("Demo Outfitters", "EUR", tuple(customers), tuple(products), tuple(shown))
    return Company(
        name="demo",
        timezone=ZONE,
        crm=crm,
        associations=links,
        shop=shop,
        documents=HANDBOOK,
        truth=Truth(anomalies(), _experiment(orders, trade.base_rate), leads.auc),
        owners=render_owners(limit),
        org=partial(build_org, crm, links, shop),
    )
