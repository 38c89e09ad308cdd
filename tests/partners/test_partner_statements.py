"""Approved statements stay, add up to what is due, and are paid once."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from decimal import Decimal

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omni.control.database import session
from omni.control.partners import PartnerLine
from omni.errors import ConfigError, NotEnoughData, StorageError
from omni.partners.accounts import due_through, money, month_of
from omni.partners.payouts import balances, batches, pay, write_payout
from omni.partners.statements import approve, approved, statements

MAY, JUNE, JULY = date(2026, 5, 1), date(2026, 6, 1), date(2026, 7, 1)


def kept(tenant):
    with session() as opened:
        return approved(opened, tenant.tenant)


def listed(found):
    return [(line.line_id, line.kind, line.cents) for one in found for line in one.lines]


def paid(content):
    return {row["partner_id"]: row for row in csv.DictReader(io.StringIO(content))}


def test_a_line_waits_for_its_hold_and_comes_once(home, either_database, tenant, company, ordered):
    company.orders = {
        "a": ordered("p1", date(2026, 5, 21), 10_000),
        "b": ordered("p1", date(2026, 5, 22), 1_000),
    }
    con = company.build()
    assert listed(statements(tenant, con, MAY)) == [("order:a", "commission", 500)]
    assert [one.cents for one in approve(tenant, con, MAY)] == [500]
    assert approve(tenant, con, MAY) == []
    (june,) = approve(tenant, con, JUNE)
    assert listed([june]) == [("order:b", "commission", 70)]
    assert statements(tenant, con, JULY) == []
    (may,) = statements(tenant, con, MAY)
    assert (may.cents, may.digest) == (500, kept(tenant)[0].digest)


def test_what_changes_after_approval_is_adjusted_in_the_next_statement(home, tenant, company, ordered):
    company.orders = {
        "gone": ordered("p1", date(2026, 5, 1), 2_000),
        "moved": ordered("p1", date(2026, 5, 2), 4_000),
        "refunded": ordered("p2", date(2026, 5, 3), 8_000),
    }
    approve(tenant, company.build(), MAY)
    before = kept(tenant)
    del company.orders["gone"]
    company.orders["moved"].partner = "p2"
    company.orders["refunded"].refunds.append((date(2026, 6, 30), 2_000))
    company.orders["late"] = ordered("p2", date(2026, 5, 4), 1_000)
    con = company.build()
    assert statements(tenant, con, MAY) == before
    first, second = statements(tenant, con, JUNE)
    assert listed([first]) == [("order:gone", "adjustment", -100), ("order:moved", "adjustment", -200)]
    assert listed([second]) == [
        ("order:moved", "commission", 200),
        ("order:refunded", "adjustment", 40),  # the moved order came first and took the lower tier
        ("order:late", "commission", 70),
        ("refund:refunded/0", "clawback", -110),
    ]


def test_a_line_is_adjusted_again_and_again_and_paid_by_parts(home, tenant, company, ordered):
    company.orders = {"a": ordered("p1", date(2026, 4, 1), 20_000)}
    for month, cents, amount in ((MAY, 20_000, "12.00"), (JUNE, 40_000, "14.00"), (JULY, 50_000, "7.00")):
        company.orders["a"].cents = cents
        con = company.build()
        (one,) = approve(tenant, con, month)
        assert paid(pay(tenant, con, f"{month}"))["p1"]["amount"] == amount == str(money(one.cents))
    assert [b.paid_cents for b in balances(tenant, con)] == [3_300]


def test_balances_below_the_minimum_and_negative_ones_carry_over(
    home, either_database, tenant, company, ordered
):
    company.orders = {
        "a": ordered("p1", date(2026, 5, 1), 6_000),
        "b": ordered("p2", date(2026, 5, 1), 20_000),
        "c": ordered("p3", date(2026, 5, 1), 30_000),
    }
    con = company.build()
    assert pay(tenant, con, "2026-05") is None
    approve(tenant, con, MAY)
    content = pay(tenant, con, "2026-05")
    assert {key: (row["amount"], row["name"]) for key, row in paid(content).items()} == {
        "p2": ("12.00", "Two"),
        "p3": ("31.25", "'=Three"),
    }
    company.orders["b"].refunds.append((date(2026, 6, 1), 20_000))
    company.orders["d"] = ordered("p1", date(2026, 6, 1), 4_500)
    con = company.build()
    approve(tenant, con, JUNE)
    assert [(b.partner_id, b.cents, b.is_payable) for b in balances(tenant, con)] == [
        ("p1", 525, True), ("p2", -1200, False), ("p3", 0, False),
    ]  # fmt: skip
    assert {k: (r["amount"], r["statements"]) for k, r in paid(pay(tenant, con, "2026-06")).items()} == {
        "p1": ("5.25", "2026-05 2026-06")
    }
    assert batches(tenant.tenant) == ["2026-05", "2026-06"]
    assert pay(tenant, con, "2026-05") == content


def test_a_crash_between_paying_and_writing_loses_no_file_and_pays_nobody_twice(
    home, tenant, company, ordered
):
    company.orders = {"a": ordered("p1", date(2026, 5, 1), 60_000)}
    con = company.build()
    approve(tenant, con, MAY)
    first = pay(tenant, con, "x")
    (home / "taken").mkdir(parents=True)
    with pytest.raises(StorageError):
        write_payout(tenant, "x", first, home / "taken")
    assert pay(tenant, con, "y") is None
    path = write_payout(tenant, "x", pay(tenant, con, "x"))
    assert path.read_bytes().decode() == first
    assert path.parent.stat().st_mode & 0o077 == 0
    assert [one.paid_by for one in kept(tenant)] == ["x"]


def test_mistakes_are_refused_and_leave_nothing(home, tenant, company, ordered):
    company.orders = {"a": ordered("p1", date(2026, 5, 1), 60_000)}
    with pytest.raises(NotEnoughData, match=r"through 2026-05-30; .* through 2026-05-31"):
        approve(tenant, company.build(through=date(2026, 5, 30)), MAY)
    con = company.build()
    with pytest.raises(ConfigError, match="no partner 'p9'"):
        statements(tenant, con, MAY, "p9")
    with pytest.raises(ConfigError, match="write it as 2026-05"):
        month_of("2026-13")
    with pytest.raises(ConfigError, match="at most 64"):
        pay(tenant, con, "../x")
    (draft,) = statements(tenant, con, MAY, "p1")
    company.orders["a"].cents += 1_000
    with pytest.raises(ConfigError, match="not the one with digest"):
        approve(tenant, company.build(), MAY, "p1", digest=draft.digest[:8])
    assert kept(tenant) == []
    (draft,) = statements(tenant, con, MAY, "p1")
    assert approve(tenant, con, MAY, "p1", digest=draft.digest[:8])[0].digest == draft.digest


def test_tenants_have_accounts_of_their_own(home, tenant, company, ordered):
    company.orders = {"a": ordered("p1", date(2026, 5, 1), 60_000)}
    con, other = company.build(), tenant.model_copy(update={"tenant": "beta"})
    approve(tenant, con, MAY)
    assert kept(other) == []
    assert len(approve(other, con, MAY)) == 1
    assert pay(tenant, con, "x") is not None
    assert [one.paid_by for one in kept(other)] == [None]


def test_many_at_once_approve_and_pay_once(home, either_database, tenant, company, ordered):
    company.orders = {
        "a": ordered("p1", date(2026, 5, 1), 60_000),
        "b": ordered("p2", date(2026, 5, 1), 60_000),
    }
    con = company.build()
    with ThreadPoolExecutor(4) as threads:
        approved_by = list(
            threads.map(lambda one: len(approve(tenant, one, MAY)), [con.cursor() for _ in range(4)])
        )
        assert sorted(approved_by) == [0, 0, 0, 2]
        batch = [(con.cursor(), name) for name in ("x", "y", "x", "y")]
        contents = list(threads.map(lambda one: pay(tenant, *one), batch))
    (first,) = {content for content in contents if content}
    assert contents.count(first) == 2
    assert {one.paid_by for one in kept(tenant)} == set(batches(tenant.tenant))


def test_an_altered_statement_is_noticed_and_not_paid(home, tenant, company, ordered):
    company.orders = {"a": ordered("p1", date(2026, 5, 1), 60_000)}
    con = company.build()
    approve(tenant, con, MAY)
    with session() as opened:
        opened.execute(sa.update(PartnerLine).values(cents=PartnerLine.cents + 100_000))
    with pytest.raises(StorageError, match="altered"):
        pay(tenant, con, "x")
    assert batches(tenant.tenant) == []


MONTHS = [date(2026, number, 1) for number in range(5, 10)]
AMOUNTS, DAYS = st.integers(1, 60_000) | st.just(20_000), st.dates(date(2026, 4, 1), date(2026, 6, 30))
PARTNERS, PICK = st.sampled_from(["p1", "p2", "p3"]), st.integers(0, 9)
ORDER = st.tuples(st.just("order"), PARTNERS, DAYS, AMOUNTS)
CHANGE = st.one_of(
    ORDER,
    st.tuples(st.just("refund"), PICK, st.integers(0, 60), AMOUNTS),
    st.tuples(st.just("cancel"), PICK, st.integers(0, 60)),
    st.tuples(st.just("vanish"), PICK),
    st.tuples(st.just("move"), PICK, PARTNERS),
    st.tuples(st.just("reprice"), PICK, AMOUNTS),
)
LATE, BATCH = st.sampled_from([0, 0, 2]), st.sampled_from(["w", "x", "y", "z", None])
ROUNDS = st.lists(st.tuples(st.lists(CHANGE, max_size=3), LATE, BATCH), min_size=3, max_size=4)
"""Changes, how many months the approval is late, and the batch that pays."""
NUMBERS = itertools.count()


def change(company, ordered, step):
    """Let the sources change."""
    kind, *values = step
    if kind == "order":
        company.orders[f"o{next(NUMBERS)}"] = ordered(*values)
        return
    keys = list(company.orders)
    if not keys:
        return
    key = keys[values[0] % len(keys)]
    one = company.orders[key]
    match kind, values[1:]:
        case "refund", [days, cents]:
            one.refunds.append((one.day + timedelta(days=days), cents))
        case "cancel", [days]:
            one.cancelled = one.day + timedelta(days=days)
        case "move", [partner]:
            one.partner = partner
        case "reprice", [cents]:
            one.cents = cents
        case "vanish", _:
            del company.orders[key]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.lists(ORDER, min_size=4, max_size=7), rounds=ROUNDS)
def test_approved_lines_add_up_to_what_was_due_and_nothing_is_paid_twice(
    home, tenant, company, ordered, first, rounds
):
    company.orders = {}
    own = tenant.model_copy(update={"tenant": f"t{next(NUMBERS)}"})
    due_then, last, before, files = {}, {}, {}, {}
    for number, (changes, late, batch) in enumerate(rounds):
        for step in [*first, *changes] if number == 0 else changes:
            change(company, ordered, step)
        con, month = company.build(), MONTHS[max(number - late, 0)]
        approve(own, con, month)
        for partner in company.names:
            if partner not in last or last[partner] < month:
                mine = [line for line in due_through(con, month) if line.partner_id == partner]
                due_then[partner] = {line.line_id: line.cents for line in mine if line.cents}
        last = {one.partner_id: one.month for one in kept(own)}
        if batch is not None:
            content = pay(own, con, batch)
            assert files.get(batch, content) == content
            if content is not None:
                files[batch] = content
        check_ledger(own, due_then, before, files)


def check_ledger(own, due_then, before, files):
    now = kept(own)
    digests = {one.id: (one.digest, one.lines) for one in now}
    assert before.items() <= digests.items()  # nothing approved ever changes
    before.update(digests)
    sums, paid_sums, in_files = {partner: Counter() for partner in due_then}, Counter(), Counter()
    for one in now:
        for line in one.lines:
            sums[one.partner_id][line.line_id] += line.cents
        if one.paid_by:
            paid_sums[one.paid_by, one.partner_id] += one.cents
    assert {who: {k: v for k, v in lines.items() if v} for who, lines in sums.items()} == due_then
    for batch, content in files.items():
        for partner, row in paid(content).items():
            assert Decimal(row["amount"]) >= 5
            in_files[batch, partner] += Decimal(row["amount"])
    assert {key: money(cents) for key, cents in paid_sums.items()} == dict(in_files)
