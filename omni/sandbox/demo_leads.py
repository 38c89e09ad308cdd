"""Leads of the demo company: who they are, and which become customers, when.

Conversion follows a logistic model of what marketing knows about a lead, one coefficient of which drifts,
plus what it does not know. A lead converts after a delay, so the youngest have had no time yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omni.sandbox import demo_words as words
from omni.sandbox.company import DAY_SECONDS
from omni.sandbox.demo_calendar import DAYS, Floats, Ints, rng, seconds_of_day, to_epoch

LEADS = 2_975
DUPLICATES = 15
WON_RATE = 0.142
UNKNOWN_SPREAD = 0.7
"""Standard deviation, on the logit scale, of what drives a lead but is recorded nowhere."""

Texts = npt.NDArray[np.object_]

SOURCES = {
    "organic_search": (0.28, 0.35),
    "paid_search": (0.20, 0.0),
    "social": (0.19, -0.8),
    "referral": (0.10, 1.2),
    "direct_traffic": (0.11, 0.2),
    "email": (0.07, 0.6),
    "display": (0.05, -1.2),
}
LEVELS = {
    "owner": (0.12, 1.1),
    "director": (0.11, 0.9),
    "manager": (0.24, 0.4),
    "specialist": (0.29, -0.2),
    "assistant": (0.15, -0.7),
    "student": (0.09, -1.6),
}
INDUSTRIES = {
    "construction": (0.19, 0.7, -0.6),
    "hospitality": (0.14, -0.5, 0.7),
    "logistics": (0.15, 0.2, 0.0),
    "events": (0.11, -0.1, 0.2),
    "health": (0.10, 0.0, 0.0),
    "energy": (0.09, 0.5, 0.0),
    "education": (0.12, -0.6, 0.0),
    "gardening": (0.10, 0.1, -0.2),
}
"""Per value: share and effect on the logit; for industries also how the effect drifts over the two years."""

PAGES = ("/catalogue", "/teams", "/sale", "/guides/layering", "/custom-print", "/newsletter")


@dataclass(frozen=True)
class Leads:
    """One entry per contact, sorted by creation.

    `won_at`, `lost_at`: seconds since the epoch, 0 where it never happens. `duplicate_of` is -1 or the index
    of the same person's earlier record. Features are the values recorded, None where missing.
    """

    created: Ints
    first: Texts
    last: Texts
    email: Texts
    city: Ints
    source: Texts
    page: Texts
    level: Texts
    industry: Texts
    employees: Texts
    visits: Texts
    newsletter: Texts
    duplicate_of: Ints
    won_at: Ints
    likelihood: Floats
    auc: float


def _pick(
    generator: np.random.Generator, table: Mapping[str, tuple[float, ...]], size: int
) -> tuple[Texts, Floats, Floats]:
    """Draw values; return them with their effect and its drift."""
    shares = np.array([row[0] for row in table.values()])
    at = generator.choice(len(table), size=size, p=shares / shares.sum())
    effect = np.array([row[1] for row in table.values()])[at]
    drift = np.array([row[2] if len(row) > 2 else 0.0 for row in table.values()])[at]
    return np.array(list(table), dtype=object)[at], effect, drift


def _missing(generator: np.random.Generator, values: Texts, rate: float) -> Texts:
    """A copy with a share of values lost."""
    kept = values.copy()
    kept[generator.random(len(values)) < rate] = None
    return kept


def roc_area(score: Floats, outcome: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve by the rank-sum identity (Mann-Whitney; Hanley and McNeil 1982)."""
    ranks = np.empty(len(score))
    ranks[np.argsort(score, kind="stable")] = np.arange(1, len(score) + 1)
    wins = int(outcome.sum())
    return float((ranks[outcome].sum() - wins * (wins + 1) / 2) / (wins * (len(score) - wins)))


def _intercept(logit: Floats, rate: float) -> float:
    """The shift that makes the mean probability `rate` (bisection)."""
    low, high = -12.0, 12.0
    for _ in range(60):
        middle = (low + high) / 2
        if float((1 / (1 + np.exp(-(logit + middle)))).mean()) < rate:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _days(generator: np.random.Generator, size: int) -> Ints:
    """Creation days: evenly growing, fewer at weekends."""
    weight = (0.9 + 0.2 * np.arange(DAYS) / DAYS) * np.where((np.arange(DAYS) + 4) % 7 >= 5, 0.55, 1.0)
    return np.sort(generator.choice(DAYS, size=size, p=weight / weight.sum())).astype(np.int64)


def build_leads() -> Leads:
    """Draw all leads; duplicate persons are copies of earlier leads under a new id."""
    generator = rng("leads")
    days = _days(generator, LEADS)
    source, source_effect, _ = _pick(generator, SOURCES, LEADS)
    level, level_effect, _ = _pick(generator, LEVELS, LEADS)
    industry, industry_effect, industry_drift = _pick(generator, INDUSTRIES, LEADS)
    employees = np.maximum(1, np.exp(generator.normal(3.3, 1.3, LEADS))).astype(np.int64)
    visits = generator.poisson(generator.gamma(1.4, 2.4, LEADS))
    newsletter = generator.random(LEADS) < 0.75
    known = source_effect + level_effect + industry_effect + industry_drift * days / DAYS
    known = known + 0.32 * (np.log(employees) - 3.3) + 0.20 * np.minimum(visits, 12) + 0.5 * newsletter
    logit = known + generator.normal(0, UNKNOWN_SPREAD, LEADS)
    logit += _intercept(logit, WON_RATE)
    converts = generator.random(LEADS) < 1 / (1 + np.exp(-logit))
    created = np.sort(to_epoch(days, seconds_of_day(generator, LEADS)))
    delay = (3 + generator.gamma(1.6, 16, LEADS)) * DAY_SECONDS
    oddity = generator.random(LEADS)
    recorded = employees.astype(object)
    recorded[oddity < 0.004], recorded[oddity > 0.997] = 0, -1
    first, last, email = _persons(generator, LEADS)
    leads = Leads(
        created=created,
        first=first,
        last=last,
        email=email,
        city=generator.choice(len(words.CITIES), size=LEADS, p=words.CITY_WEIGHTS),
        source=_missing(generator, source, 0.02),
        page=np.array(PAGES, dtype=object)[generator.integers(0, len(PAGES), LEADS)],
        level=_missing(generator, level, 0.06),
        industry=_missing(generator, industry, 0.04),
        employees=_missing(generator, recorded, 0.10),
        visits=_missing(generator, visits.astype(object), 0.05),
        newsletter=_missing(generator, newsletter.astype(object), 0.03),
        duplicate_of=np.full(LEADS, -1, dtype=np.int64),
        won_at=np.where(converts, created + delay.astype(np.int64), 0),
        likelihood=known,
        auc=roc_area(known, converts),
    )
    return _with_duplicates(generator, leads)


def _persons(generator: np.random.Generator, size: int) -> tuple[Texts, Texts, Texts]:
    """Names and one unused address per person."""
    first = np.array(words.FIRST_NAMES, dtype=object)[generator.integers(0, len(words.FIRST_NAMES), size)]
    last = np.array(words.LAST_NAMES, dtype=object)[generator.integers(0, len(words.LAST_NAMES), size)]
    domain = generator.integers(0, len(words.MAIL_DOMAINS), size)
    email = [
        f"{a}.{b}{n}@{words.MAIL_DOMAINS[d]}".lower()
        for n, (a, b, d) in enumerate(zip(first, last, domain, strict=True))
    ]
    return first, last, np.array(email, dtype=object)


def _with_duplicates(generator: np.random.Generator, leads: Leads) -> Leads:
    """Add a second record of some persons, made weeks later, and put all in order of creation."""
    chosen = np.sort(generator.choice(LEADS // 2, size=DUPLICATES, replace=False))
    columns = {
        name: np.concatenate([value, value[chosen]])
        for name, value in vars(leads).items()
        if isinstance(value, np.ndarray)
    }
    later = generator.integers(20, 200, DUPLICATES) * DAY_SECONDS
    columns["created"][LEADS:] = leads.created[chosen] + later
    columns["won_at"][LEADS:] = 0
    order = np.argsort(columns["created"], kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    columns["duplicate_of"][LEADS:] = place[chosen]
    return Leads(**{name: value[order] for name, value in columns.items()}, auc=leads.auc)
