"""The bundled company: sizes, determinism, the effects and anomalies put into it, and life day by day."""

from __future__ import annotations

import math
from collections import Counter
from datetime import date, datetime, timedelta
from statistics import mean, pstdev
from zoneinfo import ZoneInfo

import pytest

from omni.errors import ConfigError
from omni.sandbox.company import Company, Node, load_company
from omni.sandbox.demo_calendar import END, START
from omni.sandbox.demo_leads import build_leads, roc_area

BERLIN = ZoneInfo("Europe/Berlin")


def day_of(text: str) -> date:
    return datetime.fromisoformat(text).astimezone(BERLIN).date()


def cents_of(bag: Node) -> int:
    return round(float(bag["shopMoney"]["amount"]) * 100)


def test_sizes_stay_within_two_hubspot_windows(demo: Company) -> None:
    sizes = {kind: len(objects.records) for kind, objects in demo.crm.items()}
    assert sizes["deals"] == 600
    assert sizes["companies"] == 200
    assert sizes["reviews"] == 1000
    assert 2_900 <= sizes["contacts"] <= 3_000
    assert 5_500 <= sizes["email_sends"] <= 6_000
    pages = sum(
        math.ceil(max(1, sum((r.archived_ms is not None) is archived for r in objects.records)) / 100)
        for objects in demo.crm.values()
        for archived in (False, True)
    )
    assert pages + len(sizes) < 2 * 190
    assert len(demo.shop.products) == 300
    assert 11_500 <= len(demo.shop.orders) <= 12_500
    assert 3_200 <= len(demo.shop.customers) <= 3_700


def test_same_seed_same_company(demo: Company) -> None:
    assert demo == load_company("demo")


def test_ids_are_unique_and_references_resolve(demo: Company) -> None:
    for objects in demo.crm.values():
        assert len({r.id for r in objects.records}) == len(objects.records)
    orders = demo.shop.orders
    for key in ("lineItems", "transactions", "refunds"):
        ids = [child["id"] for order in orders for child in order[key]]
        assert len(set(ids)) == len(ids)
    assert len({o["name"] for o in orders}) == len(orders)
    names = {o["name"] for o in orders}
    assert all(r.properties["order_ref"] in names for r in demo.crm["reviews"].records)
    contacts = {r.id for r in demo.crm["contacts"].records}
    assert all(r.properties["contact_id"] in contacts for r in demo.crm["email_sends"].records)
    linked = demo.associations["deals", "contacts"]
    assert set(linked) == {r.id for r in demo.crm["deals"].records}
    assert {i for ids in linked.values() for i in ids} <= contacts


def test_money_adds_up(demo: Company) -> None:
    for order in demo.shop.orders:
        lines = sum(
            cents_of(line["originalUnitPriceSet"]) * line["quantity"] - cents_of(line["totalDiscountSet"])
            for line in order["lineItems"]
        )
        assert lines == cents_of(order["subtotalPriceSet"])
        assert lines + cents_of(order["totalShippingPriceSet"]) == cents_of(order["totalPriceSet"])
        refunded = sum(cents_of(refund["totalRefundedSet"]) for refund in order["refunds"])
        assert refunded == cents_of(order["totalRefundedSet"]) <= lines
        assert order["createdAt"] <= order["updatedAt"]


def test_injected_anomalies_stand_out_and_nothing_else_does(demo: Company) -> None:
    orders = Counter(day_of(o["createdAt"]) for o in demo.shop.orders)
    revenue: Counter[date] = Counter()
    for order in demo.shop.orders:
        revenue[day_of(order["createdAt"])] += cents_of(order["totalPriceSet"])
    refunds = Counter(day_of(r["createdAt"]) for o in demo.shop.orders for r in o["refunds"])
    series = {"orders": orders, "revenue": revenue, "refunds": refunds}
    labelled = {(a.metric, a.day) for a in demo.truth.anomalies}
    assert len({a.day for a in demo.truth.anomalies}) == 7
    for anomaly in demo.truth.anomalies:
        values = series[anomaly.metric]
        usual = [values[anomaly.day + timedelta(days=7 * k)] for k in (-4, -3, -2, -1, 1, 2)]
        if anomaly.direction == "up":
            assert values[anomaly.day] > 1.9 * mean(usual), anomaly
        else:
            assert values[anomaly.day] < 0.35 * mean(usual), anomaly
    for n in range(28, (END - START).days - 28):
        day = START + timedelta(days=n)
        if ("orders", day) in labelled:
            continue
        around = [START + timedelta(days=n + 7 * k) for k in (-4, -3, -2, -1, 1, 2, 3, 4)]
        level = mean(orders[d] for d in around if ("orders", d) not in labelled)
        assert abs(orders[day] - level) < 5.5 * math.sqrt(level), day


def test_week_year_and_growth_show(demo: Company) -> None:
    per_day = Counter(day_of(o["createdAt"]) for o in demo.shop.orders)
    weekday = Counter(day.weekday() for day in per_day.elements())
    assert weekday[5] < weekday[6]
    first = sum(n for day, n in per_day.items() if day < date(2025, 11, 1))
    assert sum(per_day.values()) - first > 1.3 * first
    month = Counter((day.year, day.month) for day in per_day.elements())
    assert month[2025, 12] > 1.4 * month[2025, 7]
    buyers = Counter(o["customer"]["id"] for o in demo.shop.orders if o["customer"])
    assert 0.35 < sum(n > 1 for n in buyers.values()) / len(buyers) < 0.75


def test_experiment_effect_can_be_measured(demo: Company) -> None:
    truth = demo.truth.experiment
    assert truth is not None
    first: dict[str, tuple[str, datetime, str]] = {}
    for record in demo.crm["email_sends"].records:
        p = record.properties
        contact, sent, variant, email = (p[k] or "" for k in ("contact_id", "sent_at", "variant", "email"))
        at = datetime.fromisoformat(sent)
        if contact not in first or at < first[contact][1]:
            first[contact] = (variant, at, email)
        assert variant == first[contact][0]
    bought: dict[str, list[tuple[datetime, int]]] = {}
    for order in demo.shop.orders:
        if order["email"]:
            entry = (datetime.fromisoformat(order["createdAt"]), cents_of(order["totalPriceSet"]))
            bought.setdefault(order["email"].strip().lower(), []).append(entry)
    outcomes: dict[str, list[tuple[int, float]]] = {"control": [], "treatment": []}
    window = timedelta(days=truth.window_days)
    for variant, at, email in first.values():
        found = [value for when, value in bought.get(email, []) if at <= when < at + window]
        outcomes[variant].append((int(bool(found)), sum(found) / 100))
    control, treatment = outcomes["control"], outcomes["treatment"]
    total = len(control) + len(treatment)
    assert abs(len(control) - total / 2) < 3 * math.sqrt(total) / 2
    for index, effect in ((0, truth.conversion_effect), (1, truth.spend_effect)):
        a, b = [row[index] for row in control], [row[index] for row in treatment]
        error = math.sqrt(pstdev(a) ** 2 / len(a) + pstdev(b) ** 2 / len(b))
        assert abs(mean(b) - mean(a) - effect) < 2.5 * error
        assert (mean(b) - mean(a)) / error > 2.5


def test_leads_convert_for_reasons_but_not_only(demo: Company) -> None:
    leads = build_leads()
    assert 0.74 < leads.auc < 0.82
    assert leads.auc == pytest.approx(
        roc_area(leads.likelihood[leads.duplicate_of < 0], (leads.won_at > 0)[leads.duplicate_of < 0]),
        abs=0.01,
    )
    records = demo.crm["contacts"].records
    won = {
        i
        for deal in demo.crm["deals"].records
        if deal.properties["dealstage"] == "closedwon"
        for i in demo.associations["deals", "contacts"][deal.id]
    }
    assert won == {r.id for r in records if r.properties["lifecyclestage"] == "customer"}
    assert 0.1 < len(won) / len(records) < 0.17


def test_values_are_dirty_where_life_is(demo: Company) -> None:
    contacts = [r.properties for r in demo.crm["contacts"].records]
    emails = [p["email"] or "" for p in contacts]
    assert any(e != e.strip() for e in emails)
    assert any(e.isupper() for e in emails)
    assert len({e.strip().lower() for e in emails}) < len(emails)
    assert any(p["employees"] in ("0", "-1") for p in contacts)
    assert any(p["job_level"] is None for p in contacts)
    amounts = [r.properties["amount"] for r in demo.crm["deals"].records]
    assert None in amounts
    assert "0.00" in amounts
    assert any(a and a.startswith("-") for a in amounts)
    assert any(o["customer"] is None for o in demo.shop.orders)
    assert any(p["productType"] == "" for p in demo.shop.products)


def test_a_day_later_only_adds_and_changes_with_a_newer_time(demo: Company) -> None:
    before, after = (load_company("demo", until=date(2026, 4, n)) for n in (14, 15))
    changed = 0
    pairs = [(before.shop.orders, after.shop.orders), (before.shop.customers, after.shop.customers)]
    for old, new in [*pairs, (before.shop.products, after.shop.products)]:
        now = {node["id"]: node for node in new}
        for node in old:
            assert node["updatedAt"] < "2026-04-15"
            later = now[node["id"]]
            own = {k: v for k, v in node.items() if k != "customer"}
            if own != {k: v for k, v in later.items() if k != "customer"}:
                if node["__typename"] == "Order" and own["lineItems"] != later["lineItems"]:
                    continue
                changed += 1
                assert "2026-04-15" <= later["updatedAt"] < "2026-04-16"
    assert changed > 10
    assert len(before.shop.orders) < len(after.shop.orders) < len(demo.shop.orders)
    for kind, objects in before.crm.items():
        records = {r.id: r for r in after.crm[kind].records}
        for record in objects.records:
            later_record = records[record.id]
            if later_record.properties != record.properties:
                assert later_record.updated_ms > record.updated_ms


def test_nothing_exists_before_the_company_does() -> None:
    company = load_company("demo", until=date(2024, 10, 1))
    assert not company.shop.orders
    assert not company.crm["contacts"].records


def test_the_handbook_answers_questions(demo: Company) -> None:
    assert demo.documents is not None
    pages = sorted(demo.documents.glob("*.md"))
    assert len(pages) == 12
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert text.startswith("# ")
        assert text.count("?\n") >= 3, page.name


def test_unknown_company_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="demo, olist"):
        load_company("acme")
