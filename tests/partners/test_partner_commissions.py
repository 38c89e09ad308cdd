"""The lines of partners' accounts equal an independent computation, to the cent."""

from __future__ import annotations

from datetime import date, timedelta
from fractions import Fraction
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TIERS = {
    "affiliate": [(0, Fraction(5, 100)), (10_000, Fraction(7, 100)), (50_000, Fraction(1, 10))],
    "reseller": [(5_000, Fraction(1, 8))],
}
START = date(2026, 1, 1)


def half_up(value: Fraction) -> int:
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def earned(program: str, low: int, high: int) -> int:
    """Cents for the part of a month's amount from low to high, cent by tier."""
    tiers = [*TIERS[program], (max(high, 50_000) + 1, Fraction(0))]
    total = Fraction(0)
    for (start, rate), (end, _) in pairwise(tiers):
        total += rate * max(0, min(high, end) - max(low, start))
    return half_up(total)


def expected(orders):
    """Line id -> (partner, payable on, base, amount), in cents."""
    lines, reached = {}, {}
    for key, one in sorted(orders.items(), key=lambda item: (item[1].day, item[0])):
        if one.cents <= 0:
            continue
        month = (one.partner, one.day.year, one.day.month)
        low = reached.get(month, 0)
        reached[month] = low + one.cents
        commission = earned("reseller" if one.partner == "p3" else "affiliate", low, low + one.cents)
        payable = one.day + timedelta(days=10)
        lines[f"order:{key}"] = (one.partner, payable, one.cents, commission)
        moves = [(day, 1, f"refund:{key}/{n}", cents) for n, (day, cents) in enumerate(one.refunds)]
        moves += [(one.cancelled, 2, f"cancellation:{key}", one.cents)] if one.cancelled else []
        back = share = 0
        for day, _, line, cents in sorted(moves):
            if cents <= 0:
                continue
            now = min(one.cents, back + cents)
            part = half_up(Fraction(commission * now, one.cents))
            if now > back:
                lines[line] = (one.partner, max(payable, day), back - now, share - part)
            back, share = now, part
    return lines


@st.composite
def sets_of_orders(draw, order):
    days = st.dates(START, date(2026, 3, 31))
    made = {}
    for key in draw(st.lists(st.integers(0, 99).map("o{}".format), unique=True, max_size=8)):
        day = draw(days)
        later = st.integers(0, 60).map(lambda n, day=day: day + timedelta(days=n))
        made[key] = order(
            draw(st.sampled_from(["p1", "p2", "p3"])),
            day,
            draw(st.integers(0, 90_000)),
            draw(st.none() | later),
            draw(st.lists(st.tuples(later, st.integers(0, 60_000)), max_size=3)),
        )
    return made


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_lines_equal_an_independent_computation(home, company, ordered, data):
    company.orders = data.draw(sets_of_orders(ordered))
    found = company.build().execute(
        "SELECT line_id, partner_id, payable_on, CAST(base_amount * 100 AS BIGINT), "
        "CAST(amount * 100 AS BIGINT) FROM marts.partner_commissions"
    )
    assert {row[0]: row[1:] for row in found.fetchall()} == expected(company.orders)


def test_an_order_given_back_in_thirds_leaves_nothing(home, company, ordered):
    company.orders = {
        "a": ordered("p1", START, 999, refunds=[(START + timedelta(days=n), 333) for n in (1, 2, 3)])
    }
    amounts = (
        company.build().execute("SELECT amount FROM marts.partner_commissions ORDER BY line_id").fetchall()
    )
    assert [str(amount) for (amount,) in amounts] == ["0.50", "-0.17", "-0.16", "-0.17"]
