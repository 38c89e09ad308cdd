"""The demo company's one e-mail experiment, `spring_mail`: who got what, and what it caused.

Contacts who take the newsletter are drawn into one of two arms by a fair coin each and get a series of
e-mails. Orders the series causes are extra to those the contact would have placed anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from omni.sandbox.company import DAY_SECONDS
from omni.sandbox.demo_calendar import Floats, Ints, day_index, rng, to_epoch
from omni.sandbox.demo_leads import Leads

CAMPAIGN = "spring_mail"
ARMS = ("control", "treatment")
CAUSED = (0.03, 0.12)
"""Probability, per arm, that the series causes an order within the window."""
OPENED, CLICKED = (0.34, 0.43), (0.16, 0.22)
"""Probability, per arm, that an e-mail is opened, and that an opened one is clicked."""
FIRST_DAY = date(2026, 3, 30)
SPREAD_DAYS = 35
WAVES = (0, 3, 7, 11)
WINDOW_DAYS = 14


@dataclass(frozen=True)
class Mailing:
    """`lead`, `arm`, `first_sent`, `order_at` (0: none caused): one entry per contact in the experiment.

    `send_of` (index into those), `sent_at`, `opened_at`, `clicked_at` (0: never): one entry per e-mail.
    """

    lead: Ints
    arm: Ints
    first_sent: Ints
    order_at: Ints
    send_of: Ints
    sent_at: Ints
    opened_at: Ints
    clicked_at: Ints


def build_mailing(leads: Leads) -> Mailing:
    """Draw arms, e-mails and caused orders."""
    generator = rng(CAMPAIGN)
    begin = int(to_epoch(day_index(FIRST_DAY), 0))
    takes = np.array([value is True for value in leads.newsletter])
    eligible = np.flatnonzero(takes & (leads.duplicate_of < 0) & (leads.created < begin))
    arm = generator.integers(0, 2, len(eligible))
    day = day_index(FIRST_DAY) + generator.integers(0, SPREAD_DAYS, len(eligible))
    first_sent = to_epoch(day, 9 * 3600 + generator.integers(0, 1800, len(eligible)))
    caused = generator.random(len(eligible)) < np.array(CAUSED)[arm]
    order_at = np.where(caused, first_sent + _delays(generator, len(eligible)), 0)
    send_of = np.tile(np.arange(len(eligible)), len(WAVES))
    wave = np.repeat(np.array(WAVES), len(eligible))
    arrived = (wave == 0) | (generator.random(len(send_of)) > 0.02)
    send_of, wave = send_of[arrived], wave[arrived]
    sent_at = first_sent[send_of] + wave * DAY_SECONDS + generator.integers(0, 600, len(send_of))
    sent_at = np.where(wave == 0, first_sent[send_of], sent_at)
    opened_at, clicked_at = _reactions(generator, arm[send_of], sent_at)
    order = np.lexsort((send_of, sent_at))
    return Mailing(
        eligible,
        arm,
        first_sent,
        order_at,
        send_of[order],
        sent_at[order],
        opened_at[order],
        clicked_at[order],
    )


def _delays(generator: np.random.Generator, size: int) -> Ints:
    """Seconds from first e-mail to order: exponential with mean 4 days, cut at the window (inverse CDF)."""
    mean, last = 4.0 * DAY_SECONDS, WINDOW_DAYS * DAY_SECONDS - 7200
    share = 1 - np.exp(-last / mean)
    return np.asarray(600 - mean * np.log(1 - generator.random(size) * share), dtype=np.int64)


def _reactions(generator: np.random.Generator, arm: Ints, sent_at: Ints) -> tuple[Ints, Ints]:
    opens = generator.random(len(arm)) < np.array(OPENED)[arm]
    clicks = opens & (generator.random(len(arm)) < np.array(CLICKED)[arm])
    opened_at = sent_at + (60 + generator.exponential(20_000, len(arm))).astype(np.int64)
    clicked_at = opened_at + generator.integers(5, 300, len(arm))
    return np.where(opens, opened_at, 0), np.where(clicks, clicked_at, 0)


def bought_anyway(mailing: Mailing, order_lead: Ints, order_at: Ints, leads: int) -> Floats:
    """Per contact in the experiment, 1.0 where an order not caused by it falls into the window.

    Args:
        mailing: the experiment.
        order_lead: lead of each such order, -1 for none.
        order_at: its time.
        leads: how many leads there are.
    """
    sent = np.full(leads, -1, dtype=np.int64)
    sent[mailing.lead] = mailing.first_sent
    known = order_lead >= 0
    since = order_at[known] - sent[order_lead[known]]
    inside = (sent[order_lead[known]] >= 0) & (since >= 0) & (since < WINDOW_DAYS * DAY_SECONDS)
    outcome = np.zeros(leads)
    outcome[order_lead[known][inside]] = 1.0
    return np.asarray(outcome[mailing.lead], dtype=np.float64)
